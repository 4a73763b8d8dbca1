"""What a task weighs that waits: the parent's growth per queued future, while the only slot is held.

The peers queue fewer, for they weigh more and take longer; it is the weight of one that is compared.
"""

from __future__ import annotations

import gc
from time import perf_counter

import psutil

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.meeting import Meeting
from benchmarks.pools import SUBMITTERS, opened, warm_up
from benchmarks.tasks import noop

TASKS, OF_PEERS = 1_000_000, 100_000


def run(contender: str, quick: bool) -> Rows:
    times = TASKS if contender == "gpool" else OF_PEERS
    if quick:
        times //= 50
    with Meeting() as meeting, opened(contender, 1, drop=True) as pool:
        warm_up(pool, noop, 200)
        pool.submit(meeting.task)
        meeting.arrival()
        handles: list[object] = [None] * times
        gc.collect()
        before, began = resident(), perf_counter()
        submit = pool.submit
        for number in range(times):
            handles[number] = submit(noop)
        taken, after = perf_counter() - began, resident()
        with meeting.over():
            return {contender: {"bytes/task": (after - before) / times, "submits/s": times / taken}}


def resident() -> int:
    rss: int = psutil.Process().memory_info().rss
    return rss


WORKLOAD = Workload(
    name="queued",
    about=f"{TASKS:,} futures queued behind a slot that is held ({OF_PEERS:,} with the peers)",
    contenders=SUBMITTERS,
    metrics=(Metric("bytes/task"), Metric("submits/s", rising=True)),
    run=run,
    marks=(Mark("bytes/task", over="PPE", most=0.5),),
    seconds=300,
)
