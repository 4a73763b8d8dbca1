"""What the workers run: at module level, for peers that pickle by name, and with next to no imports."""

from __future__ import annotations

import os
import time
from collections.abc import Sized
from functools import cache


def noop() -> None:
    """Nothing: what is left is the pool."""


def double(x: int) -> int:
    """A tiny function for map."""
    return x + x


def stamp() -> float:
    """When the task began. The monotonic clock is one for all processes of the machine."""
    return time.monotonic()


def spin(seconds: float) -> None:
    """Keep one core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def spun(seconds: float) -> float:
    """Keep one core busy; the seconds, for the books of who asked."""
    spin(seconds)
    return seconds


def nap(seconds: float) -> tuple[float, float, float]:
    """Hold a slot and no core: the seconds asked for, and when it began and ended."""
    began = time.monotonic()
    time.sleep(seconds)
    return seconds, began, time.monotonic()


def burn(seconds: float) -> None:
    """Use so much time of a core, however many others want one too."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def meet(started: str, gate: str) -> None:
    """Write the moment and the pid to the FIFO ``started``, then hold the slot until ``gate`` is opened for writing."""
    line = f"{time.monotonic()!r} {os.getpid()}\n".encode()
    out = os.open(started, os.O_WRONLY)
    os.write(out, line)
    os.close(out)
    os.close(os.open(gate, os.O_RDONLY))


def size_of(value: Sized) -> int:
    """What is left is the argument's journey."""
    return len(value)


def back(value: object) -> object:
    """There and back."""
    return value


@cache
def made_once(size: int) -> object:
    """An array that is there already: what is left is the result's journey."""
    import numpy as np

    return np.ones(size, dtype=np.uint8)
