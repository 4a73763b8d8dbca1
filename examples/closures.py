"""Anything callable is a task: lambdas, closures, methods, classes and functions made on the spot.

This very file is proof of two more things: it has no ``if __name__ == "__main__"`` guard and needs none, because a
worker never imports the program; and the pool leaves the pickling to cloudpickle, so nothing needs to live in a module.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

from gpool import GroupedPool, PayloadError

print("this line stands at the top of the file, and is printed once: no worker runs it again")


@dataclass(frozen=True)
class Point:
    """A class of the main program: its objects travel to the workers and back."""

    x: float
    y: float

    def moved(self, dx: float, dy: float) -> Point:
        return Point(self.x + dx, self.y + dy)


def power(exponent: int) -> Callable[[int], int]:
    """Make a function that remembers its exponent."""
    return lambda base: base**exponent


def compose(*functions: Callable[[int], int]) -> Callable[[int], int]:
    """Make one function out of several."""
    return lambda value: reduce(lambda result, function: function(result), functions, value)


def main() -> None:
    with GroupedPool(tags={"work": 2}) as pool:
        work = pool.group("work")

        offset = 1000
        print("a lambda that sees a local:    ", *work.map(lambda n: n + offset, range(5)))
        print("functions made by a function:  ", *(work.submit(power(e), 2).result() for e in (2, 8, 64)))
        print("functions made of functions:   ", work.submit(compose(power(2), lambda n: -n), 7).result())
        print("a partial:                     ", work.submit(partial(int, base=2), "101010").result())
        print("a method of the main program:  ", work.submit(Point(1, 2).moved, 10, 20).result())
        print("a class of the main program:   ", work.submit(Point, 3, 4).result() == Point(3, 4))
        print("a lambda that returns a lambda:", work.submit(lambda: lambda n: n * 2).result()(21))

        def factorial(n: int) -> int:
            return 1 if n == 0 else n * factorial(n - 1)

        print("a local function, recursive:   ", work.submit(factorial, 20).result())

        # What a task captured is what it was when the task was submitted, and every task has its own copy.
        basket = ["apple"]

        def add(fruit: str) -> list[str]:
            basket.append(fruit)
            return basket

        first = work.submit(add, "pear")
        basket.append("plum")
        second = work.submit(add, "fig")
        print("captured at the first submit:  ", first.result())
        print("captured at the second submit: ", second.result())
        print("the program's own, untouched:  ", basket)

        # What truly cannot travel is refused for that one task, with the reason.
        try:
            work.submit(id, threading.Lock())
        except PayloadError as error:
            print(f"a lock:                         {type(error).__name__}: {error.__cause__}")
        print("and the pool goes on:          ", work.submit(lambda: "here I am").result())


main()
