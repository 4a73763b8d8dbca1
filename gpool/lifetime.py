"""Pools and the life of the program.

Owns the list of supervisors that are to end with the interpreter, and the knowledge of which process this is: a pool
belongs to the one that made it.
"""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from typing import Protocol

this_process = os.getpid()
"""This process's id. Cheaper to read than to ask the system at each submission."""


class Ending(Protocol):
    """What is to be told when the interpreter exits."""

    def exit(self, *, now: bool = False) -> None: ...


_alive: weakref.WeakSet[Ending] = weakref.WeakSet()


def ends_with_program(each: Ending) -> None:
    """Tell it when the interpreter exits."""
    _alive.add(each)
    # Anew: to run before what has been registered meanwhile, such as the removal of the fork server's folder.
    atexit.unregister(_exit_all)
    atexit.register(_exit_all)


def has_ended(each: Ending) -> None:
    """It need not be told."""
    _alive.discard(each)


def _exit_all() -> None:
    try:
        for each in list(_alive):
            each.exit()
    except KeyboardInterrupt:  # the user will not wait
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for each in list(_alive):
            each.exit(now=True)


def _note_process() -> None:
    global this_process  # noqa: PLW0603
    this_process = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_process)
