"""The local backend: workers are processes on this machine.

Owns the descriptors of all workers and one selector over them: streams, exits, and a pipe to be woken by. Has no
policy. Writing and reading never block: what a pipe does not take waits in the line's queue until it does.

Threads. ``wait`` belongs to the supervisor's own thread, ``flush`` comes from whoever had the supervisor's turn, the
other calls from whoever has it; so only with the turn is a stream read, or the selector told what to watch for.
Processes are started on a thread of this backend's own, because starting one blocks; what it made is handed over
through a deque.
"""

from __future__ import annotations

import os
import selectors
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic
from typing import Any

from gpool.errors import PoolClosed
from gpool.workers import health, wire
from gpool.workers.arena import Place, Range
from gpool.workers.backend import Exited, Logged, Ready, Replied, Report, Sample, Settings, Taken
from gpool.workers.blocks import answers_in, head_of, open_parcels, pack_answers
from gpool.workers.boards import Kept
from gpool.workers.loans import LONGEST_SECONDS, Lender, Loan
from gpool.workers.main import SHARED
from gpool.workers.outgoing import Outgoing
from gpool.workers.owned import disown, own
from gpool.workers.payload import Buffer, Call
from gpool.workers.process import Host, WorkerProcess
from gpool.workers.returns import Returns, Strange
from gpool.workers.wire import Frame, FrameReader

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_DYING_SECONDS = 0.1
"""For a worker to write its stack and end, before it is killed outright. It takes about a millisecond."""
_READS_AT_A_TIME = 64
"""Reads from one worker before the next one's turn."""


class _Block:
    """What is known of a block that is out: its items, and how many answers have come."""

    __slots__ = ("answered", "items")

    def __init__(self, items: int) -> None:
        self.items = items  # that the worker may begin
        self.answered = 0


class _Line:
    """What the backend keeps of one worker.

    Attributes:
        process, reader: None until it has been started.
        outgoing: frames not yet written.
        news: what came between replies.
        sent: leases not answered yet, in order, with the blocks that they are of.
        last: the last lease it was ever sent.
        lent: memory that it may look at, by the leases with which that was sent.
        returns: what it sent by memory; None if nothing so far.
        shared: numbers of the shared functions the worker has.
        killed: it is to die, or has.
        unready: why its initializer failed, if it did.
    """

    __slots__ = (
        "killed",
        "last",
        "lent",
        "news",
        "outgoing",
        "process",
        "reader",
        "returns",
        "sent",
        "shared",
        "unready",
        "worker",
    )

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.process: WorkerProcess | None = None
        self.reader: FrameReader | None = None
        self.outgoing = Outgoing()
        self.news: list[Report] = []
        self.last = 0
        self.lent: dict[int, tuple[Place, ...]] = {}
        self.returns: Returns | None = None
        self.sent: dict[int, _Block | None] = {}
        self.shared: set[int] = set()
        self.killed = False
        self.unready = ""


