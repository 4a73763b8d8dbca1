"""Which workers there should be.

Owns the one path by which workers come and go: ``reconcile`` compares how many a group is bound to have with how
many it has. Start-up, resize, crash and recycling end there. Owns too what is concluded from deaths in a row.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpool import ahead, limits
from gpool.actions import Break
from gpool.groups import GroupRecord
from gpool.ledger import Ledger
from gpool.model import (
    BACKING_OFF,
    BROKEN,
    BUSY,
    DRAINING,
    IDLE,
    KILLED,
    OPEN,
    SOUND,
    STARTING,
    STOPPING,
    Verdict,
    Worker,
    WorkerState,
)
from gpool.placement import fill, place, settle_bindings

NEVER = float("inf")
"""As an instant before which nothing is started."""


def tidy(ledger: Ledger) -> None:
    """Reconcile what the event touched, and what that touches."""
    while ledger.untidy:
        touched = list(ledger.untidy)
        ledger.untidy.clear()
        if ledger.tasks or ledger.state is OPEN:
            _reconcile(ledger, touched)


def _reconcile(ledger: Ledger, groups: list[GroupRecord]) -> None:
    """Make the bound workers of these groups as many as their slots, with as little ado as possible."""
    for group in groups:
        settle_bindings(ledger, group)
    for poor in [group for group in groups if len(group.bound) < group.slots]:
        for rich in [group for group in groups if len(group.bound) > group.slots]:
            while len(rich.bound) > rich.slots and len(poor.bound) < poor.slots and _hand_over(ledger, rich, poor):
                pass
    for group in groups:
        _shed(ledger, group)
        while len(group.bound) < group.slots and may_start(ledger, group):
            ledger.start(group, group.kind)
    for group in groups:
        fill(ledger, group)


def _hand_over(ledger: Ledger, rich: GroupRecord, poor: GroupRecord) -> bool:
    """Rebind one surplus worker of ``rich`` to ``poor`` if it is of use there."""
    worker = rich.idle.newest(poor.kind)
    if worker is not None:
        rich.idle.remove(worker)
        ledger.rebind(worker, poor)
        place(ledger, worker)
        return True
    worker = rich.starting.newest(poor.kind)
    if worker is None and poor.general and len(rich.own) > rich.slots:
        worker = next(iter(rich.own))  # what it runs is a burst from now on
    if worker is not None:
        ledger.rebind(worker, poor)
    return worker is not None


def _shed(ledger: Ledger, group: GroupRecord) -> None:
    """Let surplus workers go: idle ones first, then those that start, then the busy ones that run longest."""
    surplus = len(group.bound) - group.slots
    if surplus <= 0:
        return
    for worker in [each for each in group.bound if each.state is KILLED][:surplus]:
        ledger.leave_slot(worker)  # on its way out
    for worker in [*group.idle, *group.starting][: max(0, len(group.bound) - group.slots)]:
        ledger.retire(worker)
    surplus = len(group.bound) - group.slots
    busy = [worker for worker in group.bound if worker.state is BUSY]
    for worker in sorted(busy, key=lambda each: each.head_since)[: max(0, surplus)]:
        drain(ledger, worker)


def drain(ledger: Ledger, worker: Worker) -> None:
    """A busy worker leaves its slot now and ends when it has finished what it runs."""
    if worker.has_behind:
        ahead.recall(ledger, worker)
    ledger.leave_slot(worker)
    ledger.move(worker, DRAINING)


def recycle(ledger: Ledger, worker: Worker) -> None:
    """Replace a worker between two tasks: it ends when it has finished what it runs."""
    if worker.state is DRAINING:
        return
    worker.group.recycled += 1
    if worker.state is IDLE:
        ledger.retire(worker)
    else:
        drain(ledger, worker)


def dismiss_strangers(ledger: Ledger, group: GroupRecord) -> None:
    """The group's kind has changed: let go of the workers it can no longer use."""
    for worker in [each for each in group.bound if each.kind != group.kind]:
        if worker.state is BUSY:
            drain(ledger, worker)
        elif worker.state is not KILLED:
            ledger.retire(worker)


def can_start(ledger: Ledger, group: GroupRecord) -> bool:
    """True unless its workers die before they are ready, again and again."""
    most = group.settings.max_start_failures
    return group.failures < (limits.MAX_START_FAILURES if most is None else most) and group.blocked_until < NEVER


def may_start(ledger: Ledger, group: GroupRecord) -> bool:
    """True when a worker of the group may be started now."""
    held = group.held_until > 0 and not group.general  # the general group's workers serve others too
    return not held and can_start(ledger, group) and ledger.now >= group.blocked_until


def note_ready(ledger: Ledger, owner: GroupRecord) -> None:
    """A worker of the owner's has started: whatever waited for a better moment is started too."""
    if owner.state is BROKEN:
        return
    owner.failures = 0
    if owner.state is BACKING_OFF:
        owner.blocked_until = 0.0
        if not owner.held_until:
            ledger.move(owner, SOUND)
        _restart(ledger, owner)


