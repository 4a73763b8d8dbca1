"""The nouns: tasks, workers, leases, groups, and the tables of their legal moves.

Owns the states and what may follow what. A state changes in one place only, ``Ledger.move``, which reads these
tables. Does no IO, reads no clock, starts nothing.

    task     QUEUED → LEASED → RUNNING → DONE, with WAITING between two attempts
    worker   STARTING → IDLE ⇄ BUSY → DRAINING → STOPPING → KILLED → GONE; any → GONE when it dies
    group    SOUND ⇄ BACKING_OFF → BROKEN
    pool     OPEN → CLOSING → CLOSED
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from gpool.groups import GroupRecord


class State(Enum):
    """A state that knows its lawful successors; ``next`` is filled from the tables below."""

    next: tuple[State, ...]


class TaskState(State):
    """Where a task is."""

    QUEUED = "queued"
    """In its group's backlog."""
    LEASED = "leased"
    """Sent ahead to a worker that still runs another task; it can be taken back."""
    RUNNING = "running"
    """Holds a slot: a worker has it in hand."""
    WAITING = "waiting"
    """Between two attempts."""
    DONE = "done"
    """Ended; its verdict says how."""


class WorkerState(State):
    """Where a worker is."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    """Finishes its task, then retires; it is outside the target already."""
    STOPPING = "stopping"
    """Was asked to end."""
    KILLED = "killed"
    """Was made to end."""
    GONE = "gone"


class GroupState(State):
    """How a group's workers fare."""

    SOUND = "sound"
    BACKING_OFF = "backing off"
    """A replacement waits because workers died in a row."""
    BROKEN = "broken"
    """Its tasks fail until ``adjust`` gives it another chance."""


class PoolState(State):
    """How long the pool lives."""

    OPEN = "open"
    CLOSING = "closing"
    """Takes no new task; ends when the last one has."""
    CLOSED = "closed"


Moves = Mapping[State, tuple[State, ...]]

TASK_MOVES: Moves = {
    TaskState.QUEUED: (TaskState.LEASED, TaskState.RUNNING, TaskState.DONE),
    TaskState.LEASED: (TaskState.RUNNING, TaskState.QUEUED, TaskState.DONE),
    TaskState.RUNNING: (TaskState.DONE, TaskState.WAITING, TaskState.QUEUED),
    TaskState.WAITING: (TaskState.QUEUED, TaskState.DONE),
    TaskState.DONE: (),
}
WORKER_MOVES: Moves = {
    WorkerState.STARTING: (WorkerState.IDLE, WorkerState.STOPPING, WorkerState.KILLED, WorkerState.GONE),
    WorkerState.IDLE: (WorkerState.BUSY, WorkerState.STOPPING, WorkerState.KILLED, WorkerState.GONE),
    WorkerState.BUSY: (WorkerState.IDLE, WorkerState.DRAINING, WorkerState.KILLED, WorkerState.GONE),
    WorkerState.DRAINING: (WorkerState.STOPPING, WorkerState.KILLED, WorkerState.GONE),
    WorkerState.STOPPING: (WorkerState.KILLED, WorkerState.GONE),
    WorkerState.KILLED: (WorkerState.GONE,),
    WorkerState.GONE: (),
}
GROUP_MOVES: Moves = {
    GroupState.SOUND: (GroupState.BACKING_OFF, GroupState.BROKEN),
    GroupState.BACKING_OFF: (GroupState.SOUND, GroupState.BROKEN),
    GroupState.BROKEN: (GroupState.SOUND,),
}
POOL_MOVES: Moves = {
    PoolState.OPEN: (PoolState.CLOSING,),
    PoolState.CLOSING: (PoolState.CLOSED,),
    PoolState.CLOSED: (),
}
for _moves in (TASK_MOVES, WORKER_MOVES, GROUP_MOVES, POOL_MOVES):
    for _state, _next in _moves.items():
        _state.next = _next


