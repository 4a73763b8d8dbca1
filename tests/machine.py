"""A scheduler driven by hand, over pretended processes that do what a backend promises.

``Machine`` tells its scheduler one event at a time, performs the actions on ``Process`` objects, answers each
``Recall`` at once as a backend does, and checks the invariants. What happened it says in words, one per action:

    start w3 for a      w1 runs a1      w1 ahead a2 a3      recall w1      stop w1      kill w1
    begin a1            a1 returned     break a             close
    split 4 of a1       w1 runs a1*4    a1 answered         item 2 of a1 cancelled

Workers are numbered in the order in which they are started. A task is called what ``submit`` was told, or by its tag
and a number; a block's parts are called as it is, with a star and the number of their items.

It keeps the truth too, which the scheduler learns late or never: which task a process has really begun, which results
it has written. So it notices when a task runs twice, ends twice, or is harmed in another one's stead. Of blocks it
knows every item: each has a number, and goes from the task that was submitted to the part that a process holds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from gpool import limits
from gpool.actions import (
    Action,
    Answer,
    Begin,
    Break,
    Close,
    Dispatch,
    Kill,
    Recall,
    Settle,
    Split,
    Start,
    Stop,
    Withdraw,
)
from gpool.events import (
    CancelAsked,
    CloseAsked,
    Ended,
    Event,
    MemorySampled,
    Progressed,
    Recalled,
    ResizeAsked,
    SubmitAsked,
    Ticked,
    WorkerExited,
    WorkerReady,
)
from gpool.invariants import check
from gpool.model import Group, GroupState, Lease, Options, PoolState, Task, TaskState, Verdict, Worker, WorkerState
from gpool.scheduler import Scheduler

RETURNED, RAISED = Verdict.RETURNED, Verdict.RAISED
LOST = (Verdict.CRASHED, Verdict.TIMED_OUT, Verdict.OUT_OF_MEMORY)
MOST_ANSWERS = 500
"""Recalls that one event may lead to, one after the other."""


@dataclass(eq=False)
class Way:
    """How far a process has come in a block.

    Attributes:
        limit: items it may begin.
        begun, ended, written: items it has begun, has ended, has written the answers to.
        failed: the numbers of those that raised.
    """

    items: tuple[int, ...]
    limit: int
    begun: int = 0
    ended: int = 0
    written: int = 0
    failed: set[int] = field(default_factory=set)

    @property
    def in_one(self) -> bool:
        """True in an item, False between two."""
        return self.begun > self.ended


@dataclass(eq=False)
class Process:
    """What a backend knows of a worker.

    Attributes:
        waiting: leases it was sent and has not begun.
        begun: the lease it runs.
        ways: how far it has come in the blocks it was sent and has not left, by lease.
        unread: what it has written and nobody has read.
        ended: it is dead; its end is not reported yet.
        reporting: its end is being reported: nothing is sent to it any more, nor taken back.
    """

    worker: Worker
    up: bool = False
    waiting: list[Lease] = field(default_factory=list)
    begun: Lease | None = None
    ways: dict[Lease, Way] = field(default_factory=dict)
    unread: list[Ended | Progressed] = field(default_factory=list)
    stopping: bool = False
    killed: bool = False
    ended: bool = False
    reporting: bool = False

    @property
    def way(self) -> Way | None:
        """Through the block that it runs, if it runs one."""
        return None if self.begun is None else self.ways.get(self.begun)


class Machine:
    """See the module's docstring.

    Args:
        slots: by tag, a number of slots or a ``Group``.
        ready: whether the workers are up to begin with.
        eager: whether a process begins what it has at once; otherwise ``begin`` makes it.
        item_seconds: the run time of items as measured before; 0 if it is not known.
    """

    def __init__(
        self,
        slots: Mapping[Hashable, int | Group],
        *,
        ready: bool = True,
        eager: bool = True,
        send_ahead: bool = True,
        item_seconds: float = limits.SHORTEST,
    ) -> None:
        self.scheduler = Scheduler(send_ahead=send_ahead)
        self.scheduler.listening = True
        self.eager = eager
        self.now = 0.0
        self.tasks: dict[str, Task] = {}
        self.processes: dict[int, Process] = {}
        self.settled: dict[int, Verdict] = {}
        self.begins: Counter[int] = Counter()
        self.items: dict[int, list[int]] = {}  # by block or part of one, its items that have not ended
        self.item_begins: Counter[int] = Counter()
        self.item_ends: Counter[int] = Counter()
        self.blamed: list[int] = []  # items that were lost
        self.item_cancels: dict[int, bool] = {}  # items whose cancellation was asked for; True if they may be killed
        self.kill_asked: set[int] = set()
        self.cancel_asked: set[int] = set()
        self.closed = False
        self._closing_now = False
        self._broken: set[Hashable] = set()
        self._ids = count(1)
        self._item_numbers = count(1)
        self._parts = count(1)
        self._written: dict[tuple[int, int], deque[int]] = {}  # by worker and lease, items whose answers were not read
        self._numbers: dict[Hashable, count[int]] = {}
        self._event: Event = Ticked()
        self.resize(slots)
        for group in self.scheduler.groups.values():
            group.item_seconds = item_seconds
        if ready:
            self.all_ready()

    # -- what users ask -----------------------------------------------------------------------------------------

    def task(self, tag: Hashable, name: str = "", *, announce: bool = False, size: int = 1, **options: Any) -> Task:
        """A new task, not submitted yet."""
        number = next(self._numbers.setdefault(tag, count(1)))
        name = name or f"{'general' if tag is None else tag}{number}"
        task = self.tasks[name] = Task(next(self._ids), tag, Options(**options), name, announce, size)
        if size > 1:
            self.items[task.id] = [next(self._item_numbers) for _ in range(size)]
        return task

    def submit(self, tag: Hashable, name: str = "", **options: Any) -> list[str]:
        return self.submit_all(self.task(tag, name, **options))

    def submit_many(self, tag: Hashable, number: int, **options: Any) -> list[str]:
        return self.submit_all(*[self.task(tag, **options) for _ in range(number)])

    def submit_block(self, tag: Hashable, size: int, name: str = "", **options: Any) -> list[str]:
        return self.submit_all(self.task(tag, name, size=size, **options))

    def submit_all(self, *tasks: Task) -> list[str]:
        waits = [self.can_wait(task) for task in tasks]
        words = self.tell(SubmitAsked(tasks))
        if waits[0]:
            assert tasks[0].state is not TaskState.RUNNING, "it was said that it can wait"
            assert not any(word.startswith("split") for word in words), "it was said that it can wait"
        return words

    def can_wait(self, task: Task) -> bool:
        return self.scheduler.can_wait(task.tag, task.options.priority)

    def cancel(self, name: str, *, kill: bool = False) -> list[str]:
        return self.cancel_task(self.tasks[name], kill=kill)

    def cancel_task(self, task: Task, *, kill: bool = False) -> list[str]:
        """Cancel a task, be it a part of a block, which has no name of its own."""
        self.cancel_asked.add(task.id)
        if kill:
            self.kill_asked.add(task.id)
        return self.tell(CancelAsked(task.id, kill))

    def cancel_item(self, task: Task, place: int, *, kill: bool = False) -> list[str]:
        """Cancel one item of a block, or of a part of one."""
        item = self.items[task.id][place]
        self.item_cancels[item] = kill or self.item_cancels.get(item, False)
        return self.tell(CancelAsked(task.id, kill, place))

    def resize(self, slots: Mapping[Hashable, int | Group]) -> list[str]:
        settings = {tag: each for tag, each in slots.items() if isinstance(each, Group)}
        sizes = {tag: each.slots if isinstance(each, Group) else each for tag, each in slots.items()}
        self._broken -= set(sizes)
        return self.tell(ResizeAsked(sizes, settings))

    def close(self, *, now: bool = False) -> list[str]:
        self._closing_now |= now
        return self.tell(CloseAsked(now))

    # -- what workers do ----------------------------------------------------------------------------------------

    def ready(self, worker: int) -> list[str]:
        self.processes[worker].up = True
        return self.tell(WorkerReady(worker))

    def all_ready(self) -> list[str]:
        """Whoever starts comes up."""
        coming = [number for number, process in self.processes.items() if not (process.up or process.stopping)]
        return [word for number in coming for word in self.ready(number)]

    def begin(self, worker: int) -> None:
        """The process begins the first lease it has."""
        process = self.processes[worker]
        assert process.begun is None
        lease = process.begun = process.waiting.pop(0)
        task = lease.task
        assert task.id not in self.settled or process.killed, f"{task.name} runs though it has ended"
        if process.way is not None:
            if self.eager:
                self.begin_item(worker)
            return
        for item in self.items.get(task.id, ()):
            self._note_begin(item)
        self.begins[task.id] += 1
        assert self.begins[task.id] <= task.options.retries + 1, f"{task.name} runs too often"

    def _note_begin(self, item: int) -> None:
        self.item_begins[item] += 1
        assert self.item_begins[item] == 1, f"item {item} runs twice"
        assert not self.item_ends[item], f"item {item} runs though it has ended"

    def begin_item(self, worker: int) -> bool:
        """The process, which is between two items of its block, begins the next; False if it may not."""
        way = self.processes[worker].way
        assert way is not None
        if way.in_one or way.begun == way.limit:
            return False
        if not self.processes[worker].killed:
            self._note_begin(way.items[way.begun])
        way.begun += 1
        return True

    def end_item(self, worker: int, *, raises: bool = False) -> None:
        """The process ends the item that it is in; the answer is kept, but not written."""
        way = self.processes[worker].way
        assert way is not None and way.in_one
        if raises:
            way.failed.add(way.ended)
        way.ended += 1

    def write_answers(self, worker: int, seconds: float = 0.1, *, final: bool = True) -> None:
        """The process writes what it has kept; if ``final`` and it may begin no more, it leaves the block."""
        process = self.processes[worker]
        lease, way = process.begun, process.way
        assert lease is not None and way is not None
        final = final and way.ended == way.limit
        failed = len([n for n in range(way.written, way.ended) if n in way.failed])
        returned = way.ended - way.written - failed
        self._written.setdefault((worker, lease.number), deque()).extend(way.items[way.written : way.ended])
        process.unread.append(Progressed(worker, lease.number, returned, failed, final, seconds))
        way.written = way.ended
        if final:
            del process.ways[lease]
            process.begun = None
            self._go_on(process)

    def answer(self, worker: int, number: int, *, raised: int = 0, seconds: float = 0.1) -> list[str]:
        """The process ends so many items of its block, the first so many by raising; it is read at once."""
        way = self.processes[worker].way
        assert way is not None
        for each in range(number):
            assert way.in_one or self.begin_item(worker), "it may not begin so many"
            self.end_item(worker, raises=each < raised)
        if self.eager:
            self.begin_item(worker)
        self.write_answers(worker, seconds)
        return self.read(worker)

    def write(self, worker: int, verdict: Verdict = RETURNED, seconds: float = 0.1, *, retry: bool = False) -> None:
        """The process ends what it has begun; nobody reads that yet."""
        process = self.processes[worker]
        lease, process.begun = process.begun, None
        assert lease is not None
        process.unread.append(Ended(worker, lease.number, verdict, seconds, retry))
        self._go_on(process)

    def read(self, worker: int) -> list[str]:
        """The first result that the process has written is read."""
        return self.tell(self.processes[worker].unread.pop(0))

    def ended(self, name: str, verdict: Verdict = RETURNED, *, seconds: float = 0.1, retry: bool = False) -> list[str]:
        """The task, which runs, ends by itself."""
        process = self.runner(name)
        self.write(process.worker.id, verdict, seconds, retry=retry)
        return self.read(process.worker.id)

    def raised(self, name: str, *, retry: bool = False) -> list[str]:
        return self.ended(name, RAISED, retry=retry)

    def end(self, worker: int, *, reporting: bool = False) -> None:
        """The process dies; nobody knows yet, or the backend alone, whose report is on its way."""
        process = self.processes[worker]
        process.ended = True
        process.reporting |= reporting

    def exited(self, worker: int, reason: str = "") -> list[str]:
        """The process has died: what it wrote is read, then its end."""
        process = self.processes[worker]
        process.ended = process.reporting = True
        words = []
        while process.unread:
            words += self.read(worker)
        way, lease = process.way, process.begun
        if way is not None and way.ended > way.written:  # its board outlives it
            self.write_answers(worker, final=False)
            words += self.read(worker)
        begun = None if lease is None or (way is not None and not way.in_one) else lease.number
        unbegun = 0 if way is None or begun is None else way.limit - way.begun
        del self.processes[worker]
        return words + self.tell(WorkerExited(worker, begun, unbegun, reason))

    def runner(self, name: str) -> Process:
        """The process that has begun the task."""
        for process in self.processes.values():
            if process.begun is not None and process.begun.task.name == name:
                return process
        raise AssertionError(f"{name} is not running")

    def sampled(self, worker: int, rss: int) -> list[str]:
        return self.tell(MemorySampled(worker, rss))

    def after(self, seconds: float) -> list[str]:
        """Time passes."""
        self.now += seconds
        return self.tell(Ticked())

    def until_timer(self) -> list[str]:
        """Time passes until something is due."""
        due = self.scheduler.next_timer
        assert due is not None
        return self.after(max(0.0, due - self.now))

    # -- what is so -----------------------------------------------------------------------------------------------

    @property
    def running(self) -> list[str]:
        """The tasks that processes have begun, oldest first."""
        begun = [process.begun for process in self.processes.values()]
        return [lease.task.name for lease in sorted((b for b in begun if b), key=lambda each: each.number)]

    @property
    def queued(self) -> list[str]:
        """The names of the tasks that wait for a slot, by group in their order."""
        return [task.name for group in self.scheduler.groups.values() for task in group.backlog.tasks()]

    @property
    def starting(self) -> list[int]:
        return [number for number, process in self.processes.items() if not (process.up or process.stopping)]

    def verdict(self, name: str) -> Verdict | None:
        return self.settled.get(self.tasks[name].id)

    # -- the turn -------------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> list[str]:
        """Let the scheduler handle an event, do what it says; what that leads to at once is handled next."""
        words: list[str] = []
        events = [event]
        for each in events:
            self._event = each
            actions = self.scheduler.handle(each, self.now)
            words += map(say, actions)
            for action in actions:
                answer = self._perform(action)
                if answer is not None:
                    events.append(answer)
            if isinstance(each, Progressed):
                self._forget_written(each)
            assert len(events) < MOST_ANSWERS, "recalls lead to recalls"
        check(self.scheduler)
        check_kinds(self.scheduler)
        for task in self.scheduler.tasks.values():
            assert task.size == len(self.items.get(task.id, (0,))), f"{task.name} has another number of items"
        return words

    def _perform(self, action: Action) -> Event | None:
        match action:
            case Start(worker):
                assert worker.id not in self.processes
                self.processes[worker.id] = Process(worker)
            case Dispatch(worker, leases):
                self._send(worker, leases)
            case Recall(worker, keep):
                return Recalled(worker.id, self._take_back(worker, keep), *self._limit(worker))
            case Stop(worker):
                if worker.id in self.processes:
                    self.processes[worker.id].stopping = True
            case Kill(worker):
                self._kill(worker)
            case Split(task, part):
                self.tasks[f"{task.name}/{next(self._parts)}"] = part
                items = self.items[task.id]
                self.items[part.id], self.items[task.id] = items[: part.size], items[part.size :]
            case Withdraw(task, place):
                self._cancel_item(self.items[task.id].pop(place))
            case Answer(task):
                self._end_answered(task)
            case Settle(task, verdict):
                self._settle(task, verdict)
            case Break(tag):
                self._broken.add(tag)
            case Close():
                assert not self.processes and not self.closed
                assert self.settled.keys() == {task.id for task in self.tasks.values()}
                self.closed = True
        return None

    def _send(self, worker: Worker, leases: tuple[Lease, ...]) -> None:
        assert all(lease.task.id not in self.settled for lease in leases)
        process = self.processes.get(worker.id)
        if process is not None and not process.reporting:
            process.waiting += leases
            for lease in leases:
                if lease.task.size > 1:
                    items = tuple(self.items[lease.task.id])
                    process.ways[lease] = Way(items, len(items))
            self._go_on(process)

    def _go_on(self, process: Process) -> None:
        if self.eager and process.up and process.begun is None and process.waiting:
            self.begin(process.worker.id)

    def _take_back(self, worker: Worker, keep: int) -> tuple[int, ...]:
        process = self.processes.get(worker.id)
        if process is None or process.reporting:
            return ()
        taken = [lease for lease in process.waiting if lease.number != keep]
        process.waiting = [lease for lease in process.waiting if lease.number == keep]
        for lease in taken:
            process.ways.pop(lease, None)
        return tuple(lease.number for lease in taken)

    def _limit(self, worker: Worker) -> tuple[int | None, int]:
        """Take back what has not begun of the block that the process runs, or is to run; one item stays."""
        process = self.processes.get(worker.id)
        if process is None or process.reporting:
            return None, 0
        last = process.waiting[-1] if process.waiting else process.begun
        way = None if last is None else process.ways.get(last)
        if last is None or way is None:
            return None, 0
        limit = max(1, way.begun)
        rest, way.limit = way.limit - limit, limit
        return (last.number, rest) if rest else (None, 0)

    def _end_answered(self, task: Task) -> None:
        event = self._event
        assert isinstance(event, Progressed)
        number = event.returned + event.failed
        items, written = self.items[task.id], list(self._written[event.worker, event.lease])[:number]
        if len(written) > len(items) and self.item_cancels.get(written[-1]):
            written.pop()  # it ended just as it was killed
        assert items[: len(written)] == written, "the answers are given to other items"
        del items[: len(written)]
        self.item_ends.update(written)

    def _cancel_item(self, item: int) -> None:
        self.item_ends[item] += 1
        assert item in self.item_cancels, f"item {item} was cancelled by nobody"
        assert not self.item_begins[item], f"item {item} was cancelled though it had begun"

    def _forget_written(self, event: Progressed) -> None:
        written = self._written.get((event.worker, event.lease))
        for _ in range(event.returned + event.failed if written else 0):
            assert written is not None
            written.popleft()

    def _kill(self, worker: Worker) -> None:
        process = self.processes.get(worker.id)
        if process is None:
            return
        process.killed = True
        if process.ended:
            return
        victim = None if process.begun is None else process.begun.task
        way = process.way
        if way is not None and (not way.in_one or self.item_ends[way.items[way.ended]]):
            return
        if victim is None or victim.id in self.settled or worker.doom is Verdict.OUT_OF_MEMORY:
            return
        assert worker.doom is Verdict.TIMED_OUT, f"{victim.name} is killed in another one's stead"
        assert victim.options.timeout is not None
        assert self.now >= victim.started + victim.options.timeout

    def _settle(self, task: Task, verdict: Verdict) -> None:
        assert task.id not in self.settled, f"{task.name} ends twice"
        self.settled[task.id] = verdict
        event = self._event
        left = self.items.pop(task.id, [])
        self.item_ends.update(left)
        if isinstance(event, Progressed):
            assert not left and event.final, "a block ends with its last item"
            return
        if verdict in LOST and left:
            assert len(left) == 1, f"items {left} are blamed for one death"
            undeliverable = task.undelivered >= limits.MAX_UNDELIVERED
            assert self.item_begins[left[0]] or undeliverable, f"item {left[0]} is blamed though it had not begun"
            self.blamed += left
        if verdict in (RETURNED, RAISED):
            assert isinstance(event, Ended) and event.verdict is verdict
        elif verdict in LOST:
            undeliverable = task.undelivered >= limits.MAX_UNDELIVERED
            blamed = isinstance(event, WorkerExited) and (event.begun is not None or undeliverable)
            assert blamed, f"{task.name} is blamed"
        elif verdict is Verdict.CANCELLED:
            self._check_cancelled(task, left)
        elif verdict is Verdict.BROKEN:
            assert self._broken & {task.tag, None}, "nobody said that the group is broken"
        else:
            assert self.scheduler.state is not PoolState.OPEN

    def _check_cancelled(self, task: Task, items: list[int]) -> None:
        if self._closing_now or task.id in self.kill_asked or not (items or task.size):
            return
        if len(items) == 1 and items[0] in self.item_cancels:
            assert self.item_cancels[items[0]] or not self.item_begins[items[0]], f"item {items[0]} had begun"
            return
        assert task.id in self.cancel_asked, f"{task.name} was cancelled by nobody"
        assert not any(self.item_begins[item] for item in items), f"{task.name} was cancelled though items had begun"
        assert not self.begins[task.id], f"{task.name} was cancelled though it had begun"


def call(task: Task) -> str:
    """What a task is called."""
    return task.name if task.size == 1 else f"{task.name}*{task.size}"


def say(action: Action) -> str:
    """An action in words."""
    match action:
        case Start(worker):
            return f"start w{worker.id} for {'general' if worker.group.tag is None else worker.group.tag}"
        case Dispatch(worker, leases):
            how = "runs" if leases[0].task.state is TaskState.RUNNING else "ahead"
            return f"w{worker.id} {how} {' '.join(call(lease.task) for lease in leases)}"
        case Recall(worker):
            return f"recall w{worker.id}"
        case Stop(worker):
            return f"stop w{worker.id}"
        case Kill(worker):
            return f"kill w{worker.id}"
        case Begin(task):
            return f"begin {task.name}"
        case Split(task, part):
            return f"split {part.size} of {task.name}"
        case Answer(task):
            return f"{task.name} answered"
        case Withdraw(task, item):
            return f"item {item} of {task.name} cancelled"
        case Settle(task, verdict):
            return f"{task.name} {verdict.value}"
        case Break(tag):
            return f"break {'general' if tag is None else tag}"
        case _:
            return "close"


def check_kinds(scheduler: Scheduler) -> None:
    """No task of a group with workers of its own waits while a general slot could be made to fit it."""
    general = scheduler.general
    for group in scheduler.groups.values():
        if group.short or not group.backlog or group.state is GroupState.BROKEN:
            continue
        if group.held_until or group.blocked_until > scheduler.now or general.idle.stranger(group.kind) is None:
            continue
        cap = group.settings.burst
        room = group.backlog.size if cap is None else cap - len(group.bursting)
        on_its_way = (WorkerState.STARTING, WorkerState.KILLED)
        coming = sum(w.kind == group.kind and w.state in on_its_way for w in general.bound)
        assert coming >= min(room, group.backlog.size), f"{group} waits for a worker of its kind"
