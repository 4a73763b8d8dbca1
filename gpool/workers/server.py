"""The fork server: a process that forks workers, with all that they need imported already.

It has nothing of the program's threads, locks and memory, so its children have none of them either. The program asks
for a process over a socket, with the name of a lock to be made for it, and with descriptors: where the process reads
what it is to be, where the program is told of it, the resource tracker's, and those that travel. It is told the process
id, or minus the error's number, and in the end the exit code. The server ends when the program closes the socket, or
dies.

The garbage collector is off here, where there is nothing for it to do: it would make imports slower. In the workers it
is on, but does not look at what the server has made, because memory that it looks at is no longer shared.

The standard library's server imports twice as much before it can fork. So does this one, but only when the first
worker is on its way.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from gpool.workers import journey, main  # noqa: F401 - for the workers

NUMBER = struct.Struct("q")
"""What the program is told."""
FDS_AT_MOST = 250
NAME_AT_MOST = 250
_LATER = ("gpool.workers.logs", "gpool.workers.functions", "cloudpickle", "ctypes")
"""Imported when the first worker has been forked, for all that follow; the first imports what it needs."""


def serve(fd: int) -> None:
    """What the interpreter is started for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _let_go_of_stdin()
    _Server(fd).serve()


def _let_go_of_stdin() -> None:
    """It is the program's."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


class _Server:
    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._ends: dict[int, int] = {}  # by process id: where its end is to be told
        self._name = ""  # of the lock made last, which the program is about to open and remove
        self._woken, self._waker = os.pipe()
        for each in (self._woken, self._waker):
            os.set_blocking(each, False)
        signal.set_wakeup_fd(self._waker)
        signal.signal(signal.SIGCHLD, _nothing)

    def serve(self) -> None:
        """Fork and reap until the program has no more use for it."""
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        poller.register(self._socket, select.POLLIN)
        later = list(_LATER)
        while True:
            ready = {fd for fd, _ in poller.poll()}
            if self._woken in ready:
                os.read(self._woken, 1 << 16)
                self._reap()
            if self._socket.fileno() in ready:
                lock, fds = self._request()
                if not fds:
                    break
                self._fork(lock, *fds)
                while later:
                    with suppress(Exception):  # who needs it will be told
                        import_module(later.pop())
        if self._name:
            journey.remove_name(self._name)

    def _request(self) -> tuple[str, list[int]]:
        """A lock's name, if one is wanted, and descriptors; none when the program has no more use for the server."""
        try:
            name, fds, _, _ = socket.recv_fds(self._socket, NAME_AT_MOST, FDS_AT_MOST)
        except ConnectionError:
            return "", []
        return name.rstrip(b"\0").decode(), fds

    def _fork(self, name: str, told: int, tell: int, tracker: int, *fds: int) -> None:
        self._name = name
        try:
            lock = journey.make_lock(name) if name else None
            gc.freeze()
            number = os.fork()
        except OSError as error:
            number = -(error.errno or 1)
        if number == 0:
            self._leave(tell)
            _live(told, tracker, list(fds), lock)
        _tell(tell, number)
        if number > 0:
            self._ends[number] = tell
        else:
            os.close(tell)
        for fd in (told, tracker, *fds):
            os.close(fd)

    def _leave(self, tell: int) -> None:
        """In the new process: it is no server any more."""
        gc.enable()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._socket.close()
        for fd in (self._woken, self._waker, tell, *self._ends.values()):
            os.close(fd)

    def _reap(self) -> None:
        while self._ends:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            tell = self._ends.pop(pid)
            _tell(tell, os.waitstatus_to_exitcode(status))
            os.close(tell)


def _live(told: int, tracker: int, fds: list[int], lock: Any) -> NoReturn:
    code = 1
    try:
        code = journey.begin(told, tracker, fds, lock)
    except EOFError:
        pass  # the program has died before it could tell all
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(code)


def _nothing(number: int, frame: FrameType | None) -> None:
    """The signal's handler: what is to be done is done when the descriptor tells of it."""


def _tell(fd: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the program has gone
        os.write(fd, NUMBER.pack(number))
