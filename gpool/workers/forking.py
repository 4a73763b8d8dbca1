"""Which start method, and the program's end of the fork server.

Owns the server's process and the socket to it. The server itself is ``gpool.workers.server``. It is gpool's own: the
user's shared one, and its preload list, stay as they are. Imports little, so that the server can be started before
the program imports the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import process, spawn, util
from typing import Any

from gpool.interrupts import shielded
from gpool.workers import tracker
from gpool.workers.owned import blocked, disown, own, starting


def start_method(mp_context: Any) -> str:
    """The method's name from what the standard library's executors take, or a name, or None.

    Raises:
        ValueError: the platform lacks that method.
        TypeError: it is none of these.
    """
    known = multiprocessing.get_all_start_methods()
    if mp_context is None:
        name = "forkserver" if "forkserver" in known else "spawn"
    else:
        if not isinstance(mp_context, str) and not hasattr(mp_context, "get_start_method"):
            raise TypeError(f"mp_context must be a start method's name or a context, not {mp_context!r}")
        name = mp_context if isinstance(mp_context, str) else mp_context.get_start_method()
    if name not in known:
        raise ValueError(f"start method must be one of {', '.join(known)}, not {name!r}")
    if name == "forkserver" and getattr(sys, "frozen", False):
        return "spawn"  # what a frozen program's executable runs is the program: only spawn has an arrangement for that
    return str(name)


class ForkServer:
    """A fork server shared by the pools of this process: started for the first of them, ended with the last."""

    def __init__(self) -> None:
        self._users: set[int] = set()
        self._pid = 0
        self._fd = -1  # of the socket

    def acquire(self, user: object) -> None:
        with shielded(), starting:
            self._users.add(id(user))
            with suppress(OSError):  # who asks for a process will be told
                self._ensure_running()

    def release(self, user: object) -> None:
        """Of whoever has acquired it, or was about to."""
        with shielded(), starting:
            self._users.discard(id(user))
            if not self._users:
                self._end()

    def fork(self, fds: Sequence[int], lock: str) -> tuple[int, int]:
        """Ask for a process, and for a lock of that name.

        Returns where it is told of, and where it reads what it is to be.
        """
        self._ensure_running()
        sentinel, tell = os.pipe()
        told, say = os.pipe()
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, self._fd)
        try:
            socket.send_fds(server, [lock.encode() or b"\0"], [told, tell, tracker.pipe(), *fds])
        except BaseException:
            os.close(sentinel)
            os.close(say)
            raise
        finally:
            server.detach()
            os.close(told)
            os.close(tell)
        return sentinel, say

    def forget(self) -> None:
        """In a forked child: the server is the parent's."""
        self.__init__()  # type: ignore[misc]

    def _ensure_running(self) -> None:
        if self._pid and _hung_up(self._fd):
            self._end()
        if not self._pid:
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = own(ours.detach())
            try:
                interpreter, flags = spawn.get_executable(), util._args_from_interpreter_flags()  # type: ignore[attr-defined]
                line = [interpreter, *flags, "-c", _command(theirs.fileno())]
                with blocked(signal.SIGINT):
                    self._pid = util.spawnv_passfds(interpreter, line, [theirs.fileno()])  # type: ignore[arg-type]
            except BaseException:
                disown(fd)
                raise
        self._fd = fd

    def _end(self) -> None:
        """All its children are gone and reaped, so nothing is lost by not asking politely."""
        pid, fd = self._pid, self._fd
        self._pid, self._fd = 0, -1
        if pid:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            disown(fd)


def _command(fd: int) -> str:
    """What the interpreter is to run: the server, with the program's own path to modules."""
    paths = [process.ORIGINAL_DIR if path == "" else path for path in sys.path]  # type: ignore[attr-defined]
    known = [path for path in paths if isinstance(path, str)]
    serving = f"from gpool.workers.server import serve; serve({fd})"
    return f"import gc, sys; gc.disable(); sys.path[:] = {known!r}; {serving}"


def _hung_up(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))


fork_server = ForkServer()


@contextmanager
def coming_up(method: str) -> Iterator[None]:
    """Inside, the method's fork server, if it has one, is coming up. It stays if somebody acquires it there."""
    user = object()
    try:
        if method == "forkserver":
            fork_server.acquire(user)
        yield
    finally:
        fork_server.release(user)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=fork_server.forget)
