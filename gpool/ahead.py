"""Sending tasks ahead to busy workers, and taking them back.

Owns what may be sent behind a running task and who has a better claim to it. What was sent ahead is still queued in
every respect: it is taken back as soon as a free slot, another tag, a higher priority, a cancellation, a resize or a
task in front that turned out long demands it. A task with a timeout is never sent ahead, nor anything behind one: so
a worker that is killed at a deadline cannot have begun another task meanwhile.

A ``Recall`` is answered at once by ``Recalled``, which queues what came back and fills the group again.
"""

from __future__ import annotations

from gpool import limits
from gpool.actions import Dispatch, Recall
from gpool.groups import GroupRecord
from gpool.ledger import Ledger
from gpool.model import BUSY, LEASED, Lease, Task, Worker


def top_up(ledger: Ledger, group: GroupRecord) -> None:
    """Send ahead to the group's workers that have room, each an equal part of the backlog."""
    if not ledger.send_ahead or not limits.ahead(group.mean_seconds):
        return
    while group.roomy and group.backlog.size and group.backlog.peek().options.timeout is None:
        worker = next(iter(group.roomy))
        share = -(-group.backlog.size // len(group.roomy))
        del group.roomy[worker]  # what has no room now has it again when its head has ended
        group.hungry.pop(worker, None)
        room = _room(ledger, worker, group)
        if room > 0 and _send(ledger, worker, group, min(room, share)):
            note_room(worker, group)


def note_room(worker: Worker, group: GroupRecord) -> bool:
    """Note whether the worker could be sent more: worth while when half is gone, called for when little is left.

    Where one may be sent ahead it is both as soon as the worker has begun the last one.
    """
    held, most = len(worker.leases), limits.ahead(group.mean_seconds)
    if not most or held > max(1, most // 2):
        return False
    group.roomy[worker] = None
    if held * 8 <= max(8, most):
        group.hungry[worker] = None
    return True


def _room(ledger: Ledger, worker: Worker, group: GroupRecord) -> int:
    """How many more tasks measured run times, and everybody else's claims, let a worker have ahead."""
    room = limits.ahead(group.mean_seconds) + 1 - len(worker.leases)
    if room <= 0 or worker.state is not BUSY or is_stuck(ledger, worker):
        return 0
    if worker.leases[0].task.options.timeout is not None:
        return 0
    if worker.group.general and ledger.contenders.others_than(group, ledger.now):
        return 0
    most = group.settings.max_tasks_per_child
    return room if most is None else min(room, most - worker.tasks_done - len(worker.leases))


def _send(ledger: Ledger, worker: Worker, group: GroupRecord, most: int) -> bool:
    """Send up to ``most`` queued tasks ahead; one with a timeout stays, for it must begin at once. False: none went."""
    backlog = group.backlog
    leases: list[Lease] = []
    short_lived = group.settings.max_tasks_per_child is not None
    while len(leases) < most and backlog.size and (task := backlog.peek()).options.timeout is None:
        if short_lived and task.size > 1:
            break  # how many of its items the worker may have is known when it has ended the others
        task = ledger.cut(group, backlog.pop(), limits.block(group.item_seconds))
        lease = ledger.lease(worker, task)
        ledger.move(lease.task, LEASED)
        leases.append(lease)
    if not leases:
        return False
    note_ahead(ledger, worker, group, leases[-1].task)
    ledger.actions.append(Dispatch(worker, tuple(leases)))
    if not backlog.size:
        ledger.contenders.touch(group)
    return True


def note_ahead(ledger: Ledger, worker: Worker, group: GroupRecord, lowest: Task) -> None:
    """The worker was sent something that it does not begin at once, up to this task."""
    priority = lowest.options.priority
    group.ahead_floor = min(priority, group.ahead_floor) if group.ahead else priority
    ledger.mark_ahead(worker, group)


def head_ended(ledger: Ledger, worker: Worker, group: GroupRecord) -> None:
    """The worker has gone on to its next lease, or in its block: its head is the youngest now."""
    if worker in group.ahead:
        if worker.has_behind:
            group.ahead[worker] = group.ahead.pop(worker)  # to the end
        else:
            ledger.unmark_ahead(worker, group)


def is_stuck(ledger: Ledger, worker: Worker) -> bool:
    """True when the task in front has turned out long."""
    return ledger.now - worker.head_since > limits.STUCK_SECONDS


def recall(ledger: Ledger, *workers: Worker) -> None:
    """Take back what these workers have not begun."""
    for worker in workers:
        if worker.serving is not None:
            ledger.unmark_ahead(worker, worker.serving)
        ledger.actions.append(Recall(worker, worker.leases[0].number))


def recall_stuck(ledger: Ledger, group: GroupRecord) -> bool:
    """Take back what stands behind a task that turned out long; True if there was any."""
    stuck = []
    for worker in group.ahead:  # longest-running head first
        if not is_stuck(ledger, worker):
            break
        stuck.append(worker)
    recall(ledger, *stuck)
    return bool(stuck)


def recall_lower(ledger: Ledger, group: GroupRecord, priority: int) -> bool:
    """A queued task of this priority goes before what was sent ahead with a lower one; True if there was any."""
    lower = bool(group.ahead) and priority > group.ahead_floor
    if lower:
        recall(ledger, *group.ahead)
    return lower


def recall_from_others(ledger: Ledger, group: GroupRecord) -> bool:
    """The group waits: take back what other tags sent ahead into general slots; True if there was any.

    Those tags wait too in a moment, so nothing of this group's may take the place of what comes back.
    """
    others = [each for each in ledger.ahead_in_general if each is not group]
    theirs = [worker for each in others for worker in ledger.ahead_in_general[each]]
    recall(ledger, *theirs)
    return bool(theirs)


def recall_for_idle(ledger: Ledger, worker: Worker) -> None:
    """A slot is free and nothing queued may use it: take back something that may."""
    home = worker.group
    for group in (home,) if not home.general else ledger.ahead_groups:
        may_use = group.may_take_general or (group is home and not group.general)
        if group.ahead and group.kind == worker.kind and may_use:
            recall(ledger, next(iter(group.ahead)))
            return
