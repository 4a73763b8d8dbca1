"""One small task at a time: from its submission to its result in hand."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from benchmarks.bare import Echo
from benchmarks.measure import Mark, Metric, Rows, Workload, micros
from benchmarks.pools import PEERS, SUBMITTERS, opened, warm_up
from benchmarks.tasks import noop

BARE = "bare socketpair"
BESIDE = (
    "Beside the two trips through the kernel, which are all that the bare pair makes, lie pickling on both sides and "
    "the scheduler's decisions, some two hundred calls of functions in Python, which run at a fraction of their speed "
    "after each sleep, when the core's caches have served others."
)
HOPS = (
    "Two wake-ups, of the worker and of the thread that waits, are left. The rest is pickling and the scheduler's "
    "decisions, some two hundred calls of functions in Python, which run at a fraction of their speed after each "
    "sleep, when the core's caches have served others."
)
OTHERS = tuple(name for name in SUBMITTERS if name in PEERS)


def run(contender: str, quick: bool) -> Rows:
    times = 300 if quick else 2000
    if contender == BARE:
        with Echo() as echo:
            return {BARE: micros(timed(echo, times))}
    with opened(contender) as pool:
        warm_up(pool, noop, 200)
        submit, result = pool.submit, pool.result
        return {contender: micros(timed(lambda: result(submit(noop)), times))}


def timed(step: Callable[[], object], times: int) -> list[float]:
    """How long each of ``times`` calls takes, after some that do not count."""
    for _ in range(50):
        step()
    taken = []
    for _ in range(times):
        began = perf_counter()
        step()
        taken.append(perf_counter() - began)
    return taken


WORKLOAD = Workload(
    name="latency",
    about="submit → result of a no-op, one at a time; 2 slots",
    contenders=(*SUBMITTERS, BARE),
    metrics=(Metric("p50 µs"), Metric("p99 µs")),
    run=run,
    marks=(
        Mark("p50 µs", over=OTHERS, most=0.6, why=HOPS),
        Mark("p99 µs", over=OTHERS, most=0.6, why=HOPS),
        Mark("p50 µs", over=BARE, most=3, why=BESIDE),
        Mark("p99 µs", over=BARE, most=3, why=BESIDE),
    ),
)
