"""Many small tasks: submitted one by one, then waited for."""

from __future__ import annotations

from time import perf_counter

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.pools import SUBMITTERS, opened, warm_up
from benchmarks.tasks import noop

TASKS = 20_000
PYTHON = (
    "The parent is busy all the time, nearly all of it with Python under one interpreter lock, in many small steps: "
    "pickling the call, holding signals back, making a task and a future, the scheduler's decisions, the frames, the "
    "answer's way to its future. The system calls are batched and hardly matter; the workers need half as long. (Pool "
    "has two modes: in some rounds it is several times as fast as in others.)"
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
