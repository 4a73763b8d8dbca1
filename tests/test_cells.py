"""Cells: numbers through a whole block, with a real board in this process."""

from __future__ import annotations

import gc
import math
import os
import threading
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import pytest

from gpool.workers.barriers import can_fence
from gpool.workers.blocks import Entry, answers_in, head_of, open_entries, outcome_of, pack_entries, run_block
from gpool.workers.boards import Begun, Board, WorkerBoard
from gpool.workers.cells import MARKED
from gpool.workers.payload import Function
from tests.noisy import Noisy

pytestmark = pytest.mark.skipif(not can_fence(), reason="no barriers here")
LEASE = 7


class Desk:
    """A worker's way through a block, and the program's view of it."""

    def __init__(self, fd: int) -> None:
        lock = threading.Lock()
        self.board, self._worker = Board(fd, 0, lock), WorkerBoard(fd, 0, lock)
        self.frames: list[tuple[int, list[Entry], bool]] = []

    def run(self, fn: Callable[..., Any], entries: list[Entry], *tail: Any, between: Callable[[], Any] = int) -> None:
        assert self._worker.claim(LEASE)
        self._worker.open_block()
        items = open_entries(pack_entries(entries))
        run_block(items, lambda: Function(fn, tail, {}), self._worker, Noisy(between), self._send)

    def _send(self, body: bytes, seconds: float) -> None:
        head, entries = head_of(body), list(answers_in(body))
        assert head.items == len(entries)
        assert head.first == len(self.answers)
        self.frames.append((head.first, entries, bool(head.final)))

    @property
    def answers(self) -> list[Entry]:
        return [answer for _, answers, _ in self.frames for answer in answers]


@pytest.fixture
def desk() -> Iterator[Desk]:
    fd = os.memfd_create("board")
    desk = Desk(fd)
    yield desk
    vars(desk).clear()
    gc.collect()  # what is mapped keeps a descriptor
    os.close(fd)


def test_numbers_come_back_as_what_they_are(desk: Desk) -> None:
    for numbers in (
        list(range(-50, 50)),
        [0.5, -0.0, 0.0, math.inf, -math.inf, 1e-320],
        [1, 2, MARKED - (1 << 64), 3],
        [1, 2, 1 << 63, 3],
        [1, 2, 1 << 100, 3, 4, 5],
        [1, 2.0, 3, 4.0],
        [1, 2, True, None, False],
        [1, 2, "three", 4, 5],
        [None, 1, 2, 3],
        [1],
    ):
        desk.frames.clear()
        desk.run(lambda index, numbers=numbers: numbers[index], list(range(len(numbers))))
        assert list(map(repr, desk.answers)) == list(map(repr, numbers))
        assert [final for *_, final in desk.frames] == [False] * (len(desk.frames) - 1) + [True]


def test_nan_comes_back(desk: Desk) -> None:
    desk.run(lambda _: math.nan, [1, 2, 3])
    assert len(desk.answers) == 3
    assert all(map(math.isnan, desk.answers))


def test_further_arguments_are_passed(desk: Desk) -> None:
    desk.run(lambda *args: sum(args), [1, 2, 3], 10, 20)
    assert desk.answers == [31, 32, 33]


def test_inv10_an_item_that_raises_harms_itself_alone(desk: Desk) -> None:
    desk.run(lambda n: 10 // n, [5, 2, 0, 1])
    values = [outcome_of(answer) for answer in desk.answers]
    assert [value.value for value in values] == [2, 5, None, 10]
    assert isinstance(values[2].error, ZeroDivisionError)


def test_inv12_each_answer_is_on_the_board_or_sent_before_the_next_item_begins(desk: Desk) -> None:
    def look(n: int) -> int:
        kept = desk.board.kept(LEASE)
        assert kept is not None
        known = desk.answers[:n] if len(desk.answers) >= n else [*desk.answers, *kept.answers]
        assert known == list(range(n))
        assert desk.board.begun() == Begun(LEASE, n + 1, n)
        return n

    desk.run(look, list(range(1000)))
    assert desk.answers == list(range(1000))
    assert len(desk.frames) > 1, "some were sent on the way"


def test_inv05_what_was_taken_back_is_not_begun(desk: Desk) -> None:
    ran: list[int] = []

    def revoke(n: int) -> int:
        ran.append(n)
        if n == 5:
            assert desk.board.revoke(LEASE, LEASE) == Begun(LEASE, 6)
        return n

    desk.run(revoke, list(range(9)))
    assert ran == desk.answers == list(range(6))
    assert desk.board.begun() == Begun(LEASE, 6, 6)


def test_what_user_code_left_to_do_is_done_after_each_item(desk: Desk) -> None:
    order: list[object] = []

    def note(n: int) -> int:
        order.append(n)
        return n

    desk.run(note, [0, 1, 2], between=lambda: order.append("between"))
    assert order == [0, "between", 1, "between", 2, "between"]


def test_answers_do_not_wait_though_items_become_longer(desk: Desk) -> None:
    """The first are too short to look at the clock after each."""

    def spin(n: int) -> int:
        until = perf_counter() + (0.002 if n >= 200 else 0.0)
        while perf_counter() < until:
            pass
        return n

    desk.run(spin, list(range(300)))
    assert desk.answers == list(range(300))
    assert len(desk.frames) > 3
