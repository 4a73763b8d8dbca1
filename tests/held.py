"""Holding the supervisor's thread: an exception whose unpickling there does not end until the test lets it.

Imports little, because workers import it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from gpool import GroupedPool
    from gpool.futures import Future

_SECONDS = 60
_numbers = count()
_holds: dict[int, Hold] = {}


class Hold:
    """Reached by the supervisor's thread, then opened by the test."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.reached = threading.Event()
        self.opened = threading.Event()


class Held(Exception):
    """Does not come out of its unpickling in the process ``parent`` until its hold is opened."""

    def __init__(self, number: int, parent: int) -> None:
        super().__init__(number, parent)
        if os.getpid() == parent:
            hold = _holds.get(number)
            if hold is not None:
                hold.reached.set()
                hold.opened.wait(_SECONDS)


def raise_held(number: int, parent: int) -> NoReturn:
    """A task."""
    raise Held(number, parent)


@contextmanager
def holding() -> Iterator[Hold]:
    """A hold that is open afterwards."""
    made = Hold()
    _holds[made.number] = made
    try:
        yield made
    finally:
        made.opened.set()
        del _holds[made.number]


def hold(pool: GroupedPool, held: Hold, **options: Any) -> Future[Any]:
    """Hold the pool's supervisor: by a task that has ended, in ``Held``, while the supervisor does not know it yet."""
    future: Future[Any] = pool.options(retry_on=ZeroDivisionError, **options).submit(
        raise_held, held.number, os.getpid()
    )
    assert held.reached.wait(_SECONDS)
    return future
