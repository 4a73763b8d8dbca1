"""Results as they come: iterating over the pool, over a map, and over futures.

- ``for value in pool`` yields what ``put`` and ``ingest`` tasks return, as they finish; it ends when nothing is
  pending and no feed is alive. Failures are not yielded: they go to the error handler.
- ``group.map`` yields in the order of its input, ``group.map_unordered`` in the order of finishing.
- ``concurrent.futures.as_completed`` works too: the pool's futures are real ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import as_completed
from itertools import count, islice

from gpool import GroupedPool


def slow_square(number: int, label: str) -> str:
    """Square a number; the smaller it is, the longer it takes."""
    if number == 13:
        raise ValueError("thirteen brings bad luck")
    time.sleep(0.2 / (number + 1))
    return f"{label}:{number * number}"


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def main() -> None:
    failures: list[BaseException] = []
    with GroupedPool(tags={"fast": 2, "slow": 1, None: 1}, on_error=failures.append) as pool:
        # Two feeds and a single task, in different groups: one stream of results.
        pool.ingest(range(8, 16), "fast", slow_square, ["fast"])
        pool.ingest(range(3), "slow", slow_square, ["slow"])
        pool.put("fast", slow_square, (100, "put"))
        results = list(pool)
        print(f"{len(results)} results as they finished:", *results)
        pool.join()  # the iterator ends with the last result; this waits for the error handler as well
        print("failures, not yielded:", *failures)

        # Naps of different lengths: map keeps the order, map_unordered does not wait for the slow one.
        naps = [0.5, 0.01, 0.02, 0.03]
        everyone = pool.group("fast")
        print("map:          ", *everyone.map(nap, naps))
        print("map_unordered:", *everyone.map_unordered(nap, naps))

        # An endless input is no problem when the reader sets the pace.
        drawn: list[int] = []

        def numbers() -> Iterator[int]:
            for number in count():
                drawn.append(number)
                yield number

        squares = everyone.map(lambda number: number * number, numbers(), buffersize=20)
        print("ten squares of an endless input:", *islice(squares, 10))
        print("drawn ahead of the reader no more than 20:", len(drawn) <= 30)
        del squares  # a map that nobody reads any more ends

        futures = {everyone.submit(nap, seconds): seconds for seconds in (0.3, 0.1, 0.2)}
        print("as_completed: ", *(futures[future] for future in as_completed(futures)))


main()
