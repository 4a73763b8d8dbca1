"""One child process: spawn it, talk about its descriptors, kill its tree, reap it.

Owns everything that multiprocessing is used for, and is its only user: the start methods, a fork server of
gpool's own, and the way descriptors and initializers travel. Knows nothing of tasks.

What differs from ``multiprocessing.Process.start``, and why:

- The child is not told where the main module is, so it never imports it: no ``if __name__ == "__main__"``
  guard is needed.
- The fork server is gpool's own, with gpool preloaded. The user's shared one, and its preload list, stay as they are.
- The process is not entered in ``multiprocessing.active_children()``: those are the user's.
- Starting happens with SIGINT blocked, so that a Ctrl-C during start-up reaches no half-made child.

Descriptors of the program's side are kept in a set and closed in every forked child, a worker or the user's
own: a copy there would keep a worker alive after the program's end.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]  # its locks, without the heavy module around them
import errno
import io
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from multiprocessing import context, forkserver, process, reduction, spawn, util
from time import monotonic, sleep
from typing import Any

from gpool.workers.arena import Range
from gpool.workers.backend import Settings
from gpool.workers.boards import Board
from gpool.workers.logs import lowest_level
from gpool.workers.main import Setup, run
from gpool.workers.payload import Sealed, preload
from gpool.workers.returns import Returns, was_used
from gpool.workers.stacks import DIE, SHOW, Stacks

_PRELOAD = ["gpool.workers.main", "gpool.workers.logs", "gpool.errors", "cloudpickle", "ctypes", "faulthandler"]

_GLANCE_SECONDS = 0.001
_SPARE_DESCRIPTORS = 12
"""What a start needs for a moment, the fork server's own included; two of them stay open as long as the worker."""

_program_fds: set[int] = set()
_start_lock = threading.RLock()
"""Held while a process is started. The program forks only in between: a child would get copies of the new worker's
descriptors, and locks of the standard library's that nobody there will ever release."""


def _in_forked_child() -> None:
    for fd in _program_fds:
        with suppress(OSError):
            os.close(fd)
    _program_fds.clear()
    _start_lock._at_fork_reinit()  # type: ignore[attr-defined]
    _server.forget()


def own(fd: int) -> int:
    """Note a descriptor as the program's alone."""
    _program_fds.add(fd)
    return fd


def disown(fd: int) -> None:
    """Close a descriptor noted by ``own``. In a forked child it has been closed already."""
    if fd in _program_fds:
        _program_fds.discard(fd)
        os.close(fd)


def start_method(mp_context: Any) -> str:
    """The method's name from what the standard library's executors take, or a name, or None.

    Raises:
        ValueError: the platform lacks that method.
    """
    known = multiprocessing.get_all_start_methods()
    if mp_context is None:
        return "forkserver" if "forkserver" in known else "spawn"
    name = mp_context if isinstance(mp_context, str) else mp_context.get_start_method()
    if name not in known:
        raise ValueError(f"start method must be one of {', '.join(known)}, not {name!r}")
    return str(name)


class PassedFd:
    """A descriptor on its way into a child."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (reduction.DupFd(self.fd),)


def _arrived(duplicate: Any) -> PassedFd:
    return PassedFd(duplicate.detach())


class SharedLock:
    """A lock between this process and one worker, by way of the kind of semaphore that multiprocessing's locks are.

    Nothing but its name can travel to a new interpreter, so it keeps the name until ``forget_name``.
    Raises OSError where the system gives no semaphores.
    """

    def __init__(self) -> None:
        self._name: str | None = f"/gpool-{os.getpid()}-{next(_lock_numbers)}-{os.urandom(4).hex()}"
        resource_tracker.register(self._name, "semaphore")  # it removes the name should the program be killed
        try:
            self.lock = _multiprocessing.SemLock(1, 1, 1, self._name, False)
        except BaseException:
            resource_tracker.unregister(self._name, "semaphore")
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return _OpenedLock, (self.lock.handle, self._name)

    def forget_name(self) -> None:
        """The worker has opened it, or never will."""
        name, self._name = self._name, None
        if name is not None:
            _multiprocessing.sem_unlink(name)
            resource_tracker.unregister(name, "semaphore")


_lock_numbers = count(1)


class _OpenedLock:
    """A ``SharedLock`` on the other side."""

    def __init__(self, handle: int, name: str) -> None:
        self.lock = _multiprocessing.SemLock._rebuild(handle, 1, 1, name)


# -- processes --------------------------------------------------------------------------------------------------


class _Quiet(process.BaseProcess):
    """A process that is started without being entered among the user's children."""

    def start(self) -> None:
        self._popen = self._Popen(self)  # type: ignore[attr-defined]
        self._sentinel = self._popen.sentinel
        del self._target, self._args, self._kwargs  # type: ignore[attr-defined]


