"""The turn: the right to touch the machine, held by one thread at a time.

Owns the lock, who holds it, and what is put off until it is over. Knows nothing of the machine.

Waking another thread or process may cost the one that does it its core, at once and for milliseconds when all cores are
busy. If that happens to the turn's holder, everybody waits. So whoever is to be woken is, when the turn is over, and
last of all: what workers are to be sent does not wait for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

Do = Callable[[], object]


class Turn:
    """``with turn:`` waits for it; ``take_if_free`` does not, and is followed by ``end``.

    Args:
        before_end: called by the holder as the last thing it does.
        after_end: called by who was the holder, when others may be it, before anybody is woken.
    """

    __slots__ = ("_after_end", "_before_end", "_holder", "_later", "_lock")

    def __init__(self, before_end: Do, after_end: Do) -> None:
        self._lock = threading.Lock()
        self._holder = 0
        self._later: list[Do] = []  # touched by the holder alone
        self._before_end = before_end
        self._after_end = after_end

    @property
    def is_mine(self) -> bool:
        """True in the thread that holds it."""
        return self._holder == threading.get_ident()

    @property
    def is_taken(self) -> bool:
        """True while some thread holds it."""
        return self._lock.locked()

    def later(self, do: Do) -> None:
        """Call it when the turn is over; now, if this thread does not hold it."""
        if self._holder == threading.get_ident():
            self._later.append(do)
        else:
            do()

    def take_if_free(self) -> bool:
        """True if this thread holds it now."""
        if not self._lock.acquire(blocking=False):
            return False
        self._holder = threading.get_ident()
        return True

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let go of it."""
        later: list[Do] = []
        try:
            self._before_end()
        finally:
            if self._later:
                later, self._later = self._later, later
            self._holder = 0
            self._lock.release()
        self._after_end()
        for do in later:
            do()

    def pause(self) -> None:
        """Let go of it for as long as it takes to do what was put off."""
        self.end()
        self.__enter__()
