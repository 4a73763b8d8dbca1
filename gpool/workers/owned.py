"""Descriptors that are the program's alone, and what a program must not do while it starts a process.

The descriptors are kept in a set and closed in every forked child, a worker or the user's own: a copy there would
keep a worker alive after the program's end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from gpool.workers import windows  # noqa: F401 - its hook must be there before the one below, see there

_program_fds: set[int] = set()
starting = threading.RLock()
"""Held while a process is started. The program forks only in between: a child would get copies of the new worker's
descriptors, and locks of the standard library's that nobody there will ever release."""


def own(fd: int) -> int:
    """Note a descriptor as the program's alone."""
    _program_fds.add(fd)
    return fd


def disown(fd: int) -> None:
    """Close a descriptor noted by ``own``. In a forked child it has been closed already."""
    if fd in _program_fds:
        _program_fds.discard(fd)
        os.close(fd)


@contextmanager
def blocked(*signals: int) -> Iterator[None]:
    """With these blocked in this thread: a process started inside inherits that, until it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_forked_child() -> None:
    for fd in _program_fds:
        with suppress(OSError):
            os.close(fd)
    _program_fds.clear()
    starting._at_fork_reinit()  # type: ignore[attr-defined]


@cache
def fork_in_order() -> None:
    """To be called before this process forks workers, with the lock in hand.

    Hooks of before a fork run in reverse order. So that nobody else who forks has another lock when waiting for this
    one, this one is taken before those of the standard library, too.
    """
    import concurrent.futures.thread  # noqa: F401 - its hook must be there

    os.register_at_fork(before=starting.acquire, after_in_parent=starting.release)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=starting.acquire, after_in_parent=starting.release, after_in_child=_in_forked_child)
