"""One child process: spawn it, talk about its descriptors, kill its tree, reap it.

Owns how each start method starts one. Knows nothing of tasks. Multiprocessing is used here and in
``gpool.workers.journey``, ``gpool.workers.forking`` and ``gpool.workers.tracker``, and nowhere else.

What differs from ``multiprocessing.Process.start``, and why:

- The child is not told where the main module is, so it never imports it: no ``if __name__ == "__main__"``
  guard is needed.
- The fork server is gpool's own, with gpool preloaded. The user's shared one, and its preload list, stay as they are.
- The process is not entered in ``multiprocessing.active_children()``: those are the user's.
- Starting happens with SIGINT blocked, so that a Ctrl-C during start-up reaches no half-made child.
"""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import context, popen_fork, popen_spawn_posix, process, reduction, resource_tracker, spawn, util
from time import monotonic, sleep
from typing import Any

from gpool.workers import tracker
from gpool.workers.arena import Range
from gpool.workers.backend import Settings
from gpool.workers.boards import Board
from gpool.workers.forking import fork_server
from gpool.workers.journey import (
    Forked,
    Newborn,
    PassedFd,
    Served,
    ServedFd,
    ServedLock,
    SharedLock,
    Spawned,
    has_semaphores,
)
from gpool.workers.logs import lowest_level
from gpool.workers.main import Setup, run
from gpool.workers.owned import blocked, disown, fork_in_order, own, starting
from gpool.workers.payload import Sealed, preload
from gpool.workers.returns import Returns, was_used
from gpool.workers.server import NUMBER
from gpool.workers.stacks import DIE, SHOW, Stacks

_GLANCE_SECONDS = 0.001
_SPARE_DESCRIPTORS = 12
"""What a start needs for a moment, the fork server's own included; two of them stay open as long as the worker."""


def _pickled(newborn: process.BaseProcess, popen: Any) -> memoryview:
    """What a new interpreter is told: everything but the main module, then the process object."""
    preparation = spawn.get_preparation_data(newborn.name)
    preparation.pop("init_main_from_name", None)
    preparation.pop("init_main_from_path", None)
    file = io.BytesIO()
    context.set_spawning_popen(popen)
    try:
        reduction.dump(preparation, file)
        reduction.dump(newborn, file)
    finally:
        context.set_spawning_popen(None)
    return file.getbuffer()


def _write(fd: int, data: memoryview) -> None:
    with open(fd, "wb", closefd=True) as file:
        file.write(data)


class _ServedPopen(popen_fork.Popen):
    """A process of the fork server's.

    Attributes:
        sentinel: where the server tells of it.
        lock: the name of the one that the server is to make for it.
    """

    DupFd = ServedFd
    lock = ""

    def __init__(self, newborn: process.BaseProcess) -> None:
        self._fds: list[int] = []
        try:
            super().__init__(newborn)
        finally:
            with suppress(OSError):  # what it is told waits until the next worker's start
                tracker.start()

    def duplicate_for_child(self, fd: int) -> int:
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, newborn: process.BaseProcess) -> None:
        data = _pickled(newborn, self)
        self.sentinel, say = fork_server.fork(self._fds, self.lock)
        self.finalizer = util.Finalize(self, os.close, (self.sentinel,))
        with suppress(BrokenPipeError):  # the server could not fork; it says why
            _write(say, data)
        self.pid = self._heard()
        if self.pid < 0:
            raise OSError(-self.pid, f"the fork server could not fork: {os.strerror(-self.pid)}")

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None and _is_readable(self.sentinel):
            try:
                self.returncode = self._heard()
            except EOFError:
                self.returncode = 255  # the server has died
        return self.returncode

    def _heard(self) -> int:
        data = os.read(self.sentinel, NUMBER.size)
        if not data:
            raise EOFError("the fork server has died")
        return int(NUMBER.unpack(data)[0])


def _is_readable(fd: int) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


class _SpawnedPopen(popen_spawn_posix.Popen):
    _fds: list[int]

    def _launch(self, newborn: process.BaseProcess) -> None:
        tracker = resource_tracker.getfd()
        data = _pickled(newborn, self)
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


_PROCESSES: Mapping[str, tuple[type[Newborn], Callable[..., Any]]] = {
    "forkserver": (Served, _ServedPopen),
    "spawn": (Spawned, _SpawnedPopen),
    "fork": (Forked, popen_fork.Popen),
}


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
        self.has_boards = self.stacks.fd is not None and has_semaphores()
        if method == "forkserver":
            fork_server.acquire(self)
        elif method == "fork":
            preload()
            fork_in_order()

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
            fork_server.release(self)


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
        self._lock: SharedLock | ServedLock | None = None
        self.board: Board | None = None
        with starting:
            _check_descriptors(host.lifeline)
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self.stream = own(ours.detach())
            self._pidfd: int | None = None
            if host.has_boards and stacks.fd is not None:
                self._lock = ServedLock() if method == "forkserver" else SharedLock()
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
            kind, popen = _PROCESSES[method]
            self._process = kind(target=run, args=(setup,), name=name)
            try:
                if method != "forkserver":
                    resource_tracker.ensure_running()  # before, because starting it leaves SIGINT unblocked
                with blocked(signal.SIGINT):
                    self._process.start_as(popen)
                if self._lock is not None:
                    self._lock.process_runs()
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
