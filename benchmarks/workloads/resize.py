"""A pool that changes: from 2 to 32 slots while it runs, and a slot whose worker was killed.

All slots serve when as many tasks hold one at the same time. The peers cannot resize; beside gpool stands the
time in which they construct a pool of 32; of those that survive a killed worker, some replace it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.meeting import Meeting
from benchmarks.pools import METHOD, opened
from benchmarks.tasks import noop, stamp

FEW, MANY = 2, 32
REPLACING = ("gpool", "pebble")
"""Who replaces a worker that was killed, and can be closed after that."""


def run(contender: str, quick: bool) -> Rows:
    many, kills = (8, 2) if quick else (MANY, 11)
    found = {"grow ms/worker": grown(many) if contender == "gpool" else constructed(contender, many)}
    if contender in REPLACING:
        found["replace ms"] = median(replaced(contender, kills))
    return {contender: found}


def grown(many: int) -> float:
    from gpool import GroupedPool

    with GroupedPool(tags={"work": FEW}, mp_context=METHOD) as pool, Meeting() as meeting:
        work = pool.group("work")
        futures: list[Any] = [work.submit(meeting.task) for _ in range(many)]
        for _ in range(FEW):
            meeting.arrival()
        asked = time.monotonic()
        pool.adjust("work", many)
        taken = max(meeting.arrival()[0] for _ in range(many - FEW)) - asked
        finish(meeting, futures, lambda future: future.result())
    return 1e3 * taken / (many - FEW)


def constructed(contender: str, many: int) -> float:
    with opened(contender, FEW) as pool, Meeting() as meeting:
        pool.result(pool.submit(noop))  # the forkserver runs, as it does when gpool grows
        asked = time.monotonic()
        with opened(contender, many) as large:
            futures = [large.submit(meeting.task) for _ in range(many)]
            taken = max(meeting.arrival()[0] for _ in range(many)) - asked
            finish(meeting, futures, large.result)
    return 1e3 * taken / many


def finish(meeting: Meeting, futures: list[Any], result: Callable[[Any], object]) -> None:
    with meeting.over():
        for future in futures:
            result(future)


def replaced(contender: str, times: int) -> list[float]:
    """ms from SIGKILL of a busy worker to the first line of the task queued behind it."""
    taken = []
    with opened(contender, 1) as pool, Meeting() as meeting:
        for _ in range(times):
            lost, behind = pool.submit(meeting.task), pool.submit(stamp)
            _, pid = meeting.arrival()
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            taken.append(1e3 * (pool.result(behind) - killed))
            assert lost.exception() is not None
    return taken


WORKLOAD = Workload(
    name="resize",
    about=f"slots {FEW} → {MANY} live until all serve (peers: construction of a pool of {MANY}); SIGKILL of a busy "
    "worker until its slot serves again",
    contenders=("gpool", "PPE", "Pool", "loky", "pebble"),
    metrics=(Metric("grow ms/worker", 1), Metric("replace ms", 1)),
    run=run,
    marks=(Mark("replace ms", most=60), Mark("grow ms/worker", most=25)),
)
