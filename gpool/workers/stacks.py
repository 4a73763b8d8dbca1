"""Where workers write their Python stacks, so that these can be read after a worker's death.

Owns one memory file per pool and who writes in which region of it. The workers' side, ``write_stacks``, has
faulthandler write there: when a fatal signal strikes, when asked for a stack, and when asked to write it and die.
The handlers are C code that needs no interpreter, so a task that holds the GIL answers too. Never judges.

Where the platform lacks memory files or real-time signals there is no stack: ``None``.
"""

from __future__ import annotations

import os
import signal

REGION = 1 << 24
"""Bytes from one region to the next. The file has holes: what is not written takes no memory."""
BOARD = 1 << 16
"""Bytes at a region's end that are for ``gpool.workers.boards``."""
_READ_AT_MOST = 1 << 18

_last = getattr(signal, "SIGRTMAX", None)
SHOW: int | None = None if _last is None else int(_last) - 2
"""Asks a worker for its stack. Real-time signals of the upper end are rarely used by programs."""
DIE: int | None = None if _last is None else int(_last) - 3
"""Asks a worker for its stack and ends it."""


class Stacks:
    """The memory file, read by the program."""

    def __init__(self) -> None:
        self.fd = _memory_file()
        self._free: list[int] = []
        self._next = 0

    def reserve(self) -> int:
        """A region for a new worker."""
        if self._free:
            return self._free.pop()
        self._next += 1
        return self._next - 1

    def release(self, region: int) -> None:
        """The worker is gone and its stack was read."""
        if self.fd is not None:
            size = len(self._bytes(region, 0))
            os.pwrite(self.fd, bytes(size), region * REGION)
        self._free.append(region)

    def size(self, region: int) -> int:
        """How much was written in a region."""
        return len(self._bytes(region, 0))

    def read(self, region: int, start: int = 0) -> str | None:
        """What was written from ``start`` on; None if nothing was."""
        text = self._bytes(region, start).decode(errors="replace").strip()
        return text or None

    def _bytes(self, region: int, start: int) -> bytes:
        if self.fd is None:
            return b""
        return os.pread(self.fd, _READ_AT_MOST, region * REGION + start).partition(b"\0")[0]


def _memory_file() -> int | None:
    """A file that nobody can make shorter: who has mapped a part of it that is gone would die of looking there."""
    if not hasattr(os, "memfd_create"):
        return None
    import fcntl

    fd = os.memfd_create("gpool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def write_stacks(fd: int, region: int) -> None:
    """In the worker: have faulthandler write to a region of the file."""
    import faulthandler

    if SHOW is None or DIE is None:
        return
    # Opened anew for a position of its own: descriptors that were handed over share theirs.
    own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    os.lseek(own, region * REGION, os.SEEK_SET)
    faulthandler.enable(own)
    faulthandler.register(SHOW, own, all_threads=True)
    faulthandler.register(DIE, own, all_threads=True, chain=True)  # the default action comes after: it ends the process
