"""Objects and tasks that go off: at pickling, at unpickling or when let go, in the parent or in a worker.

Imports little, because workers import it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn


class Bare(BaseException):
    """What ``except Exception`` misses."""


class Carrier(Exception):
    """Carries something as its argument."""


def _raise() -> NoReturn:
    raise ValueError("off")


def _raise_bare() -> NoReturn:
    raise Bare("off")


def _raise_unpicklable() -> NoReturn:
    raise Carrier(threading.Lock())


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _recurse() -> None:
    _recurse()


RAISES: dict[str, type[BaseException]] = {
    "raise": ValueError,
    "raise bare": Bare,
    "interrupt": KeyboardInterrupt,
    "sys.exit": SystemExit,
    "recursion": RecursionError,
}
"""Ways to go off that are exceptions, and their types."""

DEATHS: dict[str, tuple[int, str | None]] = {
    "exit 0": (0, None),
    "exit 7": (7, None),
    "SIGSEGV": (-signal.SIGSEGV, "SIGSEGV"),
    "SIGKILL": (-signal.SIGKILL, "SIGKILL"),
    "SIGABRT": (-signal.SIGABRT, "SIGABRT"),
}
"""Ways to go off that end the process, with its exit code and the signal's name."""

_WAYS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "raise bare": _raise_bare,
    "raise unpicklable": _raise_unpicklable,
    "interrupt": _interrupt,
    "sys.exit": lambda: sys.exit(3),
    "recursion": _recurse,
    "exit 0": lambda: os._exit(0),
    "exit 7": lambda: os._exit(7),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGABRT": os.abort,
}


def go_off(how: str, *_: object) -> None:
    """A task: go off."""
    _WAYS[how]()


class Bomb:
    """Goes off at ``moment``, "pickling" or "unpickling", in the process ``parent`` or in all others."""

    def __init__(self, how: str, moment: str, parent: int, *, in_parent: bool) -> None:
        self.how = how
        self.moment = moment
        self.parent = parent
        self.in_parent = in_parent

    def __reduce__(self) -> tuple[Any, ...]:
        self.pass_moment("pickling")
        return _arrive, (self.how, self.moment, self.parent, self.in_parent)

    def pass_moment(self, moment: str) -> None:
        if moment == self.moment and (os.getpid() == self.parent) == self.in_parent:
            go_off(self.how)


def _arrive(how: str, moment: str, parent: int, in_parent: bool) -> Bomb:
    bomb = Bomb(how, moment, parent, in_parent=in_parent)
    bomb.pass_moment("unpickling")
    return bomb


def return_bomb(how: str, moment: str, parent: int, in_parent: bool) -> Bomb:
    """A task."""
    return Bomb(how, moment, parent, in_parent=in_parent)


def raise_bomb(how: str, moment: str, parent: int, in_parent: bool) -> NoReturn:
    """A task."""
    raise Carrier(Bomb(how, moment, parent, in_parent=in_parent))


class Mine:
    """Goes off when it is let go, in any process but ``parent``, after a byte to the FIFO ``path`` if there is one."""

    def __init__(self, how: str, parent: int, path: str = "") -> None:
        self.how = how
        self.parent = parent
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Mine, (self.how, self.parent, self.path)

    def __del__(self) -> None:
        if os.getpid() != self.parent:
            if self.path:
                with open(self.path, "wb", buffering=0) as fifo:
                    fifo.write(b"!")
            go_off(self.how)


def take_mine(mine: Mine, value: object) -> object:
    """A task that holds a mine as its argument."""
    return value


def return_mine(how: str, parent: int) -> Mine:
    """A task that holds a mine as its result."""
    return Mine(how, parent)


def raise_mine(how: str, parent: int) -> NoReturn:
    """A task that holds a mine in its exception."""
    raise Carrier(Mine(how, parent))
