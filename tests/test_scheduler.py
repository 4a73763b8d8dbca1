"""The scheduler's specification: what happens, in words, for each thing that is told.

Tests are named after the invariants of ``docs/architecture.md``. ``tests.machine`` explains the words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import pytest

from gpool import limits
from gpool.events import Ended, ExitBegan, Progressed, Recalled, WorkerExited, WorkerReady
from gpool.model import Group, GroupState, PoolState, Verdict, WorkerState
from tests.machine import RETURNED, Machine

SHORT = 0.0001
"""A run time that lets tasks be sent ahead."""


def machine_with_short_tasks(slots: dict[Hashable, int | Group], *tags: Hashable) -> Machine:
    """A machine that has measured short run times for these tags, so it sends tasks ahead."""
    machine = Machine(slots)
    for tag in tags:
        machine.submit(tag, "first")
        machine.ended("first", seconds=SHORT)
    return machine


def serve(machine: Machine, rounds: int, seconds: float = 1.0) -> list[str]:
    """On one slot: what runs ends after so many seconds, and so on; the names in their order."""
    served = []
    for _ in range(rounds):
        (name,) = machine.running
        machine.after(seconds)
        machine.ended(name, seconds=seconds)
        served.append(name)
    return served


def tag_of(name: str) -> str:
    return name.rstrip("0123456789")


# -- 1, 2: the reserve, and the rule of counting --------------------------------------------------------------


def test_inv01_a_tag_below_its_reserve_gets_its_slot_at_once() -> None:
    machine = Machine({"a": 1, "b": 0, None: 1})
    assert machine.submit_many("b", 3) == ["w2 runs b1"]
    assert machine.submit("a") == ["w1 runs a1"]


def test_inv01_a_tag_below_its_reserve_goes_before_any_burst() -> None:
    machine = Machine({"a": 1, "b": 0, None: 1}, ready=False)
    machine.submit("b")
    machine.submit("a")
    assert machine.ready(2) == ["w2 runs a1"], "the first worker that is ready takes the task of the short tag"
    assert machine.ready(1) == ["w1 runs b1"], "and the other one is general now"


def test_inv02_a_tag_bursts_past_its_reserve_while_general_slots_are_free() -> None:
    machine = Machine({"a": 1, None: 2})
    assert machine.submit_many("a", 4) == ["w1 runs a1", "w3 runs a2", "w2 runs a3"]
    assert machine.queued == ["a4"]
    assert machine.ended("a3") == ["a3 returned", "w2 runs a4"]


def test_inv02_bindings_swap_when_the_reserve_is_free_again() -> None:
    machine = Machine({"a": 1, "b": 0, None: 1})
    machine.submit_many("a", 2)
    machine.submit("b")
    a = machine.scheduler.groups["a"]
    assert (len(a.own), len(a.bursting)) == (1, 1)
    assert machine.ended("a1") == ["a1 returned", "w1 runs b1"], "a's own worker is general now"
    assert (len(a.own), len(a.bursting)) == (1, 0)


def test_inv02_bursts_of_all_tags_together_fit_into_the_general_slots() -> None:
    machine = Machine({"a": 1, "b": 1, None: 2})
    machine.submit_many("a", 5)
    machine.submit_many("b", 5)
    assert Counter(map(tag_of, machine.running)) == {"a": 3, "b": 1}
    machine.ended("a1")
    assert Counter(map(tag_of, machine.running)) == {"a": 2, "b": 2}


def test_inv02_a_burst_cap_bounds_the_general_slots_of_a_tag() -> None:
    machine = Machine({"a": Group(1, burst=1), "b": Group(1, burst=0), None: 3})
    machine.submit_many("a", 9)
    machine.submit_many("b", 9)
    assert Counter(map(tag_of, machine.running)) == {"a": 2, "b": 1}
    assert machine.submit(None) == ["w4 runs general1"]
    assert machine.ended("a1") == ["a1 returned", "w1 runs a3"], "room below the cap is used"


# -- 3: fairness, priority, order -----------------------------------------------------------------------------


def test_inv03_two_tags_of_equal_tasks_alternate_on_one_general_slot() -> None:
    machine = Machine({"a": 0, "b": 0, None: 1})
    machine.submit_many("a", 10)
    machine.submit_many("b", 10)
    assert [tag_of(name) for name in serve(machine, 10)] == ["a", "b"] * 5


@pytest.mark.parametrize(("slots", "lengths"), [(1, (1.0, 1.0)), (2, (1.0, 1.0)), (2, (3.0, 0.5)), (4, (0.3, 2.0))])
def test_inv03_weights_share_slot_time_whatever_the_tasks_lengths(slots: int, lengths: tuple[float, float]) -> None:
    machine = Machine({"a": Group(0, weight=1), "b": Group(0, weight=3), None: slots})
    machine.submit_many("a", 10)
    machine.submit_many("b", 10)
    seconds = dict(zip("ab", lengths, strict=True))
    used = {"a": 0.0, "b": 0.0}
    while machine.now < 200:
        ends = {name: machine.tasks[name].started + seconds[tag_of(name)] for name in machine.running}
        name = min(ends, key=lambda each: (ends[each], each))
        machine.after(ends[name] - machine.now)
        machine.ended(name, seconds=seconds[tag_of(name)])
        machine.submit(tag_of(name))
        used[tag_of(name)] += seconds[tag_of(name)]
    assert used["b"] / used["a"] == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("length", [1.0, SHORT])
@pytest.mark.parametrize("queued", [True, False])
def test_inv03_an_idle_tag_banks_no_credit(length: float, queued: bool) -> None:
    """Whether the other tag queued meanwhile, or found a free slot each time, or went on by what was sent ahead."""
    machine = Machine({"a": 0, "b": 0, None: 1})
    for _ in range(20):
        machine.submit_many("a", 1 + queued)
        serve(machine, 1 + queued, length)
    machine.submit_many("a", 10)
    machine.submit_many("b", 10)
    served = [tag_of(name) for name in serve(machine, 8, length)]
    assert served == ["a", "b"] * 4


def test_inv03_a_tag_that_comes_back_is_not_punished_either() -> None:
    machine = Machine({"a": 0, "b": 0, None: 1})
    machine.submit_many("a", 10)
    serve(machine, 10)
    machine.submit_many("b", 10)
    serve(machine, 5)
    machine.submit_many("a", 5)
    assert Counter(map(tag_of, serve(machine, 6))) == {"a": 3, "b": 3}


def test_inv03_the_oldest_goes_first_when_all_else_is_equal() -> None:
    machine = Machine({"a": 0, "b": 0, "c": 0, None: 1})
    machine.submit(None)
    for tag in "cab":
        machine.submit(tag)
    assert serve(machine, 4) == ["general1", "c1", "a1", "b1"]


def test_inv03_inside_a_tag_priority_then_order() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", "running")
    for name, priority in (("low", -1), ("first", 0), ("high", 5), ("second", 0)):
        machine.submit("a", name, priority=priority)
    assert serve(machine, 5) == ["running", "high", "first", "second", "low"]


# -- 4: a reserve is never lent -------------------------------------------------------------------------------


def test_inv04_a_reserved_slot_is_never_lent() -> None:
    machine = Machine({"a": 2, "b": 1, None: 1})
    machine.submit_many("b", 5)
    machine.submit_many(None, 5)
    assert machine.running == ["b1", "b2"]
    assert machine.submit_many("a", 2) == ["w2 runs a1", "w1 runs a2"]


# -- 5: what is sent ahead is still queued --------------------------------------------------------------------


def test_inv05_short_tasks_are_sent_ahead_within_a_tag() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    assert machine.submit_many("a", 4) == ["w1 runs a2", "w1 ahead a3 a4 a5"]
    assert machine.ended("a2", seconds=SHORT) == ["a2 returned"], "the worker goes on by itself"
    assert machine.running == ["a3"]


def test_inv05_nothing_is_sent_ahead_while_run_times_are_unknown_or_long() -> None:
    machine = Machine({"a": 1, None: 0})
    assert machine.submit_many("a", 3) == ["w1 runs a1"]
    assert machine.ended("a1", seconds=1.0) == ["a1 returned", "w1 runs a2"]


def test_inv05_nothing_is_sent_ahead_where_it_cannot_be_taken_back() -> None:
    machine = Machine({"a": 1, None: 0}, send_ahead=False)
    machine.submit("a")
    machine.ended("a1", seconds=SHORT)
    assert machine.submit_many("a", 3) == ["w1 runs a2"]


def test_inv05_no_more_is_sent_ahead_than_run_times_justify() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a")
    machine.ended("a1", seconds=0.001)
    machine.submit_many("a", 100)
    assert len(machine.processes[1].waiting) == limits.ahead(0.001) == 4


def test_a_worker_that_may_have_one_task_ahead_gets_the_next_as_it_begins_that() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a")
    machine.ended("a1", seconds=0.009)
    assert machine.submit_many("a", 4) == ["w1 runs a2", "w1 ahead a3"]
    assert machine.ended("a2", seconds=0.009) == ["a2 returned", "w1 ahead a4"]
    assert machine.ended("a3", seconds=0.009) == ["a3 returned", "w1 ahead a5"]


def test_inv05_nothing_is_sent_ahead_while_a_free_slot_could_take_it() -> None:
    machine = machine_with_short_tasks({"a": 3, None: 0}, "a")
    words = machine.submit_many("a", 5)
    assert [word[3:] for word in words] == ["runs a2", "runs a3", "runs a4", "ahead a5", "ahead a6"]


def test_inv05_a_slot_that_comes_free_takes_back_what_was_sent_ahead() -> None:
    machine = machine_with_short_tasks({"a": 2, None: 0}, "a")
    machine.submit("a", "long")
    machine.submit_many("a", 3)
    behind_long = [lease.task.name for lease in machine.runner("long").waiting]
    assert behind_long
    words: list[str] = []
    while others := [name for name in machine.running if name != "long"]:
        words += machine.ended(others[0], seconds=SHORT)
    assert f"recall w{machine.runner('long').worker.id}" in words
    assert machine.running == ["long"]
    assert list(machine.scheduler.tasks.values()) == [machine.tasks["long"]], "the others have all run"


def test_inv05_a_worker_that_comes_up_takes_back_what_was_sent_ahead() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit_many("a", 3)
    machine.resize({"a": 2})
    assert machine.ready(2) == ["recall w1", "w2 runs a3", "w1 ahead a4"]


def test_inv05_another_tag_that_waits_for_a_general_slot_takes_it_back() -> None:
    machine = machine_with_short_tasks({"a": 0, "b": 0, None: 1}, "a")
    machine.submit_many("a", 5)
    assert len(machine.processes[1].waiting) == 4
    assert machine.submit("b") == ["recall w1"]
    machine.after(SHORT)
    assert machine.ended("a2", seconds=SHORT) == ["a2 returned", "w1 runs b1"]


def test_inv05_nothing_is_sent_ahead_into_a_general_slot_while_another_tag_waits() -> None:
    machine = machine_with_short_tasks({"a": 0, "b": 0, None: 1}, "a")
    machine.submit("a")
    machine.submit("b")
    assert machine.submit_many("a", 4) == []


def test_inv05_another_tag_does_not_disturb_a_reserved_slot() -> None:
    machine = machine_with_short_tasks({"a": 1, "b": 0, None: 1}, "a")
    machine.submit(None)
    machine.submit_many("a", 5)
    assert machine.submit("b") == []


def test_inv05_a_higher_priority_overtakes_what_was_sent_ahead() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit_many("a", 3)
    assert machine.submit("a", "urgent", priority=1) == ["recall w1", "w1 ahead urgent a3 a4"]


def test_inv05_an_equal_priority_does_not_overtake() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit_many("a", 3, priority=1)
    assert "recall w1" not in machine.submit("a", priority=1)
    assert "recall w1" not in machine.submit("a")


def test_inv05_a_cancelled_task_that_was_sent_ahead_harms_nobody() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit_many("a", 3)
    assert machine.cancel("a3") == ["recall w1", "a3 cancelled", "w1 ahead a4"]
    assert machine.running == ["a2"]


@pytest.mark.parametrize("kill", [False, True])
def test_inv05_a_cancelled_task_begun_unseen_is_left_alone_unless_it_is_to_be_killed(kill: bool) -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit_many("a", 3)
    machine.write(1)  # a2 has ended and a3 begun, which the scheduler does not know
    words = machine.cancel("a3", kill=kill)
    if kill:
        assert words == ["recall w1", "a3 cancelled", "kill w1"]
    else:
        assert words[0] == "recall w1"
        assert machine.verdict("a3") is None


def test_inv05_a_kill_never_hits_the_task_behind_one_that_has_ended_unseen() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit_many("a", 3)
    machine.write(1)
    machine.write(1)  # a4 runs by now
    assert machine.cancel("a3", kill=True) == ["recall w1"]
    machine.read(1)
    machine.read(1)
    assert machine.verdict("a3") is RETURNED, "it was too late to cancel it"
    assert machine.running == ["a4"]


def test_inv05_a_kill_of_what_is_behind_a_dead_task_does_not_change_how_that_one_died() -> None:
    """The worker is dead, so nothing can be taken back from it; the report of its death is on its way."""
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit("a", "crashes", retries=1)
    machine.submit("a", "behind")
    machine.end(1, reporting=True)
    machine.cancel("behind", kill=True)
    machine.exited(1)
    assert machine.verdict("behind") is Verdict.CANCELLED
    assert machine.verdict("crashes") is None, "it is tried again"


def test_inv05_a_kill_of_the_running_task_takes_back_what_is_behind_it() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit_many("a", 3)
    assert machine.cancel("a2", kill=True) == ["recall w1", "a2 cancelled", "kill w1"]
    assert machine.queued == ["a3", "a4"]


def test_inv05_a_resize_takes_back_what_was_sent_ahead() -> None:
    machine = machine_with_short_tasks({"a": 2, None: 0}, "a")
    machine.submit_many("a", 6)
    words = machine.resize({"a": 1})
    assert words[0].startswith("recall")
    draining = [p for p in machine.processes.values() if p.worker.state is WorkerState.DRAINING]
    assert [process.waiting for process in draining] == [[]]


def test_inv05_a_head_that_turns_out_long_gives_back_what_is_behind_it() -> None:
    machine = machine_with_short_tasks({"a": 2, None: 0}, "a")
    machine.submit_many("a", 6)
    first, second = machine.running
    behind = len(machine.runner(first).waiting)
    assert behind
    machine.after(limits.STUCK_SECONDS * 2)
    words = machine.ended(second, seconds=SHORT)
    words += machine.submit("a")
    assert any(word.startswith("recall") for word in words)
    assert not machine.runner(first).waiting


def test_inv05_what_cannot_be_taken_back_just_now_is_asked_for_again() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit_many("a", 6)
    assert machine.runner(machine.running[0]).waiting
    assert machine.tell(Recalled(1, (), refused=True)) == []
    assert machine.after(limits.STUCK_SECONDS)[0] == "recall w1"


def test_inv05_a_task_with_a_timeout_is_sent_only_to_a_worker_that_begins_it_at_once() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    assert machine.submit_many("a", 2) == ["w1 runs a2", "w1 ahead a3"]
    assert machine.submit("a", "timed", timeout=1) == []
    assert machine.submit("a", "behind") == [], "nor does what stands behind it overtake it"
    machine.ended("a2", seconds=SHORT)
    assert machine.ended("a3", seconds=SHORT) == ["a3 returned", "w1 runs timed"], "and nothing is sent behind it"


def test_inv05_no_worker_is_sent_more_than_it_may_do() -> None:
    machine = machine_with_short_tasks({"a": Group(1, max_tasks_per_child=4), None: 0}, "a")
    assert machine.submit_many("a", 5) == ["w1 runs a2", "w1 ahead a3 a4"]


def test_inv05_what_can_wait_in_the_inbox_is_said_truly() -> None:
    machine = Machine({"a": 1, "b": 0, None: 1})
    assert not machine.can_wait(machine.task("a"))
    machine.submit_many("a", 2)
    assert not machine.can_wait(machine.task("b")), "b has nothing running, so nobody may come by"
    machine.submit("b")
    assert machine.can_wait(machine.task("b"))
    assert not machine.can_wait(machine.task("b", priority=1))


@pytest.mark.parametrize(("burst", "does"), [(None, "recall w2"), (0, "w1 ahead b12")])
def test_inv05_a_task_for_which_others_are_taken_back_does_not_wait_in_the_inbox(burst: int | None, does: str) -> None:
    machine = machine_with_short_tasks({"a": 0, "b": Group(1, burst=burst), None: 1}, "a", "b")
    machine.submit("a")
    machine.submit_many("b", 10)
    assert machine.submit_many("a", 4) == ["w2 ahead a3 a4 a5 a6"]
    task = machine.task("b")
    assert machine.can_wait(task) is (burst == 0)
    assert machine.submit_all(task) == [does]


# -- 6: one reconcile step ------------------------------------------------------------------------------------


def test_inv06_workers_start_for_every_slot() -> None:
    machine = Machine({}, ready=False)
    assert machine.resize({"a": 2, None: 1}) == ["start w1 for a", "start w2 for a", "start w3 for general"]


def test_inv06_growth_starts_at_once() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_many("a", 3)
    assert machine.resize({"a": 2}) == ["start w2 for a"]
    assert machine.ready(2) == ["w2 runs a2"]


def test_inv06_shrinking_lets_idle_workers_go_first() -> None:
    machine = Machine({"a": 3, None: 0})
    machine.submit("a")
    words = machine.resize({"a": 1})
    assert len(words) == 2
    assert all(word.startswith("stop") for word in words)
    assert machine.running == ["a1"]


def test_inv06_a_busy_worker_drains_and_never_is_killed() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_many("a", 2)
    assert machine.resize({"a": 0}) == []
    assert machine.scheduler.workers[1].state is WorkerState.DRAINING
    assert machine.ended("a1") == ["a1 returned", "stop w1"]
    assert machine.queued == ["a2"]
    assert machine.resize({"a": 1}) == ["start w2 for a"]
    assert machine.ready(2) == ["w2 runs a2"]


def test_inv06_a_reserve_is_a_promise_though_others_drain() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a")
    machine.resize({"a": 0})
    assert machine.resize({"b": 1}) == ["start w2 for b"], "there may be more processes than slots while some drain"


def test_inv06_slots_that_move_take_their_idle_workers_along() -> None:
    machine = Machine({"a": 2, "b": 0, None: 0})
    assert machine.resize({"a": 1, None: 1}) == []
    assert machine.submit_many("b", 2) == ["w2 runs b1"]


def test_inv06_slots_that_move_take_their_busy_workers_along() -> None:
    machine = Machine({"a": 2, None: 0})
    machine.submit_many("a", 2)
    assert machine.resize({"a": 1, None: 1}) == [], "what one of them runs is a burst from now on"
    assert len(machine.scheduler.groups["a"].bursting) == 1
    assert machine.resize({"a": 2, None: 0}) == []
    assert len(machine.scheduler.groups["a"].bursting) == 0


def test_inv06_a_crashed_worker_is_replaced() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a")
    assert machine.exited(1) == ["a1 crashed", "start w2 for a"]


def test_inv06_workers_are_recycled_between_tasks() -> None:
    machine = Machine({"a": Group(1, max_tasks_per_child=2), None: 0})
    machine.submit_many("a", 3)
    machine.ended("a1")
    assert machine.ended("a2") == ["a2 returned", "stop w1", "start w2 for a"]
    assert machine.ready(2) == ["w2 runs a3"]
    assert machine.exited(1) == []


def test_inv06_a_worker_that_does_not_end_when_asked_is_killed() -> None:
    machine = Machine({"a": 1, None: 0})
    assert machine.resize({"a": 0}) == ["stop w1"]
    assert machine.after(limits.STOP_SECONDS - 0.1) == []
    assert machine.after(0.1) == ["kill w1"]
    assert machine.exited(1) == []


def test_inv06_a_worker_that_ends_when_asked_is_not_killed() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.resize({"a": 0})
    machine.exited(1)
    assert machine.scheduler.next_timer is None
    assert machine.after(limits.STOP_SECONDS) == []


def test_inv06_a_worker_that_is_not_ready_in_time_is_killed() -> None:
    machine = Machine({"a": Group(1, start_timeout=3), None: 0}, ready=False)
    assert machine.after(3) == ["kill w1"]
    assert machine.exited(1) == ["start w2 for a"]
    assert machine.scheduler.groups["a"].failures == 1
    machine.ready(2)
    assert machine.after(3) == []


def test_inv06_a_general_worker_stands_in_for_one_that_was_killed_before_it_was_up() -> None:
    machine = Machine({"a": Group(1, start_timeout=3), None: 1}, ready=False)
    machine.ready(2)
    assert machine.after(3) == ["kill w1"]
    assert machine.submit("a") == ["w2 runs a1"]
    assert machine.exited(1) == ["start w3 for general"]


def test_inv06_a_resize_lets_those_go_first_who_were_killed() -> None:
    machine = Machine({"a": Group(3, start_timeout=3), None: 0}, ready=False)
    machine.ready(1)
    machine.ready(2)
    machine.submit_many("a", 2)
    assert machine.after(3) == ["kill w3"]
    machine.resize({"a": 1, None: 2})
    states = [machine.processes[number].worker.state for number in (1, 2)]
    assert states == [WorkerState.BUSY] * 2, "nobody drains for a slot that is on its way out"


# -- 7: kinds of workers --------------------------------------------------------------------------------------


def test_inv07_a_group_bursts_in_a_worker_of_its_own_kind() -> None:
    machine = Machine({"own": Group(0, nice=1), "b": 0, None: 1})
    assert machine.submit("own") == ["stop w1", "start w2 for general"]
    assert machine.ready(2) == ["w2 runs own1"]
    assert machine.submit("b") == []
    assert machine.ended("own1") == ["own1 returned", "stop w2", "start w3 for general"]
    assert machine.ready(3) == ["w3 runs b1"]


def test_inv07_as_many_idle_workers_are_replaced_as_there_are_tasks() -> None:
    machine = Machine({"own": Group(0, nice=1), None: 3})
    machine.submit_many("own", 2)
    assert len(machine.starting) == 2
    machine.submit("own")
    assert len(machine.starting) == 3
    machine.all_ready()
    assert machine.running == ["own1", "own2", "own3"]


def test_inv07_no_more_idle_workers_are_replaced_than_the_burst_cap_allows() -> None:
    machine = Machine({"own": Group(0, nice=1, burst=1), None: 3})
    machine.submit_many("own", 2)
    machine.submit("own")
    assert len(machine.starting) == 1


def test_inv07_what_the_reserve_cannot_take_bursts_as_soon_as_that_is_known() -> None:
    machine = Machine({"own": Group(1, nice=1), None: 1}, ready=False)
    machine.submit_many("own", 2)
    assert machine.ready(2) == [], "the reserved worker is on its way, and may take it"
    assert machine.ready(1) == ["w1 runs own1", "stop w2", "start w3 for general"]
    assert machine.ready(3) == ["w3 runs own2"]


def test_inv07_plain_workers_never_run_it() -> None:
    machine = Machine({"own": Group(1, nice=1), None: 1})
    machine.submit("own")
    machine.submit_many(None, 2)
    assert machine.ended("own1") == ["own1 returned"], "and its own run nothing else"
    assert machine.queued == ["general2"]


# -- 8, 9, 10, 11: tasks --------------------------------------------------------------------------------------


def test_inv08_a_task_ends_once_with_what_its_worker_says() -> None:
    machine = Machine({None: 2})
    machine.submit_many(None, 2)
    assert machine.ended("general1") == ["general1 returned"]
    assert machine.raised("general2") == ["general2 raised"]
    assert not machine.scheduler.tasks


def test_inv08_a_crash_is_tried_again_as_often_as_it_may() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=2)
    for _ in range(2):
        assert machine.exited(max(machine.processes)) == [f"start w{max(machine.processes)} for a"]
        machine.all_ready()
        assert machine.running == []
        assert machine.until_timer()[-1].endswith("runs a1")
    words = machine.exited(max(machine.processes))
    assert words[0] == "a1 crashed"
    assert machine.begins[machine.tasks["a1"].id] == 3


def test_inv08_the_pause_before_each_attempt_grows() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=4)
    pauses = []
    for _ in range(4):
        machine.exited(max(machine.processes))
        machine.all_ready()
        began = machine.now
        while not machine.running:
            machine.until_timer()
        pauses.append(machine.now - began)
    task = machine.tasks["a1"].id
    assert pauses == pytest.approx([limits.retry_delay(task, attempt) for attempt in (1, 2, 3, 4)])
    assert all(0.025 * 2**n <= pause <= 0.05 * 2**n for n, pause in enumerate(pauses))


def test_inv08_an_exception_is_tried_again_only_when_it_is_said_so() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=1)
    assert machine.raised("a1", retry=True) == []
    assert machine.until_timer() == ["w1 runs a1"]
    assert machine.raised("a1", retry=True) == ["a1 raised"]
    machine.submit("a", retries=1)
    assert machine.raised("a2", retry=False) == ["a2 raised"]


def test_inv08_a_task_that_waits_for_its_next_attempt_holds_no_slot() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=1)
    machine.submit("a")
    assert machine.raised("a1", retry=True) == ["w1 runs a2"]


def test_inv08_a_task_that_comes_back_takes_the_place_of_its_age() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=1)
    machine.submit_many("a", 3)
    machine.raised("a1", retry=True)
    machine.until_timer()
    assert machine.queued == ["a1", "a3", "a4"]


def test_inv08_plain_cancel_takes_what_is_queued_and_leaves_what_runs() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_many("a", 2)
    assert machine.cancel("a2") == ["a2 cancelled"]
    assert machine.cancel("a1") == []
    assert machine.ended("a1") == ["a1 returned"]
    assert machine.cancel("a1") == [], "it has ended"


def test_inv08_plain_cancel_is_refused_between_attempts() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=1)
    machine.raised("a1", retry=True)
    assert machine.cancel("a1") == [], "while it waits"
    machine.submit("a", "other")
    machine.until_timer()
    assert machine.cancel("a1") == [], "while it is queued"
    assert machine.cancel("a1", kill=True) == ["a1 cancelled"]


def test_inv08_plain_cancel_is_refused_when_the_next_attempt_was_sent_ahead() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit("a", "again", retries=1)
    machine.ended("again", Verdict.RAISED, seconds=SHORT, retry=True)
    machine.now += 1
    assert machine.submit("a", "other") == ["w1 runs other", "w1 ahead again"]
    assert "again cancelled" not in machine.cancel("again")
    assert machine.cancel("again", kill=True)[-1] == "again cancelled"


def test_inv08_cancel_with_kill_ends_a_waiting_task_for_good() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=1)
    machine.raised("a1", retry=True)
    assert machine.cancel("a1", kill=True) == ["a1 cancelled"]
    assert machine.after(10) == []


def test_inv08_cancel_with_kill_stops_a_running_task() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=3)
    assert machine.cancel("a1", kill=True) == ["a1 cancelled", "kill w1"]
    assert machine.exited(1) == ["start w2 for a"], "a worker that was killed on purpose counts as no crash"
    assert machine.scheduler.groups["a"].crashes == 0


def test_inv08_a_task_that_is_announced_begins_once() -> None:
    machine = Machine({"a": 1, None: 0})
    task = machine.task("a", announce=True, retries=1)
    assert machine.submit_all(task) == ["begin a1", "w1 runs a1"]
    machine.raised("a1", retry=True)
    assert machine.until_timer() == ["w1 runs a1"]


def test_inv09_messages_that_quote_another_lease_are_dropped() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=1)
    lease = machine.tasks["a1"].lease
    assert lease is not None
    machine.exited(1)
    machine.all_ready()
    machine.until_timer()
    for stale in (
        Ended(1, lease.number, RETURNED),
        Ended(2, lease.number, RETURNED),
        Ended(2, 99, RETURNED),
        WorkerExited(1, lease.number),
        WorkerReady(1),
        WorkerReady(2),
        Recalled(1, (lease.number,)),
        Recalled(2, (lease.number,)),
    ):
        assert machine.tell(stale) == []
    assert machine.scheduler.dropped == 3
    assert machine.ended("a1") == ["a1 returned"]


def test_inv09_a_result_that_comes_twice_is_taken_once() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a")
    lease = machine.tasks["a1"].lease
    assert lease is not None
    machine.ended("a1")
    assert machine.tell(Ended(1, lease.number, RETURNED)) == []
    assert machine.scheduler.groups["a"].done == 1


def test_inv10_only_the_task_that_had_begun_is_to_blame() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 0}, "a")
    machine.submit_many("a", 4)
    machine.write(1)  # a2 has ended, a3 begun
    assert machine.exited(1) == ["a2 returned", "a3 crashed", "start w2 for a"]
    assert machine.queued == ["a4", "a5"]
    assert machine.ready(2)[0] == "w2 runs a4"


def test_inv11_what_had_not_begun_comes_back_unharmed_to_the_front() -> None:
    machine = Machine({"a": 1, None: 0}, eager=False)
    machine.submit_many("a", 3)
    assert machine.exited(1) == ["start w2 for a"], "it died before it began anything"
    assert machine.queued == ["a1", "a2", "a3"]
    assert machine.tasks["a1"].attempt == 0
    assert machine.ready(2) == ["w2 runs a1"]


def test_inv11_a_worker_that_dies_beside_free_ones_hands_its_tasks_to_them() -> None:
    machine = machine_with_short_tasks({"a": 1, None: 1}, "a")
    machine.submit_many("a", 2)
    machine.submit_many("a", 2)
    words = machine.exited(1)
    assert any(word.endswith("crashed") for word in words)
    assert len(machine.settled) == 2


def test_inv12_a_result_written_before_the_worker_died_counts() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a")
    machine.write(1)
    assert machine.exited(1) == ["a1 returned", "start w2 for a"]


# -- 13: deadlines and memory ---------------------------------------------------------------------------------


def test_inv13_a_timeout_kills_the_worker() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", timeout=5)
    assert machine.scheduler.next_timer == 5
    assert machine.after(4.9) == []
    assert machine.after(0.1) == ["kill w1"]
    assert machine.exited(1) == ["a1 timed out", "start w2 for a"]
    assert machine.scheduler.groups["a"].crashes == 0


def test_inv13_a_timeout_counts_the_running_time_alone() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", "first")
    machine.submit("a", "timed", timeout=5)
    machine.after(100)
    machine.ended("first")
    assert machine.after(4) == []
    assert machine.after(1) == ["kill w1"]


def test_inv13_a_result_in_hand_beats_its_deadline() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", timeout=5)
    machine.now += 6
    assert machine.ended("a1") == ["a1 returned"]
    assert machine.after(1) == []


def test_inv13_a_result_written_before_the_kill_counts() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", timeout=5)
    machine.write(1)
    assert machine.after(5) == ["kill w1"]
    assert machine.exited(1) == ["a1 returned", "start w2 for a"]


def test_inv13_a_timed_out_task_is_tried_again_if_it_may() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", timeout=5, retries=1)
    machine.after(5)
    machine.exited(1)
    machine.all_ready()
    assert machine.until_timer() == ["w2 runs a1"]
    machine.after(5)
    assert machine.exited(2)[0] == "a1 timed out"


def test_inv13_too_much_memory_ends_the_task_in_hand() -> None:
    machine = Machine({"a": Group(1, memory_limit=1000), None: 0})
    machine.submit("a")
    assert machine.sampled(1, 1000) == []
    assert machine.sampled(1, 1001) == ["kill w1"]
    assert machine.exited(1) == ["a1 out of memory", "start w2 for a"]


def test_inv13_an_idle_worker_with_too_much_memory_is_replaced() -> None:
    machine = Machine({"a": Group(1, memory_limit=1000), None: 0})
    assert machine.sampled(1, 1001) == ["stop w1", "start w2 for a"]


def test_inv13_a_worker_that_has_grown_is_recycled_after_its_task() -> None:
    machine = Machine({"a": Group(1, recycle_memory=1000), None: 0})
    machine.submit("a")
    assert machine.sampled(1, 1001) == ["start w2 for a"]
    assert machine.sampled(1, 1001) == [], "once is enough"
    assert machine.ended("a1") == ["a1 returned", "stop w1"]
    assert machine.scheduler.groups["a"].recycled == 1


def test_inv13_results_of_a_killed_worker_are_still_read() -> None:
    machine = machine_with_short_tasks({"a": Group(1, memory_limit=1000), None: 0}, "a")
    machine.submit_many("a", 2)
    machine.submit("a", "again", retries=1)
    for _ in range(2):
        machine.write(1)
    machine.write(1, Verdict.RAISED, retry=True)
    assert machine.sampled(1, 1001) == ["recall w1", "kill w1"]
    for _ in range(3):
        machine.read(1)
    assert machine.verdict("a2") is machine.verdict("a3") is RETURNED
    machine.after(1)
    assert machine.queued == ["again"]
    assert machine.tasks["again"].attempt == 1
    machine.submit("a")
    machine.exited(1)


# -- 16: deaths in a row --------------------------------------------------------------------------------------


def fail_to_start(machine: Machine, tag: Hashable, times: int) -> list[str]:
    """Workers of the tag die before they are ready, one after the other."""
    words: list[str] = []
    for _ in range(times):
        while not machine.starting:
            words += machine.until_timer()
        (worker,) = machine.starting
        assert machine.processes[worker].worker.group.tag == tag
        words += machine.exited(worker, "no database")
    return words


def test_inv16_workers_that_die_young_are_replaced_ever_later() -> None:
    machine = Machine({"a": 1, None: 0}, ready=False)
    assert machine.exited(1) == ["start w2 for a"]
    assert machine.exited(2) == []
    assert machine.scheduler.groups["a"].state is GroupState.BACKING_OFF
    assert machine.after(0.09) == []
    assert machine.after(0.02) == ["start w3 for a"]
    assert machine.exited(3) == []
    assert machine.after(0.19) == []
    assert machine.after(0.02) == ["start w4 for a"]
    machine.ready(4)
    assert machine.scheduler.groups["a"].state is GroupState.SOUND
    assert machine.exited(4) == ["start w5 for a"]


def test_inv16_a_group_that_cannot_start_is_broken_alone() -> None:
    machine = Machine({"bad": 1, "good": 1, None: 0}, ready=False)
    machine.ready(2)
    machine.submit_many("bad", 2)
    words = fail_to_start(machine, "bad", limits.MAX_START_FAILURES)
    assert words[-3:] == ["break bad", "bad1 group broken", "bad2 group broken"]
    assert machine.submit("bad") == ["bad3 group broken"]
    assert machine.submit("good") == ["w2 runs good1"]
    assert machine.after(100) == []


def test_inv16_a_resize_gives_a_broken_group_another_chance() -> None:
    machine = Machine({"bad": 1, None: 0}, ready=False)
    fail_to_start(machine, "bad", limits.MAX_START_FAILURES)
    assert machine.resize({"bad": 1}) == ["start w6 for bad"]
    machine.submit("bad")
    assert machine.ready(6) == ["w6 runs bad1"]


def test_inv16_crashes_in_a_row_back_off_and_then_break_the_group() -> None:
    machine = Machine({"a": 1, None: 0})
    began = machine.now
    for number in range(limits.MAX_CRASHES):
        machine.submit("a", f"crash{number}")
        while not machine.running:
            machine.all_ready()
            if not machine.running:
                machine.until_timer()
        if number == limits.CRASHES_AT_ONCE:
            assert machine.now == began
        words = machine.exited(max(machine.processes))
    assert machine.now > began + 1
    assert "break a" in words


def test_inv16_a_task_that_ends_breaks_the_row() -> None:
    machine = Machine({"a": 1, None: 0})
    for number in range(3 * limits.MAX_CRASHES):
        machine.submit_many("a", 2)
        while not machine.running:
            machine.all_ready()
        if number % 3:
            machine.exited(max(machine.processes))
        while machine.scheduler.tasks:
            machine.all_ready()
            machine.ended(machine.running[0])
    assert machine.scheduler.groups["a"].state is GroupState.SOUND


def test_inv16_idle_workers_that_die_now_and_then_break_nothing() -> None:
    """Tasks of any tag that end in general workers say that these are sound."""
    machine = Machine({"a": 0, None: 1})
    for _ in range(2 * limits.MAX_CRASHES):
        machine.submit("a")
        machine.ended(machine.running[0])
        machine.exited(max(machine.processes))
        while not machine.starting:
            machine.until_timer()
        machine.all_ready()
    assert machine.scheduler.groups[None].state is GroupState.SOUND


def test_inv16_what_comes_back_to_a_broken_group_ends_too() -> None:
    machine = Machine({"bad": 2, None: 0}, eager=False, ready=False)
    machine.submit("bad")
    machine.ready(1)
    fail_to_start(machine, "bad", limits.MAX_START_FAILURES)
    assert "bad1 group broken" in machine.exited(1), "it came back unbegun, and nobody will ever take it"


def test_inv16_a_worker_that_comes_up_late_does_not_half_mend_a_broken_group() -> None:
    machine = Machine({"a": 0, None: 2}, ready=False)
    late = 1
    for _ in range(limits.MAX_START_FAILURES):
        while machine.starting == [late]:
            machine.until_timer()
        machine.exited(max(machine.starting))
    assert machine.scheduler.groups[None].state is GroupState.BROKEN
    machine.ready(late)
    machine.submit("a")
    if machine.running:
        machine.ended("a1")
        machine.submit("a")
        machine.exited(late)
    assert not machine.scheduler.tasks, "what nobody will run must end"


def test_inv16_a_group_broken_by_crashes_goes_on_for_tags_that_only_burst() -> None:
    machine = Machine({"a": 0, None: Group(2, max_crashes=limits.CRASHES_AT_ONCE + 2)})
    while machine.scheduler.groups[None].state is not GroupState.BROKEN:
        machine.submit_many(None, 2)
        for name in machine.running:
            machine.exited(machine.runner(name).worker.id)
        machine.all_ready()
    machine.submit("a")
    while not machine.running:
        machine.until_timer()
        machine.all_ready()
    assert machine.running == ["a1"]


def crash_in_a_row(machine: Machine, tag: Hashable, times: int) -> list[str]:
    """Tasks of the tag take their workers along, one after the other."""
    words: list[str] = []
    for number in range(times):
        name = f"crash{number}"
        machine.submit(tag, name)
        while name not in machine.running:
            if not machine.all_ready():
                machine.until_timer()
        words = machine.exited(machine.runner(name).worker.id)
    return words


def test_inv16_a_tag_that_only_bursts_backs_off_alone() -> None:
    machine = Machine({"a": 0, "b": 0, None: 1})
    crash_in_a_row(machine, "a", limits.CRASHES_AT_ONCE)
    assert machine.now == 0.0
    crash_in_a_row(machine, "a", 1)
    assert machine.scheduler.groups["a"].state is GroupState.BACKING_OFF
    assert machine.scheduler.groups[None].state is GroupState.SOUND
    machine.submit("a", "waits")
    assert machine.all_ready() == [], "the worker is replaced at once, but not for the tag that killed it"
    assert machine.submit("b") == ["w12 runs b1"]
    machine.submit("b")
    machine.after(0.01)
    assert machine.ended("b1") == ["b1 returned", "w12 runs b2"]
    assert machine.after(0.02) == [], "it contends again, and the slot is taken"
    assert machine.scheduler.groups["a"].state is GroupState.SOUND
    assert machine.ended("b2") == ["b2 returned", "w12 runs waits"]


def test_inv16_a_tag_that_only_bursts_is_placed_again_when_its_time_has_come() -> None:
    machine = Machine({"a": 0, None: 1})
    crash_in_a_row(machine, "a", limits.CRASHES_AT_ONCE + 1)
    machine.all_ready()
    assert machine.submit("a", "waits") == []
    assert machine.until_timer() == ["w12 runs waits"]
    assert machine.now == limits.crash_delay(limits.CRASHES_AT_ONCE + 1)


def test_inv16_a_tag_that_only_bursts_is_held_back_ever_longer_and_then_broken() -> None:
    machine = Machine({"a": 0, "b": 0, None: 1})
    words = crash_in_a_row(machine, "a", limits.MAX_CRASHES)
    delays = [limits.crash_delay(crashes) for crashes in range(1, limits.MAX_CRASHES)]
    assert machine.now == pytest.approx(sum(delays))
    assert "break a" in words
    assert machine.submit("a")[-1].endswith("group broken")
    machine.all_ready()
    assert machine.submit("b")[-1].endswith("runs b1")


def test_inv16_a_tag_of_its_own_kind_that_is_held_back_takes_no_general_slot_from_others() -> None:
    machine = Machine({"own": Group(0, nice=1), "b": 0, None: 1})
    crash_in_a_row(machine, "own", limits.CRASHES_AT_ONCE + 1)
    machine.all_ready()
    assert machine.submit("own", "waits") == [], "no worker of another kind is replaced for it"
    assert machine.submit("b")[-1].endswith("runs b1")
    machine.ended("b1")
    words = machine.until_timer()
    assert [word.split()[0] for word in words] == ["stop", "start"]
    assert machine.all_ready()[-1].endswith("runs waits")


def test_inv16_a_tag_that_is_held_back_keeps_its_own_workers_only() -> None:
    machine = Machine({"a": 2, None: 1})
    crash_in_a_row(machine, "a", limits.CRASHES_AT_ONCE + 1)
    machine.all_ready()
    (own,) = machine.scheduler.groups["a"].idle
    assert machine.submit("a", "first") == [f"w{own.id} runs first"]
    assert machine.submit("a", "second") == [], "neither a general worker, nor a new one of its own"
    words = machine.until_timer()
    assert [word for word in words if "runs second" in word]


def test_inv16_crashes_of_the_general_groups_own_tasks_leave_its_workers_to_others() -> None:
    machine = Machine({"a": 0, None: 1})
    words = crash_in_a_row(machine, None, limits.CRASHES_AT_ONCE + 1)
    assert words[-1].startswith("start")
    machine.all_ready()
    assert machine.submit(None, "waits") == []
    assert machine.submit("a")[-1].endswith("runs a1")
    machine.ended("a1")
    assert machine.until_timer()[-1].endswith("runs waits")


@pytest.mark.parametrize("how", ["a task that ends", "a resize"])
def test_inv16_what_breaks_the_row_ends_the_pause(how: str) -> None:
    machine = Machine({"a": 1, None: 1})
    machine.submit("a", "good")
    crash_in_a_row(machine, "a", limits.CRASHES_AT_ONCE + 1)
    machine.all_ready()
    assert machine.submit("a", "waits") == []
    words = machine.ended("good") if how == "a task that ends" else machine.resize({"a": 1})
    assert [word for word in words if "runs waits" in word]
    assert machine.scheduler.groups["a"].state is GroupState.SOUND


def test_inv16_a_tag_that_was_held_back_banks_no_credit() -> None:
    machine = Machine({"a": 0, "b": 0, None: 1})
    crash_in_a_row(machine, "a", limits.CRASHES_AT_ONCE + 8)
    machine.submit_many("a", 6)
    machine.submit_many("b", 30)
    machine.all_ready()
    while machine.scheduler.groups["a"].state is GroupState.BACKING_OFF:
        machine.after(0.1)
        machine.ended(machine.running[0])
    order = ""
    for _ in range(6):
        machine.after(0.1)
        order += machine.running[0][0]
        machine.ended(machine.running[0])
    assert "aaa" not in order, "it starts where the others are"


def test_inv16_what_is_sent_ahead_elsewhere_is_taken_back_when_the_pause_ends() -> None:
    machine = Machine({"a": 0, "b": 0, None: 1})
    machine.submit("b")
    machine.ended("b1", seconds=0.001)
    crash_in_a_row(machine, "a", limits.CRASHES_AT_ONCE + 1)
    machine.all_ready()
    machine.submit("a", "waits")
    assert machine.submit_many("b", 3) == ["w12 runs b2", "w12 ahead b3 b4"], "nobody else waits"
    assert "recall w12" in machine.until_timer()
    assert machine.ended("b2", seconds=0.001)[-1] == "w12 runs waits"


def test_inv16_a_pause_that_ends_leaves_the_back_off_of_the_workers_alone() -> None:
    machine = Machine({None: 1})
    crash_in_a_row(machine, None, limits.CRASHES_AT_ONCE + 1)
    machine.submit(None, "waits")
    machine.after(0.01)
    machine.all_ready()
    (idle,) = machine.processes
    assert machine.exited(idle) == [], "it died with no task in hand, so no worker is started for a while"
    assert machine.until_timer() == [], "the tag may have a worker again, and there is none"
    assert machine.scheduler.groups[None].state is GroupState.BACKING_OFF
    (start,) = machine.until_timer()
    assert start.startswith("start")
    assert machine.all_ready()[-1].endswith("runs waits")


def test_inv16_a_tag_that_loses_its_slots_while_the_general_group_is_broken_ends_its_tasks() -> None:
    machine = Machine({"a": 1, None: 1}, ready=False)
    machine.submit("a")
    for _ in range(limits.MAX_START_FAILURES):
        while machine.starting == [1]:
            machine.until_timer()
        machine.exited(max(machine.starting))
    assert machine.scheduler.groups[None].state is GroupState.BROKEN
    machine.resize({"a": 0})
    assert machine.verdict("a1") is Verdict.BROKEN


# -- the end --------------------------------------------------------------------------------------------------


def test_close_finishes_what_there_is_then_ends_the_workers() -> None:
    machine = Machine({"a": 1, None: 1})
    machine.submit_many("a", 3)
    assert machine.close() == []
    assert machine.submit("a") == ["a4 pool closed"]
    assert machine.ended("a1") == ["a1 returned", "w1 runs a3"]
    assert machine.ended("a2") == ["a2 returned"]
    assert machine.ended("a3") == ["a3 returned", "stop w2", "stop w1"] or machine.scheduler.tasks == {}
    assert machine.exited(1) == []
    assert machine.exited(2) == ["close"]
    assert machine.scheduler.state is PoolState.CLOSED


def test_close_of_a_pool_without_workers_is_immediate() -> None:
    assert Machine({"a": 0}).close() == ["close"]


def test_close_waits_for_retries() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit("a", retries=1)
    machine.close()
    assert machine.raised("a1", retry=True) == []
    assert machine.until_timer() == ["w1 runs a1"]
    assert machine.ended("a1") == ["a1 returned", "stop w1"]


def test_close_replaces_workers_while_tasks_are_left() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_many("a", 2)
    machine.close()
    assert machine.exited(1) == ["a1 crashed", "start w2 for a"]
    machine.ready(2)
    assert machine.ended("a2") == ["a2 returned", "stop w2"]
    assert machine.exited(2) == ["close"]


def test_close_ends_what_has_no_slot() -> None:
    machine = Machine({"a": 0, "b": 1, None: 0})
    machine.submit("a")
    machine.submit("b")
    assert machine.close() == ["a1 pool closed"]


def test_a_resize_while_the_pool_closes_strands_nobody() -> None:
    machine = Machine({"a": 1, None: 0}, ready=False)
    machine.submit("a")
    machine.close()
    assert "a1 pool closed" in machine.resize({"a": 0})


def test_close_now_cancels_and_kills_everything() -> None:
    machine = Machine({"a": 1, "b": 1, None: 0})
    machine.submit_many("a", 2)
    machine.submit("b", retries=1)
    machine.raised("b1", retry=True)
    assert machine.close(now=True) == ["a1 cancelled", "a2 cancelled", "b1 cancelled", "kill w1", "kill w2"]
    machine.exited(1)
    assert machine.exited(2) == ["close"]


def test_close_now_after_close() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_many("a", 2)
    machine.close()
    assert machine.close(now=True) == ["a1 cancelled", "a2 cancelled", "kill w1"]
    assert machine.exited(1) == ["close"]
    assert machine.close(now=True) == []


def test_close_kills_workers_that_do_not_end() -> None:
    machine = Machine({"a": 1, None: 0})
    assert machine.close() == ["stop w1"]
    assert machine.after(limits.STOP_SECONDS) == ["kill w1"]
    assert machine.exited(1) == ["close"]


def test_at_interpreter_exit_what_has_a_worker_finishes() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_many("a", 2)
    assert machine.tell(ExitBegan()) == []
    machine.ended("a1")
    assert machine.ended("a2") == ["a2 returned", "stop w1"]


def test_at_interpreter_exit_what_can_get_no_worker_ends() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_many("a", 2)
    machine.tell(ExitBegan())
    assert machine.exited(1) == ["a1 crashed", "start w2 for a"], "on some versions that still works"
    assert machine.exited(2, "can't start new process") == ["a2 pool closed", "close"]


def test_at_interpreter_exit_a_retry_that_can_get_no_worker_ends_as_the_pool_does() -> None:
    machine = Machine({"a": 0, None: 1})
    machine.submit("a", retries=1)
    machine.tell(ExitBegan())
    machine.exited(1)
    machine.exited(2, "can't start new process")
    assert machine.until_timer() == ["a1 pool closed", "close"]


# -- blocks ---------------------------------------------------------------------------------------------------


def test_inv05_a_block_is_answered_item_by_item() -> None:
    machine = Machine({"a": 1, None: 0})
    assert machine.submit_block("a", 5) == ["w1 runs a1*5"]
    assert machine.answer(1, 2) == ["a1 answered"]
    assert machine.tasks["a1"].size == 3
    assert machine.answer(1, 2, raised=1) == ["a1 answered"]
    assert machine.answer(1, 1) == ["a1 answered", "a1 returned"]
    group = machine.scheduler.groups["a"]
    assert (group.done, group.failed, group.lost) == (4, 1, 0)


def test_inv05_the_last_block_is_shared_out_among_all_slots() -> None:
    machine = Machine({"a": 2, None: 2})
    machine.submit_block("a", 400)
    held = sorted(len(way.items) for process in machine.processes.values() for way in process.ways.values())
    assert held == [42, 57, 75, 100]
    assert sum(task.size for task in machine.scheduler.groups["a"].backlog.tasks()) == 400 - sum(held)


def test_inv05_small_blocks_are_not_cut_to_crumbs() -> None:
    machine = Machine({"a": 4, None: 0})
    assert machine.submit_block("a", 9) == ["split 8 of a1", "w4 runs a1*8", "w3 runs a1"]


def test_inv05_only_the_last_block_is_shared_out() -> None:
    machine = Machine({"a": 1, "b": 1, None: 0}, ready=False)
    machine.submit_all(*[machine.task("a", size=100) for _ in range(2)])
    assert machine.ready(1) == ["w1 runs a1*100"]


def test_inv05_what_is_left_of_a_block_is_the_next_to_run() -> None:
    machine = Machine({"a": 1, None: 1}, ready=False)
    machine.submit_block("a", 40)
    machine.submit("a", "later")
    assert machine.ready(1) == ["w1 runs a1*40"], "it was not the last one"
    machine = Machine({"a": 1, None: 1}, ready=False)
    machine.submit_block("a", 40)
    assert machine.ready(1) == ["split 20 of a1", "w1 runs a1*20"]
    machine.submit("a", "later")
    assert machine.ready(2) == ["w2 runs a1*20"]


def test_inv05_another_tag_that_waits_gets_the_block_split() -> None:
    machine = Machine({"a": 0, "b": 0, None: 1})
    machine.submit_block("a", 10)
    machine.answer(1, 3)
    assert machine.submit("b") == ["recall w1", "split 1 of a1"]
    assert machine.queued == ["a1", "b1"]
    machine.after(0.001)
    assert machine.answer(1, 1) == ["a1 answered", "a1 returned", "w1 runs b1"]
    assert machine.ended("b1") == ["b1 returned", "w1 runs a1*6"]


def test_inv05_a_tag_below_its_reserve_gets_nothing_taken_back_for_it() -> None:
    machine = Machine({"a": 0, "b": 1, None: 1})
    machine.submit_block("a", 10)
    assert machine.submit("b") == ["w1 runs b1"]


def test_inv05_a_general_slot_with_another_tag_waiting_gets_one_item_at_a_time() -> None:
    machine = Machine({"a": 0, "b": 0, None: 1})
    machine.submit("a", "first")
    machine.submit_block("a", 10)
    machine.submit_block("b", 10)
    served = []
    for _ in range(8):
        (process,) = machine.processes.values()
        assert not process.ways, "no more than one item"
        (name,) = machine.running
        machine.after(0.001)
        machine.ended(name, seconds=0.001)
        served.append(tag_of(name))
    assert served[1:] == ["b", "a"] * 3 + ["b"]


def test_inv05_a_slot_that_is_idle_gets_its_share_of_a_block_that_runs() -> None:
    machine = Machine({"a": 2, None: 0})
    machine.submit("a", "short")
    machine.submit_block("a", 16)
    machine.answer(1, 3)
    assert machine.ended("short") == ["short returned", "w2 runs a2*8"]
    words = machine.answer(2, 8)
    assert words == ["a2 answered", "a2 returned", "recall w1", "split 1 of a2", "w2 runs a2*4"]


def test_inv05_a_worker_that_comes_up_gets_its_share_of_a_block_that_runs() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_block("a", 40)
    machine.resize({"a": 2})
    assert machine.ready(2) == ["recall w1", "split 1 of a1", "split 20 of a1", "w2 runs a1*20"]


def test_inv05_a_resize_takes_the_rest_of_a_block_back() -> None:
    machine = Machine({"a": 2, None: 0})
    machine.submit_block("a", 40)
    assert machine.resize({"a": 1})[:2] == ["recall w1", "split 1 of a1"]
    assert machine.answer(1, 1) == ["a1 answered", "a1 returned", "stop w1"]
    assert machine.answer(2, 20)[-1] == "w2 runs a1*9", "what is left of the drained worker's share goes first"


def test_inv05_a_block_in_an_item_that_takes_long_is_recalled_by_its_timer() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_block("a", 10)
    machine.after(limits.STUCK_SECONDS * 0.9)
    assert machine.answer(1, 2) == ["a1 answered"]
    assert machine.until_timer() == [], "it has answered meanwhile"
    assert machine.until_timer() == ["recall w1", "split 1 of a1"]
    assert machine.now == pytest.approx(limits.STUCK_SECONDS * 1.9)
    assert machine.scheduler.next_timer is None, "one item is left, and nothing more to be asked for"
    assert machine.answer(1, 1) == ["a1 answered", "a1 returned", "w1 runs a1*7"]


def test_inv05_a_higher_priority_goes_before_the_rest_of_a_block() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_block("a", 10)
    assert machine.submit("a", "urgent", priority=1) == ["recall w1", "split 1 of a1"]
    assert machine.answer(1, 1) == ["a1 answered", "a1 returned", "w1 runs urgent"]


def test_inv06_max_tasks_per_child_counts_the_items_of_blocks() -> None:
    machine = Machine({"a": Group(1, max_tasks_per_child=4), None: 0})
    assert machine.submit_block("a", 10) == ["split 4 of a1", "w1 runs a1*4"]
    assert machine.answer(1, 3) == ["a1 answered"]
    assert machine.answer(1, 1) == ["a1 answered", "a1 returned", "stop w1", "start w2 for a"]
    assert machine.ready(2) == ["split 4 of a1", "w2 runs a1*4"]


def test_inv06_a_block_is_not_sent_ahead_to_a_worker_that_is_to_be_recycled() -> None:
    machine = machine_with_short_tasks({"a": Group(1, max_tasks_per_child=50), None: 0}, "a")
    machine.submit("a")
    assert machine.submit_block("a", 10) == []
    assert machine.ended("a2", seconds=SHORT) == ["a2 returned", "w1 runs a3*10"]


def test_inv06_a_worker_that_has_run_more_for_other_tags_gets_one_item() -> None:
    machine = Machine({"a": Group(0, max_tasks_per_child=2), "b": 0, None: 1})
    for _ in range(4):
        machine.submit("b", "of b")
        machine.ended("of b")
    assert machine.submit_block("a", 10) == ["split 1 of a1", "w1 runs a1"]
    assert machine.ended("a1") == ["a1 returned", "stop w1", "start w2 for general"]


def test_inv08_a_cancelled_block_ends_where_it_has_come_to() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_block("a", 10)
    machine.answer(1, 4)
    assert machine.cancel("a1") == ["recall w1", "split 1 of a1", "a1 cancelled"]
    assert machine.answer(1, 1) == ["a1 answered", "a1 returned"]
    assert machine.scheduler.groups["a"].done == 5


def test_inv08_a_block_whose_items_have_all_begun_is_not_cancelled() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_block("a", 2)
    machine.answer(1, 1)
    assert machine.cancel("a1") == []
    assert machine.answer(1, 1) == ["a1 answered", "a1 returned"]


def test_inv10_a_crash_costs_the_item_that_had_begun() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_block("a", 10)
    machine.answer(1, 3)
    assert machine.exited(1) == ["split 1 of a1", "a1 crashed", "start w2 for a"]
    assert machine.blamed == [4]
    assert machine.ready(2) == ["w2 runs a1*6"]
    group = machine.scheduler.groups["a"]
    assert (group.done, group.lost) == (3, 1)


def test_inv11_a_death_between_two_items_costs_none() -> None:
    machine = Machine({"a": 1, None: 0}, eager=False)
    machine.submit_block("a", 10)
    machine.begin(1)
    machine.answer(1, 3)
    assert machine.exited(1) == ["start w2 for a"]
    assert machine.ready(2) == ["w2 runs a1*7"]
    assert machine.blamed == []


def test_inv11_a_block_whose_worker_dies_after_every_item_is_never_blamed() -> None:
    machine = Machine({"a": 1, None: 0}, eager=False)
    machine.submit_block("a", 8)
    for worker in range(1, 8):
        machine.begin(worker)
        machine.answer(worker, 1)
        machine.exited(worker)
        machine.all_ready()
    assert machine.blamed == []
    assert machine.scheduler.groups["a"].done == 7


def test_inv12_answers_kept_when_the_worker_died_are_read() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_block("a", 10)
    for _ in range(4):
        machine.end_item(1)
        machine.begin_item(1)
    assert machine.exited(1) == ["a1 answered", "split 1 of a1", "a1 crashed", "start w2 for a"]
    assert machine.blamed == [5]


def test_inv10_a_kill_for_memory_harms_one_item() -> None:
    machine = Machine({"a": Group(1, memory_limit=1000), None: 0})
    machine.submit_block("a", 10)
    machine.answer(1, 2)
    assert machine.sampled(1, 2000) == ["recall w1", "kill w1", "split 1 of a1"]
    assert machine.exited(1) == ["a1 out of memory", "start w2 for a"]
    assert machine.blamed == [3]
    assert machine.ready(2) == ["w2 runs a1*7"]


def test_inv09_answers_of_a_lease_that_nobody_holds_are_dropped() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.submit_block("a", 10)
    number = machine.processes[1].worker.leases[0].number
    for stale in (Progressed(1, number + 1, 1, 0, False), Progressed(9, number, 1, 0, True)):
        assert machine.tell(stale) == []
    assert machine.scheduler.dropped == 2
    assert machine.tasks["a1"].size == 10


def test_inv05_what_came_back_of_blocks_is_queued_in_the_order_of_submission() -> None:
    machine = Machine({"a": 2, None: 0})
    machine.submit_all(*[machine.task("a", size=10) for _ in range(3)])
    first, second = machine.processes.values()
    machine.answer(second.worker.id, 1)
    machine.answer(first.worker.id, 1)
    machine.exited(second.worker.id)
    machine.exited(first.worker.id)
    waiting = [machine.items[task.id][0] for task in machine.scheduler.groups["a"].backlog.tasks()]
    assert waiting == sorted(waiting)


# -- the machine itself ---------------------------------------------------------------------------------------


def test_usable_slots_are_those_a_tag_could_hold() -> None:
    machine = Machine({"a": Group(1, burst=1), "b": 2, None: 3})
    scheduler = machine.scheduler
    assert [scheduler.usable_slots(scheduler.groups[tag]) for tag in ("a", "b", None)] == [2, 5, 3]


def test_transitions_are_kept_only_for_those_who_listen() -> None:
    machine = Machine({"a": 1, None: 0})
    machine.scheduler.transitions.clear()
    machine.submit("a")
    assert [(t.noun, t.old.value, t.new.value) for t in machine.scheduler.transitions] == [
        ("worker", "idle", "busy"),
        ("task", "queued", "running"),
    ]
    machine.scheduler.listening = False
    machine.scheduler.transitions.clear()
    machine.ended("a1")
    assert machine.scheduler.transitions == []
