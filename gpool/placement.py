"""Who gets a slot: queued tasks meet free workers.

Owns the rule of admission. With r tasks of tag t running on workers that are not draining, and a reserve of g, a
task of t is admitted iff r < g, or a general slot is free and t is below its burst cap. Burst is max(0, r - g), and
bindings follow the count: whenever t holds a general worker while one of its own does not run, the two swap.

Which worker may serve which tag is asked here only: one of the group's kind, bound to it or to the general group.
"""

from __future__ import annotations

from gpool import ahead, limits
from gpool.actions import new_dispatch
from gpool.groups import GroupRecord
from gpool.ledger import Ledger
from gpool.model import BUSY, IDLE, Task, Worker


def fill(ledger: Ledger, group: GroupRecord) -> None:
    """Give the group's queued tasks every slot they may use, then send ahead what may be."""
    while group.backlog.size:
        if group.ahead and ahead.recall_stuck(ledger, group):
            return  # those are older; ``Recalled`` fills again
        worker = free_worker(ledger, group)
        if worker is None:
            if not (group.may_take_general and ahead.recall_from_others(ledger, group)):
                ahead.top_up(ledger, group)
            return
        assign(ledger, worker, group, group.backlog.pop())


def use_idle(ledger: Ledger) -> None:
    """General workers are idle while tags wait: they are of another kind, or a tag has room below its cap again."""
    for group in list(ledger.contenders.waiting(ledger.now)):
        while group.backlog.size and (worker := free_worker(ledger, group)) is not None:
            assign(ledger, worker, group, group.backlog.pop())


def place(ledger: Ledger, worker: Worker) -> None:
    """Give an idle worker that is in no set its next task, or make it wait in its group."""
    group = worker.group
    if group.bursting and not group.general:
        # The reserve has a free slot while the tag holds a general one: the two swap bindings.
        ledger.rebind(next(iter(group.bursting)), group)
        ledger.rebind(worker, ledger.general)
        group = ledger.general
    heir = _heir(ledger, worker) if group.general else group
    if heir is None or not heir.backlog.size:
        group.idle.add(worker)
        ahead.recall_for_idle(ledger, worker)
    elif heir.kind != worker.kind:
        group.idle.add(worker)
        _replace(ledger, worker, heir)
    elif heir.ahead and ahead.recall_stuck(ledger, heir):
        group.idle.add(worker)  # those are older; ``Recalled`` fills
    else:
        if group.general and heir.short:
            _bind_to_reserve(ledger, worker, heir)
        assign(ledger, worker, heir, heir.backlog.pop())
        if heir.backlog.size:
            ahead.top_up(ledger, heir)  # it had no other slot to use, or it would not have waited for this one


def settle_bindings(ledger: Ledger, group: GroupRecord) -> None:
    """While a tag runs in the general group though its own has place, move that worker over."""
    while group.bursting and not group.general and len(group.own) < group.slots:
        running = next(iter(group.bursting))
        if len(group.bound) < group.slots:
            ledger.rebind(running, group)
            ledger.untidy[ledger.general] = None
            continue
        other = _not_running(ledger, group)
        ledger.rebind(running, group)
        ledger.rebind(other, ledger.general)
        if other.state is IDLE:
            place(ledger, other)


def free_worker(ledger: Ledger, group: GroupRecord) -> Worker | None:
    """An idle worker for the group's next task, bound as the count demands and out of its set."""
    general = ledger.general
    short = group.short
    if short and (own := group.idle.newest(group.kind)) is not None:
        group.idle.remove(own)
        return own
    if not group.may_take_general:
        return None
    worker = general.idle.newest(group.kind)
    if worker is not None:
        general.idle.remove(worker)
        if short:
            _bind_to_reserve(ledger, worker, group)
    elif not short:
        while (stranger := general.idle.stranger(group.kind)) is not None and ledger.lacks_starting(group):
            _replace(ledger, stranger, group)
    return worker


def _heir(ledger: Ledger, worker: Worker) -> GroupRecord | None:
    """The tag that gets a free general worker."""
    contenders, now = ledger.contenders, ledger.now
    return contenders.best_short(worker.kind, now) or contenders.best(worker.kind, now, ledger.lacks_starting)


def assign(ledger: Ledger, worker: Worker, group: GroupRecord, task: Task) -> None:
    """Lease a task that is in no backlog to a worker that is idle and in no set."""
    if task.size > 1:
        task = _portion(ledger, worker, group, task)
    ledger.occupy(worker, group)
    ledger.move(worker, BUSY)
    lease = ledger.lease(worker, task)
    ledger.begin(lease)
    ledger.actions.append(new_dispatch((worker, (lease,))))
    group.roomy[worker] = group.hungry[worker] = None
    if task.size > 1:
        ahead.note_ahead(ledger, worker, group, task)


def _portion(ledger: Ledger, worker: Worker, group: GroupRecord, task: Task) -> Task:
    """As much of a block as the worker is to have; the rest goes back to the front of the queue."""
    size = min(task.size, limits.block(group.item_seconds))
    if worker.group.general and ledger.contenders.others_than(group, ledger.now):
        size = 1  # what is behind it would go before another tag's
    elif not group.backlog.size:  # the last one: every slot is to have some of it
        size = min(size, max(limits.SMALLEST_PORTION, -(-size // ledger.usable_slots(group))))
    most = group.settings.max_tasks_per_child
    if most is not None:
        size = min(size, max(1, most - worker.tasks_done))  # it may have run other tags' too
    return ledger.cut(group, task, size)


def _bind_to_reserve(ledger: Ledger, worker: Worker, group: GroupRecord) -> None:
    """A general worker takes the place of one of the group's that is not up yet; that one becomes general."""
    ledger.rebind(worker, group)
    if len(group.bound) > group.slots:
        ledger.rebind(_not_running(ledger, group), ledger.general)
    else:
        ledger.untidy[ledger.general] = None


def _not_running(ledger: Ledger, group: GroupRecord) -> Worker:
    """A bound worker that runs no task of the group's; taken out of the idle set if it was there."""
    for worker in group.starting:
        return worker
    for worker in group.idle:
        group.idle.remove(worker)
        return worker
    for worker in group.bound:
        if worker.serving is None:
            return worker  # killed before it was up
    raise AssertionError(f"{group!r} has no worker to give")


def _replace(ledger: Ledger, worker: Worker, group: GroupRecord) -> None:
    """Put a worker of the group's kind into the slot of an idle general worker of another kind."""
    ledger.retire(worker)
    ledger.start(ledger.general, group.kind)
