"""Many small tasks: submitted one by one, then waited for."""

from __future__ import annotations

from time import perf_counter

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.pools import SUBMITTERS, opened, warm_up
from benchmarks.tasks import noop

TASKS = 20_000
PYTHON = (
    "The parent is busy all the time with some ten microseconds of Python for each task, under one interpreter lock: "
    "about a third is pickling the call, the rest making a future, settling and reading it, the garbage collector's "
    "visits, and each task's share of its batch's way through the scheduler and the stream. (Pool has two modes: in "
    "some rounds it is several times as fast as in others.)"
)


def run(contender: str, quick: bool) -> Rows:
    times = TASKS // 10 if quick else TASKS
    with opened(contender) as pool:
        warm_up(pool, noop, 200)
        submit, result = pool.submit, pool.result
        began = perf_counter()
        handles = [submit(noop) for _ in range(times)]
        for handle in handles:
            result(handle)
        return {contender: {"tasks/s": times / (perf_counter() - began)}}


WORKLOAD = Workload(
    name="submit",
    about=f"{TASKS:,} no-op tasks submitted one by one, then waited for; 2 slots",
    contenders=SUBMITTERS,
    metrics=(Metric("tasks/s", rising=True),),
    run=run,
    marks=(
        Mark("tasks/s", over="PPE", least=10, why=PYTHON),
        Mark("tasks/s", over="loky", least=10, why=PYTHON),
        Mark("tasks/s", over="Pool", least=4, why=PYTHON),
    ),
)
