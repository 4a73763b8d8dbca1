"""Futures: ``concurrent.futures.Future`` made cheap, and settled by the pool.

Owns what a waiter sees. A stock future carries a condition with its own lock, 1.6 KB; here all futures share one
re-entrant lock and make their condition, and their lists of waiters and callbacks, when somebody asks for them.
So ``wait``, ``as_completed`` and ``asyncio.wrap_future`` work as they do on stock futures.

Guarantees. A future settles once. Waiters are woken when the turn in which that happens is over. Done-callbacks run on
a thread that does nothing else, never on the one that settles and never under the lock. What a worker sent is unpickled
by whoever asks for it first, in that thread, once, and never under the lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as StockFuture
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar, cast

from gpool.interrupts import instant_in, seconds_until, wait_for
from gpool.model import Options, Task, TaskState
from gpool.outcome import Outcome, new_outcome
from gpool.workers.blocks import Entry
from gpool.workers.payload import Call, open_outcome
from gpool.workers.wire import VALUE, Frame

Later = Callable[[Callable[[], object]], object]
"""Takes what wakes somebody, to be called when the turn is over."""

T = TypeVar("T")

_lock = threading.RLock()
_LAZY: dict[str, Callable[[], Any]] = {
    "_condition": lambda: threading.Condition(_lock),
    "_waiters": list,
    "_done_callbacks": list,
}
_OPENING = object()
_OVER = (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)


class Owner(Protocol):
    """Who can cancel a future, and may let a thread wait for it by a shorter way than its condition."""

    def cancel(self, future: Future[Any], kill: bool) -> None: ...
    def fetch(self, future: Future[Any], timeout: float | None) -> None: ...


class Company(Protocol):
    """Several that travel together."""

    def has_begun(self, future: Future[Any]) -> bool: ...


class Future(StockFuture[T]):
    """The result of a task.

    Besides the standard library's methods it has those of ``multiprocessing``'s ``AsyncResult``: ``get``,
    ``ready`` and ``successful``; and ``cancel(kill=True)``.

    Attributes:
        tag, options, name: what was asked for.
        packed: what to run, or the body of that if there is no more to it; forgotten when it has ended.
        unit: what the scheduler knows it by: a task of its own, or a batch that it travels in; None until it does.
        follow_up: called under the turn when it has settled.
    """

    _state: str

    def __init__(self, tag: Hashable, options: Options, name: str, packed: Call | bytes, owner: Owner) -> None:
        # The stock constructor would make what is made on demand here.
        self._state = PENDING
        self._result = None
        self._exception = None
        self._sealed: object = None  # the kind and body of the worker's answer, or _OPENING
        self.tag = tag
        self.options = options
        self.name = name
        self.packed = packed  # bytes are nothing to the garbage collector
        self.unit: Task | Company | None = None
        self.follow_up: Callable[[Future[T]], object] | None = None
        self._owner: Owner | None = owner
        self._has_made = False  # something on demand; to look for it would make a dictionary of the attributes

    def __getattr__(self, name: str) -> Any:
        make = _LAZY.get(name)
        if make is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _lock:
            self._has_made = True
            return self.__dict__.setdefault(name, make())

    def __reduce__(self) -> NoReturn:
        raise TypeError("a future cannot be pickled: it is told of its task's end in the process that submitted that")

    def __repr__(self) -> str:
        return f"<Future of {self.name!r} under {self.tag!r}: {self._word()}>"

    @property
    def call(self) -> Call:
        """What to send a worker."""
        packed = self.packed
        return Call(packed) if isinstance(packed, bytes) else packed

    def _word(self) -> str:
        if self._state != PENDING:
            return "ended" if self._state == FINISHED else "cancelled"
        if isinstance(self.unit, Task):
            state = self.unit.state
        else:
            state = TaskState.RUNNING if self.running() else TaskState.QUEUED
        word: str = state.value
        return word

    def running(self) -> bool:
        """True once the task was begun and until it has ended, between two attempts too."""
        unit = self.unit
        if self._state != PENDING or unit is None:
            return False
        return unit.attempt > 0 if isinstance(unit, Task) else unit.has_begun(self)

    def cancel(self, kill: bool = False) -> bool:
        """Give the task up if it has not begun; with ``kill``, a running one too, by killing its worker.

        Returns False when it has ended, or has been dispatched and ``kill`` is not set.
        """
        owner = self._owner
        if self._state == PENDING and owner is not None:
            owner.cancel(self, kill)
        return self.cancelled()

    def done(self) -> bool:
        """True when the task has ended or was cancelled."""
        return self._state in _OVER

    def result(self, timeout: float | None = None) -> T:
        """What the task returned.

        Raises:
            CancelledError: it was cancelled.
            TimeoutError: it has not ended within ``timeout`` seconds.
            Whatever the task raised, or an error of gpool's.
        """
        value, error = self.outcome(timeout)
        if error is None:
            return cast(T, value)
        try:
            raise error
        finally:
            del self, error  # what was raised refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None. CancelledError and TimeoutError are raised as by ``result``."""
        return self.outcome(timeout).error

    def outcome(self, timeout: float | None = None) -> Outcome:
        """What the task returned or raised. CancelledError and TimeoutError are raised as by ``result``."""
        if self._state == PENDING and not self._wait(timeout):
            raise TimeoutError
        if self._state != FINISHED:
            raise CancelledError
        if self._sealed is not None:
            self._open()
        return new_outcome((self._result, self._exception))

    def _wait(self, timeout: float | None) -> bool:
        """Wait until it has ended; False if ``timeout`` seconds were not enough."""
        owner, until = self._owner, instant_in(timeout)
        if owner is not None:
            owner.fetch(self, timeout)
        if self._state != PENDING:
            return True
        return wait_for(self._condition, self.done, seconds_until(until))

    @property
    def never_ran(self) -> bool:
        """True when it has ended, was a task of its own, and no attempt of that was ever begun."""
        return self.done() and isinstance(self.unit, Task) and self.unit.attempt == 0

    def get(self, timeout: float | None = None) -> T:
        """``result`` by its ``AsyncResult`` name."""
        return self.result(timeout)

    def ready(self) -> bool:
        """``done`` by its ``AsyncResult`` name."""
        return self.done()

    def successful(self) -> bool:
        """True if the task returned. ValueError if it has not ended."""
        if not self.done():
            raise ValueError(f"{self!r} is not ready")
        return self._state == FINISHED and self.outcome().ok

    def add_done_callback(self, fn: Callable[[StockFuture[T]], object]) -> None:
        """Call ``fn(future)`` when the task has ended; at once, in this thread, if it has ended already."""
        with _lock:
            if self._state not in _OVER:
                self._done_callbacks.append(fn)
                return
        _call_back(fn, self)

    def set_running_or_notify_cancel(self) -> bool:
        """Only the pool settles a pool's future."""
        raise RuntimeError(f"{self!r} is settled by its pool alone")

    def set_result(self, result: T) -> None:
        """Only the pool settles a pool's future."""
        self.set_running_or_notify_cancel()

    def set_exception(self, exception: BaseException | None) -> None:
        """Only the pool settles a pool's future."""
        self.set_running_or_notify_cancel()

    def settle(self, verdict: Outcome | Frame | None, later: Later) -> Sequence[Callable[..., object]]:
        """The pool's word on it; None means cancelled. Returns the done-callbacks still to be run.

        ``later`` is given what wakes the waiters there are; who comes after them sees that it has settled.

        A worker's frame is unpickled by whoever first asks for the outcome: that may be slow, and runs user code.
        """
        with _lock:
            if self._state != PENDING:
                raise RuntimeError(f"{self!r} has been settled before")
            if type(verdict) is Outcome:
                self._result, self._exception = verdict
            elif verdict is not None:
                self._sealed = verdict.kind, verdict.body  # type: ignore[union-attr]
            return self._end(CANCELLED_AND_NOTIFIED if verdict is None else FINISHED, later)

    def _end(self, state: str, later: Later) -> Sequence[Callable[..., object]]:
        """Its outcome is in place: see to those who have asked before. To be called under the lock."""
        self.packed, self._owner = b"", None
        self._state = state
        if not self._has_made:
            return ()
        made = self.__dict__
        if "_condition" in made or "_waiters" in made:
            sealed = self._sealed
            ok = self._exception is None if sealed is None else sealed[0] == VALUE  # type: ignore[index]
            later(partial(self._wake, tuple(made.get("_waiters", ())), ok))
        callbacks: Sequence[Callable[..., object]] = made.pop("_done_callbacks", ())
        return callbacks

    def _wake(self, waiters: tuple[Any, ...], ok: bool) -> None:
        with _lock:
            for waiter in waiters:  # the standard library's; some wait for the first failure only
                if self._state != FINISHED:
                    waiter.add_cancelled(self)
                elif ok:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()

    def _open(self) -> None:
        """Unpickle the answer, once, in this thread or in the one that is at it already."""
        claimed: object = None
        outcome = None
        try:
            while claimed is None:
                if self._sealed is _OPENING:
                    wait_for(self._condition, lambda: self._sealed is not _OPENING)
                with _lock:
                    if self._sealed is None:
                        return
                    if self._sealed is not _OPENING:
                        claimed, self._sealed = self._sealed, _OPENING
            outcome = open_outcome(*claimed)  # type: ignore[misc]
        finally:
            if claimed is not None:
                with _lock:
                    if outcome is None:
                        self._sealed = claimed  # Ctrl-C: whoever asks next tries again
                    else:
                        self._result, self._exception = outcome
                        self._sealed = None
                    if self._has_made:
                        self._condition.notify_all()


def _renew_lock() -> None:
    """In a forked child: another thread may have held the lock."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined]  # the same lock: conditions made before have it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def settle_all(
    futures: Sequence[Future[Any]], answers: Sequence[Entry], later: Later
) -> Sequence[tuple[Future[Any], Sequence[Callable[..., object]]]]:
    """``settle`` each of several with a worker's answer to it; returns those that have done-callbacks, with these."""
    told = []
    with _lock:
        for future, answer in zip(futures, answers, strict=True):
            if type(answer) is tuple:
                future._sealed = answer
            else:
                future._result = answer
            if callbacks := future._end(FINISHED, later):
                told.append((future, callbacks))
    return told


def _call_back(fn: Callable[..., object], future: Future[Any]) -> None:
    """Run one done-callback; what it raises is logged, as the standard library does."""
    try:
        fn(future)
    except Exception:
        from gpool.delivery import logger

        logger.exception("exception calling callback for %r", future)


__all__ = ["CancelledError", "Future"]