def _pickled(process_obj: process.BaseProcess, popen: Any) -> memoryview:
    """What a new interpreter is told: everything but the main module, then the process object."""
    preparation = spawn.get_preparation_data(process_obj.name)
    preparation.pop("init_main_from_name", None)
    preparation.pop("init_main_from_path", None)
    file = io.BytesIO()
    context.set_spawning_popen(popen)
    try:
        reduction.dump(preparation, file)
        reduction.dump(process_obj, file)
    finally:
        context.set_spawning_popen(None)
    return file.getbuffer()


def _write(fd: int, data: memoryview) -> None:
    with open(fd, "wb", closefd=True) as file:
        file.write(data)


if sys.platform != "win32":
    from multiprocessing import popen_fork, popen_forkserver, popen_spawn_posix, resource_tracker

    class _ForkServer(forkserver.ForkServer):
        """A fork server with gpool preloaded, shared by the pools of this process and ended with the last one."""

        _forkserver_pid: int | None
        _forkserver_alive_fd: int | None

        def __init__(self) -> None:
            super().__init__()
            self._preload_modules = _PRELOAD
            self._users = 0

        def forget(self) -> None:
            """In a forked child: the server is the parent's, and is not to be kept up from here."""
            if self._forkserver_alive_fd is not None:
                os.close(self._forkserver_alive_fd)
            self.__init__()  # type: ignore[misc]

        def acquire(self) -> None:
            with self._lock:  # type: ignore[attr-defined]
                self._users += 1

        def release(self) -> None:
            with self._lock:  # type: ignore[attr-defined]
                self._users -= 1
                if self._users == 0 and self._forkserver_pid is not None:
                    # All its children are gone and reaped, so nothing is lost by not asking politely.
                    with suppress(ProcessLookupError):
                        os.kill(self._forkserver_pid, signal.SIGKILL)
                    self._stop_unlocked()  # type: ignore[attr-defined]

    class _ForkServerPopen(popen_forkserver.Popen):
        _fds: list[int]

        def _launch(self, process_obj: process.BaseProcess) -> None:
            data = _pickled(process_obj, self)
            self.sentinel, told = _server.connect_to_new_process(self._fds)
            self.finalizer = util.Finalize(self, os.close, (self.sentinel,))
            _write(told, data)
            self.pid = forkserver.read_signed(self.sentinel)

    class _SpawnPopen(popen_spawn_posix.Popen):
        _fds: list[int]

        def _launch(self, process_obj: process.BaseProcess) -> None:
            tracker = resource_tracker.getfd()
            data = _pickled(process_obj, self)
            self.sentinel, alive = os.pipe()
            told, tell = os.pipe()
            self.finalizer = util.Finalize(self, os.close, (self.sentinel,))
            try:
                command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=told)
                passed = [*self._fds, tracker, told, alive]
                self.pid = util.spawnv_passfds(spawn.get_executable(), command, passed)  # type: ignore[arg-type]
            except BaseException:
                os.close(tell)
                raise
            finally:
                os.close(told)
                os.close(alive)
            _write(tell, data)

    class _ForkServerProcess(_Quiet):
        _start_method = "forkserver"
        _Popen = staticmethod(_ForkServerPopen)

    class _SpawnProcess(_Quiet):
        _start_method = "spawn"
        _Popen = staticmethod(_SpawnPopen)

    class _ForkProcess(_Quiet):
        _start_method = "fork"
        _Popen = staticmethod(popen_fork.Popen)

    _PROCESSES: Mapping[str, Callable[..., _Quiet]] = {
        "forkserver": _ForkServerProcess,
        "spawn": _SpawnProcess,
        "fork": _ForkProcess,
    }
    _server = _ForkServer()
    os.register_at_fork(
        before=_start_lock.acquire, after_in_parent=_start_lock.release, after_in_child=_in_forked_child
    )