class Verdict(Enum):
    """How an attempt, or a task, ended."""

    RETURNED = "returned"
    RAISED = "raised"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    NOT_READY = "not ready in time"
    """Of workers only."""
    BROKEN = "group broken"
    CLOSED = "pool closed"


# What the scheduler asks for at every step: a global is found ten times as fast as a member through its class.
QUEUED, LEASED, RUNNING, WAITING, DONE = TaskState
STARTING, IDLE, BUSY, DRAINING, STOPPING, KILLED, GONE = WorkerState
SOUND, BACKING_OFF, BROKEN = GroupState
OPEN, CLOSING, CLOSED = PoolState
RETURNED = Verdict.RETURNED


class Options(NamedTuple):
    """What a task may ask for. Times are in seconds.

    Attributes:
        timeout: running time after which its worker is killed; None for no limit.
        retries: further attempts after a crash or a timeout, or an exception named in ``retry_on``.
        retry_on: exception types that ``retries`` counts too.
        priority: higher goes first inside its tag.
        name: what errors and ``stats()`` call it; the function's name by default.
    """

    timeout: float | None = None
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = ()
    priority: int = 0
    name: str | None = None


NO_OPTIONS = Options()


class Group(NamedTuple):
    """A tag's slots and its workers' settings.

    What is left None is taken from the pool. A group that sets ``initializer``, ``env`` or ``nice`` is served
    by workers of its own kind, in the general slots too. The pool checks the values.

    Attributes:
        slots: how many workers are reserved for the tag.
        initializer: called with ``initargs`` in each new worker.
        initargs: its arguments.
        env: environment variables set in the worker before anything of the user's is imported.
        nice: added to the worker's niceness.
        memory_limit: bytes of RSS of a worker's process tree, without shared memory, above which its task fails. What a
            process has inherited from the one that forked it counts as its own.
        recycle_memory: bytes of RSS above which a worker is replaced when it has finished its task.
        max_tasks_per_child: tasks after which a worker is replaced.
        start_timeout: seconds a worker may take to start and run its initializer before it is killed; None: any.
        max_start_failures: workers that may die in a row before they are ready (default 5); then the group is
            broken until ``adjust``. Each try waits longer than the one before, 5 s at most.
        max_crashes: workers that may die in a row in tasks of this tag, none having ended in between (default 30);
            then, too, the group is broken. After the tenth, each replacement waits longer, 1 s at most.
        burst: how many general slots the tag may hold at a time; None for all.
        weight: its share of the general slots under contention.
    """

    slots: int
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    env: Mapping[str, str] | None = None
    nice: int | None = None
    memory_limit: int | None = None
    recycle_memory: int | None = None
    max_tasks_per_child: int | None = None
    start_timeout: float | None = None
    max_start_failures: int | None = None
    max_crashes: int | None = None
    burst: int | None = None
    weight: float = 1

    def check(self) -> None:
        """TypeError or ValueError if a setting is not what it should be."""
        check_count("slots", self.slots, least=0, optional=False)
        if self.initializer is not None and not callable(self.initializer):
            raise TypeError(f"initializer must be callable, not {self.initializer!r}")
        if not isinstance(self.initargs, (tuple, list)):
            raise TypeError(f"initargs must be a tuple, not {self.initargs!r}")
        _check_env(self.env)
        check_count("nice", self.nice)
        for name in ("memory_limit", "recycle_memory", "max_tasks_per_child", "max_start_failures", "max_crashes"):
            check_count(name, getattr(self, name), least=1)
        check_seconds("start_timeout", self.start_timeout)
        check_count("burst", self.burst, least=0)
        if isinstance(self.weight, bool) or not isinstance(self.weight, (int, float)):
            raise TypeError(f"weight must be a number, not {self.weight!r}")
        if not self.weight > 0:
            raise ValueError(f"weight must be above 0, not {self.weight!r}")

    @property
    def own_kind(self) -> bool:
        """True when a plain worker would not do for this group."""
        return not (self.initializer is None and self.env is None and self.nice is None)


