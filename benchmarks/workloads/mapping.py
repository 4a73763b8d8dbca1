"""A tiny function mapped over many rows, with whatever batching each peer has or is told.

The peers are given an iterator, which tells afterwards how much of it had been drawn when the first result was in hand:
who reads all of its input first cannot be given one that is long, slow or endless. gpool meets a range, which travels
as one, a list, which it may read on the spot, and an iterator, behind which any code of the user's may stand.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import length_hint
from time import perf_counter

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.meeting import gathered
from benchmarks.pools import CHUNK, PEERS, SUBMITTERS, opened
from benchmarks.tasks import double

ITEMS = 300_000
ONE_BY_ONE = (
    "Code of the user's may stand behind an iterator, so items are drawn one by one, by a thread of the feed's."
)
LISTED = "gpool, from a list"
ITERATED = "gpool, from an iterator"
EXACT = (
    "Each item is claimed by its worker before it begins, has its answer kept before the next one begins, and its own "
    "outcome: that is less than half a microsecond of Python in the worker and half of that in the parent, where a "
    "peer loops over a chunk in C, and pickles it as a whole. A peer's chunk is one task, which is lost as a whole."
)
REASONS = {"gpool": EXACT, LISTED: EXACT, ITERATED: f"{ONE_BY_ONE} {EXACT}"}


def run(contender: str, quick: bool) -> Rows:
    items = ITEMS // 10 if quick else ITEMS
    in_memory = contender in ("gpool", LISTED)
    numbers = list(range(items)) if contender == LISTED else range(items)
    with opened(contender.partition(",")[0]) as pool:
        if contender.startswith("gpool") or contender in SUBMITTERS:
            gathered(pool, 2)  # how long it takes until all workers are there is measured elsewhere
        list(pool.map(double, range(2000)))
        rows: Iterable[int] = numbers if in_memory else iter(numbers)
        began = perf_counter()
        results = iter(pool.map(double, rows))
        values = [next(results)]
        left = length_hint(rows)  # of what is in memory: all of it
        values.extend(results)
        taken = perf_counter() - began
    assert values == [row + row for row in range(items)]
    figures = {"items/s": items / taken}
    if not in_memory:
        figures["drawn at the first result %"] = 100 * (items - left) / items
    return {contender: figures}


WORKLOAD = Workload(
    name="map",
    about=f"a tiny function over {ITEMS:,} items, 2 slots; chunksize={CHUNK} for PPE, loky and pebble, own choice else",
    contenders=("gpool", LISTED, ITERATED, *PEERS),
    metrics=(Metric("items/s", rising=True), Metric("drawn at the first result %", 1, False, False)),
    run=run,
    marks=(
        *(Mark("items/s", of=each, over="Pool", least=1, why=why) for each, why in REASONS.items()),
        *(Mark("items/s", of=each, over="PPE", least=2, why=why) for each, why in REASONS.items()),
        Mark("drawn at the first result %", of=ITERATED, most=50),
    ),
)
