"""Keeping asynchronous exceptions out of the machine, and losing none.

Owns ``shielded``, ``Signal``, ``wait``, ``wait_for`` and how long a wait still lasts. The thread that submits may take
the supervisor's turn, and in the main thread a signal's Python handler, such as Ctrl-C's, may raise between any two
bytecodes. For the few dozen microseconds of a turn the handlers are swapped for one that only takes a note; they run
when the turn is over. They are held back during a wait, too, but there a signal ends the wait.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module makes enums of numbers, at ten times the price
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import get_ident
from time import monotonic
from types import FrameType
from typing import Any

_NAMES = "INT TERM ALRM HUP USR1 USR2 VTALRM PROF QUIT XCPU CHLD BREAK"
_DEFERRED = tuple(int(getattr(signal, f"SIG{name}")) for name in _NAMES.split() if hasattr(signal, f"SIG{name}"))
"""Signals whose handlers may well raise: requests to end, timers, limits, what users define, and what tells of
workers. Each costs some 40 ns at every submission."""

_main = threading.main_thread().ident

_get: Callable[[int], Any] = _signal.getsignal
_set: Callable[[int, Any], Any] = _signal.signal


class shielded:  # noqa: N801 - reads as a statement
    """``with shielded():`` no signal handler written in Python runs inside, in the main thread; none is lost.

    Attributes:
        noted: the signals that have come and whose handlers have not run.
        told: called when one comes.
        was_told: one has come.
    """

    __slots__ = ("_held", "noted", "told", "was_told")

    def __init__(self) -> None:
        self._held: list[tuple[int, Any]] = []
        self.noted: list[tuple[int, FrameType | None]] = []
        self.told: Callable[[], object] | None = None
        self.was_told = False

    def __enter__(self) -> shielded:
        if get_ident() != _main:
            return self
        self._held = held = [(number, handler) for number in _DEFERRED if callable(handler := _get(number))]
        try:
            note = self._note
            for number, _ in held:
                _set(number, note)
        except BaseException:  # one that was not swapped yet
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._held:
            self._restore()
            if self.noted:
                self._catch_up()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted.append((number, frame))
        self.was_told = True
        if self.told is not None:
            self.told()

    def _restore(self) -> None:
        """Put the handlers back. One may run, and raise, as soon as it is back: then the others are still due."""
        try:
            for number, handler in self._held:
                _set(number, handler)
        except BaseException:
            self._restore()
            raise

    def _catch_up(self) -> None:
        """Let the handlers see what has come meanwhile. One may raise: then the others are still due."""
        handlers = dict(self._held)
        while self.noted:
            number, frame = self.noted.pop(0)
            try:
                handlers[number](number, frame)
            except BaseException:
                self._catch_up()
                raise


class Signal:
    """An event that may be set at any moment, while this very thread is setting it too.

    A finalizer, or a signal's handler, may run in the midst of ``threading.Event.set``, with that one's lock in hand.
    """

    __slots__ = ("_unset",)

    def __init__(self) -> None:
        self._unset = threading.Lock()
        self._unset.acquire()

    def is_set(self) -> bool:
        return not self._unset.locked()

    def set(self) -> None:
        with suppress(RuntimeError):  # it was set already
            self._unset.release()

    def clear(self) -> None:
        self._unset.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False if ``timeout`` seconds were not enough."""
        if not self._unset.acquire(timeout=-1 if timeout is None else timeout):
            return False
        self.set()
        return True


_GLANCE_SECONDS = 0.05


def wait(until: Callable[[float | None], bool], timeout: float | None = None) -> bool:
    """``until(timeout)``, with one glance at the signals soon after the wait has begun, if that is in the main thread.

    A signal that comes after the interpreter has looked for one, and before the thread sleeps on its lock, wakes
    nobody. In between lies the handing over of the interpreter, which takes long when another thread has just been
    given something to do, as by a submission: without the glance, some five of a hundred Ctrl-Cs were lost then.
    """
    if get_ident() == _main and (timeout is None or timeout > _GLANCE_SECONDS):
        if until(_GLANCE_SECONDS):
            return True
        timeout = None if timeout is None else timeout - _GLANCE_SECONDS
    return until(timeout)


def instant_in(timeout: float | None) -> float | None:
    """The instant until which a wait of so many seconds lasts; None for any. TypeError if they are none."""
    if timeout is not None and not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    return None if timeout is None else monotonic() + timeout


def seconds_until(instant: float | None) -> float | None:
    """``instant_in`` the other way round: what is left of that wait, as far as any lock lets one wait."""
    return None if instant is None else min(max(0.0, instant - monotonic()), threading.TIMEOUT_MAX)


def wait_for(condition: threading.Condition, holds: Callable[[], bool], timeout: float | None = None) -> bool:
    """``wait`` for something of which a condition tells; False if ``timeout`` seconds were not enough.

    A condition is entered and left by functions written in Python, where what a signal's handler raises would leave it
    locked for good. So handlers are held back here, and one that has been makes the wait end, run, and begin again.
    The condition's lock must be re-entrant: the wait may be ended from its own midst.
    """
    until = instant_in(timeout)
    while True:
        with shielded() as shield:
            shield.told = partial(_wake_all, condition)
            left = seconds_until(until)
            with condition:
                held = wait(lambda seconds: condition.wait_for(lambda: holds() or bool(shield.noted), seconds), left)
                held = held and holds()
        if held or not shield.was_told:
            return held


def _wake_all(condition: threading.Condition) -> None:
    with condition:
        condition.notify_all()