class LocalBackend:
    """See the module's docstring.

    Args:
        method: a start method's name.
        forward_logs: log records made in workers come as reports.
        name: what the worker processes are called.
    """

    can_kill = True
    has_health = True

    def __init__(self, method: str, *, forward_logs: bool = True, name: str = "gpool") -> None:
        self.method = method
        self._name = name
        self._host = Host(method, forward_logs=forward_logs)
        self.can_recall = self.has_blocks = self._host.has_boards
        self._lines: dict[int, _Line] = {}
        self._selector = selectors.DefaultSelector()
        woken, waker = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(waker, False)
        self._woken, self._waker = own(woken), own(waker)
        self._selector.register(self._woken, _READ, None)
        self._lender = Lender(self._selector)
        self._ready: list[tuple[selectors.SelectorKey, int]] = []
        self._unwritten: deque[_Line] = deque()  # lines with something to write
        self._full: deque[_Line] = deque()  # lines whose pipe took less than it was offered
        self._doomed: deque[tuple[_Line, bool]] = deque()  # lines to be killed, and whether their stack is wanted
        self._to_harvest: deque[tuple[_Line, int]] = deque()  # blocks whose answers are wanted before they are sent
        self._dying: deque[tuple[float, _Line]] = deque()  # asked to write their stack and end, and until when
        self._to_start: SimpleQueue[tuple[_Line, Settings] | threading.Event | None] = SimpleQueue()
        self._started: deque[tuple[_Line, WorkerProcess | BaseException | None]] = deque()
        self.room: Range | None = self._host.room
        self._to_return: deque[_Line] = deque()  # lines to be told what nothing looks at any more
        self._sampler = health.Sampler()
        self._starter = threading.Thread(target=self._start_all, name=f"{name}-starter", daemon=True)
        try:
            self._starter.start()
        except RuntimeError as error:
            self._host.close()
            raise PoolClosed("no pool can begin any more: the interpreter exits") from error

    def __repr__(self) -> str:
        return f"<LocalBackend {self.method}, {len(self._lines)} workers>"

    # -- asked for by the supervisor --------------------------------------------------------------------------

    def start(self, worker: int, settings: Settings) -> None:
        line = self._lines[worker] = _Line(worker)
        self._to_start.put((line, settings))

    def await_starts(self) -> None:
        """Wait until each process that was asked for has been made, or could not be."""
        reached = threading.Event()
        self._to_start.put(reached)
        reached.wait()

    def send(self, worker: int, calls: Sequence[tuple[int, Call]]) -> None:
        line = self._lines.get(worker)
        if line is None:
            return  # it has died; the report of that is on its way
        if line.process is not None:
            self._lender.take_back(line.process.stream)
        if line.returns is not None and line.returns.has_dead:
            line.outgoing.add(wire.RETURNED, 0, (line.returns.take_dead(),))
        for lease, (body, shared, items, places) in calls:
            number = 0
            if shared is not None:
                number = shared.number
                if number not in line.shared:
                    line.shared.add(number)
                    line.outgoing.add(wire.SHARED, number, (shared.body,))
            kind = wire.CALL
            line.sent[lease] = None
            line.last = lease
            if items > 1:
                kind = wire.BLOCK
                line.sent[lease] = _Block(items)
            if places:
                kind = wire.LARGE
                line.lent[lease] = places
            line.outgoing.add(kind, lease, (SHARED.pack(number), body))
        self._unwritten.append(line)

    def recall(self, worker: int, keep: int) -> Taken:
        line = self._lines.get(worker)
        if line is None:
            return Taken()
        if line.process is None or line.process.board is None:
            return Taken()
        begun = line.process.board.revoke(line.last, keep)
        if begun is None:
            return Taken(refused=True)
        taken = [lease for lease in line.sent if lease > begun.lease and lease != keep]
        for lease in taken:
            del line.sent[lease]
            line.lent.pop(lease, None)
        line.outgoing.drop(set(taken))
        return Taken(tuple(taken), *self._part(line, max(1, begun.items)))

    def _part(self, line: _Line, limit: int) -> tuple[int | None, int]:
        """Note that the worker may begin no more than so many items of its block; whose it is, how many came back.

        All the leases behind it have just been taken back, and of those before it all that is missing is the answer.
        """
        if not line.sent:
            return None, 0
        lease, block = next(reversed(line.sent.items()))
        if block is None:
            return None, 0
        rest, block.items = block.items - limit, limit
        self._to_harvest.append((line, lease))
        self.wake()
        return (lease, rest) if rest else (None, 0)

    def lend(self, worker: int) -> Loan | None:
        line = self._lines.get(worker)
        if line is None or line.process is None or line.killed or line.outgoing or len(line.sent) != 1:
            return None
        return self._lender.lend(line.process.stream, lambda: self._read_lent(line))

    def _read_lent(self, line: _Line) -> list[Report]:
        """``poll``, of this worker's stream alone."""
        if self.room is not None:
            self.room.tidy()
        return list(self._receive(line, _READS_AT_A_TIME))

    def forget(self, shared: int) -> None:
        for line in self._lines.values():
            if shared in line.shared:
                line.shared.discard(shared)
                line.outgoing.add(wire.FORGET, shared, ())
                self._unwritten.append(line)

    def stop(self, worker: int) -> None:
        line = self._lines.get(worker)
        if line is None:
            return
        line.outgoing.add(wire.STOP, 0, ())
        self._unwritten.append(line)

    def kill(self, worker: int, *, stack: bool) -> None:
        line = self._lines.get(worker)
        if line is not None and not line.killed:
            line.killed = True
            self._doomed.append((line, stack))
            self.wake()

    def stack(self, worker: int, patience: float) -> str | None:
        line = self._lines.get(worker)
        return None if line is None or line.process is None else line.process.show_stack(patience)

    def wake(self) -> None:
        with suppress(BlockingIOError, OSError):  # full: a wake is under way already; closed: nobody to wake
            os.write(self._waker, b"\0")

    def pids(self) -> Mapping[int, int]:
        return {line.worker: line.process.pid for line in list(self._lines.values()) if line.process is not None}

    def sample(self) -> Mapping[int, Sample]:
        return self._sampler.sample(self.pids())

    def close(self) -> None:
        self._lender.close()
        if self.room is not None:
            self.room.close()
        self._to_start.put(None)
        self._starter.join()
        for line in self._lines.values():
            line.outgoing.close()
            if line.process is not None:
                self._started.append((line, line.process))
        for _, made in self._started:
            if isinstance(made, WorkerProcess):
                made.kill_group()
                made.close()
        self._selector.close()
        woken, waker, self._woken, self._waker = self._woken, self._waker, -1, -1  # who wakes now must hit nothing
        disown(woken)
        disown(waker)
        self._host.close()

    def flush(self) -> None:
        while self._unwritten:
            try:
                line = self._unwritten.pop()  # the newest first: it is what this thread's own turn was about
            except IndexError:
                return  # somebody else has just taken the last
            if not line.outgoing.write():
                self._full.append(line)
                self.wake()

    # -- the supervisor's own thread ----------------------------------------------------------------------------

    def wait(self, timeout: float | None) -> None:
        if self._doomed:
            self._kill_doomed()
        timeout = self._until_overdue(timeout)
        self._ready = self._selector.select(None if timeout is None else min(timeout, LONGEST_SECONDS))
        self._kill_overdue()

    def poll(self) -> list[Report]:
        reports: list[Report] = []
        exits: list[_Line] = []
        for key, mask in self._ready:
            line = key.data
            if line is None:
                with suppress(BlockingIOError):
                    os.read(self._woken, 1 << 16)
            elif line.process is None or line.worker not in self._lines:
                continue
            elif key.fd == line.process.exit_fd:
                exits.append(line)
            else:
                if mask & _READ:
                    reports += self._receive(line, _READS_AT_A_TIME)
                if mask & _WRITE:
                    self._watch(line, _READ)
                    self._unwritten.append(line)
        self._ready = []
        while self._full:
            line = self._full.popleft()
            if line.process is not None and line.worker in self._lines:
                self._watch(line, _READ | _WRITE)
        while self._started:
            line, made = self._started.popleft()
            reports += self._adopt(line, made)
        for _ in range(len(self._to_harvest)):
            reports += self._harvest(*self._to_harvest.popleft())
        while self._to_return:
            self._give_back(self._to_return.popleft())
        if self.room is not None:
            self.room.tidy()
        for line in exits:
            reports += self._bury(line)
        return reports

    def _watch(self, line: _Line, events: int) -> None:
        """Be told of these; a stream that has ended is watched no more."""
        assert line.process is not None
        with suppress(KeyError):
            self._selector.modify(line.process.stream, events, line)

    def _adopt(self, line: _Line, made: WorkerProcess | BaseException | None) -> Iterator[Report]:
        """Take over what the starter made."""
        if not isinstance(made, WorkerProcess):
            del self._lines[line.worker]
            yield Exited(line.worker, None, None, None, f"{type(made).__name__}: {made}" if made else "not started")
            return
        line.process = made
        line.reader = FrameReader()
        line.outgoing.open(made.stream)
        self._selector.register(made.stream, _READ, line)
        self._selector.register(made.exit_fd, _READ, line)
        self._unwritten.append(line)
        if line.killed:
            self._doomed.append((line, False))

    def _receive(self, line: _Line, reads: int) -> Iterator[Report]:
        """Read what has come, at most so often."""
        reader = line.reader
        assert line.process is not None
        assert reader is not None
        for _ in range(reads):
            space = reader.space()
            try:
                size = os.readv(line.process.stream, [space])
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if size == 0:  # the end, or a reset; the exit is reported by its own descriptor
                self._lender.take_back(line.process.stream)
                with suppress(KeyError, ValueError):
                    self._selector.unregister(line.process.stream)
                return
            reader.received(size)
            replies = [reply for frame in reader.frames() if (reply := self._reply(line, frame)) is not None]
            if line.news:
                yield from line.news
                line.news.clear()
            if replies:
                yield Replied(line.worker, replies)
            if size < len(space):
                return

    def _reply(self, line: _Line, frame: Frame) -> Frame | None:
        """The answer to a lease that is out; takes note of anything else."""
        if frame.kind >= wire.VALUE:
            if frame.number != next(iter(line.sent), None):
                self._distrust(line, frame.number)
                return None
            if frame.kind == wire.ANSWERS:
                return self._unknown_answers(line, frame)
            del line.sent[frame.number]
            if frame.kind != wire.PARCEL:
                return frame
            kind, body = self._opened(line, frame.body)
            return frame._replace(kind=kind, body=body)
        if frame.kind == wire.READY:
            if line.process is not None:
                line.process.note_ready()
            line.news.append(Ready(line.worker, frame.number))
        elif frame.kind == wire.LOG:
            line.news.append(Logged(line.worker, frame.body))
        elif frame.kind == wire.RELEASED:
            for (lease,) in struct.iter_unpack("<Q", frame.body):
                line.lent.pop(lease, None)
        elif frame.kind == wire.UNREADY:
            line.unready = bytes(frame.body).decode(errors="replace").strip()
        return None

    def _opened(self, line: _Line, body: Buffer) -> tuple[int, Any]:
        """A worker's parcel, with views in place of references. It is complete: the frame was written after it."""
        if line.returns is None:
            assert line.process is not None
            line.returns = self._host.returns(line.process.range, lambda: self._note_dead(line))
        try:
            return wire.VALUE, line.returns.open(body)
        except Strange:
            self.kill(line.worker, stack=False)
        except (OSError, MemoryError):
            pass
        return wire.TOO_LARGE, b""

    def _note_dead(self, line: _Line) -> None:
        """Called by finalizers."""
        self._to_return.append(line)
        self.wake()

    def _give_back(self, line: _Line) -> None:
        """Tell a worker which of its memory nothing looks at any more, or the system, if it is gone."""
        assert line.returns is not None
        if line.worker in self._lines:
            if line.returns.has_dead:
                line.outgoing.add(wire.RETURNED, 0, (line.returns.take_dead(),))
                self._unwritten.append(line)
        else:
            self._host.clear(line.returns)

    def _distrust(self, line: _Line, number: int) -> None:
        """It answers a call before an older one, which it has never seen then: a task has read from its stream."""
        if number in line.sent:
            self.kill(line.worker, stack=False)

    def _unknown_answers(self, line: _Line, frame: Frame) -> Frame | None:
        """Those of a block's answers that were not known from its board already."""
        block = line.sent[frame.number]
        if block is None:
            return None
        head = head_of(frame.body)
        if head.final:
            del line.sent[frame.number]
        known = block.answered - head.first
        block.answered = max(block.answered, head.first + head.items)
        if known > 0:
            rest = answers_in(frame.body)[known:]
            frame = frame._replace(body=pack_answers(head.first + known, rest, final=bool(head.final)))
        if not head.parcels:
            return frame
        return frame._replace(body=open_parcels(frame.body, lambda body: self._opened(line, body)))

    def _harvest(self, line: _Line, lease: int) -> Iterator[Report]:
        """Report the answers that a block's worker has kept, as it is in an item that takes long."""
        if line.worker not in self._lines or line.process is None or line.process.board is None:
            return
        yield from self._receive(line, _READS_AT_A_TIME)  # what it sent before is older
        block = line.sent.get(lease)
        if block is None:
            return
        kept = line.process.board.kept(lease)
        if next(iter(line.sent)) != lease or (kept is not None and kept.first > block.answered):
            self._to_harvest.append((line, lease))  # there is more in the stream, or the worker has sent some meanwhile
            self.wake()
        else:
            yield from self._kept(line, lease, kept)

    def _kept(self, line: _Line, lease: int, kept: Kept | None) -> Iterator[Report]:
        if kept is not None and kept.answers:
            body = pack_answers(kept.first, kept.answers, final=False)
            frame = self._unknown_answers(line, Frame(wire.ANSWERS, lease, 0.0, body))
            if frame is not None and head_of(frame.body).items:
                yield Replied(line.worker, (frame,))

    def _bury(self, line: _Line) -> Iterator[Report]:
        """The process has ended: report what it still wrote, then its end, and let go of it."""
        process = line.process
        assert process is not None
        exitcode = process.exitcode
        if exitcode is None:
            return  # the descriptor spoke before the system had the code; it goes on speaking
        process.kill_group()  # children it leaves behind
        yield from self._receive(line, 1 << 62)
        begun, unbegun = next(iter(line.sent), None), 0
        if process.board is not None:
            last = process.board.begun()
            begun = last.lease if last.lease in line.sent else None
            block = line.sent.get(last.lease)
            if begun is not None and block is not None:
                yield from self._kept(line, begun, process.board.left(begun))
                unbegun = block.items - last.items
                if last.items == last.ended:
                    begun = None
        self._lender.take_back(process.stream)
        for fd in (process.stream, process.exit_fd):
            with suppress(KeyError, ValueError):
                self._selector.unregister(fd)
        del self._lines[line.worker]
        stack = process.stack()
        line.outgoing.close()
        line.lent.clear()
        process.close()
        self._host.end_range(process.range, line.returns)
        reason = line.unready.rpartition("\n")[2] or f"exit code {exitcode}"
        yield Exited(line.worker, begun, process.pid, exitcode, reason, stack, unbegun)

    def _kill_doomed(self) -> None:
        """Kill who is to be killed, with all that descends from them; whose stack is wanted gets a moment for it."""
        doomed = []
        while self._doomed:
            line, stack = self._doomed.popleft()
            if line.process is not None and line.worker in self._lines:
                doomed.append((line, line.process, stack and line.process.ask_to_die()))
        health.kill_descendants([process.pid for _, process, _ in doomed])
        for line, process, asked in doomed:
            if asked:
                self._dying.append((monotonic() + _DYING_SECONDS, line))
            else:
                process.kill_group()

    def _until_overdue(self, timeout: float | None) -> float | None:
        while self._dying and self._dying[0][1].worker not in self._lines:
            self._dying.popleft()
        if not self._dying:
            return timeout
        left = max(0.0, self._dying[0][0] - monotonic())
        return left if timeout is None else min(timeout, left)

    def _kill_overdue(self) -> None:
        """Who was to write its stack and has not ended in time is stopped, or has replaced the signal's handler."""
        while self._dying and self._dying[0][0] <= monotonic():
            _, line = self._dying.popleft()
            if line.process is not None and line.worker in self._lines:
                line.process.kill_group()

    # -- the starter's thread -------------------------------------------------------------------------------------

    def _start_all(self) -> None:
        while (asked := self._to_start.get()) is not None:
            if isinstance(asked, threading.Event):
                asked.set()
                continue
            line, settings = asked
            made: WorkerProcess | BaseException | None = None
            if not line.killed:
                try:
                    made = self._host.launch(settings, f"{self._name}-{line.worker}")
                except BaseException as error:
                    made = error
            self._started.append((line, made))
            del asked, line, settings, made
            self.wake()
