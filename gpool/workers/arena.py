"""Where large buffers travel: memory in the pool's file, taken and given back.

Owns the layout of that file beyond its stacks and boards. It is divided into *ranges*: one for what the program sends,
and one for what each worker does. Only who owns a range takes memory there; the other side looks at it through windows
of its own and says when it has looked away. Addresses are plenty and memory comes with the first write, so nobody need
say beforehand how large anything may become. It is all gone when the last process that has the file is.

Memory that is given back stays, to be used again, because that saves the system's making it anew, which is what a copy
mostly costs. Beyond ``KEEP`` bytes it goes back to the system.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from functools import cache

from gpool.interrupts import shielded
from gpool.workers.windows import PAGE, Window, system

RANGE = 1 << 44
"""Bytes of addresses for each range, the first of which is left to stacks and boards."""
SEGMENT = 1 << 28
"""Bytes of a window. What is larger has a window of its own."""
KEEP = 1 << 27
"""Bytes of a range that are kept for use again."""
_STEP = 1 << 20
"""Bytes copied at a time; other threads run in between."""


_PRACTICE = (1 << 24) - (1 << 12)


@cache
def practise() -> None:
    """Teach the C library to keep memory, once.

    When glibc sees memory of such a size freed, never touched, it learns to keep as much in the heap. Otherwise what
    each list of long strings took goes back to the system, whose making it anew costs several times what copying does.
    """
    bytes(_PRACTICE)


def start_of(number: int) -> int:
    """Where the range of this number begins; number 0 is the program's."""
    return (number + 1) * RANGE


class Place:
    """Memory that was taken; it is given back when nothing refers to this object any more.

    Attributes:
        offset: where it begins in the file.
        size: in whole pages.
    """

    __slots__ = ("_given_back", "_window", "offset", "size")

    def __init__(self, offset: int, size: int, window: Window, given_back: deque[tuple[int, int]]) -> None:
        self.offset, self.size = offset, size
        self._window = window
        self._given_back = given_back

    def __del__(self) -> None:
        self._given_back.append((self.offset, self.size))

    def fill(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Copy these there, one behind the other."""
        start = self.offset - self._window.start
        room = self._window.bytes()[start : start + self.size]
        at = 0
        for piece in pieces:
            source = memoryview(piece).cast("B")
            for start in range(0, len(source), _STEP):
                part = source[start : start + _STEP]
                room[at : at + len(part)] = part
                at += len(part)


class Blocks:
    """Stretches that are free, in order; neighbours become one, unless a segment's border is between them."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._sizes: list[int] = []
        self.total = 0

    def take(self, size: int) -> int | None:
        """The first that is large enough; what is left of it stays."""
        for index, have in enumerate(self._sizes):
            if have >= size:
                start = self._starts[index]
                if have == size:
                    del self._starts[index], self._sizes[index]
                else:
                    self._starts[index], self._sizes[index] = start + size, have - size
                self.total -= size
                return start
        return None

    def give(self, start: int, size: int) -> None:
        self.total += size
        starts, sizes = self._starts, self._sizes
        index = bisect_left(starts, start)
        if index < len(starts) and start + size == starts[index] and starts[index] % SEGMENT:
            size += sizes[index]
            del starts[index], sizes[index]
        if index and starts[index - 1] + sizes[index - 1] == start and start % SEGMENT:
            sizes[index - 1] += size
        else:
            starts.insert(index, start)
            sizes.insert(index, size)

    def take_last(self) -> tuple[int, int]:
        """The one at the end, whole."""
        size = self._sizes.pop()
        self.total -= size
        return self._starts.pop(), size


class Range:
    """What one process may fill; the module's docstring tells more.

    Args:
        fd: the pool's memory file.
        number: of the range.
    """

    def __init__(self, fd: int, number: int) -> None:
        self._fd = fd
        self._pid = os.getpid()
        self._start = self._next = start_of(number)
        self._kept = Blocks()  # memory that is there
        self._bare = Blocks()  # addresses without any
        self._large: dict[int, list[int]] = {}  # addresses of what is larger than a segment, by size
        self._windows: dict[int, Window] = {}
        self._lock = threading.Lock()
        self._holder = 0  # the thread that has it
        self._given_back: deque[tuple[int, int]] = deque()  # by finalizers, which take no lock
        self._closed = False

    def take(self, length: int) -> Place | None:
        """Memory for so many bytes; None if none is to be had, or not here."""
        if self._pid != os.getpid() or system() is None:
            return None
        unit = SEGMENT if length > SEGMENT else PAGE
        size = -(-length // unit) * unit
        if self._holder == threading.get_ident():
            return None  # a finalizer has come in between
        with shielded(), self._lock:
            self._holder = threading.get_ident()
            try:
                if self._closed:
                    return None
                self._sort_out()
                return self._take_large(size) if size > SEGMENT else self._take(size)
            except OSError:
                return None
            finally:
                self._holder = 0

    def tidy(self) -> None:
        """Let the system have what is not needed."""
        if self._given_back and self._lock.acquire(blocking=False):
            try:
                if not self._closed:
                    self._sort_out()
            finally:
                self._lock.release()

    def close(self) -> None:
        """No other process looks there any more, and nothing more is to come."""
        with self._lock:
            self._closed = True
            self._windows.clear()
            if self._next > self._start and (found := system()) is not None:
                found.punch(self._fd, self._start, self._next - self._start)

    def _take(self, size: int) -> Place:
        offset = self._kept.take(size)
        if offset is None:
            offset = self._bare.take(size)
        if offset is None:
            offset = self._next
            self._windows[offset] = self._map(offset, SEGMENT)
            self._next += SEGMENT
            if size < SEGMENT:
                self._bare.give(offset + size, SEGMENT - size)
        return Place(offset, size, self._windows[offset // SEGMENT * SEGMENT], self._given_back)

    def _take_large(self, size: int) -> Place:
        free = self._large.setdefault(size, [])
        offset = free[-1] if free else self._next
        window = self._map(offset, size)
        if free:
            free.pop()
        else:
            self._next += -(-size // SEGMENT) * SEGMENT
        return Place(offset, size, window, self._given_back)

    def _map(self, offset: int, size: int) -> Window:
        """What lies beyond the end of a file can't be touched. This never makes it shorter, as truncating might."""
        if offset + size > self._start + RANGE:
            raise OSError("the addresses of this range are used up")
        os.pwrite(self._fd, b"\0", offset + size - 1)
        return Window(self._fd, offset, size, private=False)

    def _sort_out(self) -> None:
        """With the lock held: take note of what was given back."""
        given_back, kept, found = self._given_back, self._kept, system()
        assert found is not None
        while given_back:
            offset, size = given_back.popleft()
            if size > SEGMENT:
                found.punch(self._fd, offset, size)
                self._large[size].append(offset)
            else:
                kept.give(offset, size)
        while kept.total > KEEP:
            offset, size = kept.take_last()
            spare = min(size, -(-(kept.total + size - KEEP) // PAGE) * PAGE)
            if spare < size:
                kept.give(offset, size - spare)
                offset += size - spare
            found.punch(self._fd, offset, spare)
            self._bare.give(offset, spare)
