"""Framing between the supervisor and a worker.

Owns the frame's layout and a reader that is fed bytes; does no IO. A frame is a fixed header (kind, number,
seconds, length) and a body. The header says all that is needed to know whose frame it is, so a body is only
ever unpickled by somebody who knows whom to blame for it.

The reader says where the next bytes should go, so that a large body is received in place and copied once.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

CALL = 1
"""Supervisor to worker: run this. The number is the lease's."""
SHARED = 2
"""Supervisor to worker: keep this function. The number names it."""
FORGET = 3
"""Supervisor to worker: drop the function of this number."""
STOP = 4
"""Supervisor to worker: end when this is reached."""
READY = 5
"""Worker to supervisor: up, the initializer has run."""
UNREADY = 6
"""Worker to supervisor: the initializer failed; the body is the traceback's text."""
LOG = 7
"""Worker to supervisor: a log record; the body is pickled."""
RELEASED = 8
"""Worker to supervisor: nothing there looks any more at what came with the leases that the body lists."""
VALUE = 9
"""Worker to supervisor: the lease's task returned; the body is the pickled value."""
ERROR = 10
"""Worker to supervisor: the lease's task raised; the body is the pickled exception and its traceback's text."""
UNREADABLE = 11
"""Worker to supervisor: the call could not be unpickled; the body is like an ERROR's."""
UNSENDABLE = 12
"""Worker to supervisor: the value, or the exception, could not be pickled; the body is like an ERROR's."""
ANSWERS = 13
"""Worker to supervisor: answers to items of the lease's block; the body is for ``gpool.workers.blocks``."""
PARCEL = 14
"""Worker to supervisor: like VALUE; the body is for ``gpool.workers.parcels``."""
BLOCK = 15
"""Supervisor to worker: like CALL, for several items."""
LARGE = 16
"""Supervisor to worker: like CALL; the body is for ``gpool.workers.parcels``."""
RETURNED = 17
"""Supervisor to worker: nothing there looks any more at the places that the body lists."""
TOO_LARGE = 18
"""Made by the reader, in place of a frame whose body found no room in memory; it has no body."""

_MARK = b"\xf9gp\xfb"
"""What every frame begins with."""
_HEADER = struct.Struct("<4sBQdQ")
HEADER_SIZE = _HEADER.size
_CHUNK = 1 << 16


class Frame(NamedTuple):
    """One message. ``seconds`` is how long user code ran, where that means anything."""

    kind: int
    number: int
    seconds: float
    body: Any
    """Bytes, or what the receiver has made of them."""


_new_frame = Frame._make  # half the price of the constructor


def header(kind: int, number: int, length: int, seconds: float = 0.0) -> bytes:
    """The header of a frame whose body has ``length`` bytes."""
    return _HEADER.pack(_MARK, kind, number, seconds, length)


class FrameReader:
    """Bytes in, frames out.

    Ask for ``space()``, put bytes at its beginning, say ``received(n)``, then take what is complete with ``frames()``.
    """

    __slots__ = ("_body", "_buffer", "_end", "_filled", "_head", "_left", "_start", "_view")

    def __init__(self) -> None:
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._start = 0  # the first unread byte of the buffer
        self._end = 0  # the first free one
        self._head: tuple[int, int, float] | None = None  # of the body being received in place
        self._left = 0  # bytes of a body that found no room, and are passed over
        self._body = bytearray()
        self._filled = 0

    def space(self) -> memoryview:
        """Where the next bytes should go; never empty."""
        if self._head is not None and not self._left:
            return memoryview(self._body)[self._filled :]
        if self._left:
            return self._view[: self._left]
        if self._end == len(self._buffer):
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """``count`` bytes were put into ``space()``."""
        if self._left:
            self._left -= count
        elif self._head is not None:
            self._filled += count
        else:
            self._end += count

    def frames(self) -> list[Frame]:
        """The frames that have become complete, in order."""
        if self._head is not None:
            return self._large()
        found: list[Frame] = []
        buffer, start, end = self._buffer, self._start, self._end
        while end - start >= HEADER_SIZE:
            mark, kind, number, seconds, length = _HEADER.unpack_from(buffer, start)
            if mark != _MARK:  # a task wrote where it should not: the next frame begins after it
                found_at = buffer.find(_MARK, start + 1, end)
                start = found_at if found_at >= 0 else end - len(_MARK) + 1
                continue
            body = start + HEADER_SIZE
            stop = body + length
            if stop > end:
                if length > _CHUNK // 2:
                    self._begin_large((kind, number, seconds), length, body)
                    return found
                break
            found.append(_new_frame((kind, number, seconds, bytes(self._view[body:stop]))))
            start = stop
        if start == end:
            start = self._end = 0
        self._start = start
        return found

    def _begin_large(self, head: tuple[int, int, float], length: int, start: int) -> None:
        self._filled = self._end - start
        try:
            self._body = bytearray(length)
        except MemoryError:
            head = (TOO_LARGE, *head[1:])
            self._body, self._left, self._filled = bytearray(), length - self._filled, 0
        else:
            self._body[: self._filled] = self._view[start : self._end]
        self._head = head
        self._start = self._end = 0

    def _large(self) -> list[Frame]:
        assert self._head is not None
        if self._left or self._filled < len(self._body):
            return []
        frame = Frame(*self._head, self._body)
        self._head, self._body, self._filled = None, bytearray(), 0
        return [frame]
