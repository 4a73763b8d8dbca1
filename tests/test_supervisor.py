"""The supervisor, stepped by hand over pretended workers and a clock that moves when told."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any

import pytest

from gpool import (
    FakeBackend,
    FakeClock,
    Group,
    GroupBroken,
    GroupedPool,
    PayloadError,
    PoolClosed,
    PoolError,
    TaskTimeout,
    WorkerCrashed,
)
from gpool.blocks import Block, Chunk, outcome_in
from gpool.events import ResizeAsked
from gpool.futures import Future
from gpool.limits import SHORTEST
from gpool.model import Options, PoolState, Task, Verdict
from gpool.outcome import Outcome
from gpool.scheduler import Transition
from gpool.workers.blocks import pack_item
from gpool.workers.payload import Shared
from tests.bombs import Bomb
from tests.stage import MakeStage, Stage


def broken(n: int) -> None:
    raise KeyError(n)


def workers_of(*futures: Future[Any]) -> list[int]:
    """The workers that hold these tasks."""
    return [task.lease.worker.id for future in futures if isinstance(task := future.unit, Task) and task.lease]


def test_results_settle_in_the_order_they_come(stage: MakeStage) -> None:
    on = stage({"a": 2, None: 0})
    settled: list[Future[Any]] = []
    futures = [on.submit("a", abs, -n, follow_up=settled.append) for n in range(4)]
    first, second = workers_of(*futures[:2])
    on.backend.run(second)
    on.backend.run(first)
    on.step()
    assert settled == [futures[1], futures[0]]
    on.backend.run(first)
    on.backend.run(second)
    on.step()
    assert [future.result(0) for future in futures] == [0, 1, 2, 3]
    assert on.supervisor.pending == 0


def test_a_result_is_there_without_the_thread_that_reads_it(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    value = on.submit("a", abs, -3)
    error = on.submit("a", broken, 3)
    assert (value.done(), value.running(), error.running()) == (False, True, False)
    on.backend.run(1)
    on.step()
    on.backend.run(1)
    on.step()
    assert value.result(0) == 3
    assert isinstance(error.exception(0), KeyError)


def test_a_timeout_by_the_clock_kills_and_says_so(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    future = on.submit("a", abs, -1, timeout=5.0)
    on.backend.begin(1)
    on.clock.advance(4.9)
    on.step()
    assert 1 in on.backend.sent
    on.clock.advance(0.1)
    on.step()
    assert 1 not in on.backend.sent, "it was killed"
    on.step()
    error = future.exception(0)
    assert isinstance(error, TaskTimeout)
    assert (error.timeout, error.seconds, error.tag, error.task, error.attempt) == (5.0, 5.0, "a", "abs", 1)


def test_a_result_in_hand_beats_its_deadline(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    future = on.submit("a", abs, -1, timeout=5.0)
    on.backend.run(1)
    on.clock.advance(10)
    on.step()
    assert future.result(0) == 1
    assert 1 in on.backend.sent, "nobody was killed"


def test_retries_wait_on_the_clock(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    future = on.submit("a", abs, -1, retries=1)
    on.backend.begin(1)
    on.backend.die(1, -11)
    on.step()
    on.ready()
    assert not any(on.backend.sent.values())
    assert not future.done()
    assert not future.cancel(), "it has begun once"
    on.clock.advance(0.1)
    on.step()
    (worker,) = on.backend.sent
    on.backend.run(worker)
    on.step()
    assert future.result(0) == 1


def test_a_crash_tells_what_is_known_of_it(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    future = on.submit("a", abs, -1)
    on.backend.begin(1)
    on.clock.advance(2)
    on.backend.die(1, -11)
    on.step()
    error = future.exception(0)
    assert isinstance(error, WorkerCrashed)
    assert (error.signal, error.exitcode, error.seconds, error.attempt) == ("SIGSEGV", -11, 2, 1)


def test_exceptions_named_in_retry_on_are_tried_again(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    again = on.submit("a", broken, 1, retries=1, retry_on=(LookupError,))
    on.backend.run(1)
    on.step()
    assert not again.done()
    on.clock.advance(0.1)
    on.step()
    on.backend.run(1)
    on.step()
    assert isinstance(again.exception(0), KeyError)
    other = on.submit("a", broken, 1, retries=1, retry_on=(OSError,))
    on.backend.run(1)
    on.step()
    assert isinstance(other.exception(0), KeyError)


def test_a_worker_that_dies_while_more_is_submitted_harms_nobody(stage: MakeStage) -> None:
    """Its end is not read yet, so it is sent a task, and what it has is taken back."""
    on = stage({"a": 1, None: 0})
    on.backend.die(1)
    future = on.submit("a", abs, -1)
    assert not future.done()
    on.step()
    on.ready()
    (worker,) = on.backend.sent
    on.backend.run(worker)
    on.step()
    assert future.result(0) == 1


def test_what_is_behind_a_dead_worker_can_be_taken_back(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    on.submit("a", abs, -1)
    on.backend.run(1, 0.0001)
    on.step()
    futures = [on.submit("a", abs, -n) for n in range(3)]
    on.supervisor.ask()
    on.backend.begin(1)
    assert [call.items for call in on.backend.sent[1].values()] == [1, 2], "two were sent ahead"
    on.backend.die(1)
    futures[2].cancel()
    on.step()
    on.ready()
    (worker,) = on.backend.sent
    while on.backend.sent[worker]:
        on.backend.run(worker)
    on.step()
    assert isinstance(futures[0].exception(0), WorkerCrashed)
    assert futures[1].result(0) == 1
    assert futures[2].done()


class Failing(FakeBackend):
    """A backend one of whose methods does not do what it should."""

    def __init__(self, method: str, error: Exception, *, first: int = 0) -> None:
        super().__init__(auto=False)
        good = getattr(self, method)
        calls = iter(range(10**6))

        def fail(*args: Any, **kwargs: Any) -> Any:
            if next(calls) >= first:
                raise error
            return good(*args, **kwargs)

        setattr(self, method, fail)


def test_an_action_that_fails_ends_everything_in_the_open(stage: MakeStage) -> None:
    failure = OSError("out of descriptors")
    on = stage({"a": 1, None: 0}, backend=Failing("send", failure))
    future = on.submit("a", abs, -1)
    error = future.exception(0)
    assert isinstance(error, PoolError)
    assert error.__cause__ is failure
    assert "out of descriptors" in str(error)
    assert on.supervisor.state is PoolState.CLOSED
    assert on.supervisor.closed.is_set()
    with pytest.raises(PoolClosed):
        on.supervisor.check_open()


def test_what_is_submitted_while_the_pool_fails_ends_too(stage: MakeStage) -> None:
    """Its thread found the pool open, and was overtaken by the failure."""
    on = stage({"a": 1, None: 0}, backend=Failing("send", OSError("out of descriptors")))
    on.submit("a", abs, -1)
    assert on.submit("a", abs, -2).done()


def test_every_future_ends_when_an_action_fails(stage: MakeStage) -> None:
    failure = RuntimeError("no more")
    on = stage({"a": 1, "b": 0, None: 1}, backend=Failing("kill", failure))
    futures = [on.submit("a", abs, -n) for n in range(3)] + [on.submit("b", abs, -n) for n in range(3)]
    futures[0].cancel(kill=True)
    assert futures[0].cancelled(), "that had been done already"
    errors = [future.exception(0) for future in futures[1:]]
    assert all(isinstance(error, PoolError) and error.__cause__ is failure for error in errors)
    assert len({id(error) for error in errors}) == len(errors), "one error each"
    assert on.supervisor.pending == 0


def test_a_start_that_raises_oserror_is_a_failed_start() -> None:
    on = Stage({"a": 1, None: 0}, backend=Failing("start", BlockingIOError("fork: try again")))
    try:
        future = on.submit("a", abs, -1)
        for _ in range(10):
            on.step()
            on.clock.advance(10)
        error = future.exception(0)
        assert isinstance(error, GroupBroken)
        assert (error.tag, error.failures) == ("a", 5)
        assert "fork: try again" in str(error)
        assert on.supervisor.state is PoolState.OPEN
    finally:
        on.end()


def test_listeners_are_told_outside_the_turn(stage: MakeStage) -> None:
    told: list[Transition] = []
    free: list[bool] = []

    def listen(transition: Transition) -> None:
        told.append(transition)
        free.append(not on.supervisor._turn.locked())
        on.supervisor.ask()  # so a listener may call the pool

    on = stage({"a": 1, None: 0}, listeners=[listen])
    told.clear()
    on.submit("a", abs, -1)
    assert [(each.noun, each.new.value) for each in told] == [("worker", "busy"), ("task", "running")]
    on.backend.run(1)
    on.step()
    assert [(each.noun, each.new.value) for each in told[2:]] == [("task", "done"), ("worker", "idle")]
    assert all(free)


def test_a_listener_that_raises_harms_nobody(stage: MakeStage, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Transition] = []
    stage({"a": 1, None: 0}, listeners=[lambda _: 1 / 0, told.append])
    assert len(told) == 1
    assert "exception in a listener" in caplog.text


def test_what_was_left_in_the_inbox_is_handled_at_the_next_step(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    order: list[str] = []
    on.supervisor.leave(lambda: order.append("first"))
    on.supervisor.leave(lambda: order.append("second"))
    assert order == []
    on.step()
    assert order == ["first", "second"]
    on.supervisor.leave(lambda: order.append("third"))
    on.supervisor.look(lambda: order.append("looked"))
    assert order[2:] == ["third", "looked"], "whoever takes the turn empties the inbox first"


def test_submissions_that_would_only_queue_wait_in_the_inbox_and_travel_together(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    for n in range(3):
        on.submit("a", abs, -n)
    future = on.submit("a", abs, -9)
    assert len(on.supervisor._inbox) >= 1
    assert on.supervisor.pending == 4
    assert future.cancel(), "it can be cancelled there as anywhere"
    sizes = []
    while on.supervisor.pending:
        sizes += [call.items for call in on.backend.sent[1].values()]
        on.backend.run(1, SHORTEST)
        on.step()
    assert sizes == [1, 2], "the one that could begin at once, and the others but for the cancelled one"


def test_a_task_that_is_announced_tells_when_it_holds_a_slot(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    told: list[bool] = []
    on.submit("a", abs, -1)
    future = on.submit("a", abs, -2, announce=True, follow_up=lambda future: told.append(future.done()))
    on.step()
    assert told == []
    on.backend.run(1)
    on.step()
    assert told == [False], "it has begun"
    on.backend.run(1)
    on.step()
    assert told == [False, True]
    assert future.result(0) == 2


def test_close_now_ends_futures_at_once_and_the_supervisor_when_workers_are_gone(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    futures = [on.submit("a", abs, -n) for n in range(3)]
    on.supervisor.close(now=True)
    assert all(future.cancelled() for future in futures)
    assert not on.supervisor.closed.is_set()
    on.step()
    assert on.supervisor.closed.is_set()
    assert on.supervisor.state is PoolState.CLOSED


def test_a_worker_that_does_not_stop_is_killed_by_the_clock(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    on.supervisor.close()
    on.step()
    assert on.backend.sent.keys() == {1}
    on.clock.advance(6)
    on.step()
    on.step()
    assert on.supervisor.closed.is_set()


def test_inv10_a_call_that_cannot_be_unpickled_harms_itself_alone(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    bad = on.submit("a", len, Unloadable())
    good = on.submit("a", abs, -1)
    for _ in range(2):
        on.backend.run(1)
        on.step()
    assert isinstance(bad.exception(0), PayloadError)
    assert good.result(0) == 1


class Unloadable:
    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("not here")


def test_verdicts_come_with_the_report_that_led_to_them(stage: MakeStage) -> None:
    on = stage({"a": 2, None: 0})
    good, bad = on.submit("a", abs, -1), on.submit("a", abs, -2)
    one, two = workers_of(good, bad)
    on.backend.run(one)
    on.backend.begin(two)
    on.backend.die(two, 3)
    on.step()
    assert good.result(0) == 1
    error = bad.exception(0)
    assert isinstance(error, WorkerCrashed)
    assert error.exitcode == 3
    assert isinstance(bad.unit, Task)
    assert bad.unit.verdict is Verdict.CRASHED


def test_put_waits_for_a_slot_and_gets_pool_closed_when_the_pool_stops() -> None:
    backend = FakeBackend(auto=False)
    pool = GroupedPool(tags={"a": 1}, backend=backend, clock=FakeClock())
    raised: list[BaseException] = []

    def put() -> None:
        try:
            pool.put("a", abs, (-1,))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    while pool.pending < 1:
        os.sched_yield()
    pool.stop()
    thread.join(60)
    assert [type(error) for error in raised] == [PoolClosed]


def test_put_returns_once_its_task_holds_a_slot() -> None:
    backend = FakeBackend(auto=False)
    pool = GroupedPool(tags={"a": 1}, backend=backend, clock=FakeClock())
    returned: list[Future[Any]] = []
    thread = threading.Thread(target=lambda: returned.append(pool.put("a", abs, (-1,))))
    thread.start()
    while pool.pending < 1:
        os.sched_yield()
    assert returned == []
    backend.ready(1)
    thread.join(60)
    assert not returned[0].done()
    backend.run(1)
    assert returned[0].result(60) == 1
    pool.stop()


# -- blocks ---------------------------------------------------------------------------------------------------


class Owner:
    """Of blocks: notes what becomes of their items."""

    def __init__(self) -> None:
        self.ends: dict[int, Outcome] = {}
        self.order: list[int] = []
        self.cancelled: set[int] = set()
        self.blocks: set[Block] = set()
        self.last: Block | None = None

    def block_began(self, block: Block) -> None:
        self.blocks.add(block)
        self.last = block

    def take(self, chunk: Chunk) -> None:
        outcomes = [outcome_in(entry) for entry in chunk.entries()]
        assert len(outcomes) == chunk.size
        assert sum(outcome.error is not None for outcome in outcomes) == chunk.failed
        for number, outcome in enumerate(outcomes, chunk.first):
            assert number not in self.ends, "it ends twice"
            self.ends[number] = outcome
            self.order.append(number)
            if chunk.cancelled:
                self.cancelled.add(number)

    def block_ended(self, block: Block) -> None:
        assert block.done()
        self.blocks.remove(block)

    @property
    def errors(self) -> dict[int, BaseException]:
        return {number: end.error for number, end in sorted(self.ends.items()) if end.error is not None}

    @property
    def values(self) -> dict[int, Any]:
        return {number: end.value for number, end in sorted(self.ends.items()) if end.error is None}


def submit_block(on: Stage, fn: Callable[..., Any], items: list[Any], tag: Hashable = "a") -> Owner:
    owner, shared = Owner(), Shared(fn, (), {})
    entries = [pack_item((item,)) for item in items]
    on.supervisor.submit_block(
        tag, Options(), fn.__name__, len(items), lambda task: Block(task, entries, shared, 0, owner)
    )
    return owner


def test_the_items_of_a_block_settle_as_they_are_answered(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    owner = submit_block(on, abs, [-n for n in range(10)])
    on.backend.run(1, items=3)
    assert owner.ends == {}
    on.step()
    assert owner.values == {0: 0, 1: 1, 2: 2}
    assert on.supervisor.pending == on.supervisor.stats().pending == 7
    on.backend.run(1, items=6)
    on.step()
    assert on.supervisor.pending == 1
    on.backend.run(1)
    on.step()
    assert owner.values == {n: n for n in range(10)}
    assert owner.blocks == set()
    assert on.supervisor.pending == 0


def test_inv10_a_death_in_a_block_costs_the_item_that_had_begun(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    owner = submit_block(on, abs, [-n for n in range(10)])
    on.backend.run(1, items=3)
    on.backend.begin(1)
    on.backend.die(1, -11)
    on.step()
    (error,) = owner.errors.values()
    assert isinstance(error, WorkerCrashed)
    assert list(owner.errors) == [3]
    assert (error.signal, error.started, error.task, error.attempt) == ("SIGSEGV", True, "abs", 1)
    assert on.supervisor.pending == 6
    on.ready()
    (worker,) = on.backend.sent
    on.backend.run(worker)
    on.step()
    assert owner.values == {n: n for n in range(10) if n != 3}
    assert owner.blocks == set()


def test_inv10_items_that_raise_or_do_not_pickle_end_alone(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    bomb = Bomb("raise", "unpickling", -1, in_parent=False)
    owner = submit_block(on, half, [4, "x", bomb, 6, None])
    on.backend.run(1)
    on.step()
    assert owner.values == {0: 2, 3: 3}
    assert [type(error) for error in owner.errors.values()] == [TypeError, PayloadError, TypeError]
    group = on.supervisor.stats().groups["a"]
    assert (group.done, group.failed, group.lost) == (2, 3, 0)


def half(n: int) -> int:
    return n // 2


def test_inv05_a_block_is_cut_where_the_worker_is_when_another_tag_waits(stage: MakeStage) -> None:
    on = stage({"a": 0, "b": 0, None: 1})
    owner = submit_block(on, abs, [-n for n in range(10)])
    on.backend.run(1, items=4)
    on.step()
    future = on.submit("b", abs, -5)
    on.clock.advance(0.001)
    on.backend.run(1)
    on.step()
    assert owner.order == [0, 1, 2, 3, 4], "the item in hand ends, no more"
    on.backend.run(1)
    on.step()
    assert future.result(0) == 5
    on.backend.run(1)
    on.step()
    assert owner.values == {n: n for n in range(10)}


def test_inv08_a_block_that_is_cancelled_ends_each_item_once(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    owner = submit_block(on, abs, [-n for n in range(10)])
    on.backend.run(1, items=4)
    on.step()
    on.supervisor.cancel_all(lambda: [block.task for block in owner.blocks])
    assert owner.cancelled == {5, 6, 7, 8, 9}
    assert len({id(error) for error in owner.errors.values()}) == 5, "an error of its own for each"
    on.backend.run(1)
    on.step()
    assert owner.values == {n: n for n in range(5)}
    assert owner.blocks == set()


def test_inv06_a_block_is_cut_and_goes_on_when_the_group_shrinks(stage: MakeStage) -> None:
    on = stage({"a": 2, None: 0})
    owner = submit_block(on, abs, [-n for n in range(40)])
    on.supervisor.ask(ResizeAsked({"a": 1}, {}))
    for _ in range(10):
        for worker in [each for each, sent in on.backend.sent.items() if sent]:
            on.backend.run(worker)
        on.step()
    assert owner.values == {n: n for n in range(40)}
    assert owner.blocks == set()


def test_inv08_items_of_a_block_end_when_the_pool_does(stage: MakeStage) -> None:
    on = stage({"a": 1, None: 0})
    owner = submit_block(on, abs, [-n for n in range(10)])
    on.backend.run(1, items=4)
    on.step()
    on.supervisor.close(now=True)
    on.step()
    assert owner.cancelled == set(range(4, 10))
    assert owner.blocks == set()
    assert on.supervisor.pending == 0


def test_inv13_a_timer_set_just_before_the_supervisor_sleeps_wakes_it(
    stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = stage({"a": 1, "b": 1, None: 0})
    on.ready()
    on.submit("a", abs, -1, timeout=100.0)
    on.step()
    submitted: list[Future[Any]] = []

    def clock() -> float:
        if not submitted:  # it has just looked when it is wanted next
            submitted.append(on.submit("b", abs, -2, timeout=1.0))
        return on.clock()

    did: list[object] = []
    monkeypatch.setattr(on.supervisor, "_clock", clock)
    monkeypatch.setattr(on.backend, "wait", did.append)
    monkeypatch.setattr(on.backend, "wake", lambda: did.append("wake"))
    on.supervisor.step(None)
    assert did == ["wake", 100.0]
    on.supervisor.step(None)
    assert did == ["wake", 100.0, 1.0]


def test_inv08_items_of_a_broken_group_end_with_the_reason(stage: MakeStage) -> None:
    on = stage({"a": Group(1, max_crashes=1), None: 0})
    owner = submit_block(on, abs, [-n for n in range(4)])
    on.backend.begin(1)
    on.backend.die(1, -9)
    on.step()
    kinds = [type(error) for error in owner.errors.values()]
    assert kinds == [WorkerCrashed, GroupBroken, GroupBroken, GroupBroken]
    assert owner.blocks == set()


def test_a_pool_that_fails_ends_the_items_too(stage: MakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    on = stage({"a": 1, None: 0})
    owner = submit_block(on, abs, [-n for n in range(10)])
    on.backend.run(1, items=4)
    on.step()
    monkeypatch.setattr(on.supervisor.scheduler, "handle", half)
    on.submit("a", abs, -1)
    on.step()
    assert sorted(owner.errors) == list(range(4, 10))
    assert all(isinstance(error, PoolError) for error in owner.errors.values())
    assert owner.blocks == set()
