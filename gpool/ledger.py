"""What the scheduler knows, and the single steps that keep it in agreement.

Owns all mutable state of the scheduler: ``tasks`` (those that have not ended), ``workers`` (those that are not
gone) and, per tag, a ``GroupRecord`` with its backlog and its sets of workers; besides them the contenders, the
timers, and the cancellations of what was sent ahead. ``invariants.check`` says whether all of it agrees.

Guarantees:

- A state changes in ``move`` and nowhere else, by the tables of ``gpool.model``.
- A worker enters and leaves the sets of its groups in the steps below and nowhere else.
- A step decides nothing. ``placement``, ``ahead`` and ``workforce`` decide; they are functions over a ledger.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count
from typing import NamedTuple

from gpool import limits
from gpool.actions import Action, Begin, Kill, Recall, Split, Start, Stop, Withdraw, new_settle
from gpool.events import CancelAsked
from gpool.fairness import Contenders
from gpool.groups import GroupRecord, WorkerSet
from gpool.model import (
    BROKEN,
    DONE,
    IDLE,
    KILLED,
    OPEN,
    QUEUED,
    RUNNING,
    STARTING,
    STOPPING,
    Group,
    GroupState,
    Lease,
    PoolState,
    State,
    Task,
    TaskState,
    Verdict,
    Worker,
    WorkerState,
)
from gpool.timers import Timers


class Transition(NamedTuple):
    """One state change, for listeners."""

    when: float
    noun: str
    id: object
    old: State
    new: State


class IllegalMove(AssertionError):
    """A state change that the tables do not allow: a bug of gpool's."""


