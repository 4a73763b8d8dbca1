"""A generator that is larger than memory should be: what the parent grows by while it is worked through.

The peers have no lazy feed; beside gpool stand the calls that their users reach for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter

import psutil

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.pools import CHUNK, METHOD
from benchmarks.tasks import double

ITEMS = 1_000_000
ITERATED = "gpool, results iterated"


class Gauge:
    """The parent's RSS, read every so many items: at the start, in between, and how much it has grown at most."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.start = self.peak = self.rss()

    def rss(self) -> int:
        rss: int = self._process.memory_info().rss
        return rss

    def read(self) -> None:
        self.peak = max(self.peak, self.rss())

    def watch(self, items: Iterable[int]) -> Iterator[int]:
        """The same items."""
        for number, item in enumerate(items):
            if number % 5000 == 0:
                self.read()
            yield item

    @property
    def growth(self) -> float:
        return (self.peak - self.start) / 1e6


def run(contender: str, quick: bool) -> Rows:
    items = ITEMS // 10 if quick else ITEMS
    feed = {"gpool": ingested, ITERATED: iterated, "Pool": imapped, "PPE": mapped}[contender]
    gauge, taken = feed(items)
    gauge.read()
    return {contender: {"growth MB": gauge.growth, "items/s": items / taken}}


def ingested(items: int) -> tuple[Gauge, float]:
    from gpool import GroupedPool

    with GroupedPool(tags={"work": 2}, iteration=False, mp_context=METHOD) as pool:
        pool.ingest(range(2000), "work", double)
        pool.join()
        gauge, began = Gauge(), perf_counter()
        pool.ingest(gauge.watch(range(items)), "work", double)
        pool.join()
        return gauge, perf_counter() - began


def iterated(items: int) -> tuple[Gauge, float]:
    from gpool import GroupedPool

    with GroupedPool(tags={"work": 2}, mp_context=METHOD) as pool:
        pool.ingest(range(2000), "work", double)
        assert len(list(pool)) == 2000
        gauge, began = Gauge(), perf_counter()
        pool.ingest(gauge.watch(range(items)), "work", double)
        assert sum(1 for _ in gauge.watch(pool)) == items
        return gauge, perf_counter() - began


def imapped(items: int) -> tuple[Gauge, float]:
    from multiprocessing import get_context

    with get_context(METHOD).Pool(2) as pool:
        assert sum(1 for _ in pool.imap_unordered(double, range(2000), CHUNK)) == 2000
        gauge, began = Gauge(), perf_counter()
        results = pool.imap_unordered(double, gauge.watch(range(items)), CHUNK)
        assert sum(1 for _ in gauge.watch(results)) == items
        return gauge, perf_counter() - began


def mapped(items: int) -> tuple[Gauge, float]:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(2, get_context(METHOD)) as pool:
        assert sum(1 for _ in pool.map(double, range(2000), chunksize=CHUNK)) == 2000
        gauge, began = Gauge(), perf_counter()
        results = pool.map(double, gauge.watch(range(items)), chunksize=CHUNK)
        assert sum(1 for _ in gauge.watch(results)) == items
        return gauge, perf_counter() - began


WORKLOAD = Workload(
    name="feed",
    about=f"a generator of {ITEMS:,} items, tiny function, 2 slots: gpool by ingest, Pool by imap_unordered and PPE by "
    f"map (both chunksize={CHUNK})",
    contenders=("gpool", ITERATED, "Pool", "PPE"),
    metrics=(Metric("growth MB", 1, False), Metric("items/s")),
    run=run,
    marks=(Mark("growth MB", most=20), Mark("growth MB", of=ITERATED, most=20)),
    seconds=600,
)
