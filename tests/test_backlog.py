"""A backlog against a sorted list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpool.backlog import Backlog
from gpool.model import Options, Task, TaskState

STEPS = st.lists(
    st.tuples(st.sampled_from(("push", "push", "pop", "return", "forget")), st.integers(-1, 1), st.integers(0, 99)),
    max_size=200,
)


def new_task(number: int, priority: int = 0) -> Task:
    return Task(number, "a", Options(priority=priority))


class Pair:
    """A backlog, and a list that is sorted whenever it is asked."""

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.queued: list[Task] = []
        self.out: list[Task] = []
        self.made = 0

    @property
    def expected(self) -> list[Task]:
        return sorted(self.queued, key=lambda task: (-task.options.priority, task.id))

    def push(self, priority: int, _: int) -> None:
        self.made += 1
        task = new_task(self.made, priority)
        self.backlog.push(task)
        self.queued.append(task)

    def pop(self, *_: int) -> None:
        if self.queued:
            task = self.backlog.pop()
            assert task is self.expected[0]
            task.state = TaskState.RUNNING
            self.queued.remove(task)
            self.out.append(task)

    def give_back(self, _: int, which: int) -> None:
        if self.out:
            task = self.out.pop(which % len(self.out))
            task.state = TaskState.QUEUED
            self.backlog.push_back(task)
            self.queued.append(task)

    def forget(self, _: int, which: int) -> None:
        if self.queued:
            task = self.queued.pop(which % len(self.queued))
            task.state = TaskState.DONE
            self.backlog.forget(task)


@given(STEPS)
def test_priority_first_then_age_whatever_came_back_or_was_cancelled(steps: list[tuple[str, int, int]]) -> None:
    pair = Pair()
    moves = {"push": pair.push, "pop": pair.pop, "return": pair.give_back, "forget": pair.forget}
    for name, priority, which in steps:
        moves[name](priority, which)
        assert pair.backlog.size == len(pair.queued)
        assert bool(pair.backlog) == bool(pair.queued)
        assert pair.backlog.tasks() == pair.expected
        if pair.queued:
            assert pair.backlog.peek() is pair.expected[0]
    while pair.queued:
        pair.pop()


def test_an_empty_backlog_has_no_next_task() -> None:
    with pytest.raises(IndexError):
        Backlog().peek()


def test_what_was_cancelled_is_let_go_of() -> None:
    backlog = Backlog()
    tasks = [new_task(number) for number in range(10_000)]
    for task in tasks:
        backlog.push(task)
    for task in tasks[10:]:
        task.state = TaskState.DONE
        backlog.forget(task)
    assert backlog.tasks() == tasks[:10]
    assert len(backlog._levels[0].fresh) <= 128


def test_what_came_back_and_was_cancelled_is_let_go_of_too() -> None:
    backlog = Backlog()
    tasks = [new_task(number) for number in range(10_000)]
    for task in tasks:
        backlog.push_back(task)
    for task in tasks[10:]:
        task.state = TaskState.DONE
        backlog.forget(task)
    assert backlog.tasks() == tasks[:10]
    assert len(backlog._levels[0].returned) <= 128


def test_a_priority_that_was_used_once_costs_nothing_for_ever() -> None:
    backlog = Backlog()
    for number in range(1000):
        backlog.push(new_task(number, priority=number))
        backlog.pop().state = TaskState.DONE
    backlog.push(new_task(1000))
    backlog.pop()
    assert len(backlog._levels) <= 2