class Ledger:
    """See the module's docstring.

    Attributes:
        state: of the pool.
        exiting: the interpreter is exiting, so a worker that cannot start will never.
        now: the instant of the event in hand.
        actions: what is to be done about it.
        listening: whether ``transitions`` are kept.
        dropped: messages that quoted a lease nobody holds.
        untidy: groups to be reconciled before the event is done with.
        cancelling: sent-ahead tasks being taken back to be cancelled, whole or one item of them.
        ahead_groups: groups with ``ahead`` workers. ahead_in_general: those of them in general slots.
    """

    def __init__(self, *, send_ahead: bool = True) -> None:
        self.state = OPEN
        self.exiting = False
        self.now = 0.0
        self.actions: list[Action] = []
        self.listening = False
        self.transitions: list[Transition] = []
        self.tasks: dict[int, Task] = {}
        self.workers: dict[int, Worker] = {}
        self.general = GroupRecord(None, Group(0), kind=0, index=0)
        self.groups: dict[Hashable, GroupRecord] = {None: self.general}
        self.kinds: dict[int, GroupRecord] = {}
        self.contenders = Contenders()
        self.timers = Timers()
        self.dropped = 0
        self.send_ahead = send_ahead
        self.untidy: dict[GroupRecord, None] = {}
        self.cancelling: dict[Task, CancelAsked] = {}
        self.ahead_groups: dict[GroupRecord, None] = {}
        self.ahead_in_general: dict[GroupRecord, WorkerSet] = {}
        self._worker_ids = count(1)
        self._lease_ids = count(1)
        self._part_ids = count(-1, -1)

    def move(self, subject: Task | Worker | GroupRecord | Ledger, new: State) -> None:
        """Change a state."""
        old = subject.state
        if new not in old.next:
            raise IllegalMove(f"{subject!r}: {old.value} → {new.value}")
        subject.state = new  # type: ignore[assignment]
        if self.listening:
            name = getattr(subject, "id", getattr(subject, "tag", None))
            self.transitions.append(Transition(self.now, _NOUNS[type(old)], name, old, new))

    # -- tasks ----------------------------------------------------------------------------------------------

    def queue(self, group: GroupRecord, task: Task) -> None:
        """Put a task into the backlog: at its end when new, where its age belongs when it came back."""
        if not group.backlog:
            self.contenders.wake(group, self.now)
        if task.state is QUEUED:
            group.backlog.push(task)
        else:
            self.move(task, QUEUED)
            group.backlog.push_back(task)

    def lease(self, worker: Worker, task: Task) -> Lease:
        """Give a worker one attempt of a task that is in no backlog."""
        lease = task.lease = Lease(next(self._lease_ids), task, task.attempt + 1, worker)
        worker.leases.append(lease)
        return lease

    def begin(self, lease: Lease) -> None:
        """The attempt is the first of its worker's leases: it holds the slot now."""
        task, worker = lease.task, lease.worker
        self.move(task, RUNNING)
        task.attempt = lease.attempt
        task.started = worker.head_since = self.now
        serving = worker.serving
        if serving is not None and serving.bursting:
            self.contenders.served(serving, self.now)
        if task.announce:
            task.announce = False
            self.actions.append(Begin(task))
        timeout = task.options.timeout
        if timeout is not None:
            self.timers.at(self.now + timeout, lease, is_held, self._deadline_passed)
        elif task.size > 1:
            self._watch_block(lease)

    def settle(self, task: Task, verdict: Verdict) -> None:
        """End a task that is in no backlog. A lease of it stays with its worker, held by nobody."""
        task.lease = None
        task.verdict = verdict
        self.move(task, DONE)
        del self.tasks[task.id]
        if self.cancelling:
            self.cancelling.pop(task, None)
        self.groups[task.tag].tally(verdict, task.size)
        self.actions.append(new_settle((task, verdict)))

    def split(self, task: Task, size: int) -> Task:
        """Make the block's first items a task of their own, which takes over its lease if it has one."""
        part = Task(next(self._part_ids), task.tag, task.options, task.name, size=size)
        part.block, part.offset = task.age
        task.offset += size
        part.undelivered, task.undelivered = task.undelivered, 0
        task.size -= size
        self.tasks[part.id] = part
        lease = task.lease
        if lease is not None:
            part.state, part.attempt, part.started = task.state, task.attempt, task.started
            part.lease, lease.task, task.lease = lease, part, None
        self.actions.append(Split(task, part))
        asked = self.cancelling.get(task)
        if asked is not None and asked.item is not None:
            if asked.item < size:
                self.cancelling[part] = self.cancelling.pop(task)
            else:
                self.cancelling[task] = asked._replace(item=asked.item - size)
        return part

    def cut(self, group: GroupRecord, task: Task, size: int) -> Task:
        """So many items of a task that has just left the backlog; the rest goes back to the front of its queue."""
        if size >= task.size:
            return task
        part = self.split(task, size)
        group.backlog.push_back(task)
        return part

    def withdraw(self, task: Task, item: int) -> None:
        """Cancel one item of a block that is queued and goes on."""
        task.size -= 1
        self.groups[task.tag].tally(Verdict.CANCELLED, 1)
        self.actions.append(Withdraw(task, item))

    def abandon(self, task: Task, verdict: Verdict) -> None:
        """End a task wherever it is."""
        queued = task.state is QUEUED
        self.settle(task, verdict)
        if queued:
            group = self.groups[task.tag]
            group.backlog.forget(task)
            self.contenders.touch(group)

    # -- workers and their slots ----------------------------------------------------------------------------

    def occupy(self, worker: Worker, group: GroupRecord) -> None:
        """A worker counts as one that runs this tag from now on."""
        worker.serving = group
        if worker.group is group and not group.general:
            group.own[worker] = None
        else:
            group.charge(self.now)
            group.bursting[worker] = None
        self.contenders.touch(group)

    def vacate(self, worker: Worker) -> None:
        """A worker stops counting as one that runs its tag."""
        group = worker.serving
        assert group is not None
        worker.serving = None
        group.roomy.pop(worker, None)
        group.hungry.pop(worker, None)
        if group.ahead:
            self.unmark_ahead(worker, group)
        self._uncount(worker, group)
        self.contenders.touch(group)

    def leave_slot(self, worker: Worker) -> None:
        """A worker is outside the target from now on, whatever it still runs."""
        group, serving = worker.group, worker.serving
        if worker not in group.bound:
            return
        if serving is not None:
            self.vacate(worker)
            worker.serving = serving
            self.untidy[serving] = None  # it may have been at its burst cap
        del group.bound[worker]
        self.untidy[group] = self.untidy[self.general] = None

    def rebind(self, worker: Worker, group: GroupRecord) -> None:
        """Bind a worker, in whatever state, to another group. It must be in no idle set."""
        old = worker.group
        del old.bound[worker]
        group.bound[worker] = None
        worker.group = group
        serving = worker.serving
        if serving is not None:
            self._uncount(worker, serving)
            self.occupy(worker, serving)
            if worker in serving.ahead:
                self.mark_ahead(worker, serving)
        elif worker.state is STARTING:
            old.starting.remove(worker)
            group.starting.add(worker)

    def _uncount(self, worker: Worker, serving: GroupRecord) -> None:
        """To be followed by a ``touch``."""
        if worker in serving.own:
            del serving.own[worker]
        else:
            serving.charge(self.now)
            del serving.bursting[worker]

    def mark_ahead(self, worker: Worker, group: GroupRecord) -> None:
        """The worker holds leases that it may not have begun, behind a head that is the group's youngest."""
        group.ahead.pop(worker, None)
        group.ahead[worker] = None
        self.ahead_groups[group] = None
        if worker.group.general:
            self.ahead_in_general.setdefault(group, {})[worker] = None
        elif self.ahead_in_general:
            self._unmark_in_general(worker, group)

    def unmark_ahead(self, worker: Worker, group: GroupRecord) -> None:
        """The worker holds none that it has not begun, or none that could be taken back once more."""
        if worker in group.ahead:
            del group.ahead[worker]
            self._unmark_in_general(worker, group)
            if not group.ahead:
                del self.ahead_groups[group]

    def _unmark_in_general(self, worker: Worker, group: GroupRecord) -> None:
        same = self.ahead_in_general.get(group)
        if same is not None and worker in same:
            del same[worker]
            if not same:
                del self.ahead_in_general[group]

    # -- workers come and go --------------------------------------------------------------------------------

    def owner(self, worker: Worker) -> GroupRecord:
        """The group that answers for a worker's settings."""
        return self.kinds.get(worker.kind, worker.group)

    def lacks_starting(self, group: GroupRecord) -> bool:
        """True when fewer workers of the group's kind are on their way to a general slot than it has tasks."""
        if group.state is BROKEN or group.held_until or self.now < group.blocked_until:
            return False
        cap = group.settings.burst
        wanted = group.backlog.items if cap is None else min(group.backlog.items, cap - len(group.bursting))
        return self.general.starting.count(group.kind) < wanted

    def start(self, group: GroupRecord, kind: int) -> None:
        """Have one more worker in the group."""
        worker = Worker(next(self._worker_ids), kind, group)
        self.workers[worker.id] = worker
        group.bound[worker] = None
        group.starting.add(worker)
        self.actions.append(Start(worker))
        patience = self.owner(worker).settings.start_timeout
        if patience is not None:
            self.timers.at(self.now + patience, worker, _is_starting, self._start_overdue)

    def retire(self, worker: Worker) -> None:
        """End a worker that runs nothing."""
        group = worker.group
        self.unlist(worker)
        del group.bound[worker]
        self.untidy[group] = None
        self.ask_to_stop(worker)

    def unlist(self, worker: Worker) -> None:
        """Take a worker out of the set of its group that goes with its state."""
        if worker.state is STARTING:
            worker.group.starting.remove(worker)
        elif worker.state is IDLE:
            worker.group.idle.remove(worker)

    def ask_to_stop(self, worker: Worker) -> None:
        worker.serving = None
        self.move(worker, STOPPING)
        self.actions.append(Stop(worker))
        self.timers.at(self.now + limits.STOP_SECONDS, worker, _is_stopping, self._stop_overdue)

    def kill(self, worker: Worker, doom: Verdict) -> None:
        """Kill a worker. It keeps its slot until it is gone, and what was sent ahead comes back then."""
        if worker.state is not KILLED:
            self.unlist(worker)
            if worker.serving is not None:
                self.unmark_ahead(worker, worker.serving)
            worker.doom = doom
            self.move(worker, KILLED)
            self.actions.append(Kill(worker))

    def _watch_block(self, lease: Lease) -> None:
        self.timers.at(lease.worker.head_since + limits.STUCK_SECONDS, lease, is_held, self._block_overdue)

    def _block_overdue(self, lease: Lease) -> None:
        """Nobody else may ask for what a long item keeps from its reader: answers that are known, items behind it."""
        if lease.worker.head_since + limits.STUCK_SECONDS > self.now:
            self._watch_block(lease)  # it has answered some meanwhile
        else:
            worker = lease.worker
            if worker.serving is not None:
                self.unmark_ahead(worker, worker.serving)
            self.actions.append(Recall(worker, lease.number))

    def recall_again(self, lease: Lease) -> None:
        """Nothing could be taken back from the worker of this lease a moment ago."""
        if lease.worker.has_behind:
            self.actions.append(Recall(lease.worker, lease.number))

    def usable_slots(self, group: GroupRecord) -> int:
        """How many slots the tag could hold if nobody else wanted any; at least one."""
        cap, general = group.settings.burst, self.general.slots
        burst = general if cap is None else min(cap, general)
        return max(1, burst if group.general else group.slots + burst)

    def _start_overdue(self, worker: Worker) -> None:
        self.kill(worker, Verdict.NOT_READY)

    def _stop_overdue(self, worker: Worker) -> None:
        self.kill(worker, Verdict.CANCELLED)

    def _deadline_passed(self, lease: Lease) -> None:
        self.kill(lease.worker, Verdict.TIMED_OUT)


_NOUNS: dict[type[State], str] = {TaskState: "task", WorkerState: "worker", GroupState: "group", PoolState: "pool"}


def _is_starting(worker: Worker) -> bool:
    return worker.state is STARTING


def _is_stopping(worker: Worker) -> bool:
    return worker.state is STOPPING


def is_held(lease: Lease) -> bool:
    return lease.task.lease is lease
