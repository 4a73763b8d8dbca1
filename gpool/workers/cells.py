"""Cells: the fast way through a block, for as long as its answers are numbers of one type.

Owns the worker's loop there, and what it reads and writes for each item. What that tells the supervisor is explained in
``gpool.workers.boards``.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from gpool.outcome import Outcome, raised, returned
from gpool.workers.streams import Streams

_SHORT_SECONDS = 0.0001
"""Between two looks at the clock: if it is less, twice as many items come before the next,"""
_MOST = 64
"""up to so many."""
MARK = b"\x96gpool\x96\x96"
"""What stands in a cell before its answer. It is a number like others, so that one is not for cells."""
MARKED = int.from_bytes(MARK, sys.byteorder)


class Cells:
    """Takes the answers of a block from item ``first`` on; that item's stands there already.

    Args:
        view: the cells of all items.
        free: a byte that says that any item may be claimed; if it is 0,
        ask: claims one with the supervisor's consent.
    """

    def __init__(self, view: memoryview[Any], first: int, free: memoryview, ask: Callable[[int], bool]) -> None:
        self._view = view
        self._first = first
        self._free = free
        self._ask = ask

    def run(
        self, fn: Callable[[Any], Any], items: Iterator[tuple[int, Any]], streams: Streams, due: float
    ) -> tuple[int, Outcome | None]:
        """Run the items behind the first, until an answer is not for cells or it is ``due``.

        Returns the number of the last item that was run, and what came of it, if that is not in its cell.

        The clock costs as much as an item. How often it is looked at follows from how short they are; if that changes,
        the supervisor reads the board.
        """
        cells, free, ask = self._view, self._free, self._ask
        index, cls, mark = self._first, type(cells[self._first]), cells[self._first + 1]
        stride, looked = 1, perf_counter()
        look = index + stride
        if not free[0] and not ask(index + 1):
            return index, None
        for index, item in items:
            try:
                answer = fn(item)
            except BaseException as error:
                return index, raised(error)
            if type(answer) is not cls or answer == mark:
                return index, returned(answer)
            if index >= look:
                now = perf_counter()
                if now > due:
                    return index, returned(answer)
                stride = min(2 * stride, _MOST) if now - looked < _SHORT_SECONDS else 1
                look, looked = index + stride, now
            try:
                if streams.used or sys.stdout is not streams.out or sys.stderr is not streams.err:
                    streams.flush()
            except AttributeError:  # one was deleted
                streams.flush()
            try:
                cells[index] = answer  # and the next item is claimed
            except ValueError:
                return index, returned(answer)
            if not free[0] and not ask(index + 1):
                break
        return index, None

    def kept(self, stop: int) -> array[Any]:
        """The answers to the items before this one."""
        return array(self._view.format, self._view[self._first : stop].tobytes())
