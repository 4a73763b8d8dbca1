"""The promise: a tag with a reserved slot starts as if it were alone, whatever floods the other slots.

The delay is from the call of ``submit`` to the task's first line, by the machine's monotonic clock. Three floods
hold the other two slots, by an endless feed: tasks that sleep (the slots are full, the cores are not), tasks that spin
(the cores are full too), tasks that do nothing (the pool's own threads have all they can do). Two bare processes
with a socketpair, beside two that spin, show how much of the second is the operating system's.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat

from benchmarks.bare import Echo
from benchmarks.measure import Mark, Metric, Rows, Workload, micros
from benchmarks.tasks import spin, stamp

BARE = "bare socketpair"
FLOODS: dict[str, tuple[Callable[[float], object], float]] = {
    "sleeping": (time.sleep, 0.005),
    "spinning": (spin, 0.005),
    "doing nothing": (abs, 0.0),
}


SLICES = (
    "Most probes begin as soon as on an idle pool. In the others, so the system's trace says, the supervisor's thread "
    "or the worker just woken stands in its core's run queue behind a task of the flood until that one's slice of "
    "some milliseconds ends. The bare pair serves no flood, so it has used little of its core and gets it at once."
)
BUSY_PARENT = "The flood keeps the parent busy as well, whose threads share one interpreter lock."
TENTH_SLOWEST = (
    "The cores are free here. The p99 is the tenth-slowest of a thousand probes, which on a machine that is shared "
    "with others differs by half from run to run: some runs meet the mark."
)
WHY = {"sleeping": TENTH_SLOWEST, "spinning": SLICES, "doing nothing": f"{SLICES} {BUSY_PARENT}"}


def run(contender: str, quick: bool) -> Rows:
    times = 50 if quick else 1000
    return bare(times) if contender == BARE else with_pool(times)


def with_pool(times: int) -> Rows:
    from gpool import GroupedPool

    delays: dict[str, list[float]] = {}
    with GroupedPool(tags={"web": 1, "bulk": 1, None: 1}, iteration=False, mp_context="forkserver") as pool:
        submit = pool.group("web").submit

        def probe() -> float:
            moment: float = submit(stamp).result()
            return moment

        probed(probe, 100)
        idle = probed(probe, times // 2)
        for name, (fn, seconds) in FLOODS.items():
            flood = pool.ingest(repeat(seconds), "bulk", fn)
            probed(probe, 50)
            delays[name] = probed(probe, times)
            flood.cancel()
            pool.join()
        idle += probed(probe, times // 2)
    return rows("gpool", idle, delays)


def bare(times: int) -> Rows:
    with Echo() as echo:
        probed(echo, 100)
        idle = probed(echo, times // 2)
        with spinners(2):
            delays = {"spinning": probed(echo, times)}
        idle += probed(echo, times // 2)
    return rows(BARE, idle, delays)


@contextmanager
def spinners(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def probed(probe: Callable[[], float], times: int) -> list[float]:
    """Start delays of single tasks, with a pause before each, so none finds the pool awake because of the last."""
    delays = []
    for _ in range(times):
        time.sleep(0.002)
        asked = time.monotonic()
        delays.append(probe() - asked)
    return delays


def rows(who: str, idle: list[float], delays: dict[str, list[float]]) -> Rows:
    calm = micros(idle)
    found: Rows = {f"{who}, idle": calm}
    for name, values in delays.items():
        loud = micros(values)
        against = {key.replace(" µs", " ÷ idle"): loud[key] / calm[key] for key in calm}
        found[f"{who}, flood {name}"] = {**loud, **against}
    return found


WORKLOAD = Workload(
    name="guarantee",
    about="delay from submit to the first line of a task whose tag has 1 reserved slot, while another floods 2 slots",
    contenders=("gpool", BARE),
    metrics=(
        Metric("p50 µs", 0, False),
        Metric("p99 µs", 0, False),
        *(Metric(f"p{p} ÷ idle", 2, False) for p in (50, 99)),
    ),
    run=run,
    marks=tuple(Mark("p99 ÷ idle", of=f"gpool, flood {name}", most=1.3, why=WHY[name]) for name in FLOODS),
)