def _has_semaphores() -> bool:
    try:
        _multiprocessing.SemLock(1, 1, 1, f"/gpool-{os.getpid()}-{os.urandom(4).hex()}", True)
    except OSError:
        return False
    return True


class Host:
    """What the workers of one pool share: a start method, a lifeline, and memory for stacks and boards.

    The lifeline is a pipe whose one end only the program holds; when that closes, the kernel ends the workers.
    """

    def __init__(self, method: str, *, forward_logs: bool) -> None:
        self.method = method
        self.forward_logs = forward_logs
        self.lifeline, end = os.pipe()
        self._end = own(end)
        own(self.lifeline)
        self.stacks = Stacks()
        if self.stacks.fd is not None:
            own(self.stacks.fd)
        self.room = None if self.stacks.fd is None else Range(self.stacks.fd, 0)
        self._free_ranges: list[int] = []
        self._ranges = 0
        self.has_boards = self.stacks.fd is not None and _has_semaphores()
        if method == "forkserver":
            _server.acquire()
        elif method == "fork":
            preload()

    def launch(self, settings: Settings, name: str) -> WorkerProcess:
        """Start a worker's process; blocks for as long as the platform takes."""
        return WorkerProcess(self, settings, name)

    def reserve_range(self) -> int:
        """The number of a range for a new worker."""
        if self._free_ranges:
            return self._free_ranges.pop()
        self._ranges += 1
        return self._ranges

    def returns(self, number: int, tell: Callable[[], None]) -> Returns:
        """What the worker with this range sends by memory."""
        assert self.stacks.fd is not None
        return Returns(self.stacks.fd, number, tell)

    def clear(self, returns: Returns) -> None:
        """Their worker is gone, and something of it is not looked at any more."""
        if returns.clear():
            self._free_ranges.append(returns.number)

    def end_range(self, number: int, returns: Returns | None) -> None:
        """A worker is gone."""
        if returns is None and self.stacks.fd is not None and was_used(self.stacks.fd, number):
            returns = self.returns(number, lambda: None)
        if returns is not None:
            self.clear(returns)
        else:
            self._free_ranges.append(number)

    def close(self) -> None:
        disown(self.lifeline)
        disown(self._end)
        if self.stacks.fd is not None:
            disown(self.stacks.fd)
        if self.method == "forkserver":
            _server.release()


