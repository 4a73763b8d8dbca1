"""Gates between tests and tasks, so that nothing ever sleeps.

A gate is a file: closed while the test holds its lock. A task announces itself by a byte in a FIFO, then waits
for the lock. A test waits until so many have announced themselves.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Gate:
    """Opened and closed by the test; its path is all a task needs."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.mkfifo(self.path + ".arrivals")
        self._arrivals = os.open(self.path + ".arrivals", os.O_RDWR)

    def open(self) -> None:
        """Let all through, those that come later too."""
        if not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked worker holds a copy of the file, and with it the lock
            self._file.close()
            os.close(self._arrivals)

    def arrivals(self, count: int) -> None:
        """Wait until so many more tasks have come to the gate."""
        while count:
            count -= len(os.read(self._arrivals, count))


def pass_gate(path: str, value: object = None) -> object:
    """A task: announce yourself, wait until the gate is open, return ``value``."""
    arrivals = os.open(path + ".arrivals", os.O_RDWR)  # for writing alone it would wait for a reader
    os.write(arrivals, b"!")
    os.close(arrivals)
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return value
