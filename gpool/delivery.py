"""Where the user's handlers run.

Owns the threads that call user code: one for futures' done-callbacks, one for the pool's ``callback`` and
``on_error`` and for what is kept for iteration. The supervisor only appends here, so a handler may block, raise
or call any method of the pool without holding up anything but those behind it in its own line.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from gpool.interrupts import shielded

logger = logging.getLogger("gpool")

_NO_PROGRESS_SECONDS = 0.2
"""A handler that runs this long while the pool ends is left alone: it ends when its code returns."""


class Courier:
    """A thread that makes calls, one after the other.

    Args:
        name: the thread's.
        later: given what wakes the thread, to do it when that harms nobody.
    """

    def __init__(self, name: str, later: Callable[[Callable[[], object]], object]) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._condition = threading.Condition()
        self._later = later
        self._to_wake = False  # somebody is about to wake the thread
        self._ending = False
        self._under_way = 0
        self._made = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Calls not finished."""
        return len(self._calls) + self._under_way

    @property
    def is_current(self) -> bool:
        """True in the courier's own thread, that is, in a handler."""
        return threading.current_thread() is self._thread

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Have ``fn(*args)`` called after whatever was asked before."""
        self._calls.append((fn, args))
        if not self._to_wake:
            self._to_wake = True
            self._later(self._wake)

    def _wake(self) -> None:
        self._to_wake = False  # before the thread looks: what comes after that look is told of anew
        with shielded(), self._condition:
            self._condition.notify_all()

    def end(self, *, drop: bool = False) -> None:
        """End after the calls asked for so far; with ``drop``, after the present one. Does not wait for that."""
        with shielded(), self._condition:
            self._ending = True
            if drop:
                self._calls.clear()
            self._condition.notify_all()

    def wait_ended(self, *, patient: bool) -> None:
        """Wait for the end, unless this is the courier's own thread; without patience not for a call that hangs."""
        made = -1
        while not self.is_current and self._thread.is_alive() and (patient or made != self._made):
            made = self._made
            self._thread.join(_NO_PROGRESS_SECONDS)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._calls or self._ending)
                if not self._calls:
                    return
                self._under_way = 1  # before it is taken: never seem to have nothing to do in between
                fn, args = self._calls.popleft()
            try:
                fn(*args)
            except BaseException:
                logger.exception("exception in a handler: %r", fn)
            del fn, args
            self._made += 1
            self._under_way = 0
