"""The scheduler: a pure machine that decides which task runs where, and which workers there should be.

``handle(event, now)`` takes one event and returns the actions to perform, in order. It does no IO, reads no
clock, starts no thread and never sees a payload, so a list of events always gives the same list of actions.

The mutable state is: ``tasks`` (those that have not ended), ``workers`` (those that are not gone) and, per tag,
a ``GroupRecord`` with its backlog and its sets of workers; besides them the contenders for general slots, the
timers, and the leases being taken back for a cancellation. ``check()`` says whether all of it agrees.

The rules, with r tasks of tag t running on workers that are not draining, and a reserve of g:

- *Counting.* A task of t is admitted iff r < g, or a general slot is free and t is below its burst cap. Burst
  is max(0, r - g). Bindings follow the count: whenever t holds a general worker while one of its own does
  not run, the two swap bindings.
- *Ahead.* What is sent to a busy worker stays takeable; it is taken back as soon as a free slot, another tag,
  a higher priority, a cancellation or a resize has a claim to it.
- *Reconcile.* Start-up, resize, crash, recycling: each compares how many workers are bound with how many
  should be, in ``_reconcile`` and nowhere else.
- *One move.* ``_move`` changes a state, by the tables of ``gpool.model``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import count
from typing import NamedTuple

from gpool import limits
from gpool.actions import Action, Begin, Break, Close, Dispatch, Kill, Recall, Settle, Start, Stop
from gpool.events import (
    CancelAsked,
    CloseAsked,
    Ended,
    Event,
    ExitBegan,
    MemorySampled,
    Recalled,
    ResizeAsked,
    SubmitAsked,
    Ticked,
    WorkerExited,
    WorkerReady,
)
from gpool.fairness import Contenders
from gpool.groups import GroupRecord
from gpool.model import (
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

QUEUED, LEASED, RUNNING, WAITING, DONE = TaskState
STARTING, IDLE, BUSY, DRAINING, STOPPING, KILLED, GONE = WorkerState
SOUND, BACKING_OFF, BROKEN = GroupState


class Transition(NamedTuple):
    """One state change, for listeners."""

    when: float
    noun: str
    id: object
    old: State
    new: State


class IllegalMove(AssertionError):
    """A state change that the tables do not allow: a bug of gpool's."""


