"""A scheduler driven by hand, over pretended processes that do what a backend promises.

``Machine`` tells its scheduler one event at a time, performs the actions on ``Process`` objects, answers each
``Recall`` at once as a backend does, and checks the invariants. What happened it says in words, one per action:

    start w3 for a      w1 runs a1      w1 ahead a2 a3      recall w1      stop w1      kill w1
    begin a1            a1 returned     break a             close

Workers are numbered in the order in which they are started. A task is called what ``submit`` was told, or by its tag
and a number.

It keeps the truth too, which the scheduler learns late or never: which task a process has really begun, which results
it has written. So it notices when a task runs twice, ends twice, or is harmed in another one's stead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from gpool.actions import Action, Begin, Break, Close, Dispatch, Kill, Recall, Settle, Start, Stop
from gpool.events import (
    CancelAsked,
    CloseAsked,
    Ended,
    Event,
    MemorySampled,
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
MOST_ANSWERS = 500
"""Recalls that one event may lead to, one after the other."""


@dataclass(eq=False)
class Process:
    """What a backend knows of a worker.

    Attributes:
        waiting: leases it was sent and has not begun.
        begun: the lease it runs.
        unread: what it has written and nobody has read.
        ended: it is dead; its end is not reported yet.
        reporting: its end is being reported: nothing is sent to it any more, nor taken back.
    """

    worker: Worker
    up: bool = False
    waiting: list[Lease] = field(default_factory=list)
    begun: Lease | None = None
    unread: list[Ended] = field(default_factory=list)
    stopping: bool = False
    killed: bool = False
    ended: bool = False
    reporting: bool = False


class Machine:
    """See the module's docstring.

    Args:
        slots: by tag, a number of slots or a ``Group``.
        ready: whether the workers are up to begin with.
        eager: whether a process begins what it has at once; otherwise ``begin`` makes it.
    """

    def __init__(
        self,
        slots: Mapping[Hashable, int | Group],
        *,
        ready: bool = True,
        eager: bool = True,
        send_ahead: bool = True,
    ) -> None:
        self.scheduler = Scheduler(send_ahead=send_ahead)
        self.scheduler.listening = True
        self.eager = eager
        self.now = 0.0
        self.tasks: dict[str, Task] = {}
        self.processes: dict[int, Process] = {}
        self.settled: dict[int, Verdict] = {}
        self.begins: Counter[int] = Counter()
        self.kill_asked: set[int] = set()
        self.cancel_asked: set[int] = set()
        self.closed = False
        self._closing_now = False
        self._broken: set[Hashable] = set()
        self._ids = count(1)
        self._numbers: dict[Hashable, count[int]] = {}
        self._event: Event = Ticked()
        self.resize(slots)
        if ready:
            self.all_ready()

    # -- what users ask -----------------------------------------------------------------------------------------

    def task(self, tag: Hashable, name: str = "", *, announce: bool = False, **options: Any) -> Task:
        """A new task, not submitted yet."""
        number = next(self._numbers.setdefault(tag, count(1)))
        name = name or f"{'general' if tag is None else tag}{number}"
        task = self.tasks[name] = Task(next(self._ids), tag, Options(**options), name, announce)
        return task

    def submit(self, tag: Hashable, name: str = "", **options: Any) -> list[str]:
        return self.submit_all(self.task(tag, name, **options))

    def submit_many(self, tag: Hashable, number: int, **options: Any) -> list[str]:
        return self.submit_all(*[self.task(tag, **options) for _ in range(number)])

    def submit_all(self, *tasks: Task) -> list[str]:
        waits = [self.can_wait(task) for task in tasks]
        words = self.tell(SubmitAsked(tasks))
        if waits[0]:
            assert tasks[0].state is not TaskState.RUNNING, "it was said that it can wait"
        return words

    def can_wait(self, task: Task) -> bool:
        return self.scheduler.can_wait(task)

    def cancel(self, name: str, *, kill: bool = False) -> list[str]:
        task = self.tasks[name]
        self.cancel_asked.add(task.id)
        if kill:
            self.kill_asked.add(task.id)
        return self.tell(CancelAsked(task.id, kill))

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
        self.begins[task.id] += 1
        assert self.begins[task.id] <= task.options.retries + 1, f"{task.name} runs too often"

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
        begun = None if process.begun is None else process.begun.number
        del self.processes[worker]
        return words + self.tell(WorkerExited(worker, begun, reason))

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
            assert len(events) < MOST_ANSWERS, "recalls lead to recalls"
        check(self.scheduler)
        check_kinds(self.scheduler)
        return words

    def _perform(self, action: Action) -> Event | None:
        match action:
            case Start(worker):
                assert worker.id not in self.processes
                self.processes[worker.id] = Process(worker)
            case Dispatch(worker, leases):
                self._send(worker, leases)
            case Recall(worker, keep):
                return Recalled(worker.id, self._take_back(worker, keep))
            case Stop(worker):
                if worker.id in self.processes:
                    self.processes[worker.id].stopping = True
            case Kill(worker):
                self._kill(worker)
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
        return tuple(lease.number for lease in taken)

    def _kill(self, worker: Worker) -> None:
        process = self.processes.get(worker.id)
        if process is None:
            return
        process.killed = True
        if process.ended:
            return
        victim = None if process.begun is None else process.begun.task
        if victim is None or victim.id in self.settled or worker.doom is Verdict.OUT_OF_MEMORY:
            return
        assert worker.doom is Verdict.TIMED_OUT, f"{victim.name} is killed in another one's stead"
        assert victim.options.timeout is not None
        assert self.now >= victim.started + victim.options.timeout

    def _settle(self, task: Task, verdict: Verdict) -> None:
        assert task.id not in self.settled, f"{task.name} ends twice"
        self.settled[task.id] = verdict
        event = self._event
        if verdict in (RETURNED, RAISED):
            assert isinstance(event, Ended) and event.verdict is verdict
        elif verdict in (Verdict.CRASHED, Verdict.TIMED_OUT, Verdict.OUT_OF_MEMORY):
            assert isinstance(event, WorkerExited) and event.begun is not None, f"{task.name} is blamed"
        elif verdict is Verdict.CANCELLED:
            self._check_cancelled(task)
        elif verdict is Verdict.BROKEN:
            assert self._broken & {task.tag, None}, "nobody said that the group is broken"
        else:
            assert self.scheduler.state is not PoolState.OPEN

    def _check_cancelled(self, task: Task) -> None:
        if self._closing_now or task.id in self.kill_asked:
            return
        assert task.id in self.cancel_asked, f"{task.name} was cancelled by nobody"
        assert not self.begins[task.id], f"{task.name} was cancelled though it had begun"


def say(action: Action) -> str:
    """An action in words."""
    match action:
        case Start(worker):
            return f"start w{worker.id} for {'general' if worker.group.tag is None else worker.group.tag}"
        case Dispatch(worker, leases):
            how = "runs" if leases[0].task.state is TaskState.RUNNING else "ahead"
            return f"w{worker.id} {how} {' '.join(lease.task.name for lease in leases)}"
        case Recall(worker):
            return f"recall w{worker.id}"
        case Stop(worker):
            return f"stop w{worker.id}"
        case Kill(worker):
            return f"kill w{worker.id}"
        case Begin(task):
            return f"begin {task.name}"
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
        if group.blocked_until > scheduler.now or general.idle.stranger(group.kind) is None:
            continue
        cap = group.settings.burst
        room = group.backlog.size if cap is None else cap - len(group.bursting)
        on_its_way = (WorkerState.STARTING, WorkerState.KILLED)
        coming = sum(w.kind == group.kind and w.state in on_its_way for w in general.bound)
        assert coming >= min(room, group.backlog.size), f"{group} waits for a worker of its kind"
