"""The scheduler: a pure machine that decides which task runs where, and which workers there should be.

``handle(event, now)`` takes one event and returns the actions to perform, in order. It does no IO, reads no
clock, starts no thread and never sees a payload, so a list of events always gives the same list of actions.

Its state is the ``Ledger`` it is. What it decides is found, by subject, in ``placement`` (who gets a slot),
``ahead`` (what is sent to busy workers), ``workforce`` (which workers come and go) and ``fairness``. Here is what
each event means. The event is dealt with first, then the timers that have run out: a result in hand beats its
deadline. Last, ``workforce.tidy`` starts and ends workers where the event changed what is wanted.
"""

from __future__ import annotations

from collections.abc import Hashable

from gpool import ahead, limits
from gpool.actions import Action, Answer, Close
from gpool.events import (
    CancelAsked,
    CloseAsked,
    Ended,
    Event,
    ExitBegan,
    MemorySampled,
    Progressed,
    Recalled,
    ResizeAsked,
    SubmitAsked,
    Ticked,
    WorkerExited,
    WorkerReady,
)
from gpool.groups import GroupRecord
from gpool.ledger import IllegalMove, Ledger, Transition, is_held
from gpool.model import (
    BUSY,
    CLOSED,
    CLOSING,
    DRAINING,
    GONE,
    IDLE,
    KILLED,
    LEASED,
    OPEN,
    QUEUED,
    RUNNING,
    SOUND,
    STARTING,
    WAITING,
    Group,
    Lease,
    Task,
    Verdict,
    Worker,
)
from gpool.placement import assign, fill, free_worker, place, use_idle
from gpool.workforce import (
    dismiss_strangers,
    end_row,
    give_up,
    give_up_the_impossible,
    note_death,
    note_ready,
    recycle,
    refused,
    tidy,
)

__all__ = ["IllegalMove", "Scheduler", "Transition"]


