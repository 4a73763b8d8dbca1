"""What tasks do, by name, for peers that pickle by name: answer, raise, die, hang.

Imports little, because every worker imports it. A task that is to be found from outside announces itself: it writes
its process id, and its child's if it has one, to a file that appears complete or not at all.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, NoReturn

LONG = 300.0
"""Seconds, for what is ended from outside or not at all."""

SPARE = 100_000_000
"""Bytes of memory that a worker may take, where that is limited."""


class Locked(Exception):
    """It does not pickle."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Picky(Exception):
    """It pickles; its constructor, which unpickling calls, takes other arguments than it keeps."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"{number}: {reason}")


class Spring:
    """It pickles, and raises when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _raise_value_error, ()


def _raise_value_error() -> NoReturn:
    raise ValueError("unpickled")


# -- answering ----------------------------------------------------------------------------------------------------


def innocent(log: str, number: int, seconds: float) -> int:
    """Note that it ran, and where; take a while; answer."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{number} {os.getpid()}\n".encode())
    os.close(fd)
    time.sleep(seconds)
    return number * number


def whoami(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def length(argument: bytes) -> int:
    return len(argument)


def double(number: int) -> int:
    return number + number


# -- raising ------------------------------------------------------------------------------------------------------


def return_lock() -> object:
    return threading.Lock()


def return_spring() -> object:
    return Spring()


def take(argument: object) -> object:
    return None


def raise_locked() -> NoReturn:
    raise Locked


def raise_picky() -> NoReturn:
    raise Picky(1, reason="picky")


def leave() -> NoReturn:
    sys.exit(3)


def fail_to_start() -> NoReturn:
    """An initializer."""
    raise ValueError("initializer")


def limit_memory() -> None:
    """An initializer: the worker may take ``SPARE`` bytes more than it has."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


# -- dying and hanging --------------------------------------------------------------------------------------------


def segfault() -> object:
    import ctypes
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return ctypes.string_at(8)


def drop_dead() -> NoReturn:
    os._exit(7)


def stay(announced: str) -> None:
    """Announce itself, then stay."""
    announce(announced, os.getpid())
    time.sleep(LONG)


def hold_gil(announced: str) -> None:
    """Announce itself and a child, then stay in C without ever letting go of the interpreter."""
    import ctypes

    announce(announced, os.getpid(), child())
    ctypes.PyDLL(None).sleep(int(LONG))


def stay_with_child(announced: str) -> None:
    announce(announced, os.getpid(), child())
    time.sleep(LONG)


def child() -> int:
    """The process id of a program that runs for long."""
    import subprocess

    return subprocess.Popen(["sleep", str(int(LONG))]).pid


def announce(path: str, *pids: int) -> None:
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(" ".join(map(str, pids)))
    os.rename(f"{path}.new", path)
