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
from gpool.actions import Action, Begin, Kill, Settle, Start, Stop
from gpool.fairness import Contenders
from gpool.groups import GroupRecord, WorkerSet
from gpool.model import Group, GroupState, Lease, PoolState, State, Task, TaskState, Verdict, Worker, WorkerState
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
        cancelling: sent-ahead tasks being taken back to be cancelled; True if they are to be killed where begun.
        ahead_groups: groups with ``ahead`` workers. ahead_in_general: those of them in general slots.
    """

    def __init__(self, *, send_ahead: bool = True) -> None:
        self.state = PoolState.OPEN
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
        self.cancelling: dict[Task, bool] = {}
        self.ahead_groups: dict[GroupRecord, None] = {}
        self.ahead_in_general: dict[GroupRecord, WorkerSet] = {}
        self._worker_ids = count(1)
        self._lease_ids = count(1)

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
        if task.state is TaskState.QUEUED:
            group.backlog.push(task)
        else:
            self.move(task, TaskState.QUEUED)
            group.backlog.push_back(task)

    def lease(self, worker: Worker, task: Task) -> Lease:
        """Give a worker one attempt of a task that is in no backlog."""
        lease = task.lease = Lease(next(self._lease_ids), task, task.attempt + 1, worker)
        worker.leases.append(lease)
        return lease

    def begin(self, lease: Lease) -> None:
        """The attempt is the first of its worker's leases: it holds the slot now."""
        task = lease.task
        self.move(task, TaskState.RUNNING)
        task.attempt = lease.attempt
        task.started = lease.worker.head_since = self.now
        serving = lease.worker.serving
        if serving is not None and serving.bursting:
            self.contenders.served(serving, self.now)
        if task.announce:
            task.announce = False
            self.actions.append(Begin(task))
        timeout = task.options.timeout
        if timeout is not None:
            self.timers.at(self.now + timeout, lease, _is_held, self._deadline_passed)

    def settle(self, task: Task, verdict: Verdict) -> None:
        """End a task that is in no backlog. A lease of it stays with its worker, held by nobody."""
        task.lease = None
        task.verdict = verdict
        self.move(task, TaskState.DONE)
        del self.tasks[task.id]
        if self.cancelling:
            self.cancelling.pop(task, None)
        self.groups[task.tag].tally(verdict)
        self.actions.append(Settle(task, verdict))

    def abandon(self, task: Task, verdict: Verdict) -> None:
        """End a task wherever it is."""
        queued = task.state is TaskState.QUEUED
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
        if worker.state is WorkerState.STARTING:
            old.starting.remove(worker)
            group.starting.add(worker)
        serving = worker.serving
        if serving is not None:
            self._uncount(worker, serving)
            self.occupy(worker, serving)
            if worker in serving.ahead:
                self.mark_ahead(worker, serving)

    def _uncount(self, worker: Worker, serving: GroupRecord) -> None:
        if worker in serving.own:
            del serving.own[worker]
        else:
            serving.charge(self.now)
            del serving.bursting[worker]
        self.contenders.touch(serving)

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
        if worker.state is WorkerState.STARTING:
            worker.group.starting.remove(worker)
        elif worker.state is WorkerState.IDLE:
            worker.group.idle.remove(worker)

    def ask_to_stop(self, worker: Worker) -> None:
        worker.serving = None
        self.move(worker, WorkerState.STOPPING)
        self.actions.append(Stop(worker))
        self.timers.at(self.now + limits.STOP_SECONDS, worker, _is_stopping, self._stop_overdue)

    def kill(self, worker: Worker, doom: Verdict) -> None:
        """Kill a worker. It keeps its slot until it is gone, and what was sent ahead comes back then."""
        if worker.state is not WorkerState.KILLED:
            self.unlist(worker)
            if worker.serving is not None:
                self.unmark_ahead(worker, worker.serving)
            worker.doom = doom
            self.move(worker, WorkerState.KILLED)
            self.actions.append(Kill(worker))

    def _start_overdue(self, worker: Worker) -> None:
        self.kill(worker, Verdict.NOT_READY)

    def _stop_overdue(self, worker: Worker) -> None:
        self.kill(worker, Verdict.CANCELLED)

    def _deadline_passed(self, lease: Lease) -> None:
        self.kill(lease.worker, Verdict.TIMED_OUT)


_NOUNS: dict[type[State], str] = {TaskState: "task", WorkerState: "worker", GroupState: "group", PoolState: "pool"}


def _is_starting(worker: Worker) -> bool:
    return worker.state is WorkerState.STARTING


def _is_stopping(worker: Worker) -> bool:
    return worker.state is WorkerState.STOPPING


def _is_held(lease: Lease) -> bool:
    return lease.task.lease is lease
