"""The same work on ever more workers, and spread over ever more tags: what the pool itself costs when it is large.

Two kinds of work: tasks that do nothing, where all is the pool's, and tasks that burn a millisecond of a core, whose
sum the machine can do no faster with more workers. Each size is a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from functools import partial
from itertools import cycle
from operator import methodcaller
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.meeting import gathered
from benchmarks.pools import METHOD, opened
from benchmarks.tasks import burn, noop

NOOPS, BURNS, BURN_SECONDS = 20_000, 2000, 0.001
WORKERS_OF_TAGS = 8


Submit = Callable[[Callable[[], object]], Any]


class Size(NamedTuple):
    """Attributes: who, its workers, and over how many tags the work is spread (0: no tag but the pool's own)."""

    who: str
    workers: int
    tags: int


WORKERS = {f"gpool, {count} workers": Size("gpool", count, 0) for count in (2, 8, 32, 128, 512)}
TAGS = {f"gpool, {count:,} tags": Size("gpool", WORKERS_OF_TAGS, count) for count in (1, 10, 1000)}
PEER = {f"PPE, {count} workers": Size("PPE", count, 0) for count in (2, 32, 128)}
SIZES = {**WORKERS, **TAGS, **PEER}
MOST_WORKERS, MOST_TAGS = list(WORKERS)[-1], list(TAGS)[-1]


def run(contender: str, quick: bool) -> Rows:
    who, workers, tags = SIZES[contender]
    if quick:
        workers, tags = min(workers, 16), min(tags, 100)
    return {contender: spread_over(tags, quick) if tags else on_workers(who, workers, quick)}


def on_workers(who: str, workers: int, quick: bool) -> dict[str, float]:
    before = descriptors()
    with opened(who, workers) as pool:
        gathered(pool, workers)
        found = {"descriptors/worker": (descriptors() - before) / workers}
        return {**found, **throughput(pool.submit, pool.result, quick)}


def spread_over(tags: int, quick: bool) -> dict[str, float]:
    """In turn under each of the tags, all of which live on general slots."""
    from gpool import GroupedPool

    slots: dict[Hashable, int] = dict.fromkeys(range(tags), 0)
    with GroupedPool(tags={**slots, None: WORKERS_OF_TAGS}, mp_context=METHOD) as pool:
        turns = cycle([pool.group(tag).submit for tag in slots])

        def submit(task: Callable[[], object]) -> Any:
            return next(turns)(task)

        for handle in [submit(noop) for _ in range(max(200, tags))]:
            handle.result()
        return throughput(submit, methodcaller("result"), quick)


def throughput(submit: Submit, result: Callable[[Any], object], quick: bool) -> dict[str, float]:
    part = 10 if quick else 1
    return {
        "no-ops/s": rate(submit, result, noop, NOOPS // part),
        "1 ms tasks/s": rate(submit, result, partial(burn, BURN_SECONDS), BURNS // part),
    }


def rate(submit: Submit, result: Callable[[Any], object], task: Callable[[], object], times: int) -> float:
    began = perf_counter()
    for handle in [submit(task) for _ in range(times)]:
        result(handle)
    return times / (perf_counter() - began)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


TOO_MANY = (
    "Of tasks that take no time, each of so many workers gets a few at a time, so nearly every task costs a switch "
    "from process to process, on two cores; a few workers get them in batches."
)
ONE_EACH = (
    "Into a general slot for which another tag waits nothing is sent ahead, so each task costs a trip through the "
    "parent; that is the same for 10 tags and for 1,000, while the tasks of one tag travel in batches."
)

WORKLOAD = Workload(
    name="scale",
    about=f"{NOOPS:,} no-ops, then {BURNS:,} tasks that burn 1 ms of a core each, submitted one by one and waited for: "
    f"on 2 to 512 workers; on {WORKERS_OF_TAGS} under 1 to 1,000 tags without a reserve",
    contenders=tuple(SIZES),
    metrics=(
        Metric("no-ops/s", 0, False, rising=True),
        Metric("1 ms tasks/s", 0, False, rising=True),
        Metric("descriptors/worker", 2, False, False),
    ),
    run=run,
    marks=(
        Mark("no-ops/s", of=MOST_WORKERS, over=tuple(WORKERS), least=0.7, why=TOO_MANY),
        Mark("1 ms tasks/s", of=MOST_WORKERS, over=tuple(WORKERS), least=0.7),
        Mark("no-ops/s", of=MOST_TAGS, over=tuple(TAGS), least=0.7, why=ONE_EACH),
        Mark("1 ms tasks/s", of=MOST_TAGS, over=tuple(TAGS), least=0.7),
        Mark("descriptors/worker", of=MOST_WORKERS, most=3),
    ),
)