class Scheduler:
    """See the module's docstring.

    Args:
        send_ahead: whether the backend can take back what a worker has not begun.
        start_failures: workers of a group that may die young in a row before the group is broken.
    """

    def __init__(self, *, send_ahead: bool = True, start_failures: int = limits.START_FAILURES) -> None:
        self.state = PoolState.OPEN
        self.exiting = False
        self.listening = False
        self.transitions: list[Transition] = []
        self.tasks: dict[int, Task] = {}
        self.workers: dict[int, Worker] = {}
        self.general = GroupRecord(None, Group(0), kind=0, index=0)
        self.groups: dict[Hashable, GroupRecord] = {None: self.general}
        self.dropped = 0  # messages that quoted a lease nobody holds
        self.recycled = 0
        self._send_ahead = send_ahead
        self._start_failures = start_failures
        self._kinds: dict[int, GroupRecord] = {}
        self._contenders = Contenders()
        self._short: dict[GroupRecord, None] = {}  # below their reserve, waiting for a worker to be ready
        self._ahead_groups: dict[GroupRecord, None] = {}
        self._ahead_in_general: dict[Worker, None] = {}
        self._untidy: dict[GroupRecord, None] = {}  # to be reconciled before ``handle`` returns
        self._cancelling: set[Task] = set()
        self._timers = Timers()
        self._worker_ids = count(1)
        self._lease_ids = count(1)
        self._actions: list[Action] = []
        self._now = 0.0
        self._handlers = {
            SubmitAsked: self._on_submit,
            CancelAsked: self._on_cancel,
            ResizeAsked: self._on_resize,
            CloseAsked: self._on_close,
            ExitBegan: self._on_exit,
            WorkerReady: self._on_ready,
            WorkerExited: self._on_exited,
            Ended: self._on_ended,
            Recalled: self._on_recalled,
            MemorySampled: self._on_memory,
            Ticked: self._on_tick,
        }

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take ``event`` at instant ``now``, then whatever has become due; return what is to be done."""
        self._now = now
        self._actions = actions = list[Action]()
        self._handlers[type(event)](event)  # type: ignore[operator]
        if self._timers:
            self._timers.run(now)
        while self._untidy:
            touched = list(self._untidy)
            self._untidy.clear()
            self._reconcile(touched)
        if self.state is PoolState.CLOSING and not self.tasks:
            self._wind_up()
        return actions

    @property
    def next_timer(self) -> float | None:
        """When ``Ticked`` is due, at the latest."""
        return self._timers.first

    def depth(self, tag: Hashable) -> int:
        """How many unfinished tasks of the tag can be of use at a time: its slots, and what may go ahead."""
        group = self.groups[tag]
        cap = group.settings.burst
        burst = self.general.slots if cap is None else min(cap, self.general.slots)
        slots = burst if group.general else group.slots + burst
        return max(1, slots) * (1 + (limits.ahead(group.mean_seconds) if self._send_ahead else 0))

    # -- tasks ----------------------------------------------------------------------------------------------

    def _on_submit(self, event: SubmitAsked) -> None:
        task = event.task
        task.submitted = self._now
        group = self.groups[task.tag]
        self.tasks[task.id] = task
        if self.state is not PoolState.OPEN:
            self._settle(task, Verdict.CLOSED)
        elif self._hopeless(group):
            self._settle(task, Verdict.BROKEN)
        else:
            self._queue(group, task)
            self._fill(group)
            if group.ahead and task.state is QUEUED and task.options.priority > group.ahead_floor:
                self._recall_all(list(group.ahead))

    def _queue(self, group: GroupRecord, task: Task) -> None:
        """Put a task into the backlog: at its end when new, where its age belongs when it came back."""
        if not group.backlog:
            self._contenders.wake(group, self._now)
        if task.state is QUEUED:
            group.backlog.push(task)
        else:
            self._move(task, QUEUED)
            group.backlog.push_back(task)

    def _on_cancel(self, event: CancelAsked) -> None:
        task = self.tasks.get(event.task)
        if task is None:
            return
        if task.state is QUEUED or task.state is WAITING:
            self._abandon(task, Verdict.CANCELLED)
        elif task.state is LEASED:
            assert task.lease is not None
            self._cancelling.add(task)
            self._recall_all([task.lease.worker])
        elif event.kill:
            assert task.lease is not None
            worker = task.lease.worker
            self._settle(task, Verdict.CANCELLED)
            self._kill(worker, Verdict.CANCELLED)

    def _settle(self, task: Task, verdict: Verdict) -> None:
        """End a task for good."""
        task.lease = None
        task.verdict = verdict
        self._move(task, DONE)
        del self.tasks[task.id]
        self._cancelling.discard(task)
        self.groups[task.tag].tally(verdict)
        self._actions.append(Settle(task, verdict))

    def _abandon(self, task: Task, verdict: Verdict) -> None:
        """End a task that no worker has."""
        queued = task.state is QUEUED
        self._settle(task, verdict)
        if queued:
            group = self.groups[task.tag]
            group.backlog.forget(task)
            if not group.backlog:
                self._contenders.leave(group)

    def _attempt_over(self, task: Task, verdict: Verdict, retry: bool) -> None:
        """An attempt ended: settle the task, or let it wait for the next one."""
        task.lease = None
        if retry and task.attempt <= task.options.retries and self.state is not PoolState.CLOSED:
            self.groups[task.tag].retried += 1
            self._move(task, WAITING)
            delay = limits.retry_delay(task.id, task.attempt)
            self._timers.at(self._now + delay, task, _is_waiting, self._retry)
        else:
            self._settle(task, verdict)

    def _retry(self, task: Task) -> None:
        group = self.groups[task.tag]
        if self._hopeless(group):
            self._settle(task, Verdict.BROKEN)
        else:
            self._queue(group, task)
            self._fill(group)
            if self.state is not PoolState.OPEN:
                self._give_up()

    # -- who gets a slot ------------------------------------------------------------------------------------

    def _fill(self, group: GroupRecord) -> None:
        """Give the group's queued tasks every slot they may use, then send ahead what may be."""
        while group.backlog:
            if self._recall_stuck(group):
                return  # those are older; ``Recalled`` fills again
            worker = self._free_worker(group)
            if worker is None:
                self._wait(group)
                self._top_up(group)
                return
            self._assign(worker, group)

    def _free_worker(self, group: GroupRecord) -> Worker | None:
        """An idle worker for the group's next task, bound as the count demands."""
        kind = group.kind
        if group.short:
            worker = group.idle_worker(kind)
            if worker is None:
                worker = self.general.idle_worker(kind)
                if worker is None:
                    return None
                self.general.drop_idle(worker)
                self._bind_to_reserve(worker, group)
                return worker
            group.drop_idle(worker)
            return worker
        if not group.burst_room:
            return None
        worker = self.general.idle_worker(kind)
        if worker is not None:
            self.general.drop_idle(worker)
        else:
            stranger = self.general.idle_stranger(kind)
            if stranger is not None and self._lacks_starting(group):
                self._replace(stranger, group)
        return worker

    def _wait(self, group: GroupRecord) -> None:
        """The group has queued tasks and no worker for them: note what it waits for."""
        if group.short:
            self._short[group] = None
        elif group.burst_room:
            if group not in self._contenders:
                self._contenders.enter(group, self._now)
        else:
            self._contenders.leave(group)
        if self._ahead_in_general:
            # Its claim goes before what other tags sent ahead into general slots.
            self._recall_all([w for w in self._ahead_in_general if w.serving is not group])

    def _place(self, worker: Worker) -> None:
        """Give an idle worker that is in no set its next task, or make it wait in its group."""
        group = worker.group
        if not group.general:
            if group.backlog and not self._recall_stuck(group):
                self._assign(worker, group)
                self._after_assign(group)
                return
            if group.backlog or not group.bursting:
                group.add_idle(worker)
                if group.ahead and not group.backlog:
                    self._recall_all([next(iter(group.ahead))])
                return
            # The reserve has a free slot while the tag holds a general one: the two swap bindings.
            self._rebind(next(iter(group.bursting)), group)
            self._rebind(worker, self.general)
        self._place_general(worker)

    def _place_general(self, worker: Worker) -> None:
        for short in list(self._short):
            if not short.backlog or not short.short:
                del self._short[short]
            elif short.kind == worker.kind:
                self._bind_to_reserve(worker, short)
                self._assign(worker, short)
                self._after_assign(short)
                return

        def may_use(group: GroupRecord) -> bool:
            if group.short or not group.burst_room:
                return False
            return group.kind == worker.kind or self._lacks_starting(group)

        best = self._contenders.best(self._now, may_use)
        if best is None:
            self.general.add_idle(worker)
            self._steal(worker)
        elif best.kind != worker.kind:
            self.general.add_idle(worker)
            self._replace(worker, best)
        elif self._recall_stuck(best):
            self.general.add_idle(worker)
        else:
            self._assign(worker, best)
            self._after_assign(best)

    def _assign(self, worker: Worker, group: GroupRecord) -> None:
        """Lease the group's next task to a worker that is idle and in no set."""
        task = group.backlog.pop()
        self._occupy(worker, group)
        self._move(worker, BUSY)
        lease = Lease(next(self._lease_ids), task, task.attempt + 1, worker)
        worker.leases.append(lease)
        task.lease = lease
        self._begin(lease)
        self._actions.append(Dispatch(lease))
        group.roomy[worker] = None

    def _after_assign(self, group: GroupRecord) -> None:
        """What is left of the group's backlog waits for the right thing, or goes ahead."""
        if not group.backlog:
            self._contenders.leave(group)
            self._short.pop(group, None)
        elif group.entry is None or not group.burst_room:
            self._short.pop(group, None)
            self._fill(group)
        else:
            self._top_up(group)

    def _begin(self, lease: Lease) -> None:
        """The attempt is the first of its worker's leases: it holds the slot now."""
        task = lease.task
        self._move(task, RUNNING)
        task.attempt = lease.attempt
        task.started = lease.worker.head_since = self._now
        if task.announce:
            task.announce = False
            self._actions.append(Begin(task))
        timeout = task.options.timeout
        if timeout is not None:
            self._timers.at(self._now + timeout, lease, _is_held, self._deadline_passed)

    def _occupy(self, worker: Worker, group: GroupRecord) -> None:
        worker.serving = group
        if worker.group is group and not group.general:
            group.own[worker] = None
        else:
            group.charge(self._now)
            group.bursting[worker] = None
            self._burst_changed(group)

    def _vacate(self, worker: Worker) -> None:
        """A worker stops counting as one that runs its tag."""
        group = worker.serving
        assert group is not None
        worker.serving = None
        group.roomy.pop(worker, None)
        if group.ahead:
            self._not_ahead(worker, group)
        if group.own.pop(worker, worker) is worker:
            group.charge(self._now)
            del group.bursting[worker]
            self._burst_changed(group)

    def _leave_slot(self, worker: Worker) -> None:
        """A worker is outside the target from now on, whatever it still runs."""
        serving = worker.serving
        if serving is not None and worker in worker.group.bound:
            self._vacate(worker)
            worker.serving = serving
        worker.group.bound.pop(worker, None)

    def _burst_changed(self, group: GroupRecord) -> None:
        """Its line among the contenders has another slope now, or its burst cap is reached or free again."""
        if not group.backlog or not group.burst_room:
            self._contenders.leave(group)
        elif group.entry is not None or not group.short:
            self._contenders.enter(group, self._now)

    def _rebind(self, worker: Worker, group: GroupRecord) -> None:
        """Bind a worker, in whatever state, to another group. It must be in no idle set."""
        old = worker.group
        old.bound.pop(worker, None)
        group.bound[worker] = None
        worker.group = group
        if old.starting.pop(worker, worker) is None:
            group.starting[worker] = None
        serving = worker.serving
        if serving is not None:
            if serving.own.pop(worker, worker) is worker:
                serving.charge(self._now)
                del serving.bursting[worker]
                self._burst_changed(serving)
            self._occupy(worker, serving)
            if worker in serving.ahead:
                self._mark_ahead(worker, serving)

    def _bind_to_reserve(self, worker: Worker, group: GroupRecord) -> None:
        """A general worker takes the place of one of the group's that is not up yet; that one becomes general."""
        self._rebind(worker, group)
        if len(group.bound) > group.slots:
            self._rebind(self._not_running(group), self.general)
        else:
            self._untidy[self.general] = None

    def _not_running(self, group: GroupRecord) -> Worker:
        """A bound worker that runs no task of the group's; taken out of the idle set if it was there."""
        if group.starting:
            return next(iter(group.starting))
        for workers in list(group.idle.values()):
            worker = next(iter(workers))
            group.drop_idle(worker)
            return worker
        raise IllegalMove(f"{group!r} has no worker to give")

    def _lacks_starting(self, group: GroupRecord) -> bool:
        """True when fewer workers of the group's kind are on their way to a general slot than it has tasks."""
        coming = sum(worker.kind == group.kind for worker in self.general.starting)
        return group.state is not BROKEN and self._now >= group.blocked_until and coming < group.backlog.size

    def _replace(self, worker: Worker, group: GroupRecord) -> None:
        """Put a worker of the group's kind into the slot of an idle general worker of another kind."""
        self._retire(worker)
        self._start(self.general, group.kind)

    # -- sending ahead --------------------------------------------------------------------------------------

    def _top_up(self, group: GroupRecord) -> None:
        """Send ahead to the group's workers that have room, each an equal part of the backlog."""
        if not self._send_ahead:
            return
        while group.backlog and group.roomy:
            worker = next(iter(group.roomy))
            share = -(-group.backlog.size // len(group.roomy))
            del group.roomy[worker]
            room = self._room(worker, group)
            if room <= 0:
                continue  # it has room again when its head has ended
            self._send(worker, group, min(room, share))
            if room > share:
                group.roomy[worker] = None
                if share == 0 or group.backlog and group.backlog.peek().options.timeout is not None:
                    return

    def _room(self, worker: Worker, group: GroupRecord) -> int:
        """How many more tasks measured run times, and everybody else's claims, let a worker have ahead."""
        room = limits.ahead(group.mean_seconds) + 1 - len(worker.leases)
        if room <= 0 or worker.state is not BUSY or self._now - worker.head_since > limits.STUCK_SECONDS:
            return 0
        if worker.leases[0].task.options.timeout is not None:
            return 0
        if worker.group.general and (self._short or self._contenders.others_than(group)):
            return 0
        most = group.settings.max_tasks_per_child
        return room if most is None else min(room, most - worker.tasks_done - len(worker.leases))

    def _send(self, worker: Worker, group: GroupRecord, most: int) -> None:
        """Send up to ``most`` queued tasks ahead; one with a timeout stays, for it must begin at once."""
        backlog = group.backlog
        for _ in range(most):
            if not backlog or backlog.peek().options.timeout is not None:
                break
            task = backlog.pop()
            lease = Lease(next(self._lease_ids), task, task.attempt + 1, worker)
            worker.leases.append(lease)
            task.lease = lease
            self._move(task, LEASED)
            self._actions.append(Dispatch(lease))
            group.ahead_floor = task.options.priority
        if len(worker.leases) > 1:
            self._mark_ahead(worker, group)
        if not backlog:
            self._contenders.leave(group)

    def _mark_ahead(self, worker: Worker, group: GroupRecord) -> None:
        group.ahead[worker] = None
        self._ahead_groups[group] = None
        if worker.group.general:
            self._ahead_in_general[worker] = None
        else:
            self._ahead_in_general.pop(worker, None)

    def _not_ahead(self, worker: Worker, group: GroupRecord) -> None:
        if group.ahead.pop(worker, worker) is None:
            self._ahead_in_general.pop(worker, None)
            if not group.ahead:
                del self._ahead_groups[group]

    def _recall_all(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            if worker.serving is not None:
                self._not_ahead(worker, worker.serving)
            self._actions.append(Recall(worker, worker.leases[0].number))

    def _recall_stuck(self, group: GroupRecord) -> bool:
        """Take back what stands behind a task that turned out long; True if there was any."""
        stuck = []
        for worker in group.ahead:  # longest-running head first
            if self._now - worker.head_since <= limits.STUCK_SECONDS:
                break
            stuck.append(worker)
        self._recall_all(stuck)
        return bool(stuck)

    def _steal(self, worker: Worker) -> None:
        """A general slot is free and nothing queued: take back what was sent ahead elsewhere, if it may use it."""
        for group in self._ahead_groups:
            if group.kind == worker.kind and group.burst_room:
                self._recall_all([next(iter(group.ahead))])
                return

    def _on_recalled(self, event: Recalled) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return
        taken = set(event.leases)
        leases = list(worker.leases)
        worker.leases.clear()
        touched: dict[GroupRecord, None] = {}
        for lease in leases:
            task = lease.task
            if lease.number not in taken or task.state is not LEASED:
                worker.leases.append(lease)
                self._cancelling.discard(task)
            elif task in self._cancelling:
                task.lease = None
                self._settle(task, Verdict.CANCELLED)
            else:
                task.lease = None
                group = self.groups[task.tag]
                self._queue(group, task)
                touched[group] = None
        if worker.serving is not None:
            touched[worker.serving] = None
        for group in touched:
            self._fill(group)

    # -- what workers report --------------------------------------------------------------------------------

    def _on_ended(self, event: Ended) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or not worker.leases or worker.leases[0].number != event.lease:
            self.dropped += 1
            return
        lease = worker.leases.popleft()
        task = lease.task
        group = self.groups[task.tag]
        worker.tasks_done += 1
        group.learn(event.seconds)
        group.crashes = group.failures = 0
        if task.lease is lease:
            self._attempt_over(task, event.verdict, event.retry)
        self._next_lease(worker)

    def _next_lease(self, worker: Worker) -> None:
        """The head has ended: go on with what was sent ahead, or with whatever the scheduler decides."""
        if worker.state is BUSY:
            if self._worn_out(worker):
                self.recycled += 1
                self._drain(worker)
            elif worker.leases:
                self._begin(worker.leases[0])
                group = worker.serving
                assert group is not None
                if len(worker.leases) > 1:
                    if group.ahead.pop(worker, worker) is None:
                        group.ahead[worker] = None  # its head is the youngest now
                elif group.ahead:
                    self._not_ahead(worker, group)
                if len(worker.leases) * 2 <= limits.ahead(group.mean_seconds):
                    group.roomy[worker] = None
                    if group.backlog and not self._recall_stuck(group):
                        self._top_up(group)
                return
            else:
                self._vacate(worker)
                self._move(worker, IDLE)
                self._place(worker)
                return
        if worker.state is DRAINING and not worker.leases:
            self._ask_to_stop(worker)
        elif worker.state is DRAINING:
            self._begin(worker.leases[0])

    def _worn_out(self, worker: Worker) -> bool:
        assert worker.serving is not None
        most = worker.serving.settings.max_tasks_per_child
        return most is not None and worker.tasks_done >= most

    def _on_ready(self, event: WorkerReady) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or worker.state is not STARTING:
            return
        del worker.group.starting[worker]
        self._move(worker, IDLE)
        owner = self._owner(worker)
        owner.failures = 0
        if owner.state is BACKING_OFF:
            self._move(owner, SOUND)
        self._place(worker)

    def _on_exited(self, event: WorkerExited) -> None:
        worker = self.workers.pop(event.worker, None)
        if worker is None:
            return
        was, group = worker.state, worker.group
        self._move(worker, GONE)
        if was is STARTING:
            group.starting.pop(worker, None)
        elif was is IDLE:
            group.drop_idle(worker)
        self._leave_slot(worker)
        back: dict[GroupRecord, None] = {}
        self._return_leases(worker, event.begun, back)
        self._note_death(worker, was, event.reason)
        self._untidy[group] = self._untidy[self.general] = None
        for each in back:
            self._fill(each)
        if self.state is not PoolState.OPEN:
            self._give_up()

    def _return_leases(self, worker: Worker, begun: int | None, back: dict[GroupRecord, None]) -> None:
        """Blame the lease that was begun; put the others back unharmed, their groups into ``back``."""
        leases = list(worker.leases)
        worker.leases.clear()
        for lease in leases:
            task = lease.task
            if task.lease is not lease:
                continue  # cancelled meanwhile
            if lease.number == begun:
                if task.state is LEASED:
                    self._begin(lease)  # it was, though nobody had told us yet
                self._attempt_over(task, worker.doom or Verdict.CRASHED, worker.doom is not Verdict.CANCELLED)
            elif task in self._cancelling:
                self._settle(task, Verdict.CANCELLED)
            else:
                task.lease = None
                if task.state is RUNNING:
                    task.attempt -= 1
                group = self.groups[task.tag]
                self._queue(group, task)
                back[group] = None

    def _note_death(self, worker: Worker, was: WorkerState, reason: str) -> None:
        """Count a death that nobody asked for; too many in a row break the group."""
        if worker.doom is not None or was is STOPPING:
            return
        owner = self._owner(worker)
        if was is STARTING:
            if self.exiting:
                owner.blocked_until = float("inf")  # nothing starts any more
                return
            owner.failures += 1
            delay = limits.restart_delay(owner.failures)
        else:
            owner.crashes += 1
            delay = limits.crash_delay(owner.crashes)
        if owner.failures >= self._start_failures or owner.crashes >= limits.CRASHES_TO_BREAK:
            self._break(owner, reason)
        elif delay > 0:
            owner.blocked_until = self._now + delay
            if owner.state is SOUND:
                self._move(owner, BACKING_OFF)
            self._timers.at(owner.blocked_until, owner, _is_backing_off, self._restart)

    def _restart(self, owner: GroupRecord) -> None:
        self._untidy[owner] = self._untidy[self.general] = None

    def _break(self, group: GroupRecord, reason: str) -> None:
        if group.state is BROKEN:
            return
        self._move(group, BROKEN)
        self._actions.append(Break(group.tag, max(group.failures, group.crashes), reason))
        for each in self.groups.values() if group.general else [group]:
            if self._hopeless(each):
                for task in each.backlog.tasks():
                    self._abandon(task, Verdict.BROKEN)

    def _hopeless(self, group: GroupRecord) -> bool:
        return group.state is BROKEN or (group.slots == 0 and self.general.state is BROKEN)

    def _owner(self, worker: Worker) -> GroupRecord:
        """The group that answers for a worker's settings."""
        return self._kinds.get(worker.kind, worker.group)

    def _on_memory(self, event: MemorySampled) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or worker.state not in (IDLE, BUSY, DRAINING):
            return
        group = worker.serving or worker.group
        limit = group.settings.memory_limit
        if limit is None or event.rss <= limit:
            return
        if worker.state is IDLE:
            self._retire(worker)
        else:
            self._kill(worker, Verdict.OUT_OF_MEMORY)

    def _on_tick(self, event: Ticked) -> None:
        pass

    def _deadline_passed(self, lease: Lease) -> None:
        self._kill(lease.worker, Verdict.TIMED_OUT)

    # -- workers come and go --------------------------------------------------------------------------------

    def _on_resize(self, event: ResizeAsked) -> None:
        touched = [self._declare(tag, event.settings.get(tag)) for tag in event.slots]
        for group in touched:
            group.slots = event.slots[group.tag]
            group.failures = group.crashes = 0
            group.blocked_until = 0.0
            if group.state is not SOUND:
                self._move(group, SOUND)
            self._untidy[group] = None
        self._untidy[self.general] = None

    def _declare(self, tag: Hashable, settings: Group | None) -> GroupRecord:
        group = self.groups.get(tag)
        if group is None:
            group = self.groups[tag] = GroupRecord(tag, settings or Group(0), 0, len(self.groups))
            group.charged = self._now
        elif settings is not None:
            group.settings = settings
        if settings is not None and settings.own_kind and group.kind == 0:
            group.kind = group.index + 1
            self._kinds[group.kind] = group
        return group

    def _reconcile(self, groups: list[GroupRecord]) -> None:
        """Make the bound workers of these groups as many as their slots, with as little ado as possible."""
        if self.state is PoolState.CLOSED or (self.state is PoolState.CLOSING and not self.tasks):
            return
        for group in groups:
            self._settle_bindings(group)
        for rich in groups:
            for poor in groups:
                while len(rich.bound) > rich.slots and len(poor.bound) < poor.slots and self._hand_over(rich, poor):
                    pass
        for group in groups:
            while len(group.bound) > group.slots:
                self._shed_one(group)
            while len(group.bound) < group.slots and self._may_start(group):
                self._start(group, group.kind)
        for group in groups:
            self._fill(group)
        for worker in [w for same in list(self.general.idle.values()) for w in same]:
            if not (self._contenders or self._short):
                break
            if worker.state is IDLE and worker in self.general.idle.get(worker.kind, ()):
                self.general.drop_idle(worker)
                self._place_general(worker)

    def _settle_bindings(self, group: GroupRecord) -> None:
        """While a tag runs in the general group though its own has place, move that worker over."""
        while not group.general and group.bursting:
            running = next(iter(group.bursting))
            if len(group.bound) < group.slots:
                self._rebind(running, group)
            elif len(group.bound) == group.slots and len(group.own) < group.slots:
                other = self._not_running(group)
                self._rebind(running, group)
                self._rebind(other, self.general)
                if other.state is IDLE:
                    self._place_general(other)
            else:
                return

    def _hand_over(self, rich: GroupRecord, poor: GroupRecord) -> bool:
        """Rebind one surplus worker of ``rich`` to ``poor`` if it is of use there."""
        worker = rich.idle_worker(poor.kind)
        if worker is not None:
            rich.drop_idle(worker)
            self._rebind(worker, poor)
            poor.add_idle(worker)
            return True
        for worker in rich.starting:
            if worker.kind == poor.kind:
                self._rebind(worker, poor)
                return True
        if poor.general and rich.own:
            self._rebind(next(iter(rich.own)), poor)  # what it runs is a burst now
            return True
        return False

    def _shed_one(self, group: GroupRecord) -> None:
        """Let one bound worker go: an idle one, else one that starts, else the busy one that runs longest."""
        idle = next((worker for same in group.idle.values() for worker in same), None)
        worker = idle or next(iter(group.starting), None)
        if worker is not None:
            self._retire(worker)
            return
        busy = [w for w in group.bound if w.state is BUSY]
        if busy:
            worker = min(busy, key=lambda w: w.head_since)
            self._drain(worker)
            if not worker.leases:
                self._ask_to_stop(worker)
        else:
            self._leave_slot(next(iter(group.bound)))  # killed already, on its way out

    def _may_start(self, group: GroupRecord) -> bool:
        return not self.exiting and group.state is not BROKEN and self._now >= group.blocked_until

    def _start(self, group: GroupRecord, kind: int) -> None:
        worker = Worker(next(self._worker_ids), kind, group)
        self.workers[worker.id] = worker
        group.bound[worker] = None
        group.starting[worker] = None
        self._actions.append(Start(worker))

    def _retire(self, worker: Worker) -> None:
        """End a worker that runs nothing."""
        if worker.state is STARTING:
            del worker.group.starting[worker]
        else:
            worker.group.drop_idle(worker)
        worker.group.bound.pop(worker, None)
        self._untidy[worker.group] = None
        self._ask_to_stop(worker)

    def _drain(self, worker: Worker) -> None:
        """A busy worker leaves its slot now and ends when it has finished what it runs."""
        group = worker.group
        if len(worker.leases) > 1:
            self._recall_all([worker])
        self._leave_slot(worker)
        self._move(worker, DRAINING)
        self._untidy[group] = self._untidy[self.general] = None

    def _ask_to_stop(self, worker: Worker) -> None:
        worker.serving = None
        self._move(worker, STOPPING)
        self._actions.append(Stop(worker))

    def _kill(self, worker: Worker, doom: Verdict) -> None:
        """Kill a worker. It keeps its slot until it is gone, and what was sent ahead comes back then."""
        if worker.state is KILLED:
            return
        worker.doom = doom
        self._move(worker, KILLED)
        self._actions.append(Kill(worker))

    # -- the end --------------------------------------------------------------------------------------------

    def _on_close(self, event: CloseAsked) -> None:
        if self.state is PoolState.OPEN:
            self._move(self, PoolState.CLOSING)
        self._give_up()
        if not event.now:
            return
        for task in list(self.tasks.values()):
            self._abandon(task, Verdict.CANCELLED)
        for worker in list(self.workers.values()):
            if worker.state is STARTING:
                del worker.group.starting[worker]
            elif worker.state is IDLE:
                worker.group.drop_idle(worker)
            self._kill(worker, Verdict.CANCELLED)

    def _wind_up(self) -> None:
        """Closing, and no task is left: end the workers, then the pool."""
        for worker in list(self.workers.values()):
            if worker.state in (STARTING, IDLE):
                self._retire(worker)
        self._untidy.clear()
        if not self.workers:
            self._move(self, PoolState.CLOSED)
            self._actions.append(Close())

    def _on_exit(self, event: ExitBegan) -> None:
        self.exiting = True
        if self.state is PoolState.OPEN:
            self._move(self, PoolState.CLOSING)
        self._give_up()

    def _give_up(self) -> None:
        """Nobody can resize a pool that closes: what has no slot and will get none ends here."""
        for group in self.groups.values():
            if group.backlog and not self._may_hope(group):
                for task in group.backlog.tasks():
                    self._abandon(task, Verdict.CLOSED)

    def _may_hope(self, group: GroupRecord) -> bool:
        """True when the group has a slot, and a worker for it or the chance of one."""
        burst = group.settings.burst != 0 and self.general.slots > 0
        if not (burst or (group.slots and not group.general)):
            return False
        if group.blocked_until < float("inf"):
            return True
        mine = [*group.bound, *(w for w in self.general.bound if burst and w.kind == group.kind)]
        return any(w.state in (STARTING, IDLE, BUSY) for w in mine)

    # -- the one place where a state changes ------------------------------------------------------------------

    def _move(self, subject: Task | Worker | GroupRecord | Scheduler, new: State) -> None:
        old = subject.state
        if new not in old.next:
            raise IllegalMove(f"{subject!r}: {old.value} → {new.value}")
        subject.state = new  # type: ignore[assignment]
        if self.listening:
            noun = type(subject).__name__.removesuffix("Record").lower()
            name = getattr(subject, "id", getattr(subject, "tag", None))
            self.transitions.append(Transition(self._now, noun, name, old, new))


def _is_waiting(task: Task) -> bool:
    return task.state is WAITING


def _is_held(lease: Lease) -> bool:
    return lease.task.lease is lease


def _is_backing_off(group: GroupRecord) -> bool:
    return group.state is BACKING_OFF