def _check_env(env: object) -> None:
    """Refuse what cannot be an environment's variables."""
    if env is None:
        return
    if not isinstance(env, Mapping) or not all(isinstance(each, str) for pair in env.items() for each in pair):
        raise TypeError(f"env must give strings by their names, not {env!r}")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"no environment can hold the variable {name!r} with the value {value!r}")


def check_seconds(name: str, value: object) -> None:
    """Refuse what is neither None nor a number above 0."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name} must be above 0 seconds, not {value!r}")


def check_count(name: str, value: object, *, least: int | None = None, optional: bool = True) -> None:
    """Refuse what is neither a whole number, of at least ``least`` if that is given, nor, if it is optional, None."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number{' or None' if optional else ''}, not {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be {least} or more, not {value}")


class Task:
    """One piece of work. The scheduler sees its options and never its payload.

    A *block* is a task of several items. It may be split, and it has no timeout and no retries.

    Attributes:
        name: what errors and ``stats()`` call it.
        announce: asks for a ``Begin`` action when it first holds a slot (``put`` waits for that).
        size: how many of its items have not ended.
        block, offset: from which block it was split off, and how many items stood before its own there.
        attempt: the number of the one that is under way, or was the last.
        undelivered: workers that died before they could begin it, though it was the first they had.
        started: when its attempt began.
    """

    __slots__ = (
        "announce",
        "attempt",
        "block",
        "id",
        "lease",
        "name",
        "offset",
        "options",
        "size",
        "started",
        "state",
        "tag",
        "undelivered",
        "verdict",
    )

    def __init__(
        self,
        id: int,
        tag: Hashable,
        options: Options = NO_OPTIONS,
        name: str = "",
        announce: bool = False,
        size: int = 1,
    ) -> None:
        self.id = id
        self.tag = tag
        self.options = options
        self.name = name
        self.announce = announce
        self.size = size
        self.block = 0
        self.offset = 0
        self.state = TaskState.QUEUED
        self.attempt = 0
        self.lease: Lease | None = None
        self.verdict: Verdict | None = None
        self.undelivered = 0
        self.started = 0.0

    def __repr__(self) -> str:
        return f"<task {self.id}, {self.name!r} of {self.tag!r}: {self.state.value}>"

    @property
    def age(self) -> tuple[int, int]:
        """What is lower was submitted earlier."""
        return self.block or self.id, self.offset


class Lease:
    """One attempt of one task on one worker. A message that quotes any other number is dropped."""

    __slots__ = ("attempt", "number", "task", "worker")

    def __init__(self, number: int, task: Task, attempt: int, worker: Worker) -> None:
        self.number = number
        self.task = task
        self.attempt = attempt
        self.worker = worker

    def __repr__(self) -> str:
        return f"<lease {self.number}: {self.task!r} on worker {self.worker.id}>"


class Worker:
    """One process, as the scheduler sees it.

    Attributes:
        kind: which settings it was started with; 0 is the pool's own.
        group: the group it is bound to: a tag's, or the general one.
        serving: the group whose task it runs.
        leases: the running task's first, then what was sent ahead.
        doom: why it was killed; None if nobody did.
        head_since: when its first lease began.
        tasks_done: attempts it ended, a block's items counted one by one.
    """

    __slots__ = ("doom", "group", "head_since", "id", "kind", "leases", "serving", "state", "tasks_done")

    def __init__(self, id: int, kind: int, group: GroupRecord) -> None:
        self.id = id
        self.kind = kind
        self.group = group
        self.state = WorkerState.STARTING
        self.serving: GroupRecord | None = None
        self.leases: deque[Lease] = deque()
        self.doom: Verdict | None = None
        self.head_since = 0.0
        self.tasks_done = 0

    def __repr__(self) -> str:
        return f"<worker {self.id} of {self.group.tag!r}: {self.state.value}>"

    @property
    def has_behind(self) -> bool:
        """True when it may hold something that it has not begun, behind what it runs."""
        leases = self.leases
        return len(leases) > 1 or (bool(leases) and leases[0].task.size > 1)
