"""Fetching: who waits for a result gets its worker's answer itself.

Owns the way of an answer past the supervisor's thread. A thread that wants a future's result, and would sleep until
the supervisor's thread has read the answer and wakes it, waits on the worker's stream itself, takes the turn, and
handles what has come as that thread would. So an answer costs one wake-up, not two.

The future may as well be settled by somebody else: cancelled, or ended with its worker. Whoever's turn it was then
wakes the one that waits. Signals are held back as long as the stream is lent, and end that at once, so whatever a
handler raises finds the stream given back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpool.futures import Future
from gpool.interrupts import instant_in, seconds_until, shielded, wait
from gpool.model import Task
from gpool.turn import Turn
from gpool.workers.backend import Backend, Loan, Report


class Fetcher:
    """See the module's docstring.

    Args:
        take: handles reports, with the turn.
        are_held: whether somebody has reports in hand that are to be handled before any others.
    """

    def __init__(
        self,
        backend: Backend,
        turn: Turn,
        take: Callable[[list[Report]], object],
        are_held: Callable[[], bool],
    ) -> None:
        self._backend = backend
        self._turn = turn
        self._take = take
        self._are_held = are_held
        self._out: tuple[Future[Any], Loan] | None = None  # written with the turn

    def fetch(self, future: Future[Any], timeout: float | None) -> None:
        """Wait for a future, for ``timeout`` seconds at most, if its worker's stream can be had; may return before."""
        if not isinstance(future.unit, Task) or future.unit.lease is None:
            return
        with shielded() as shield:
            loan = self._borrow(future)
            if loan is None:
                return
            shield.told = loan.wake
            until = instant_in(timeout)
            try:
                while not shield.noted and wait(loan.wait, seconds_until(until)) and not self._collect(future, loan):
                    pass
            finally:
                shield.told = None
                if self._out is not None and self._out[1] is loan:
                    self._collect(future, loan, last=True)

    def wake_if_done(self) -> None:
        """With the turn, at its end: the future that somebody waits for may have been settled here."""
        out = self._out
        if out is not None and out[0].done():
            out[1].wake()

    def _borrow(self, future: Future[Any]) -> Loan | None:
        """The stream of the worker that runs this and nothing else."""
        if not self._turn.take_if_free():
            return None
        loan = None
        try:
            task = future.unit
            # What must be unpickled before it is dealt with is for the supervisor's thread.
            lease = task.lease if isinstance(task, Task) and not task.options.retry_on else None
            if lease is not None and not self._are_held():
                loan = self._backend.lend(lease.worker.id)
            if loan is not None:
                self._out = future, loan
        finally:
            self._turn.end()
        return loan

    def _collect(self, future: Future[Any], loan: Loan, *, last: bool = False) -> bool:
        """Handle what has come; True, and the loan has ended, if there is no more to wait for."""
        with self._turn:
            try:
                if self._are_held():
                    last = True
                else:
                    self._take(loan.read())
            finally:
                if last or loan.is_over or future.done():
                    self._out = None
                    loan.end()
                    last = True
        return last
