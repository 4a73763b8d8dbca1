"""Batches: tasks submitted one by one that travel as one block fare as if each went alone."""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, as_completed, wait
from typing import Any

import pytest

from gpool import GroupBroken, GroupedPool, PayloadError, PoolError, WorkerCrashed
from gpool.batches import Batch, may_travel, parties
from gpool.futures import Future
from gpool.limits import BLOCK_BYTES
from gpool.model import NO_OPTIONS, Group, Options, Task
from gpool.views import name_of
from gpool.workers.local import LocalBackend
from gpool.workers.payload import Call, one_call
from tests.bombs import Bomb, go_off
from tests.conftest import METHODS
from tests.gates import Gate, pass_gate
from tests.stage import MakeStage, Stage

MakePool = Callable[..., GroupedPool]

SHORT = 1e-5
"""A run time of which many make a block."""
SECONDS = 60
"""After which what has not come counts as hung."""


def failing(n: int) -> None:
    raise KeyError(n)


def primed(stage: MakeStage, **more: Any) -> Stage:
    """One slot, and run times known to be short."""
    on = stage({"a": Group(1, **more), None: 0})
    first = on.submit("a", abs, -1)
    on.backend.run(1, SHORT)
    on.step()
    assert first.done()
    return on


def gathered(on: Stage, fns: Sequence[Callable[[int], Any]]) -> list[Future[Any]]:
    """One submission for each, made while the turn is taken: they go together then."""
    with on.supervisor._turn:
        return [on.supervisor.submit("a", one_call(fn, (-n,), {}), NO_OPTIONS, name_of(fn)) for n, fn in enumerate(fns)]


def busy(on: Stage) -> Future[Any]:
    """The worker has something in hand."""
    future = on.submit("a", abs, -7)
    on.backend.begin(1)
    return future


def sent(on: Stage) -> list[int]:
    """How many items each lease has that the worker has not answered."""
    return [call.items for call in on.backend.sent[1].values()]


# -- who goes with whom ---------------------------------------------------------------------------------------------


def a_future(on: Stage, tag: str = "a", options: Options = NO_OPTIONS, size: int = 10) -> Future[Any]:
    return Future(tag, options, "task", b"x" * size, on.supervisor)


def test_those_of_one_tag_with_the_same_options_go_together_in_their_order(stage: MakeStage) -> None:
    on, urgent = stage({None: 1}), Options(priority=1)
    kinds = [
        ("a", NO_OPTIONS),
        ("a", Options()),
        ("b", NO_OPTIONS),
        ("a", NO_OPTIONS),
        ("a", urgent),
        ("b", NO_OPTIONS),
    ]
    made = [a_future(on, *kind) for kind in [*kinds, kinds[0]]]
    first, second, other, third, urgent_one, another, last = made
    assert parties(made) == [[first, second, third], [other, another], [urgent_one], [last]]
    assert parties([]) == []


