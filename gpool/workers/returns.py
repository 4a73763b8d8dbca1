"""What workers sent through the pool's memory file, as the program has it.

Owns the program's views of each worker's range, and what is to become of the memory behind them. A view that dies is
only noted, as finalizers may do no more. While its worker lives the place goes back to that, with the next call or when
much has gathered; when it is gone, to the system.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from gpool.workers.arena import RANGE, SEGMENT, practise, start_of
from gpool.workers.parcels import Parcel, Reference, open_parcel, references_in
from gpool.workers.windows import PAGE, Panes, system

MUCH = 1 << 25
"""Bytes that nothing looks at any more, of which a worker is told though it gets no call."""


class Strange(Exception):
    """A worker's parcel refers to what the worker cannot have sent."""


class Returns:
    """One worker's range. All but what ``tell`` leads to happens under the supervisor's turn.

    Args:
        fd: the pool's memory file.
        number: of the range.
        tell: called when much has gathered; from any thread, by finalizers.
    """

    def __init__(self, fd: int, number: int, tell: Callable[[], None]) -> None:
        self.number = number
        self._fd = fd
        self._start = start_of(number)
        self._panes = Panes(fd, SEGMENT)
        self._live: dict[int, int] = {}  # places not given back yet, and their sizes
        self._dead: deque[int] = deque()  # those of them that nothing looks at any more
        self._tell = tell
        self._much = 0

    def open(self, body: bytes | bytearray | memoryview) -> Parcel:
        """A parcel the worker has sent. Raises OSError and MemoryError, and Strange."""
        practise()
        end = os.fstat(self._fd).st_size
        for offset, length in references_in(body):
            fits = self._start <= offset and offset + length <= min(end, self._start + RANGE)
            if not fits or offset % PAGE or offset in self._live:
                raise Strange
        unseen = {offset: -(-length // PAGE) * PAGE for offset, length in references_in(body)}
        self._live |= unseen

        def look(at: Reference) -> memoryview:
            return self._panes.view(*at, partial(self._looked_away, at.offset, unseen.pop(at.offset)))

        try:
            return open_parcel(body, look)
        finally:
            self._dead.extend(unseen)  # after a failure

    def _looked_away(self, offset: int, size: int) -> None:
        self._dead.append(offset)
        self._much += size
        if self._much >= MUCH:
            self._tell()

    def take_dead(self) -> bytes:
        """The places that nothing looks at any more, as a RETURNED frame lists them."""
        self._much = 0
        offsets = [self._dead.popleft() for _ in range(len(self._dead))]
        for offset in offsets:
            del self._live[offset]
        return struct.pack(f"<{len(offsets)}Q", *offsets)

    @property
    def has_dead(self) -> bool:
        return bool(self._dead)

    def clear(self) -> bool:
        """The worker is gone: let the system have what nothing looks at. True when that is all."""
        self.take_dead()
        found = system()
        if found is None:
            return True
        start = self._start
        for offset, size in sorted(self._live.items()):
            found.punch(self._fd, start, offset - start)
            start = offset + size
        found.punch(self._fd, start, self._start + RANGE - start)
        return not self._live


def was_used(fd: int, number: int) -> bool:
    """Whether there is any memory in a range."""
    with suppress(OSError):  # nothing from there to the end
        return os.lseek(fd, start_of(number), os.SEEK_DATA) < start_of(number) + RANGE
    return False
