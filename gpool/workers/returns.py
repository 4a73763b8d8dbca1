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
        self._gone = False  # the worker is
        self._cleared = False

    def open(self, body: bytes | bytearray | memoryview) -> Parcel:
        """A parcel the worker has sent. Raises OSError and MemoryError, and Strange."""
        practise()
        unseen = self._places(body)
        self._live |= unseen

        def look(at: Reference) -> memoryview:
            view = self._panes.view(*at, partial(self._looked_away, at.offset, unseen[at.offset]))
            del unseen[at.offset]
            return view

        try:
            return open_parcel(body, look)
        except IndexError:
            raise Strange from None  # it says that a part is the pickle, and has none
        finally:
            self._dead.extend(unseen)  # after a failure

    def _places(self, body: bytes | bytearray | memoryview) -> dict[int, int]:
        """What a parcel refers to, and the sizes. Raises Strange."""
        try:
            references = references_in(body)
        except struct.error:
            raise Strange from None
        end = min(os.fstat(self._fd).st_size, self._start + RANGE)
        places: dict[int, int] = {}
        for offset, length in references:
            fits = self._start <= offset and offset + length <= end
            if not fits or offset % PAGE or offset in self._live or offset in places:
                raise Strange
            places[offset] = -(-length // PAGE) * PAGE
        return places

    def _looked_away(self, offset: int, size: int) -> None:
        self._dead.append(offset)
        self._much += size
        if self._gone or self._much >= MUCH:
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
        """The worker is gone: let the system have what nothing looks at. True, once, when that is all."""
        if self._cleared:
            return False
        self._gone = True  # before the dead are counted: who dies after that tells
        self.take_dead()
        found = system()
        self._cleared = not self._live
        if found is None:
            return self._cleared
        start = self._start
        for offset, size in sorted(self._live.items()):
            found.punch(self._fd, start, offset - start)
            start = offset + size
        found.punch(self._fd, start, self._start + RANGE - start)
        return self._cleared


def was_used(fd: int, number: int) -> bool:
    """Whether there is any memory in a range."""
    with suppress(OSError):  # nothing from there to the end
        return os.lseek(fd, start_of(number), os.SEEK_DATA) < start_of(number) + RANGE
    return False
