"""A stream that is larger than memory should be: what the parent grows by while it is worked through.

gpool feeds itself from a range of ten million, which it may read on the spot, and from a generator, behind which any
code of the user's may stand. The peers have no lazy feed; beside gpool stand the calls that their users reach for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter

import psutil

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.pools import CHUNK, METHOD
from benchmarks.tasks import double

MANY, ITEMS = 10_000_000, 1_000_000
GENERATED, ITERATED = "gpool, from a generator", "gpool, results iterated"
GLANCE_SECONDS = 0.05


class Gauge:
    """The parent's RSS, read every so many seconds or items: at the start, in between, and its growth at most."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.start = self.peak = self.rss()

    def rss(self) -> int:
        rss: int = self._process.memory_info().rss
        return rss

    def read(self) -> None:
        self.peak = max(self.peak, self.rss())

    @contextmanager
    def glancing(self) -> Iterator[None]:
        """Read by a thread of its own while the block runs."""
        over = Event()

        def glance() -> None:
            while not over.wait(GLANCE_SECONDS):
                self.read()

        thread = Thread(target=glance)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

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
    items = MANY if contender == "gpool" else ITEMS
    items //= 50 if quick else 1
    feed = {"gpool": ingested, GENERATED: generated, ITERATED: iterated, "Pool": imapped, "PPE": mapped}[contender]
    gauge, taken = feed(items)
    gauge.read()
    return {contender: {"growth MB": gauge.growth, "items/s": items / taken}}


def ingested(items: int) -> tuple[Gauge, float]:
    from gpool import GroupedPool

    with GroupedPool(tags={"work": 2}, iteration=False, mp_context=METHOD) as pool:
        pool.ingest(range(2000), "work", double)
        pool.join()
        gauge, began = Gauge(), perf_counter()
        with gauge.glancing():
            pool.ingest(range(items), "work", double)
            pool.join()
        return gauge, perf_counter() - began


def generated(items: int) -> tuple[Gauge, float]:
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
    about=f"a tiny function over a stream, 2 slots: gpool by ingest, {MANY:,} items of a range; the others {ITEMS:,} "
    f"of a generator, Pool by imap_unordered and PPE by map (both chunksize={CHUNK})",
    contenders=("gpool", GENERATED, ITERATED, "Pool", "PPE"),
    metrics=(Metric("growth MB", 1, False), Metric("items/s", rising=True)),
    run=run,
    marks=tuple(Mark("growth MB", of=each, most=20) for each in ("gpool", GENERATED, ITERATED)),
    seconds=600,
)
