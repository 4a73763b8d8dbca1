"""The floor under every latency: two processes, one socketpair, one byte there and one clock reading back.

Also a script: ``python bare.py FD`` is the other process.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from types import TracebackType

STAMP = struct.Struct("d")


class Echo:
    """A process that answers each byte with the moment at which it got it."""

    def __init__(self) -> None:
        self._mine, other = socket.socketpair()
        with other:
            fd = other.fileno()
            self._process = subprocess.Popen([sys.executable, __file__, str(fd)], pass_fds=[fd])

    def __call__(self) -> float:
        self._mine.send(b".")
        moment: float = STAMP.unpack(self._mine.recv(STAMP.size))[0]
        return moment

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._mine.close()
        self._process.wait()


def answer(fd: int) -> None:
    """The other process: ends when the first one hangs up."""
    with socket.socket(fileno=fd) as peer:
        while peer.recv(1):
            peer.send(STAMP.pack(time.monotonic()))


if __name__ == "__main__":
    answer(int(sys.argv[1]))
