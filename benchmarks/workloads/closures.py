"""Functions that have no name to be imported by: a fresh closure per task."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from time import perf_counter

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.pools import opened, warm_up
from benchmarks.tasks import noop

TASKS = 3000
FLOOR = "cloudpickle.dumps alone"


def fresh(i: int) -> Callable[[], int]:
    return lambda: i + 1


def run(contender: str, quick: bool) -> Rows:
    times = TASKS // 10 if quick else TASKS
    if contender == FLOOR:
        dumps = import_module("cloudpickle").dumps
        began = perf_counter()
        for i in range(times):
            dumps(fresh(i))
        return {FLOOR: {"tasks/s": times / (perf_counter() - began)}}
    with opened(contender) as pool:
        warm_up(pool, noop, 200)
        submit, result = pool.submit, pool.result
        began = perf_counter()
        handles = [submit(fresh(i)) for i in range(times)]
        values = [result(handle) for handle in handles]
        taken = perf_counter() - began
    assert values == list(range(1, times + 1))
    return {contender: {"tasks/s": times / taken}}


PICKLING = (
    "What differs between fresh closures is pickled when the task is submitted, in the thread that submits, and so "
    "holds up the rest of the parent too."
)

WORKLOAD = Workload(
    name="lambda",
    about=f"{TASKS:,} fresh closures submitted one by one, then waited for; 2 slots",
    contenders=("gpool", "loky", FLOOR),
    metrics=(Metric("tasks/s", rising=True),),
    run=run,
    marks=(Mark("tasks/s", over="loky", least=4, why=PICKLING),),
)
