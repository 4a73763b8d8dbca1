"""What runs in the child: one worker's life, from its first line to its last.

Owns the worker's side of the pipe. Imports little, because every worker pays for it, and never the user's
main module.

The protocol. Frames come on a stream. Before a worker begins a lease it claims it on its board; one that the supervisor
has taken back meanwhile is skipped (see ``gpool.workers.boards``). A result is written before the next lease is
claimed: were it held back, a crash in the next task would lose it. How the items of a block begin and end one by one
is told in ``gpool.workers.blocks``.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, NamedTuple, NoReturn, Protocol

from gpool.workers import payload, wire
from gpool.workers.arena import SEGMENT, Place, Range, practise
from gpool.workers.blocks import open_entries, run_block
from gpool.workers.boards import Lock, WorkerBoard
from gpool.workers.parcels import Parcel, open_parcel
from gpool.workers.stacks import write_stacks
from gpool.workers.streams import Streams, flush_streams
from gpool.workers.windows import Panes
from gpool.workers.wire import Frame, FrameReader

SHARED = struct.Struct("<Q")
"""What a call begins with: the number of its shared function, or 0."""


class Openable(Protocol):
    """Something packed for the journey."""

    def open(self) -> Any: ...


class Passed(Protocol):
    """A descriptor that came along."""

    @property
    def fd(self) -> int: ...


class Locked(Protocol):
    """A lock that came along."""

    @property
    def lock(self) -> Lock: ...


class Setup(NamedTuple):
    """All a new worker is told."""

    stream: Passed
    lifeline: Passed
    stacks: Passed | None
    """The pool's memory file."""
    region: int
    """Of that: this worker's, for its stacks and its board."""
    range: int
    """Of that: this worker's, for what is large."""
    lock: Locked | None
    """Of the board there; None for no board."""
    log_level: int | None
    """From which level on log records are sent to the program; None: they stay here."""
    env: Mapping[str, str] | None
    nice: int | None
    initializer: Openable
    """Opens to ``(initializer, initargs)``."""


def run(setup: Setup) -> None:
    """The target of a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program decides what Ctrl-C means
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _die_with(setup.lifeline.fd)
    if setup.stacks is not None:
        write_stacks(setup.stacks.fd, setup.region)
    if setup.env:
        os.environ.update(setup.env)
    if setup.nice:
        os.nice(setup.nice)
    try:
        worker = _Worker(setup.stream.fd)
        if setup.stacks is not None:
            worker.memory = _Memory(setup.stacks.fd, setup.range)
        if setup.stacks is not None and setup.lock is not None:
            worker.board = WorkerBoard(setup.stacks.fd, setup.region, setup.lock.lock)
        if setup.log_level is not None:
            worker.forward_logs(setup.log_level)
        worker.live(setup.initializer)
    except Exception:  # a task closed the worker's descriptors, or the like: threads it left must not keep it up
        import traceback

        with suppress(BaseException):
            traceback.print_exc()
        os._exit(1)


def _die_with(lifeline: int) -> None:
    """Lead a process group that the kernel kills when the program's end of ``lifeline`` closes.

    The kernel needs no interpreter for that, so it also ends a task that holds the GIL in C, and its children.
    The descriptor is opened anew because the owner of the signal belongs to the open file, not to its number.
    Where the platform lacks any of it, the end of the stream remains, which an idle worker notices.
    """
    try:
        os.setpgid(0, 0)
        if sys.platform != "linux":
            return
        import fcntl

        own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(own, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(own, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | fcntl.FASYNC)
        poller = select.poll()
        poller.register(own, 0)
        if poller.poll(0):  # it had closed before we asked to be told
            os.kill(0, signal.SIGKILL)
    except OSError:
        return


_F_SETSIG = 10  # <fcntl.h> on Linux; the fcntl module does not name it


class _Memory:
    """The pool's memory file, as a worker sees it.

    Attributes:
        room: where its large results go.
        released: leases whose calls nothing looks at any more; finalizers add to it.
    """

    def __init__(self, fd: int, number: int) -> None:
        self.room = Range(fd, number)
        self.released: deque[int] = deque()
        self._panes = Panes(fd, SEGMENT)
        self._sent: dict[int, Place] = {}  # what the program may look at

    def open_call(self, lease: int, body: payload.Buffer) -> Parcel:
        """A call's parts. The lease is released with the last of them."""
        practise()
        hold = _Hold(lease, self.released)
        return open_parcel(body, lambda at: self._panes.view(*at, hold.kept))

    def sent(self, places: tuple[Place, ...]) -> None:
        """The program is told of these next."""
        self._sent |= {place.offset: place for place in places}

    def take_back(self, offsets: tuple[int, ...]) -> None:
        """The program looks at these no more."""
        for offset in offsets:
            self._sent.pop(offset, None)
        self.room.tidy()