class Scheduler(Ledger):
    """See the module's docstring.

    Args:
        send_ahead: whether the backend can take back what a worker has not begun.
    """

    def __init__(self, *, send_ahead: bool = True) -> None:
        super().__init__(send_ahead=send_ahead)
        self._handlers = {
            SubmitAsked: self._on_submit,
            CancelAsked: self._on_cancel,
            ResizeAsked: self._on_resize,
            CloseAsked: self._on_close,
            ExitBegan: self._on_exit,
            WorkerReady: self._on_ready,
            WorkerExited: self._on_exited,
            Ended: self._on_ended,
            Progressed: self._on_progressed,
            Recalled: self._on_recalled,
            MemorySampled: self._on_memory,
            Ticked: self._on_tick,
        }

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take ``event`` at instant ``now``, then whatever has become due; return what is to be done."""
        self.now = now
        actions: list[Action] = []
        self.actions = actions
        self._handlers[type(event)](event)  # type: ignore[operator]
        timers = self.timers
        if timers.soonest <= now:
            timers.run(now)
        if self.untidy:
            tidy(self)
        if self.general.idle.by_kind and self.contenders.waiting(now):
            use_idle(self)
        if self.state is CLOSING and not self.tasks:
            self._wind_up()
        return actions

    def can_wait(self, tag: Hashable, priority: int, gathered: int = 1) -> bool:
        """True when nothing is to be done for so many new tasks before some worker reports. Any thread may ask.

        A worker that could do with more is sent it when that is worth while.
        """
        group = self.groups[tag]
        if priority > group.ahead_floor:
            return False
        if group.backlog.size:
            return not self.general.idle
        if not group.running or group.idle or self.general.idle:
            return False
        if group.hungry and gathered * group.item_seconds >= limits.WORTH_SECONDS:
            return False
        others_ahead = len(self.ahead_in_general) > (group in self.ahead_in_general)
        return not (others_ahead and group.may_take_general)  # else theirs is taken back

    def may_begin(self, tag: Hashable) -> bool:
        """True when a new task of the tag might begin at once. Any thread may ask."""
        group = self.groups[tag]
        return not (group.own or group.bursting) or bool(group.idle.by_kind or self.general.idle.by_kind)

    def wastes_slot(self, tag: Hashable) -> bool:
        """True when a slot is free that the tag may use, and it has nothing queued. Any thread may ask."""
        group = self.groups[tag]
        if group.backlog.size:
            return False
        own = bool(group.short and group.idle.by_kind)
        return own or (group.may_take_general and group.kind in self.general.idle.by_kind)

    @property
    def next_timer(self) -> float | None:
        """When ``Ticked`` is due, at the latest."""
        return self.timers.first

    # -- tasks ----------------------------------------------------------------------------------------------

    def _on_submit(self, event: SubmitAsked) -> None:
        refusal = None if self.state is OPEN else Verdict.CLOSED
        touched: dict[GroupRecord, Task] = {}
        for task in event.tasks:
            self.tasks[task.id] = task
            group = self.groups[task.tag]
            if refusal is not None:
                self.settle(task, refusal)
            elif not group.backlog.size:
                self._offer(task, touched)
            else:
                group.backlog.push(task)  # it comes behind one for which there is no slot
                if task.options.priority > group.ahead_floor:
                    touched[group] = task
        if touched:
            self._place_offered(touched)

    def _offer(self, task: Task, touched: dict[GroupRecord, Task]) -> None:
        """Give a task that is new, or back from waiting, a free worker, or queue it."""
        group = self.groups[task.tag]
        refusal = refused(self, group)
        if refusal is not None:
            self.settle(task, refusal)
            return
        first = task.state is QUEUED and not (group.backlog.size or group.ahead)
        worker = free_worker(self, group) if first else None
        if worker is not None:
            self.contenders.wake(group, self.now)
            assign(self, worker, group, task)
            if group.backlog.size:  # of a block the worker gets its share
                touched[group] = task
        else:
            self.queue(group, task)
            touched[group] = task

    def _place_offered(self, touched: dict[GroupRecord, Task]) -> None:
        """Give the groups what they may have at once; the latest of their urgent tasks may overtake what is ahead."""
        for group, task in touched.items():
            if not ahead.recall_lower(self, group, task.options.priority):  # else ``Recalled`` fills
                fill(self, group)

    def _on_cancel(self, event: CancelAsked) -> None:
        task = self.tasks.get(event.task)
        if task is None:
            return
        lease = task.lease
        if lease is None:
            if event.item is not None and task.size > 1:
                self.groups[task.tag].backlog.shrink()
                self.withdraw(task, event.item)
            elif event.kill or task.attempt == 0:  # between two attempts it counts as running
                self.abandon(task, Verdict.CANCELLED)
        elif task.size > 1 or (task.state is LEASED and task.attempt == 0) or (event.kill and lease.worker.has_behind):
            self.cancelling[task] = event
            ahead.recall(self, lease.worker)
        elif event.kill:
            self._cancel_running(task, lease.worker)

    def _cancel_running(self, task: Task, worker: Worker) -> None:
        self.settle(task, Verdict.CANCELLED)
        self.kill(worker, Verdict.CANCELLED)

    def _try_again(self, task: Task, verdict: Verdict) -> None:
        """An attempt ended that another may follow: let the task wait for it, or settle it if it has had its last."""
        task.lease = None
        if task.attempt <= task.options.retries:
            self.groups[task.tag].retried += 1
            self.move(task, WAITING)
            self.timers.at(self.now + limits.retry_delay(task.id, task.attempt), task, _is_waiting, self._retry)
        else:
            self.settle(task, verdict)

    def _retry(self, task: Task) -> None:
        touched: dict[GroupRecord, Task] = {}
        self._offer(task, touched)
        self._place_offered(touched)
        if self.state is not OPEN:
            give_up_the_impossible(self)

    # -- what workers report --------------------------------------------------------------------------------

    def _on_ended(self, event: Ended) -> None:
        number, quoted, verdict, seconds, retry = event
        worker = self.workers.get(number)
        if worker is None or not worker.leases or worker.leases[0].number != quoted:
            self.dropped += 1
            return
        lease = worker.leases.popleft()
        task = lease.task
        group = self.groups[task.tag]
        worker.tasks_done += 1
        group.learn(seconds)
        if group.crashes:
            end_row(self, group)
        if task.lease is lease:
            if task.state is LEASED:
                self.begin(lease)
            if retry:
                self._try_again(task, verdict)
            else:
                self.settle(task, verdict)
        if worker.state is BUSY:
            self._go_on(worker)
        elif worker.state is DRAINING:
            self._drain_on(worker)

    def _on_progressed(self, event: Progressed) -> None:
        number, quoted, returned, failed, final, seconds, each = event
        worker = self.workers.get(number)
        if worker is None or not worker.leases or worker.leases[0].number != quoted:
            self.dropped += 1
            return
        lease = worker.leases[0]
        task = lease.task
        group = self.groups[task.tag]
        worker.tasks_done += returned + failed
        worker.head_since = self.now
        if returned + failed:
            group.learn_item(each)
        if group.crashes and returned + failed:
            end_row(self, group)
        if task.lease is lease:
            if task.state is LEASED:
                self.begin(lease)
            if returned + failed > task.size:  # the last one ended just as it was cancelled, with its worker
                returned, failed = (returned - 1, failed) if returned else (0, failed - 1)
            group.done += returned
            group.failed += failed
            task.size -= returned + failed
            task.undelivered = 0
            self.actions.append(Answer(task))
            if final:
                task.lease = None
                self.settle(task, Verdict.RETURNED)
        if not final:
            ahead.head_ended(self, worker, group)
        else:
            worker.leases.popleft()
            group.learn_block(seconds)
            if worker.state is BUSY:
                self._go_on(worker)
            elif worker.state is DRAINING:
                self._drain_on(worker)

    def _go_on(self, worker: Worker) -> None:
        """The head has ended: take what was sent ahead, or whatever is decided."""
        group = worker.serving
        assert group is not None
        most = group.settings.max_tasks_per_child
        if most is not None and worker.tasks_done >= most:
            recycle(self, worker)
            self._drain_on(worker)
        elif worker.leases:
            self.begin(worker.leases[0])
            ahead.head_ended(self, worker, group)
            if ahead.note_room(worker, group) and group.backlog.size:
                fill(self, group)
        else:
            self.vacate(worker)
            self.move(worker, IDLE)
            place(self, worker)

    def _drain_on(self, worker: Worker) -> None:
        if worker.leases:
            self.begin(worker.leases[0])
        else:
            self.ask_to_stop(worker)

    def _on_recalled(self, event: Recalled) -> None:
        worker = self.workers.get(event.worker)
        if worker is None:
            return
        touched = {} if worker.serving is None else {worker.serving: None}
        taken = [lease for lease in worker.leases if lease.number in event.leases]
        for lease in taken:
            worker.leases.remove(lease)
            self._came_back(lease, touched)
        if event.parted is not None:
            for lease in worker.leases:
                if lease.number == event.parted:
                    self._part(lease, event.rest, touched)
        self._settle_cancelling(worker)
        if event.refused and worker.leases:
            self.timers.at(self.now + limits.STUCK_SECONDS, worker.leases[0], is_held, self.recall_again)
        for group in touched:
            fill(self, group)

    def _settle_cancelling(self, worker: Worker) -> None:
        """What a worker keeps it has begun, so it runs the last of it; the others have ended, unread as yet.

        Only the one that runs may be killed for a cancellation: any other would hit an innocent task.
        """
        for lease in list(worker.leases):
            task = lease.task
            asked = self.cancelling.pop(task, None)
            if asked is None or not asked.kill or lease is not worker.leases[-1]:
                continue
            if asked.item is None or (asked.item == task.size - 1 and worker.state is not KILLED):
                if task.size > 1:
                    self.split(task, task.size - 1)  # those before it have ended: they keep the lease
                self._cancel_running(task, worker)

    def _part(self, lease: Lease, rest: int, touched: dict[GroupRecord, None]) -> None:
        """The worker will not begin the last items of this block: put them back unharmed."""
        task = lease.task
        if task.lease is lease:
            self.split(task, task.size - rest)
            self._put_back(task, touched)

    def _came_back(self, lease: Lease, touched: dict[GroupRecord, None]) -> None:
        """A worker will not begin this lease: put the task back unharmed, its group into ``touched``."""
        task = lease.task
        if task.lease is lease:  # else it was settled meanwhile
            task.lease = None
            self._put_back(task, touched)

    def _put_back(self, task: Task, touched: dict[GroupRecord, None]) -> None:
        asked = self.cancelling.pop(task, None)
        if not task.size or (asked is not None and (asked.item is None or task.size == 1)):
            self.settle(task, Verdict.CANCELLED)
            return
        if asked is not None and asked.item is not None:
            self.withdraw(task, asked.item)
        group = self.groups[task.tag]
        refusal = refused(self, group)
        if refusal is not None:
            self.settle(task, refusal)
            return
        if task.state is RUNNING:
            task.attempt -= 1
        self.queue(group, task)
        touched[group] = None

    def _on_ready(self, event: WorkerReady) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or worker.state is not STARTING:
            return
        self.unlist(worker)
        self.move(worker, IDLE)
        note_ready(self, self.owner(worker))
        place(self, worker)

    def _on_exited(self, event: WorkerExited) -> None:
        worker = self.workers.pop(event.worker, None)
        if worker is None:
            return
        was = worker.state
        self.unlist(worker)
        self.leave_slot(worker)
        self.move(worker, GONE)
        touched: dict[GroupRecord, None] = {}
        for place_in_line, lease in enumerate(worker.leases):
            if lease.number == event.begun:
                if event.unbegun:
                    self._part(lease, event.unbegun, touched)
                self._blame(lease)
            elif place_in_line == 0 and event.begun is None and worker.doom is None and self._is_poison(lease.task):
                if lease.task.size > 1:
                    self._part(lease, lease.task.size - 1, touched)
                self._try_again(lease.task, Verdict.CRASHED)
            else:
                self._came_back(lease, touched)
        worker.leases.clear()
        note_death(self, worker, was, event.reason)
        for group in touched:
            fill(self, group)
        if self.state is not OPEN:
            give_up_the_impossible(self)

    def _is_poison(self, task: Task) -> bool:
        """A worker died while it was to receive this task: one too many?"""
        task.undelivered += 1
        return task.undelivered >= limits.MAX_UNDELIVERED

    def _blame(self, lease: Lease) -> None:
        """The worker died in this attempt."""
        task, doom = lease.task, lease.worker.doom
        if task.lease is not lease:
            return  # settled meanwhile
        if task.state is LEASED:
            self.begin(lease)  # it was begun, though nobody had told us yet
        if doom is None or doom is Verdict.CANCELLED:  # who was to be cancelled has been settled: this one just died
            doom = Verdict.CRASHED
        self._try_again(task, doom)

    def _on_memory(self, event: MemorySampled) -> None:
        worker = self.workers.get(event.worker)
        if worker is None or worker.state not in (IDLE, BUSY, DRAINING):
            return
        settings = (worker.serving or worker.group).settings
        if _exceeds(event.rss, settings.memory_limit) and worker.state is not IDLE:
            if worker.has_behind:
                ahead.recall(self, worker)  # first, so that the kill cannot hit one of these
            self.kill(worker, Verdict.OUT_OF_MEMORY)
        elif _exceeds(event.rss, settings.memory_limit) or _exceeds(event.rss, settings.recycle_memory):
            recycle(self, worker)

    def _on_tick(self, event: Ticked) -> None:
        """Only the timers are of interest."""

    # -- resize and the end ---------------------------------------------------------------------------------

    def _on_resize(self, event: ResizeAsked) -> None:
        for tag, slots in event.slots.items():
            group = self._declare(tag, event.settings.get(tag))
            group.slots = slots
            group.failures = 0
            group.blocked_until = 0.0
            end_row(self, group)
            if group.state is not SOUND:
                self.move(group, SOUND)
            self.contenders.touch(group)
            self.untidy[group] = None
        self.untidy[self.general] = None
        for group in self.groups.values():
            if group.backlog and (refusal := refused(self, group)) is not None:
                give_up(self, group, refusal)
        if self.state is not OPEN:
            give_up_the_impossible(self)

    def _declare(self, tag: Hashable, settings: Group | None) -> GroupRecord:
        group = self.groups.get(tag)
        if group is None:
            group = self.groups[tag] = GroupRecord(tag, settings or Group(0), 0, len(self.groups))
            self.groups[None] = self.groups.pop(None)  # the general group is shown last
            group.charged = self.now
        elif settings is not None:
            group.charge(self.now)
            group.settings = settings
        if settings is not None and settings.own_kind and group.kind == 0:
            self.contenders.forget(group)
            group.kind = group.index + 1
            self.kinds[group.kind] = group
            dismiss_strangers(self, group)
        return group

    def _on_close(self, event: CloseAsked) -> None:
        if event.now:
            for task in list(self.tasks.values()):
                self.abandon(task, Verdict.CANCELLED)
            for worker in list(self.workers.values()):
                self.kill(worker, Verdict.CANCELLED)
        self._stop_taking()

    def _on_exit(self, event: ExitBegan) -> None:
        self.exiting = True
        self._stop_taking()

    def _stop_taking(self) -> None:
        if self.state is OPEN:
            self.move(self, CLOSING)
        give_up_the_impossible(self)

    def _wind_up(self) -> None:
        """Closing, and no task is left: end the workers, then the pool."""
        for worker in list(self.workers.values()):
            if worker.state in (STARTING, IDLE):
                self.retire(worker)
        self.untidy.clear()
        if not self.workers:
            self.move(self, CLOSED)
            self.actions.append(Close())


def _exceeds(measured: int, limit: int | None) -> bool:
    return limit is not None and measured > limit


def _is_waiting(task: Task) -> bool:
    return task.state is WAITING