class WorkerProcess:
    """A worker's process and the program's ends of its pipes.

    Attributes:
        pid: its process id.
        range: of the pool's memory file, the number of what it may fill.
        stream: both ways, frames; does not block.
        exit_fd: readable once the process has ended.
        board: what it has begun; None where there are no boards.
    """

    def __init__(self, host: Host, settings: Settings, name: str) -> None:
        method, stacks = host.method, host.stacks
        self._stacks = stacks
        self._region = stacks.reserve()
        self.range = host.reserve_range()
        self._lock: SharedLock | None = None
        self.board: Board | None = None
        with _start_lock:
            _check_descriptors(host.lifeline)
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self.stream = own(ours.detach())
            self._pidfd: int | None = None
            if host.has_boards and stacks.fd is not None:
                self._lock = SharedLock()
                self.board = Board(stacks.fd, self._region, self._lock.lock)
            passed = [theirs.fileno(), host.lifeline, *([] if stacks.fd is None else [stacks.fd])]
            if method == "fork":
                # The child closes the program's descriptors first of all, so it gets copies of its own.
                passed = [os.dup(fd) for fd in passed]
            stream, line, *rest = map(PassedFd, passed)
            written = rest[0] if rest else None
            level = lowest_level() if host.forward_logs else None
            setup = Setup(
                stream,
                line,
                written,
                self._region,
                self.range,
                self._lock,
                level,
                settings.env,
                settings.nice,
                Sealed((settings.initializer, settings.initargs), _reducers()),
            )
            self._process = _PROCESSES[method](target=run, args=(setup,), name=name)
            try:
                _start_shielded(self._process)
                self.pid = int(self._process.pid or 0)
                self.exit_fd = self._open_exit_fd(method)
            except BaseException:
                self.close()
                raise
            finally:
                theirs.close()
                if method == "fork":
                    for fd in passed:
                        os.close(fd)

    def _open_exit_fd(self, method: str) -> int:
        """A descriptor that tells the death of the worker itself.

        The fork server reports it exactly. Otherwise the sentinel is a pipe that the worker's children inherit,
        who may live on; so where there are pid descriptors, one is used.
        """
        if method != "forkserver" and hasattr(os, "pidfd_open"):
            with suppress(OSError):
                self._pidfd = own(os.pidfd_open(self.pid))
                return self._pidfd
        return int(self._process.sentinel)

    @property
    def exitcode(self) -> int | None:
        """The exit code once the process has ended, as multiprocessing gives it. Reaps it."""
        code = self._process._popen.poll()
        return None if code is None else int(code)

    def note_ready(self) -> None:
        """The worker has opened all that was handed to it."""
        if self._lock is not None:
            self._lock.forget_name()

    def stack(self) -> str | None:
        """The last stack that the worker wrote; None if it wrote none."""
        return self._stacks.read(self._region)

    def show_stack(self, patience: float) -> str | None:
        """The worker's stack as it is now; None if it does not answer within ``patience`` seconds."""
        if SHOW is None:
            return None
        start = size = self._stacks.size(self._region)
        deadline = monotonic() + patience
        with suppress(ProcessLookupError):
            os.kill(self.pid, SHOW)
        while monotonic() < deadline:
            sleep(_GLANCE_SECONDS)  # nothing tells that faulthandler has finished, but that no more comes
            before, size = size, self._stacks.size(self._region)
            if start < size == before:
                break
        return self._stacks.read(self._region, start)

    def ask_to_die(self) -> bool:
        """Have the worker write its stack and end; False where that can't be had."""
        if DIE is None or self._stacks.fd is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, DIE)
        return True

    def kill_group(self) -> None:
        """Kill the worker and what is left of the process group it leads."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the program's descriptors; the process has ended."""
        self.note_ready()
        self._stacks.release(self._region)
        for fd in (self.stream, self._pidfd):
            if fd is not None:
                disown(fd)
        popen = getattr(self._process, "_popen", None)
        if popen is not None:
            popen.close()


def _check_descriptors(some: int) -> None:
    """Say which limit is too low before a start runs into it half-way.

    The fork server does not survive a program that fails between connecting to it and handing over its descriptors,
    and all workers' exits are reported by it.
    """
    spare: list[int] = []
    try:
        for _ in range(_SPARE_DESCRIPTORS):
            spare.append(os.dup(some))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        problem = (
            f"the limit on open files (RLIMIT_NOFILE, ulimit -n) is {limit}, too low for one more worker, which takes "
            "2 of them in this process; raise it, or ask for fewer slots"
        )
        raise OSError(errno.EMFILE, problem) from None
    finally:
        for fd in spare:
            os.close(fd)


def _reducers() -> Mapping[type, Callable[[Any], Any]]:
    """How multiprocessing pickles connections and the like."""
    return dict(reduction.ForkingPickler._extra_reducers)  # type: ignore[attr-defined]


def _start_shielded(worker: process.BaseProcess) -> None:
    """Start with SIGINT blocked in this thread; the child inherits that until it ignores the signal."""
    if not hasattr(signal, "pthread_sigmask"):
        worker.start()
        return
    resource_tracker.ensure_running()  # before, because starting it leaves SIGINT unblocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        worker.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
