"""Who is next: the contenders against a look at all of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpool.fairness import Contenders
from gpool.groups import GroupRecord
from gpool.model import Group, Options, Task, TaskState, Worker

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("submit", "submit", "serve", "serve", "finish", "cancel", "resize")),
        st.integers(0, 4),
        st.sampled_from((0.0, 0.5, 1.0, 3.0)),
    ),
    max_size=80,
)


def group(tag: str, *, weight: float = 1, burst: int | None = None, kind: int = 0, slots: int = 0) -> GroupRecord:
    made = GroupRecord(tag, Group(slots, weight=weight, burst=burst), kind, 0)
    made.slots = slots
    return made


class Hall:
    """Groups that contend, without a scheduler."""

    def __init__(self) -> None:
        self.contenders = Contenders()
        self.now = 0.0
        self.made = 0
        self.groups = [
            group("a"),
            group("b", weight=3),
            group("c", weight=0.5, burst=2),
            group("d", kind=7),
            group("e", weight=3, burst=1),
        ]

    def submit(self, one: GroupRecord) -> None:
        if not one.backlog:
            self.contenders.wake(one, self.now)
        self.made += 1
        one.backlog.push(Task(self.made, one.tag, Options()))

    def serve(self, one: GroupRecord) -> None:
        one.backlog.pop().state = TaskState.RUNNING
        one.charge(self.now)
        self.made += 1
        one.bursting[Worker(self.made, one.kind, one)] = None
        self.contenders.touch(one)

    def finish(self, one: GroupRecord) -> None:
        if one.bursting:
            one.charge(self.now)
            one.bursting.popitem()
            self.contenders.touch(one)

    def cancel(self, one: GroupRecord) -> None:
        if one.backlog:
            task = one.backlog.peek()
            task.state = TaskState.DONE
            one.backlog.forget(task)
            self.contenders.touch(one)

    def resize(self, one: GroupRecord) -> None:
        one.slots = 0 if one.slots else 1
        self.contenders.touch(one)

    def first(self, kind: int | None) -> GroupRecord | None:
        """The slow way to say who is next."""
        able = [
            each
            for each in self.groups
            if each.backlog and not each.short and each.burst_room and (kind is None or each.kind == kind)
        ]
        for each in able:
            each.charge(self.now)
        return min(able, key=self.rank, default=None)

    def rank(self, one: GroupRecord) -> tuple[float, float, int]:
        return round(one.vtime, 6), len(one.bursting) / one.settings.weight, one.backlog.peek().id


@settings(deadline=None)
@given(STEPS)
def test_the_next_is_the_one_with_the_least_slot_time(steps: list[tuple[str, int, float]]) -> None:
    hall = Hall()
    for name, which, pause in steps:
        hall.now += pause
        one = hall.groups[which]
        if name == "serve":
            found = hall.contenders.best(0, hall.now, lambda _: True)
            assert (found is None) == (hall.first(None) is None)
            if found is not None:
                first = hall.first(None)
                assert first is not None
                assert hall.rank(found) == hall.rank(first)
                hall.serve(found)
        else:
            {"submit": hall.submit, "finish": hall.finish, "cancel": hall.cancel, "resize": hall.resize}[name](one)
        assert hall.contenders.best(0, hall.now, lambda _: False) is hall.first(0)
        short = {each for each in hall.groups if each.backlog and each.short}
        waiting = hall.contenders.waiting(hall.now)
        assert {each for each, entry in waiting.items() if entry is None} == short
        assert (hall.contenders.best_short(0, hall.now) is None) == (not {e for e in short if e.kind == 0})
        assert hall.contenders.others_than(one, hall.now) == bool(waiting.keys() - {one})


def test_a_group_that_wakes_starts_at_the_present_virtual_time() -> None:
    hall = Hall()
    a, b = hall.groups[:2]
    hall.submit(a)
    hall.submit(a)
    for _ in range(2):
        assert hall.contenders.best(0, hall.now, lambda _: True) is a
        hall.serve(a)
        hall.now += 10
        hall.finish(a)
    hall.submit(b)
    assert b.vtime == hall.contenders.vnow == 10


def test_entries_that_are_spent_are_swept_out() -> None:
    hall = Hall()
    a, b = hall.groups[:2]
    hall.submit(a)
    hall.submit(b)
    for _ in range(10_000):
        hall.contenders.touch(a)
        hall.contenders.touch(b)
        hall.contenders.waiting(hall.now)
    assert sum(map(len, hall.contenders._heaps.values())) < 200
