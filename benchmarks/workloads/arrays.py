"""Large data: arrays and long byte strings as arguments and results, beside a warm copy of as many bytes."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.pools import opened
from benchmarks.tasks import back, made_once, size_of

LARGE = 64 << 20
MEDIUM = 1 << 20
SEVERAL = 50
"""Arrays of 1 MB under way at a time, and byte strings in a list."""
TEXT = 100_000
COPY = "memcpy"
CONTENDERS = ("gpool", "PPE", "Pool")


def run(contender: str, quick: bool) -> Rows:
    import numpy as np

    times = 3 if quick else 9
    large = np.random.default_rng(1).integers(0, 255, LARGE, dtype=np.uint8)
    if contender == COPY:
        target = np.empty_like(large)
        return {COPY: rates(LARGE, timed(lambda: np.copyto(target, large), times))}
    medium, texts = large[:MEDIUM], [large[i * TEXT : (i + 1) * TEXT].tobytes() for i in range(SEVERAL)]
    with opened(contender) as pool:
        submit: Any = pool.submit

        def begin(fn: Callable[[Any], object], value: object) -> object:
            return submit(fn, (value,)) if contender == "Pool" else submit(fn, value)

        def call(fn: Callable[[Any], object], value: object) -> None:
            pool.result(begin(fn, value))

        def calls(fn: Callable[[Any], object], value: object) -> None:
            for handle in [begin(fn, value) for _ in range(SEVERAL)]:
                pool.result(handle)

        steps: dict[str, tuple[int, Callable[[], None]]] = {
            "64 MB in": (LARGE, lambda: call(size_of, large)),
            "64 MB out": (LARGE, lambda: call(made_once, LARGE)),
            "64 MB both": (2 * LARGE, lambda: call(back, large)),
            "1 MB in": (SEVERAL * MEDIUM, lambda: calls(size_of, medium)),
            "1 MB both": (2 * SEVERAL * MEDIUM, lambda: calls(back, medium)),
            "strings in": (SEVERAL * TEXT, lambda: call(size_of, texts)),
            "strings both": (2 * SEVERAL * TEXT, lambda: call(back, texts)),
        }
        return {contender: {name: rate(size, timed(step, times)) for name, (size, step) in steps.items()}}


def timed(step: Callable[[], object], times: int) -> float:
    """The median of so many, after two that do not count."""
    taken = []
    for _ in range(times + 2):
        began = perf_counter()
        step()
        taken.append(perf_counter() - began)
    return median(taken[2:])


def rate(size: int, seconds: float) -> float:
    return size / seconds / 1e9


def rates(size: int, seconds: float) -> dict[str, float]:
    """A copy is held against everything."""
    return {name: rate(size, seconds) for name in NAMES}


NAMES = ("64 MB in", "64 MB out", "64 MB both", "1 MB in", "1 MB both", "strings in", "strings both")

WORKLOAD = Workload(
    name="arrays",
    about=f"GB/s; arrays, {SEVERAL} of 1 MB at a time, lists of {SEVERAL} strings of {TEXT:,} bytes; 2 slots",
    contenders=(*CONTENDERS, COPY),
    metrics=tuple(Metric(name, digits=2) for name in NAMES),
    run=run,
    needs="numpy",
    marks=(
        *(Mark(name, over="PPE", least=15) for name in NAMES[:3]),
        *(Mark(name, over=COPY, least=0.5) for name in NAMES[:3]),
        *(Mark(name, over="PPE", least=4) for name in NAMES[3:]),
    ),
)
