"""What a long life leaves behind: ``python benchmarks/leaks.py [--scale X]``.

One pool runs 10,000 tasks, loses 500 workers to crashes and is resized 500 times (times ``--scale``), after a
warm-up of the same kind. Then it must hold as many descriptors, threads and processes as before, and no more than 5 %
more memory. Exit code 1 if it does not.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from concurrent.futures import wait
from pathlib import Path
from typing import NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpool import GroupedPool, WorkerCrashed

GROWTH = 1.05
"""Of the parent's memory, at most."""


class Belongings(NamedTuple):
    """What this process has: descriptors, threads, live children, bytes of its own memory."""

    descriptors: int
    threads: int
    processes: int
    memory: int


def belongings() -> Belongings:
    gc.collect()
    process = psutil.Process()
    children = [each for each in process.children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]
    return Belongings(process.num_fds(), process.num_threads(), len(children), process.memory_full_info().uss)


def run_tasks(pool: GroupedPool, count: int) -> None:
    for _ in range(0, count, 500):
        wait([pool.group("work").submit(lambda data: data[:1], b"x" * 1000) for _ in range(500)])


def crash(pool: GroupedPool, count: int) -> None:
    for number in range(count):
        assert isinstance(pool.group("work").submit(os._exit, 1).exception(), WorkerCrashed)
        if number % 5 == 0:
            pool.group("work").submit(abs, 1).result()  # so that the group is not taken for broken


def resize(pool: GroupedPool, count: int) -> None:
    for number in range(count):
        pool.adjust("work", 1 + number % 3)
    pool.adjust("work", 2, wait=True)
    settle(pool)


def settle(pool: GroupedPool) -> None:
    """Until each slot has its worker, and each worker is idle."""
    while not (len(workers := pool.stats().workers) == 3 and all(each.state == "idle" for each in workers)):
        wait([pool.group(tag).submit(abs, 1) for tag in ("work", None)])


def live(pool: GroupedPool, scale: float) -> None:
    run_tasks(pool, int(10_000 * scale))
    crash(pool, int(500 * scale))
    resize(pool, int(500 * scale))


def main() -> int:
    parser = argparse.ArgumentParser(description="What a long life of a pool leaves behind.")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of tasks, crashes and resizes")
    scale: float = parser.parse_args().scale
    with GroupedPool(tags={"work": 2, None: 1}, max_crashes=1000) as pool:
        live(pool, scale / 4)
        before = belongings()
        live(pool, scale)
        after = belongings()
    gone = belongings()
    print("            " + "".join(f"{name:>14}" for name in Belongings._fields))
    for name, row in (("before", before), ("after", after), ("pool ended", gone)):
        print(f"{name:12}" + "".join(f"{value:14,}" for value in row))
    clean = after[:3] == before[:3] and after.memory <= before.memory * GROWTH
    print(f"memory grew by {100 * (after.memory / before.memory - 1):.1f} %: {'clean' if clean else 'LEAKED'}")
    return 0 if clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
