"""What a pool costs that has nothing to do: processor time of the whole family, and the workers' own memory.

Idle pools do not disturb each other, so all contenders sit through the same minute.
"""

from __future__ import annotations

import time
from statistics import mean

import psutil

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.meeting import gathered
from benchmarks.pools import SUBMITTERS, opened

WORKERS = 16
SETTLE_SECONDS, SECONDS = 5.0, 60.0
"""Peers start their workers at the same time, on few cores; so they first get time to come to rest."""


def run(contender: str, quick: bool) -> Rows:
    workers, settle, seconds = (4, 0.5, 1.0) if quick else (WORKERS, SETTLE_SECONDS, SECONDS)
    with opened(contender, workers) as pool:
        pids = gathered(pool, workers)
        time.sleep(settle)
        before, began = processor_seconds(), time.monotonic()
        time.sleep(seconds)
        used, passed = processor_seconds() - before, time.monotonic() - began
        unique = mean(psutil.Process(pid).memory_full_info().uss for pid in pids)
        return {contender: {"CPU %": 100 * used / passed, "MB/worker": unique / 1e6}}


def processor_seconds() -> float:
    """Of this process and all that descend from it."""
    me = psutil.Process()
    times = [each.cpu_times() for each in (me, *me.children(recursive=True))]
    return sum(each.user + each.system for each in times)


WORKLOAD = Workload(
    name="idle",
    about=f"{WORKERS} workers with nothing to do for {SECONDS:g} s: processor time of parent, workers and helpers in "
    "percent of one core; unique memory of a worker",
    contenders=SUBMITTERS,
    metrics=(Metric("CPU %", 2, False), Metric("MB/worker", 1)),
    run=run,
    marks=(Mark("CPU %", most=0.3), Mark("MB/worker", over="PPE", most=1)),
    seconds=240,
    together=True,
)
