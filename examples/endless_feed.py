"""An endless input in flat memory: ``ingest`` draws only as fast as slots free up.

The input is ``itertools.count()``, which has no end. The pool takes from it what it can work on, so the program's
memory stays where it is however long this runs. After some seconds the feed is told to end, and the pool finishes
what it had taken.

    python endless_feed.py --seconds 10
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from itertools import count

from gpool import GroupedPool

MIB = 1024 * 1024


class Tally:
    """Sums up results without keeping them."""

    def __init__(self) -> None:
        self.results = 0
        self.steps = 0

    def take(self, steps: int) -> None:
        self.results += 1
        self.steps += steps


class Source:
    """Counts for ever, and remembers only how far it got."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Iterator[int]:
        for number in count(1):
            self.drawn = number
            yield number


def collatz(number: int) -> int:
    """Return how many steps a number takes down to 1: half of an even one, three times an odd one plus 1."""
    steps = 0
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps += 1
    return steps


def resident() -> float:
    """Return how much memory this process occupies, in MiB."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        pages = int(statm.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description="Feed a pool from an input that never ends.")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to run (default 3)")
    seconds = parser.parse_args().seconds

    tally, source = Tally(), Source()
    with GroupedPool(tags={"numbers": 2}) as pool:
        feed = pool.ingest(source, "numbers", collatz, callback=tally.take)
        before = 0.0
        for part in range(1, 7):
            time.sleep(seconds / 6)
            before = before or resident()  # taken when all is up and running
            ahead = source.drawn - tally.results
            print(
                f"{seconds * part / 6:5.1f} s: {tally.results:9,} results, {ahead:5,} under way, {resident():6.1f} MiB"
            )
        growth = resident() - before
        still_alive = feed.is_alive()
        feed.cancel()
        pool.join()
        print(f"the feed was alive: {still_alive}, and is now: {feed.is_alive()}; pending: {pool.pending}")
    print(f"{tally.results:,} results, {tally.steps / max(1, tally.results):.0f} steps on average")
    print(f"memory grew by {growth:.1f} MiB")


main()