def test_no_more_bytes_go_together_than_make_a_block(stage: MakeStage) -> None:
    on = stage({None: 1})
    made = [a_future(on, size=BLOCK_BYTES // 8) for _ in range(20)]
    assert [len(party) for party in parties(made)] == [8, 8, 4]


@pytest.mark.parametrize(
    ("packed", "options", "may"),
    [
        (b"", NO_OPTIONS, True),
        (b"", Options(priority=1, name="x", retry_on=(KeyError,)), True),
        (b"", Options(timeout=1.0), False),
        (b"", Options(retries=1), False),
        (b"x" * BLOCK_BYTES, NO_OPTIONS, False),
        (Call(b""), NO_OPTIONS, False),
    ],
)
def test_what_asks_for_more_than_a_block_has_goes_alone(packed: Call | bytes, options: Options, may: bool) -> None:
    assert may_travel(packed, options) is may


# -- each fares alone -------------------------------------------------------------------------------------------------


def test_inv08_each_of_a_batch_has_its_own_outcome(stage: MakeStage) -> None:
    on = primed(stage)
    futures = gathered(on, [abs, failing, str])
    on.supervisor.ask()
    assert sent(on) == [3]
    assert on.supervisor.pending == on.supervisor.stats().pending == 3
    assert [future.running() for future in futures] == [True, False, False]
    on.backend.run(1, SHORT)
    on.step()
    assert (futures[0].result(0), futures[2].result(0)) == (0, "-2")
    assert isinstance(futures[1].exception(0), KeyError)
    assert on.supervisor.pending == 0
    assert on.supervisor.stats().groups["a"].done == 3, "the first of all included"
    assert on.supervisor.stats().groups["a"].failed == 1


def test_what_runs_is_called_by_its_own_name(stage: MakeStage) -> None:
    on = primed(stage)
    gathered(on, [abs, failing, str])
    on.supervisor.ask()
    assert on.supervisor.stats().workers[0].task == "abs"
    on.backend.run(1, SHORT, items=2)
    on.step()
    assert on.supervisor.stats().workers[0].task == "str"
    assert on.supervisor.pending == 1


def test_inv10_the_one_that_takes_its_worker_along_is_lost_alone(stage: MakeStage) -> None:
    on = primed(stage)
    futures = gathered(on, [abs, failing, str, abs])
    on.supervisor.ask()
    on.backend.run(1, SHORT, items=2)
    on.backend.die(1)
    on.step()
    on.ready()
    on.backend.run(2, SHORT)
    on.step()
    assert (futures[0].result(0), futures[3].result(0)) == (0, 3)
    error = futures[2].exception(0)
    assert isinstance(error, WorkerCrashed)
    assert (error.task, error.tag, error.attempt, error.started) == ("str", "a", 1, True)


def test_waiters_and_callbacks_are_told_of_each(stage: MakeStage) -> None:
    on = primed(stage)
    futures = gathered(on, [abs, failing, str])
    on.supervisor.ask()
    called: list[Future[Any]] = []
    for future in futures:
        future.add_done_callback(lambda ended: called.append(ended))  # type: ignore[arg-type]
    on.backend.run(1, SHORT, items=2)
    on.step()
    done, left = wait(futures, timeout=0, return_when=FIRST_EXCEPTION)
    assert (done, left) == (set(futures[:2]), {futures[2]})
    on.backend.run(1, SHORT)
    on.step()
    assert set(as_completed(futures, timeout=0)) == set(futures)
    on.supervisor.notifier.end()
    on.supervisor.notifier.wait_ended(patient=True)
    assert called == futures


def test_each_gets_an_exception_object_of_its_own(stage: MakeStage) -> None:
    on = primed(stage, max_start_failures=1)
    busy(on)
    futures = gathered(on, [abs, abs, abs])
    on.supervisor.ask()
    on.backend.die(1)
    on.step()
    on.backend.die(2)  # before it was up
    on.step()
    errors = [future.exception(0) for future in futures]
    assert all(isinstance(error, GroupBroken) for error in errors)
    assert len({id(error) for error in errors}) == 3


def test_all_end_when_the_pool_fails(stage: MakeStage) -> None:
    on = primed(stage)
    busy(on)
    futures = gathered(on, [abs, abs])
    on.supervisor.ask()
    on.supervisor._performer.fail(RuntimeError("no more"))
    assert all(isinstance(future.exception(0), PoolError) for future in futures)
    assert on.supervisor.pending == 0


# -- cancelling one ---------------------------------------------------------------------------------------------------


def test_inv05_one_that_was_sent_ahead_with_others_is_cancelled_alone(stage: MakeStage) -> None:
    on = primed(stage)
    first = busy(on)
    futures = gathered(on, [abs, str, abs])
    on.supervisor.ask()
    assert sent(on) == [1, 3], "behind what runs"
    assert futures[1].cancel()
    assert not first.done()
    assert on.supervisor.pending == 3
    assert sent(on) == [1, 2]
    for _ in range(2):
        on.backend.run(1, SHORT)
        on.step()
    assert (first.result(0), futures[0].result(0), futures[2].result(0)) == (7, 0, 2)
    with pytest.raises(CancelledError):
        futures[1].result(0)


def test_one_that_is_queued_with_others_is_cancelled_alone(stage: MakeStage) -> None:
    on = primed(stage)
    on.submit("a", abs, -7, timeout=5.0)  # nothing is sent ahead behind a deadline
    futures = gathered(on, [abs, str, abs])
    on.supervisor.ask()
    assert on.supervisor.stats().groups["a"].queued == 3
    assert futures[0].cancel()
    assert futures[0].cancel(), "as the standard library's"
    assert on.supervisor.stats().groups["a"].queued == 2
    assert [future.cancelled() for future in futures] == [True, False, False]
    assert futures[2].cancel() and futures[1].cancel()
    assert on.supervisor.stats().groups["a"].queued == 0
    assert on.supervisor.pending == 1


def test_inv08_plain_cancel_leaves_the_one_that_runs(stage: MakeStage) -> None:
    on = primed(stage)
    futures = gathered(on, [abs, str, abs])
    on.supervisor.ask()
    on.backend.run(1, SHORT, items=1)
    on.step()
    assert not futures[0].cancel(), "it has ended"
    assert not futures[1].cancel(), "it runs"
    assert futures[2].cancel()
    on.backend.run(1, SHORT)
    on.step()
    assert futures[1].result(0) == "-1"


def test_inv08_a_kill_costs_the_one_it_is_meant_for(stage: MakeStage) -> None:
    on = primed(stage)
    futures = gathered(on, [abs, str, abs, abs])
    on.supervisor.ask()
    on.backend.run(1, SHORT, items=1)
    on.step()
    assert futures[1].cancel(kill=True)
    assert futures[1].cancelled()
    on.step()
    on.ready()
    on.backend.run(2, SHORT)
    on.step()
    assert [future.result(0) for future in (futures[0], *futures[2:])] == [0, 2, 3]
    assert on.supervisor.stats().groups["a"].lost == 0


# -- asynchronous exceptions -----------------------------------------------------------------------------------------


class Interrupted(deque[Any]):
    """An inbox to which Ctrl-C comes before or after something was left."""

    def __init__(self, *, after: bool) -> None:
        super().__init__()
        self._due, self._after = True, after

    def append(self, item: Any) -> None:
        if isinstance(item, Future) and self._due:
            self._due = False
            if self._after:
                super().append(item)
            raise KeyboardInterrupt
        super().append(item)


@pytest.mark.parametrize("after", [False, True])
def test_inv19_a_submission_that_is_cut_off_is_there_or_is_not(stage: MakeStage, after: bool) -> None:
    on = primed(stage)
    on.supervisor._inbox = Interrupted(after=after)
    with pytest.raises(KeyboardInterrupt):
        on.submit("a", abs, -1)
    on.step()
    assert on.supervisor.pending == after
    assert sent(on) == [1] * after


# -- over processes --------------------------------------------------------------------------------------------------


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes how many items of calls that stand for themselves are sent at a time."""
    sizes: list[int] = []
    send = LocalBackend.send

    def note(backend: LocalBackend, worker: int, calls: Sequence[tuple[int, Call]]) -> None:
        sizes.extend(call.items for _, call in calls if call.shared is None)
        send(backend, worker, calls)

    monkeypatch.setattr(LocalBackend, "send", note)
    return sizes


@pytest.mark.parametrize("method", METHODS)
def test_inv10_whatever_one_of_a_batch_does_costs_it_alone(
    local_pool: MakePool, batches: list[int], method: str
) -> None:
    parent = os.getpid()
    ways: list[tuple[Callable[[], Any], type[BaseException]]] = [
        (functools.partial(go_off, "raise"), ValueError),
        (functools.partial(go_off, "sys.exit"), SystemExit),
        (functools.partial(go_off, "exit 7"), WorkerCrashed),
        (functools.partial(go_off, "SIGKILL"), WorkerCrashed),
        (functools.partial(go_off, "SIGSEGV"), WorkerCrashed),
        (functools.partial(Bomb, "raise", "pickling", parent, in_parent=False), PayloadError),
        (functools.partial(Bomb, "raise", "unpickling", parent, in_parent=True), PayloadError),
        (functools.partial(len, Bomb("raise", "unpickling", parent, in_parent=False)), PayloadError),
    ]
    pool = local_pool(2, mp_context=method)
    futures: list[Future[Any]] = []
    kinds: dict[int, type[BaseException]] = {}
    for number in range(4_000):
        if number >= 3_000 and number % 100 == 50 and ways:
            way, kinds[number] = ways.pop()
            futures.append(pool.submit(way))
        else:
            futures.append(pool.submit(abs, -number))
    for number, future in enumerate(futures):
        if number in kinds:
            assert isinstance(future.exception(SECONDS), kinds[number])
        else:
            assert future.result(SECONDS) == number
    assert max(batches) > 1
    assert pool.pending == 0


def test_inv05_what_has_ended_is_delivered_while_a_later_one_of_the_batch_runs(
    local_pool: MakePool, batches: list[int], gate: Gate
) -> None:
    pool = local_pool(1)
    shorts = [pool.submit(abs, -n) for n in range(3_000)]
    late = pool.submit(pass_gate, gate.path, "late")
    behind = [pool.submit(abs, -n) for n in range(500)]
    assert [future.result(SECONDS) for future in shorts] == list(range(3_000))
    gate.arrivals(1)
    assert not any(future.done() for future in behind)
    assert behind[3].cancel()
    gate.open()
    assert late.result(SECONDS) == "late"
    assert [future.result(SECONDS) for future in behind if not future.cancelled()] == [n for n in range(500) if n != 3]
    assert max(batches) > 1


def test_inv05_those_behind_one_that_takes_long_go_to_other_slots(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    shorts = [pool.submit(abs, -n) for n in range(3_000)]
    late = pool.submit(pass_gate, gate.path, "late")
    shorts += [pool.submit(abs, -n) for n in range(3_000)]
    assert [future.result(SECONDS) for future in shorts] == [*range(3_000), *range(3_000)]
    gate.open()
    assert late.result(SECONDS) == "late"


def test_inv13_one_of_a_batch_can_be_killed(local_pool: MakePool, batches: list[int]) -> None:
    pool = local_pool(1)
    shorts = [pool.submit(abs, -n) for n in range(3_000)]
    endless = pool.submit(time.sleep, 3600)
    shorts += [pool.submit(abs, -n) for n in range(500)]
    while not endless.running():
        wait(shorts[:3_000], timeout=SECONDS)
    assert endless.cancel(kill=True)
    assert [future.result(SECONDS) for future in shorts] == [*range(3_000), *range(500)]
    assert endless.cancelled()
    assert max(batches) > 1


def test_a_batch_knows_what_is_left_of_it(stage: MakeStage) -> None:
    on = primed(stage)
    futures = gathered(on, [abs, abs, abs])
    on.supervisor.ask()
    batch = futures[0].unit
    assert isinstance(batch, Batch)
    assert repr(batch) == "<Batch of 3 from 'abs' on>"
    assert repr(futures[0]) == "<Future of 'abs' under 'a': running>"
    assert repr(futures[2]) == "<Future of 'abs' under 'a': queued>"
    alone = on.submit("a", abs, -1, timeout=5.0)
    assert isinstance(alone.unit, Task)
