"""Timers against a list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpool.timers import Timers

INSTANTS = st.integers(0, 20)


@given(st.lists(st.tuples(INSTANTS, st.booleans())), st.lists(INSTANTS))
def test_what_is_due_is_done_in_order_if_it_still_matters(asked: list[tuple[int, bool]], looks: list[int]) -> None:
    timers = Timers()
    done: list[int] = []
    for number, (when, _) in enumerate(asked):
        timers.at(when, number, lambda each: asked[each][1], done.append)
    expected = [number for number, (_, live) in enumerate(asked) if live]
    expected.sort(key=lambda number: asked[number][0])
    for now in sorted(looks):
        timers.run(now)
        assert done == [number for number in expected if asked[number][0] <= now]
        left = [asked[number][0] for number in expected if asked[number][0] > now]
        assert timers.soonest > now
        assert timers.first == (min(left) if left else None)


def test_soonest_never_lies_later_than_what_matters() -> None:
    timers = Timers()
    assert timers.soonest == float("inf")
    timers.at(5, "dead", lambda _: False, print)
    timers.at(7, "live", lambda _: True, print)
    assert timers.soonest == 5
    assert timers.first == 7
    assert timers.soonest == 7


def test_a_timer_may_set_another_one() -> None:
    timers = Timers()
    done: list[str] = []

    def again(name: str) -> None:
        done.append(name)
        if len(done) < 3:
            timers.at(len(done), name + "'", lambda _: True, again)

    timers.at(0, "a", lambda _: True, again)
    timers.run(1)
    assert done == ["a", "a'"]
    assert timers.first == 2


def test_timers_whose_cause_has_gone_are_swept_out() -> None:
    timers = Timers()
    for number in range(10_000):
        timers.at(1e9 + number, number, lambda each: each % 1000 == 0, print)
    assert len(timers) < 300
    assert timers.first == 1e9
