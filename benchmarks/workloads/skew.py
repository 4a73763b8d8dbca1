"""Tasks of very unequal length, results as they come: how close to perfect packing.

The tasks keep a core busy by the clock on the wall, so they take as long as they say even where the pool itself wants a
core meanwhile. The ideal is all their time divided by the slots. A few are long: at the beginning, where anybody packs
well; at the end, where what was bundled with them or sent to the wrong worker waits; in one cluster amid the short.
No peer bundles here: all are asked for one task at a time.
"""

from __future__ import annotations

from math import exp, log
from random import Random
from time import perf_counter

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.pools import CONTENDERS, PEERS, opened
from benchmarks.tasks import spun

SLOTS = 2
SHORT, LONG = 1200, 12
SHORTEST, LONGER, LONGEST = 0.000_1, 0.010, 0.100
LAYOUTS = ("early", "late", "clustered")


def lengths(layout: str, quick: bool) -> list[float]:
    """Seconds of each task: most short, on a scale where 0.1 ms is as likely as 10; some of 100 ms."""
    random = Random(layout)
    count = SHORT // 12 if quick else SHORT
    short = [exp(random.uniform(log(SHORTEST), log(LONGER))) for _ in range(count)]
    where = {"early": 0, "late": count, "clustered": count // 2}[layout]
    return [*short[:where], *[LONGEST] * (2 if quick else LONG), *short[where:]]


def run(contender: str, quick: bool) -> Rows:
    found = {}
    with opened(contender, SLOTS) as pool:
        list(pool.unordered(spun, [SHORTEST] * 200))
        for layout in LAYOUTS:
            work = lengths(layout, quick)
            began = perf_counter()
            done = list(pool.unordered(spun, work))
            taken = perf_counter() - began
            assert sorted(done) == sorted(work)
            found[f"{layout} %"] = 100 * sum(work) / SLOTS / taken
    return {contender: found}


NO_CORE = (
    "The tasks keep both cores busy, and the parent's work for each, from drawing it to delivering its result, must "
    "have one of them too."
)

CLOSE = "Of those that bundle nothing, the best are closer to each other than the rounds of each."

WORKLOAD = Workload(
    name="skew",
    about=f"{SHORT:,} tasks of 0.1–10 ms and {LONG} of 100 ms, results as they come, {SLOTS} slots: share of the ideal "
    "in percent, with the long ones early, late and clustered",
    contenders=tuple(CONTENDERS),
    metrics=tuple(Metric(f"{layout} %", 1, False, rising=True) for layout in LAYOUTS),
    run=run,
    marks=(
        *(Mark(f"{layout} %", least=97, why=NO_CORE) for layout in LAYOUTS),
        *(Mark(f"{layout} %", over=PEERS, least=1, why=CLOSE) for layout in LAYOUTS),
    ),
)
