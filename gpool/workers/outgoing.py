"""Frames on their way to one worker.

Owns what is not written yet, and who writes. Whoever has the supervisor's turn adds frames; whoever wants to may write
them, but one thread at a time, and none waits for another: what comes while somebody writes, that thread writes too.
So nothing need be written under the turn. A write wakes its worker, to which the system may at once give the writer's
own core; with the turn in its hands that thread would have everybody wait until it gets the core back.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from gpool.workers import wire

_WRITES_AT_A_TIME = 128
"""Buffers handed to the system in one call."""
_JOIN_UP_TO = 1 << 16
"""Bodies up to this many bytes are copied into the frame's header, which saves a system call."""


class Outgoing:
    """See the module's docstring. Nothing is written before ``open``."""

    __slots__ = ("_fd", "_frames", "_writing")

    def __init__(self) -> None:
        self._frames: deque[tuple[int, bytes | memoryview]] = deque()  # each part with the lease it is of, or 0
        self._writing = threading.Lock()
        self._fd = -1

    def __bool__(self) -> bool:
        return bool(self._frames)

    def open(self, fd: int) -> None:
        """Write there from now on; it must not block."""
        self._fd = fd

    def close(self) -> None:
        """Write no more. When this returns nobody does."""
        with self._writing:
            self._fd = -1
            self._frames.clear()

    def add(self, kind: int, number: int, parts: tuple[bytes, ...]) -> None:
        """Append a frame."""
        size = sum(map(len, parts))
        head = wire.header(kind, number, size)
        if kind in (wire.SHARED, wire.FORGET):
            number = 0  # these numbers are not leases'
        if size <= _JOIN_UP_TO:
            self._frames.append((number, head + b"".join(parts)))
        else:
            self._frames += [(number, part) for part in (head, *parts)]

    def drop(self, leases: set[int]) -> None:
        """Frames of these of which not a byte was written need not be written any more.

        They may be all the same, if somebody writes just now: the worker is told elsewhere that they don't count.
        """
        if self._frames and leases and self._writing.acquire(blocking=False):
            try:
                first = self._frames[0][0]  # may be half out
                kept = [each for each in self._frames if each[0] not in leases or each[0] == first]
                self._frames.clear()
                self._frames += kept
            finally:
                self._writing.release()

    def write(self) -> bool:
        """Write what the stream takes, unless somebody does already; False if it takes no more."""
        while self._frames and self._fd >= 0 and self._writing.acquire(blocking=False):
            try:
                self._write()
            except BlockingIOError:
                return False
            except OSError:  # the worker has died; its end will be reported
                self._frames.clear()
            finally:
                self._writing.release()
        return True

    def _write(self) -> None:
        frames, fd = self._frames, self._fd
        while frames and fd >= 0:
            if len(frames) == 1:
                written = os.write(fd, frames[0][1])
            else:
                written = os.writev(fd, [frames[i][1] for i in range(min(len(frames), _WRITES_AT_A_TIME))])
            while frames and written >= len(frames[0][1]):
                written -= len(frames.popleft()[1])
            if written:
                number, data = frames[0]
                frames[0] = (number, memoryview(data)[written:])
