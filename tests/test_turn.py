"""The turn: one holder at a time, who wakes nobody before it is over."""

from __future__ import annotations

import threading

import pytest

from gpool.delivery import Courier
from gpool.turn import Turn


class Diary:
    """What happened, in order, and whether somebody had the turn at that moment."""

    def __init__(self) -> None:
        self.turn = Turn(lambda: self.note("before end"), lambda: self.note("after end"))
        self.entries: list[tuple[str, bool]] = []

    def note(self, what: str) -> None:
        self.entries.append((what, self.turn.is_mine))


def test_what_is_put_off_is_done_when_others_may_have_the_turn() -> None:
    diary = Diary()
    with diary.turn:
        diary.turn.later(lambda: diary.note("woken"))
        diary.note("at work")
    assert diary.entries == [("at work", True), ("before end", True), ("after end", False), ("woken", False)]


def test_what_is_put_off_is_done_once() -> None:
    diary = Diary()
    with diary.turn:
        diary.turn.later(lambda: diary.note("woken"))
    with diary.turn:
        pass
    assert [what for what, _ in diary.entries].count("woken") == 1


def test_who_does_not_hold_the_turn_puts_nothing_off() -> None:
    diary = Diary()
    diary.turn.later(lambda: diary.note("alone"))
    with diary.turn:
        other = threading.Thread(target=lambda: diary.turn.later(lambda: diary.note("beside")))
        other.start()
        other.join()
        diary.note("at work")
    assert diary.entries[:3] == [("alone", False), ("beside", False), ("at work", True)]


def test_a_pause_lets_others_have_it() -> None:
    diary = Diary()
    with diary.turn:
        assert not diary.turn.take_if_free()
        diary.turn.later(lambda: diary.note(f"free: {diary.turn.take_if_free()}"))
        diary.turn.later(diary.turn.end)
        diary.turn.pause()
        diary.note("at work again")
    assert diary.entries[2][0] == "free: True"
    assert diary.entries[-3:] == [("at work again", True), ("before end", True), ("after end", False)]


def test_an_end_that_raises_lets_go_all_the_same() -> None:
    def fail() -> None:
        raise ValueError

    turn = Turn(fail, lambda: None)
    with pytest.raises(ValueError), turn:
        turn.later(lambda: None)
    assert turn.take_if_free()


def test_a_courier_is_woken_once_for_all_that_was_asked_in_a_turn() -> None:
    put_off: list[object] = []
    made: list[int] = []
    done = threading.Event()
    courier = Courier("courier", put_off.append)
    for number in range(3):
        courier.call(made.append, number)
    assert len(put_off) == 1
    assert len(courier) == 3
    courier.call(done.set)
    (wake,) = put_off
    wake()  # type: ignore[operator]
    assert done.wait(20)
    assert made == [0, 1, 2]
    courier.call(made.append, 3)
    assert len(put_off) == 2
    courier.end()
    courier.wait_ended(patient=True)
    assert (made, len(courier)) == ([0, 1, 2, 3], 0)
