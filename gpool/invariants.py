"""Whether a scheduler's state agrees with itself.

Owns ``check``: it recomputes from the tasks and the workers whatever the scheduler keeps ready, and says what
differs. Tests call it after every event; it changes nothing.
"""

from __future__ import annotations

from gpool.groups import GroupRecord
from gpool.model import GroupState, PoolState, TaskState, Worker, WorkerState
from gpool.scheduler import Scheduler

_HOLDS_SLOT = (WorkerState.BUSY, WorkerState.KILLED)


def check(scheduler: Scheduler) -> None:
    """Raise AssertionError if the scheduler's state is inconsistent or wastes a slot."""
    for worker in scheduler.workers.values():
        _check_worker(worker)
    _check_tasks(scheduler)
    for group in scheduler.groups.values():
        _check_sets(scheduler, group)
        _check_ahead(scheduler, group)
    if scheduler.state is PoolState.OPEN:
        for group in scheduler.groups.values():
            _check_size(scheduler, group)
            _check_no_waste(scheduler, group)


def _check_worker(worker: Worker) -> None:
    group, state = worker.group, worker.state
    assert state is not WorkerState.GONE
    assert (worker in group.starting) == (state is WorkerState.STARTING), worker
    assert (worker in group.idle) == (state is WorkerState.IDLE), worker
    if state in (WorkerState.STARTING, WorkerState.IDLE, WorkerState.STOPPING):
        assert not worker.leases, "only a busy worker holds leases"
        assert worker.serving is None
    if state is WorkerState.BUSY:
        assert worker.leases and worker.serving is not None
        assert all(lease.task.tag == worker.serving.tag for lease in worker.leases), "ahead only within a tag"
        assert worker.group.general or worker.group is worker.serving, "a reserved slot is never lent"
        assert worker.kind == worker.serving.kind, "code runs only where its initializer ran"
    if state in (WorkerState.DRAINING, WorkerState.STOPPING):
        assert worker not in group.bound


def _check_tasks(scheduler: Scheduler) -> None:
    queued: dict[object, int] = {}
    for task in scheduler.tasks.values():
        lease = task.lease
        if task.state is TaskState.QUEUED:
            queued[task.tag] = queued.get(task.tag, 0) + 1
        if task.state in (TaskState.LEASED, TaskState.RUNNING):
            assert lease is not None and lease.task is task
            assert lease in lease.worker.leases
            assert scheduler.workers[lease.worker.id] is lease.worker
            first = lease.worker.leases[0] is lease
            assert first == (task.state is TaskState.RUNNING) or lease.worker.state is WorkerState.KILLED, (
                "the head runs, what is behind it does not"
            )
        else:
            assert lease is None, task
        assert task.state is not TaskState.DONE
        assert task.size > 0 or task.state is TaskState.RUNNING, "of a block with nothing left only the end is missing"
        assert task.attempt <= task.options.retries + 1, "nothing runs more often than it may"
    for group in scheduler.groups.values():
        waiting = group.backlog.tasks()
        assert group.backlog.size == queued.get(group.tag, 0) == len(waiting)
        assert group.backlog.items == sum(task.size for task in waiting), "items are counted one by one"
    for worker in scheduler.workers.values():
        for held in worker.leases:
            assert held.task.lease is held or held.task.state in (TaskState.DONE,), "one lease, one attempt"


def _check_sets(scheduler: Scheduler, group: GroupRecord) -> None:
    workers = scheduler.workers.values()
    running = {w for w in workers if w.serving is group and w in w.group.bound}
    assert {w for w in running if w.group is group and not group.general} == set(group.own)
    assert {w for w in running if w.group.general} == set(group.bursting)
    counting = (WorkerState.STARTING, WorkerState.IDLE, *_HOLDS_SLOT)
    bound = {w for w in workers if w.group is group and w.state in counting}
    assert set(group.bound) <= bound
    if group.general:
        held = sum(len(g.bursting) for g in scheduler.groups.values())
        assert held <= len(group.bound), "bursts fit into the general slots"
        return
    if group.bursting and scheduler.state is PoolState.OPEN:
        assert len(group.own) >= min(group.slots, len(group.bound)), "bindings swap when the reserve has room"


def _check_ahead(scheduler: Scheduler, group: GroupRecord) -> None:
    in_general = {worker for worker in group.ahead if worker.group.general}
    assert set(scheduler.ahead_in_general.get(group, ())) == in_general
    assert (group in scheduler.ahead_groups) == bool(group.ahead)
    for worker in group.ahead:
        assert worker.serving is group and worker.has_behind
        assert not worker.group.general or worker.kind == group.kind
    for worker in group.roomy:
        assert worker.serving is group


def _check_size(scheduler: Scheduler, group: GroupRecord) -> None:
    assert len(group.bound) <= group.slots, "never more workers than slots, but for draining ones"
    held_back = group.state is not GroupState.SOUND or group.blocked_until > scheduler.now
    if group.held_until:
        assert scheduler.now < group.held_until >= scheduler.timers.soonest, "somebody will let it contend again"
        assert group.state is not GroupState.SOUND
    assert len(group.bound) == group.slots or held_back, "reconciled"


def _check_no_waste(scheduler: Scheduler, group: GroupRecord) -> None:
    if not group.backlog:
        return
    if group.held_until:
        assert not group.short or group.idle.newest(group.kind) is None, "its own workers are its to use"
        assert group not in scheduler.contenders.waiting(scheduler.now), "it gets no general worker for a while"
        return
    general, places = scheduler.general, scheduler.contenders.waiting(scheduler.now)
    if group.short:
        assert group.idle.newest(group.kind) is None, "below its reserve it gets its slot"
        assert general.idle.newest(group.kind) is None, "the first ready worker takes the first task"
        assert places.get(group, group) is None, "it waits as one below its reserve"
    elif group.burst_room:
        assert general.idle.newest(group.kind) is None, "no task waits while a slot that it may use is free"
        assert places.get(group) is not None, "it waits for a general slot"