class _Hold:
    """Lives for as long as something looks at a call's parts."""

    def __init__(self, lease: int, released: deque[int]) -> None:
        self._lease = lease
        self._released = released

    def __del__(self) -> None:
        self._released.append(self._lease)

    def kept(self) -> None:
        """Told when a view dies: the reference to this method was what kept the hold."""


class _Worker:
    """The loop of one worker."""

    memory: _Memory | None = None

    def __init__(self, stream: int) -> None:
        self.board: WorkerBoard | None = None
        self._stream = stream
        self._reader = FrameReader()
        self._frames: deque[Frame] = deque()  # read and not dealt with
        self._pid = os.getpid()
        self._sending = threading.Lock()
        self._sender = 0  # the thread that is at it
        self._streams = Streams(self._end_if_forked)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._streams.note)
        self._shared: dict[int, payload.Buffer] = {}
        self._functions: dict[int, payload.Function] = {}  # of ``_shared``, those unpickled already

    def forward_logs(self, level: int) -> None:
        from gpool.workers import logs

        logs.forward(level, self._send_log)

    def live(self, initializer: Openable) -> None:
        if not self._initialize(initializer):
            sys.exit(1)
        del initializer
        self._send(wire.READY, os.getpid(), b"", 0.0)
        while self._serve_one():
            pass

    def _initialize(self, packed: Openable) -> bool:
        try:
            initializer, initargs = packed.open()
            if initializer is not None:
                initializer(*initargs)
        except BaseException:
            import traceback

            flush_streams()
            self._send(wire.UNREADY, 0, traceback.format_exc().encode(), 0.0)
            return False
        return True

    def _serve_one(self) -> bool:
        """Wait for a call that may begin, run it, report it; False when asked to stop.

        What the call held is let go when this returns: after its result was sent and before the next call is begun,
        so a destructor that crashes costs neither.
        """
        frame = self._next_call()
        if frame.kind == wire.STOP:
            return False
        if self.board is not None and not self.board.claim(frame.number):
            return True
        if frame.kind == wire.BLOCK:
            self._run_block(frame)
        else:
            answer = self._run(frame)
            self._streams.flush()
            if answer.places and self.memory is not None:
                self.memory.sent(answer.places)
            self._send(answer.kind, frame.number, answer.body, answer.seconds)
        return True

    def _report_released(self) -> None:
        """Say which calls nothing looks at any more."""
        assert self.memory is not None
        released = self.memory.released
        leases = [released.popleft() for _ in range(len(released))]
        self._send(wire.RELEASED, 0, struct.pack(f"<{len(leases)}Q", *leases), 0.0)

    def _run_block(self, frame: Frame) -> None:
        assert self.board is not None
        lease = frame.number
        (shared,) = SHARED.unpack_from(frame.body)
        entries = open_entries(memoryview(frame.body)[SHARED.size :])
        self.board.open_block()

        def send(answers: bytes, seconds: float) -> None:
            self._send(wire.ANSWERS, lease, answers, seconds)

        function = (lambda: self._function(shared)) if shared else None
        run_block(entries, function, self.board, self._streams, send, self.memory)

    def _end_if_forked(self) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # the task forked, and this is the other process: it has no business here

    def _run(self, frame: Frame) -> Answer:
        if frame.kind == wire.TOO_LARGE:
            problem = MemoryError("the worker has no room for the call")
            return Answer(wire.UNREADABLE, payload.dump_error(problem), 0.0)
        (shared,) = SHARED.unpack_from(frame.body)
        body: payload.Buffer = memoryview(frame.body)[SHARED.size :]
        buffers: Sequence[memoryview] = ()
        memory = self.memory
        if frame.kind == wire.LARGE and memory is not None:
            try:
                body, buffers = memory.open_call(frame.number, body)
            except (OSError, MemoryError) as problem:
                error = MemoryError("the worker has no room for the call")
                error.__cause__ = problem
                return Answer(wire.UNREADABLE, payload.dump_error(error), 0.0)
        room = None if memory is None else memory.room
        return run_call(body, (lambda: self._function(shared)) if shared else None, buffers, room)

    def _function(self, number: int) -> payload.Function:
        """A shared function, unpickled at its first use. Raises whatever user code raises."""
        function = self._functions.get(number)
        if function is None:
            function = self._functions[number] = payload.open_function(self._shared[number])
        return function

    def _next_call(self) -> Frame:
        """The next CALL or STOP frame."""
        while True:
            while not self._frames:
                if self.memory is not None and self.memory.released:
                    self._report_released()
                self._read()
            frame = self._frames.popleft()
            if frame.kind == wire.SHARED:
                self._shared[frame.number] = frame.body
            elif frame.kind == wire.FORGET:
                self._shared.pop(frame.number, None)
                self._functions.pop(frame.number, None)
            elif frame.kind == wire.RETURNED and self.memory is not None:
                self.memory.take_back(struct.unpack(f"<{len(frame.body) // 8}Q", frame.body))
            else:
                return frame

    def _read(self) -> None:
        """Wait for bytes."""
        try:
            count = os.readv(self._stream, [self._reader.space()])
        except BlockingIOError:  # a task has changed the descriptor's mode
            _await(self._stream, select.POLLIN)
            return
        except ConnectionError:
            count = 0
        if count == 0:
            _end_with_program()
        self._reader.received(count)
        self._frames += self._reader.frames()

    def _send_log(self, body: bytes) -> None:
        """Send a log record, unless this is another process, or a signal handler that interrupted a sending."""
        if os.getpid() != self._pid or self._sender == threading.get_ident():
            return
        self._send(wire.LOG, 0, body, 0.0)

    def _send(self, kind: int, number: int, body: bytes, seconds: float) -> None:
        head = wire.header(kind, number, len(body), seconds)
        with self._sending:  # threads that a task left behind may log
            self._sender = threading.get_ident()
            try:
                if len(body) < 1 << 16:
                    _write_all(self._stream, head + body)
                else:
                    _write_all(self._stream, head)
                    _write_all(self._stream, body)
            except ConnectionError:
                _end_with_program()  # there is nobody to tell
            finally:
                self._sender = 0