def note_death(ledger: Ledger, worker: Worker, was: WorkerState, reason: str) -> None:
    """Draw the conclusions from a death that nobody asked for; too many in a row break the group.

    A worker that dies in a task tells against the task's tag, wherever it ran, and the tag is held back. Any other
    death tells against the group that answers for the worker's settings, and that group starts no workers for a while.
    """
    late = worker.doom is Verdict.NOT_READY
    if (worker.doom is not None and not late) or was is STOPPING:
        return
    if was is IDLE and worker.tasks_done:
        return
    blamed = worker.serving or ledger.owner(worker)
    if was is not STARTING and not late:
        blamed.crashes += 1
        delay = limits.crash_delay(blamed.crashes)
    elif ledger.exiting:
        blamed.blocked_until = NEVER  # an interpreter that exits may be unable to start processes
        return
    else:
        blamed.failures += 1
        delay = limits.restart_delay(blamed.failures)
    _restart(ledger, blamed)
    most = blamed.settings.max_crashes
    if delay > 0:
        if worker.serving is None:
            _back_off(ledger, blamed, delay)
        else:
            _hold_back(ledger, blamed, delay)
    if not can_start(ledger, blamed) or blamed.crashes >= (limits.MAX_CRASHES if most is None else most):
        _break(ledger, blamed, "it was not ready in time" if late else reason)


def _back_off(ledger: Ledger, group: GroupRecord, delay: float) -> None:
    group.blocked_until = ledger.now + delay
    if group.state is SOUND:
        ledger.move(group, BACKING_OFF)

    def restart(each: GroupRecord) -> None:
        _restart(ledger, each)

    ledger.timers.at(group.blocked_until, group, _is_backing_off, restart)


def _hold_back(ledger: Ledger, group: GroupRecord, delay: float) -> None:
    """The group's tasks get no general worker for a while, nor are workers of its own replaced; others may burst."""
    group.held_until = ledger.now + delay
    if group.state is SOUND:
        ledger.move(group, BACKING_OFF)
    ledger.contenders.touch(group)

    def release(each: GroupRecord) -> None:
        if ledger.now >= each.held_until:  # else it was held back anew
            _release(ledger, each)

    ledger.timers.at(group.held_until, group, _is_held_back, release)


def _release(ledger: Ledger, group: GroupRecord) -> None:
    """The group's tasks contend again, as of a tag that had none."""
    group.held_until = 0.0
    if group.state is BACKING_OFF and not group.failures and ledger.now >= group.blocked_until:
        ledger.move(group, SOUND)
    ledger.contenders.wake(group, ledger.now)
    _restart(ledger, group)


def end_row(ledger: Ledger, group: GroupRecord) -> None:
    """A task of the group has ended by itself, or somebody resized it: deaths are counted anew."""
    group.crashes = 0
    if group.held_until:
        _release(ledger, group)


def _restart(ledger: Ledger, owner: GroupRecord) -> None:
    """Workers of the owner's may be started, in its own slots and in the general ones."""
    ledger.untidy[owner] = ledger.untidy[ledger.general] = None


def _break(ledger: Ledger, group: GroupRecord, reason: str) -> None:
    if group.state is BROKEN:
        return
    ledger.move(group, BROKEN)
    ledger.actions.append(Break(group.tag, max(group.failures, group.crashes), reason))
    for each in ledger.groups.values() if group.general else [group]:
        if is_hopeless(ledger, each):
            give_up(ledger, each, Verdict.BROKEN)


def is_hopeless(ledger: Ledger, group: GroupRecord) -> bool:
    """True when the group's tasks fail until somebody resizes it."""
    return group.state is BROKEN or (group.slots == 0 and not can_start(ledger, ledger.general))


def refused(ledger: Ledger, group: GroupRecord) -> Verdict | None:
    """How a task of the group's that wants a slot ends at once, if it must."""
    if not is_hopeless(ledger, group):
        return None
    return Verdict.BROKEN if BROKEN in (group.state, ledger.general.state) else Verdict.CLOSED


def give_up(ledger: Ledger, group: GroupRecord, verdict: Verdict) -> None:
    """End every queued task of the group."""
    for task in group.backlog.tasks():
        ledger.abandon(task, verdict)


def give_up_the_impossible(ledger: Ledger) -> None:
    """Nobody can resize a pool that closes: what has no slot and will get none ends here."""
    for group in ledger.groups.values():
        if group.backlog and not _may_hope(ledger, group):
            give_up(ledger, group, Verdict.CLOSED)


def _may_hope(ledger: Ledger, group: GroupRecord) -> bool:
    """True when the group has a slot, and a worker for it or the chance of one."""
    homes: Iterable[GroupRecord] = (group, ledger.general) if group.settings.burst != 0 else (group,)
    return any(home.slots > 0 and _may_get_worker(group, home) for home in homes)


def _may_get_worker(group: GroupRecord, home: GroupRecord) -> bool:
    if group.blocked_until < NEVER and home.blocked_until < NEVER:
        return True
    up = (STARTING, IDLE, BUSY)
    return any(worker.kind == group.kind and worker.state in up for worker in home.bound)


def _is_held_back(group: GroupRecord) -> bool:
    return group.held_until > 0.0


def _is_backing_off(group: GroupRecord) -> bool:
    return group.state is not SOUND
