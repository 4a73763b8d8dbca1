"""A tiny function mapped over many rows, with whatever batching each peer has or is told."""

from __future__ import annotations

from time import perf_counter

from benchmarks.measure import Metric, Rows, Workload
from benchmarks.pools import CHUNK, CONTENDERS, opened
from benchmarks.tasks import double

ITEMS = 50_000


def run(contender: str, quick: bool) -> Rows:
    items = ITEMS // 5 if quick else ITEMS
    rows = range(items)
    with opened(contender) as pool:
        pool.map(double, range(2000))
        began = perf_counter()
        values = pool.map(double, rows)
        taken = perf_counter() - began
    assert values == [row + row for row in rows]
    return {contender: {"items/s": items / taken}}


WORKLOAD = Workload(
    name="map",
    about=f"a tiny function over {ITEMS:,} items, 2 slots; chunksize={CHUNK} for PPE, loky and pebble, own choice else",
    contenders=tuple(CONTENDERS),
    metrics=(Metric("items/s"),),
    run=run,
)
