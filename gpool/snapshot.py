"""What ``stats()`` shows.

Owns immutable values, made on demand from the scheduler's state by whoever holds the supervisor's turn.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from gpool.model import Worker
from gpool.scheduler import Scheduler
from gpool.workers.backend import Sample


class GroupStats(NamedTuple):
    """One group at one moment.

    Attributes:
        tag: its tag; None for the general group.
        slots: its target.
        busy: slots it holds, burst ones included.
        idle: its workers that wait for a task.
        starting: its workers that are not up yet.
        burst: general slots it holds beyond its reserve.
        queued: its tasks that have not begun.
        done, failed, lost: its tasks that returned; that raised, timed out or could not run; that crashed.
        retried: attempts made again.
        recycled: workers replaced because of ``max_tasks_per_child`` or their memory.
        state: ``"sound"``, ``"backing off"`` or ``"broken"``.
    """

    tag: Hashable
    slots: int
    busy: int
    idle: int
    starting: int
    burst: int
    queued: int
    done: int
    failed: int
    lost: int
    retried: int
    recycled: int
    state: str


class WorkerStats(NamedTuple):
    """One worker at one moment.

    Attributes:
        id: its number in this pool.
        pid: its process id; None before it has one.
        group: the tag it is bound to; None for the general group.
        serving: the tag whose task it runs; None when it runs none, or one of the general group's.
        state: ``"starting"``, ``"idle"``, ``"busy"``, ``"draining"``, ``"stopping"`` or ``"killed"``.
        task: the name of what it runs.
        running_seconds: for how long.
        tasks_done: attempts it has ended.
        rss: bytes, its children's included; None if unknown.
        cpu_percent: since the sample before; None if unknown.
        status: the system's word for it, such as ``"sleeping"``.
    """

    id: int
    pid: int | None
    group: Hashable
    serving: Hashable
    state: str
    task: str | None
    running_seconds: float
    tasks_done: int
    rss: int | None
    cpu_percent: float | None
    status: str | None


class PoolStats(NamedTuple):
    """The pool at one moment.

    Attributes:
        groups: by tag.
        workers: those whose process is not gone.
        pending: tasks that have not ended.
    """

    groups: Mapping[Hashable, GroupStats]
    workers: tuple[WorkerStats, ...]
    pending: int


def take(
    scheduler: Scheduler, pids: Mapping[int, int], samples: Mapping[int, Sample], pending: int, now: float
) -> PoolStats:
    """A snapshot of the machine's present state."""
    ahead = {group: sum(map(_behind, group.ahead)) for group in scheduler.groups.values()}
    groups = {
        tag: GroupStats(
            tag=tag,
            slots=group.slots,
            busy=group.running,
            idle=group.idle_count,
            starting=len(group.starting),
            burst=len(group.bursting),
            queued=group.backlog.items + ahead[group],
            done=group.done,
            failed=group.failed,
            lost=group.lost,
            retried=group.retried,
            recycled=group.recycled,
            state=group.state.value,
        )
        for tag, group in scheduler.groups.items()
    }
    workers = []
    for worker in scheduler.workers.values():
        sample = samples.get(worker.id)
        head = worker.leases[0].task if worker.leases else None
        workers.append(
            WorkerStats(
                id=worker.id,
                pid=pids.get(worker.id),
                group=worker.group.tag,
                serving=worker.serving.tag if worker.serving else None,
                state=worker.state.value,
                task=head.name if head else None,
                running_seconds=now - worker.head_since if head else 0.0,
                tasks_done=worker.tasks_done,
                rss=sample.rss if sample else None,
                cpu_percent=sample.cpu_percent if sample else None,
                status=sample.status if sample else None,
            )
        )
    return PoolStats(groups, tuple(workers), pending)


def _behind(worker: Worker) -> int:
    """Items that a worker holds beside the one it runs."""
    return sum(lease.task.size for lease in worker.leases) - 1
