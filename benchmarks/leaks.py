"""What a long life leaves behind: ``python benchmarks/leaks.py [--scale X]``.

One pool runs 10,000 tasks, loses 500 workers to crashes and is resized 500 times (times ``--scale``), after a
warm-up of the same kind and length. Then it must hold as many descriptors, threads and processes as before, no more
than 1 % more blocks of Python's own memory, and no more than 5 % more memory in all. Exit code 1 if it does not.

Blocks are what Python's allocator has given out: one object or buffer that is kept per task would be 10,000 of them, a
tenth of all. Memory in all is what the process alone has (USS). That wanders by some per cent without anything being
kept, as the C library gives pages back or does not; so the least of a few looks counts, with some life in between.
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
GROWTH_OF_BLOCKS = 1.01
LOOKS = 3


class Belongings(NamedTuple):
    """What this process has: descriptors, threads, live children, blocks Python has given out, bytes of its own."""

    descriptors: int
    threads: int
    processes: int
    blocks: int
    memory: int


def belongings() -> Belongings:
    gc.collect()
    process = psutil.Process()
    children = [each for each in process.children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]
    memory = process.memory_full_info().uss
    return Belongings(process.num_fds(), process.num_threads(), len(children), sys.getallocatedblocks(), memory)


def leaks(before: Belongings, after: Belongings) -> list[str]:
    """What has become more, by name."""
    kept = [name for name in Belongings._fields[:3] if getattr(after, name) > getattr(before, name)]
    kept += ["blocks"] if after.blocks > before.blocks * GROWTH_OF_BLOCKS else []
    return kept + (["memory"] if after.memory > before.memory * GROWTH else [])


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


def look(pool: GroupedPool, scale: float) -> Belongings:
    """What the process has now, apart from what comes and goes."""
    looks = []
    for _ in range(LOOKS):
        live(pool, scale / 20)
        looks.append(belongings())
    least = Belongings(*map(min, zip(*looks, strict=True)))
    return looks[-1]._replace(blocks=least.blocks, memory=least.memory)


def main() -> int:
    parser = argparse.ArgumentParser(description="What a long life of a pool leaves behind.")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of tasks, crashes and resizes")
    scale: float = parser.parse_args().scale
    with GroupedPool(tags={"work": 2, None: 1}, max_crashes=1000) as pool:
        live(pool, scale)
        before = look(pool, scale)
        live(pool, scale)
        after = look(pool, scale)
    gone = belongings()
    print("            " + "".join(f"{name:>14}" for name in Belongings._fields))
    for name, row in (("before", before), ("after", after), ("pool ended", gone)):
        print(f"{name:12}" + "".join(f"{value:14,}" for value in row))
    kept = leaks(before, after)
    growth = [
        f"{name} grew by {100 * (after[at] / before[at] - 1):.1f} %" for at, name in ((3, "blocks"), (4, "memory"))
    ]
    print(f"{', '.join(growth)}: {'LEAKED ' + ', '.join(kept) if kept else 'clean'}")
    return 1 if kept else 0


if __name__ == "__main__":
    raise SystemExit(main())
