"""What travels to a new process besides a worker's setup: the process object, descriptors, a lock.

Owns both ends of the journey, and how multiprocessing is set up at its end. A new process imports this, so it uses
the light parts of multiprocessing only.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]  # its locks, without the heavy module around them
import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from multiprocessing import context, process, reduction, resource_tracker, spawn, util
from typing import Any

_arrived: list[int] = []
"""In a process of the fork server's: descriptors that came along."""
_inherited_lock: Any = None
"""There: the lock that the server made for it."""
_RUNS_EXIT_HANDLERS = sys.version_info >= (3, 13)
"""Whether children of the standard library's fork server call what they have registered with atexit."""


def begin(told: int, tracker: int, fds: list[int], lock: Any) -> int:
    """In a process of the fork server's: be what is told. Returns the exit code."""
    global _inherited_lock  # noqa: PLW0603
    _inherited_lock = lock
    resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]
    _arrived[:] = fds
    if not _RUNS_EXIT_HANDLERS:
        return _be(told)
    atexit._clear()
    atexit.register(util._exit_function)  # type: ignore[attr-defined]
    try:
        return _be(told)
    finally:
        atexit._run_exitfuncs()


def _be(told: int) -> int:
    code: int = spawn._main(told, os.dup(told))
    return code


class Newborn(process.BaseProcess):
    """A process that is started without being entered among the user's children."""

    def start_as(self, popen: Callable[[Newborn], Any]) -> None:
        self._popen = popen(self)
        self._sentinel = self._popen.sentinel
        del self._target, self._args, self._kwargs  # type: ignore[attr-defined]


class Served(Newborn):
    _start_method = "forkserver"


class Spawned(Newborn):
    _start_method = "spawn"


class Forked(Newborn):
    _start_method = "fork"


class ServedFd:
    """A descriptor on its way through the fork server, by its place among those that travel with it."""

    def __init__(self, place: int) -> None:
        self._place = place

    def detach(self) -> int:
        return _arrived[self._place]


class PassedFd:
    """A descriptor on its way into a child."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _passed, (reduction.DupFd(self.fd),)


def _passed(duplicate: Any) -> PassedFd:
    return PassedFd(duplicate.detach())


class SharedLock:
    """A lock between this process and one worker, by way of the kind of semaphore that multiprocessing's locks are.

    Nothing but its name can travel to a new interpreter, so it keeps the name until ``forget_name``.
    Raises OSError where the system gives no semaphores.
    """

    def __init__(self) -> None:
        self._name: str | None = _new_name()
        resource_tracker.register(self._name, "semaphore")  # it removes the name should the program be killed
        try:
            self.lock = _multiprocessing.SemLock(1, 1, 1, self._name, False)
        except BaseException:
            resource_tracker.unregister(self._name, "semaphore")
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _OpenedLock, (self.lock.handle, self._name)

    def process_runs(self) -> None:
        """The process that is to be the worker has been made."""

    def forget_name(self) -> None:
        """The worker has opened it, or never will."""
        name, self._name = self._name, None
        if name is not None:
            _multiprocessing.sem_unlink(name)
            resource_tracker.unregister(name, "semaphore")


_lock_numbers = count(1)


def _new_name() -> str:
    return f"/gpool-{os.getpid()}-{next(_lock_numbers)}-{os.urandom(4).hex()}"


class ServedLock:
    """A lock that the fork server makes and the worker inherits; this process opens it by its name, which then goes.

    Should the program be killed before, the server removes the name.
    """

    def __init__(self) -> None:
        self.name = _new_name()
        self._opened: Any = None

    @property
    def lock(self) -> ServedLock:
        return self

    def acquire(self, block: bool = True, timeout: float | None = None, /) -> bool:
        return bool(self._opened.acquire(block, timeout))

    def release(self) -> None:
        self._opened.release()

    def __reduce__(self) -> tuple[Any, ...]:
        context.get_spawning_popen().lock = self.name  # type: ignore[union-attr]
        return _InheritedLock, ()

    def process_runs(self) -> None:
        """The process that is to be the worker has been made."""
        self._opened = _multiprocessing.SemLock._rebuild(0, 1, 1, self.name)
        remove_name(self.name)

    def forget_name(self) -> None:
        """The worker has it, or never will."""
        if self._opened is None:
            remove_name(self.name)


class _InheritedLock:
    """A ``ServedLock`` on the other side."""

    def __init__(self) -> None:
        self.lock = _inherited_lock


def make_lock(name: str) -> Any:
    """In the fork server: the lock of a ``ServedLock``."""
    return _multiprocessing.SemLock(1, 1, 1, name, False)


def remove_name(name: str) -> None:
    """The lock stays for who has it."""
    with suppress(FileNotFoundError):
        _multiprocessing.sem_unlink(name)


class _OpenedLock:
    """A ``SharedLock`` on the other side."""

    def __init__(self, handle: int, name: str) -> None:
        self.lock = _multiprocessing.SemLock._rebuild(handle, 1, 1, name)


def has_semaphores() -> bool:
    try:
        _multiprocessing.SemLock(1, 1, 1, _new_name(), True)
    except OSError:
        return False
    return True
