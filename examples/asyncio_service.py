"""The pool under asyncio: the loop stays free while processes do the work.

- ``loop.run_in_executor(pool.group("web"), ...)``: a group is an ordinary executor;
- ``asyncio.wrap_future``: the pool's futures are ordinary futures, so options travel along;
- many at once with ``asyncio.gather``;
- cancellation: a task that gives up also stops the process that works for it.

A ticker counts how often the loop comes round meanwhile: it is never blocked.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from itertools import pairwise

from gpool import GroupedPool, GroupView, TaskTimeout


def count_primes(limit: int) -> int:
    """Keep a core busy for a while."""
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, limit))


def for_ever() -> None:
    """Never return."""
    while True:
        time.sleep(0.01)


async def ticker(ticks: list[float]) -> None:
    """Note the time whenever the loop comes round."""
    while True:
        ticks.append(time.monotonic())
        await asyncio.sleep(0.01)


async def many(web: Executor) -> None:
    """Run fifty computations at once."""
    loop = asyncio.get_running_loop()
    counts = await asyncio.gather(*(loop.run_in_executor(web, count_primes, 1000 * n) for n in range(1, 51)))
    print(f"gather: {len(counts)} answers, from {counts[0]} to {counts[-1]} primes")


async def first_come(web: Executor) -> None:
    """Take answers as they arrive."""
    waiting = [asyncio.wrap_future(web.submit(count_primes, limit)) for limit in (60_000, 3_000, 20_000)]
    print("as they arrive:", *[await answer for answer in asyncio.as_completed(waiting)])


async def with_timeout(web: GroupView) -> None:
    """Give a task a time limit: the pool enforces it, and the process is gone."""
    try:
        await asyncio.wrap_future(web.options(timeout=0.3).submit(for_ever))
    except TaskTimeout as error:
        print(f"the pool's timeout: {error}")


async def with_care(web: GroupView) -> None:
    """Wait for a task, and stop its process if whoever waits gives up."""
    future = web.submit(for_ever)
    try:
        await asyncio.wrap_future(future)
    finally:
        future.cancel(kill=True)


async def serve(pool: GroupedPool) -> None:
    web = pool.group("web")
    ticks: list[float] = []
    async with asyncio.TaskGroup() as tasks:
        clock = tasks.create_task(ticker(ticks))
        await many(web)
        await first_come(web)
        await with_timeout(web)
        try:
            async with asyncio.timeout(0.3):
                await with_care(web)
        except TimeoutError:
            print("asyncio's timeout: gave up, and so did the process")
        print("the slot is free again:", await asyncio.wrap_future(web.submit(lambda: "yes")))
        clock.cancel()
    gaps = sorted(later - earlier for earlier, later in pairwise(ticks))
    print(f"the loop came round {len(ticks)} times, every {gaps[len(gaps) // 2] * 1000:.0f} ms")


def main() -> None:
    with GroupedPool(tags={"web": 2}) as pool:
        asyncio.run(serve(pool))


main()