class Answer(NamedTuple):
    """What came of a call. ``seconds`` is for how long user code ran, ``held`` what is to outlive the sending."""

    kind: int
    body: bytes
    seconds: float
    held: tuple[Any, ...] = ()
    places: tuple[Place, ...] = ()


def run_call(
    body: payload.Buffer,
    shared: Callable[[], payload.Function] | None,
    buffers: Sequence[memoryview] = (),
    room: Range | None = None,
) -> Answer:
    """Open a call, run it, pack what came of it. Nothing that user code raises gets out."""
    begun = perf_counter()
    try:
        function = payload.open_call(body, shared() if shared is not None else None, buffers)
    except BaseException as error:
        return Answer(wire.UNREADABLE, payload.pack_error(error)[1], perf_counter() - begun, (error,))
    begun = perf_counter()
    try:
        value = function.fn(*function.args, **function.kwargs)
    except BaseException as error:
        seconds = perf_counter() - begun
        held: list[Any] = [function, error]
        return Answer(*payload.pack_error(error, held), seconds, (held,))
    seconds = perf_counter() - begun
    try:
        packed = payload.pack_value(value, room, (value,))
        kind = wire.PARCEL if packed.places else wire.VALUE
        return Answer(kind, packed.body, seconds, (function, value), packed.places)
    except BaseException as error:
        return Answer(wire.UNSENDABLE, payload.pack_error(error)[1], seconds, (function, value, error))


def _end_with_program() -> NoReturn:
    """The program has gone. The kernel ends the worker's group too, but not if the worker is quicker to go itself."""
    if os.getpgrp() == os.getpid():
        os.kill(0, signal.SIGKILL)
    os._exit(1)


def _await(fd: int, what: int) -> None:
    poller = select.poll()
    poller.register(fd, what)
    poller.poll()


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # a task has changed the descriptor's mode
            _await(fd, select.POLLOUT)
