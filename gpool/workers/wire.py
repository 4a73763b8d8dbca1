"""Framing between the supervisor and a worker.

Owns the frame's layout and a reader that is fed bytes; does no IO. A frame is a fixed header (kind, number,
seconds, length) and a body. The header says all that is needed to know whose frame it is, so a body is only
ever unpickled by somebody who knows whom to blame for it.

The reader says where the next bytes should go, so that a large body is received in place and copied once.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

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
VALUE = 7
"""Worker to supervisor: the lease's task returned; the body is the pickled value."""
ERROR = 8
"""Worker to supervisor: the lease's task raised; the body is the pickled exception and its traceback's text."""
UNREADABLE = 9
"""Worker to supervisor: the call could not be unpickled; the body is like an ERROR's."""
UNSENDABLE = 10
"""Worker to supervisor: the value, or the exception, could not be pickled; the body is like an ERROR's."""

_HEADER = struct.Struct("<BQdQ")
HEADER_SIZE = _HEADER.size
_CHUNK = 1 << 18


class Frame(NamedTuple):
    """One message. ``seconds`` is how long user code ran, where that means anything."""

    kind: int
    number: int
    seconds: float
    body: bytes | bytearray | memoryview


def header(kind: int, number: int, length: int, seconds: float = 0.0) -> bytes:
    """The header of a frame whose body has ``length`` bytes."""
    return _HEADER.pack(kind, number, seconds, length)


class FrameReader:
    """Bytes in, frames out.

    Ask for ``space()``, put bytes at its beginning, say ``received(n)``, then take frames with ``next()``.
    """

    __slots__ = ("_body", "_buffer", "_end", "_filled", "_head", "_start", "_view")

    def __init__(self) -> None:
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._start = 0  # the first unread byte of the buffer
        self._end = 0  # the first free one
        self._head: tuple[int, int, float, int] | None = None  # of the body being received in place
        self._body = bytearray()
        self._filled = 0

    def space(self) -> memoryview:
        """Where the next bytes should go; never empty."""
        if self._head is not None:
            return memoryview(self._body)[self._filled :]
        if self._end == len(self._buffer):
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """``count`` bytes were put into ``space()``."""
        if self._head is not None:
            self._filled += count
        else:
            self._end += count

    @property
    def midway(self) -> bool:
        """True when a frame has begun and is not complete."""
        return self._head is not None or self._start != self._end

    def next(self) -> Frame | None:
        """The next complete frame; None if more bytes are needed."""
        if self._head is not None:
            return self._finish_large()
        available = self._end - self._start
        if available < HEADER_SIZE:
            return None
        kind, number, seconds, length = _HEADER.unpack_from(self._buffer, self._start)
        body_start = self._start + HEADER_SIZE
        if available >= HEADER_SIZE + length:
            stop = self._start = body_start + length
            body = bytes(self._view[body_start:stop])
            if self._start == self._end:
                self._start = self._end = 0
            return Frame(kind, number, seconds, body)
        if HEADER_SIZE + length > len(self._buffer) // 2:
            self._begin_large((kind, number, seconds, length), body_start)
        return None

    def _begin_large(self, head: tuple[int, int, float, int], body_start: int) -> None:
        self._head = head
        self._body = bytearray(head[3])
        self._filled = self._end - body_start
        self._body[: self._filled] = self._view[body_start : self._end]
        self._start = self._end = 0

    def _finish_large(self) -> Frame | None:
        assert self._head is not None
        kind, number, seconds, length = self._head
        if self._filled < length:
            return None
        frame = Frame(kind, number, seconds, self._body)
        self._head, self._body, self._filled = None, bytearray(), 0
        return frame
