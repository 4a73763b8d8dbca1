"""The turn: the right to touch the machine, held by one thread at a time.

Owns the lock and who holds it. Knows nothing of the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Turn:
    """``with turn:`` waits for it; ``take_if_free`` does not, and is followed by ``end``.

    Args:
        before_end: called by the holder as the last thing it does.
    """

    __slots__ = ("_before_end", "_holder", "_lock")

    def __init__(self, before_end: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._holder = 0
        self._before_end = before_end

    @property
    def is_mine(self) -> bool:
        """True in the thread that holds it."""
        return self._holder == threading.get_ident()

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
        try:
            self._before_end()
        finally:
            self._holder = 0
            self._lock.release()
