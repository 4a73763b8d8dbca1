"""Races, staged: a gate or a stopped process holds one side until the other has come to the point.

``benchmarks/races.py`` runs the unstaged ones, thousands of times; here each runs a few times.

The supervisor's thread is held by a task's exception: where a task names exceptions to be tried again for, its
exception is unpickled in that thread, and ``Held`` does not come out of that until it is let go. Meanwhile the threads
that submit go on by themselves. Time stands still on a ``FakeClock``, so nothing that was sent ahead is taken back
because its head takes long.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
import pytest

from benchmarks.races import RACES, Race, run
from gpool import FakeClock, GroupedPool, PoolClosed, TaskTimeout, WorkerCrashed
from gpool.futures import Future
from tests.conftest import METHODS
from tests.gates import Gate, pass_gate
from tests.held import Held, hold, holding
from tests.watched import WatchedPool, making_pools

MakePool = Callable[..., WatchedPool]
Kill = Callable[[int], None]

SECONDS = 60
BIG = 100_000_000
TIMES = 3
"""Rounds of what is staged afresh each time."""


@pytest.fixture
def local_pool() -> Iterator[MakePool]:
    """As everywhere, and the pools can be waited for."""
    with making_pools() as make:
        yield make


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def pid_of(pool: GroupedPool) -> int:
    """A worker's process id; the only one's, where there is but one."""
    return int(pool.submit(os.getpid).result(SECONDS))


def pids(pool: GroupedPool, *states: str) -> list[int]:
    return [w.pid for w in pool.stats().workers if w.pid is not None and (not states or w.state in states)]


def await_status(pid: int, *statuses: str) -> None:
    """Return when the process is in one of these states."""
    process = psutil.Process(pid)
    while process.status() not in statuses:
        os.sched_yield()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that SIGSTOP holds; it goes on afterwards if it is still there."""
    os.kill(pid, signal.SIGSTOP)
    await_status(pid, psutil.STATUS_STOPPED)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def crashed(future: Future[Any]) -> bool:
    return type(future.exception(SECONDS)) is WorkerCrashed


def goes_on(pool: GroupedPool) -> bool:
    """True when a hundred tasks return what they should."""
    return [f.result(SECONDS) for f in [pool.submit(abs, -n) for n in range(100)]] == list(range(100))


def quick_pool(local_pool: MakePool, slots: int = 1, **options: Any) -> WatchedPool:
    """A pool whose clock stands still and that knows its tasks to be short, so that they are sent ahead."""
    options.setdefault("clock", FakeClock())
    pool = local_pool(slots, **options)
    assert goes_on(pool)
    assert pool.is_whole(slots)
    return pool


# -- the unstaged ones, a few times -----------------------------------------------------------------------------------


@pytest.mark.parametrize("race", RACES, ids=[race.name for race in RACES])
def test_inv08_10_11_12_the_races_of_the_benchmark(race: Race) -> None:
    tally = run(race, max(3, int(25 * race.share)))
    assert not tally.violations


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_inv08_10_11_12_a_killed_worker_with_every_start_method(method: str) -> None:
    for race in RACES:
        if race.name in ("kill small", "kill big argument"):
            assert not run(race, 5, method).violations


# -- one task has ended, unread as yet; the next has begun on that worker ---------------------------------------------


@contextmanager
def one_ended_next_begun(pool: GroupedPool, gate: Gate) -> Iterator[tuple[Future[Any], Future[Any], Future[Any]]]:
    """A task whose result is written and unread, the one behind it at the gate, and one behind that."""
    with holding() as held:
        ended = hold(pool, held)
        at_gate = pool.submit(pass_gate, gate.path, 1)
        gate.arrivals(1)
        yield ended, at_gate, pool.submit(abs, -2)


def test_inv10_cancelling_what_has_ended_spares_the_next(local_pool: MakePool, gate: Gate) -> None:
    pool = quick_pool(local_pool)
    before = pids(pool)
    with one_ended_next_begun(pool, gate) as (ended, at_gate, behind):
        assert not ended.cancel()
        assert not ended.cancel(kill=True)
    assert not at_gate.done()
    gate.open()
    assert (at_gate.result(SECONDS), behind.result(SECONDS)) == (1, 2)
    assert not ended.cancelled()
    assert pids(pool) == before, "nobody was killed"


def test_inv10_cancelling_what_was_sent_ahead_and_has_begun_kills_that_alone(local_pool: MakePool, gate: Gate) -> None:
    pool = quick_pool(local_pool)
    with one_ended_next_begun(pool, gate) as (ended, at_gate, behind):
        assert not at_gate.cancel(), "it was dispatched"
        assert at_gate.cancel(kill=True)
        assert at_gate.cancelled()
    assert not ended.cancelled()
    assert isinstance(ended.exception(SECONDS), Held)
    assert behind.result(SECONDS) == 2
    assert pool.is_whole(1)


def test_inv05_cancelling_what_was_sent_ahead_harms_nobody(local_pool: MakePool, gate: Gate) -> None:
    pool = quick_pool(local_pool)
    with one_ended_next_begun(pool, gate) as (ended, at_gate, behind):
        assert behind.cancel()
    assert not at_gate.done()
    gate.open()
    assert at_gate.result(SECONDS) == 1
    assert not ended.cancelled()
    assert goes_on(pool)


def test_inv11_12_killed_between_writing_a_result_and_its_being_read(local_pool: MakePool, gate: Gate) -> None:
    pool = quick_pool(local_pool)
    (pid,) = pids(pool)
    with one_ended_next_begun(pool, gate) as (ended, at_gate, behind):
        kill(pid)
    assert isinstance(ended.exception(SECONDS), Held), "it was written, so it is delivered"
    assert crashed(at_gate), "it had begun"
    assert behind.result(SECONDS) == 2, "it had not begun"
    assert pool.is_whole(1)


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_a_result_in_hand_beats_its_deadline(local_pool: MakePool) -> None:
    clock = FakeClock()
    pool = quick_pool(local_pool, 2, clock=clock)
    for _ in range(TIMES):
        with holding() as held:
            in_time = hold(pool, held, timeout=5)
            clock.advance(10)
            other = pool.submit(abs, -1)  # and time is looked at
        assert isinstance(in_time.exception(SECONDS), Held)
        assert other.result(SECONDS) == 1
        assert pool.is_whole(2)


def test_a_deadline_hits_its_task_alone(local_pool: MakePool, gate: Gate) -> None:
    clock = FakeClock()
    pool = quick_pool(local_pool, 2, clock=clock)
    for _ in range(TIMES):
        late = pool.options(timeout=5).submit(pass_gate, gate.path)
        other = pool.submit(pass_gate, gate.path, 1)
        gate.arrivals(2)
        behind = [pool.submit(abs, -n) for n in range(10)]
        clock.advance(10)
        pool.stats()  # time is looked at
        behind.append(pool.submit(abs, -10))
        assert type(late.exception(SECONDS)) is TaskTimeout
        assert [f.result(SECONDS) for f in behind] == list(range(11))
        assert not other.done()
        assert other.cancel(kill=True)
        assert pool.is_whole(2)


def test_a_cancelled_task_does_not_time_out_and_a_timed_out_one_is_not_cancelled(
    local_pool: MakePool, gate: Gate
) -> None:
    clock = FakeClock()
    pool = quick_pool(local_pool, clock=clock)
    for cancel_first in (True, False):
        late = pool.options(timeout=5).submit(pass_gate, gate.path)
        gate.arrivals(1)
        said = late.cancel(kill=True) if cancel_first else None
        clock.advance(10)
        assert pool.submit(abs, -1).result(SECONDS) == 1
        if said is None:
            assert type(late.exception(SECONDS)) is TaskTimeout
            assert not late.cancel(kill=True)
        assert late.cancelled() is cancel_first


# -- 100 MB -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_inv11_killed_in_the_middle_of_a_big_argument(local_pool: MakePool, method: str) -> None:
    pool = local_pool(1, mp_context=method)
    pid = pid_of(pool)
    with stopped(pid):
        big = pool.submit(len, bytes(BIG))  # as much of it as the pipe takes has been written
        kill(pid)
    assert big.result(SECONDS) == BIG, "it had not begun, so it runs elsewhere"
    assert pool.is_whole(1)
    assert goes_on(pool)


@pytest.mark.parametrize("method", METHODS)
def test_cancelled_in_the_middle_of_a_big_argument(local_pool: MakePool, method: str) -> None:
    pool = local_pool(1, mp_context=method)
    with stopped(pid_of(pool)):
        big = pool.submit(len, bytes(BIG))
        assert not big.cancel(), "it was dispatched"
        assert big.cancel(kill=True)
    assert big.cancelled()
    assert pool.is_whole(1)
    assert goes_on(pool)


def test_inv13_timed_out_in_the_middle_of_a_big_argument(local_pool: MakePool) -> None:
    clock = FakeClock()
    pool = quick_pool(local_pool, clock=clock)
    with stopped(pid_of(pool)):
        big = pool.options(timeout=5).submit(len, bytes(BIG))
        clock.advance(10)
        behind = pool.submit(abs, -1)
        assert behind.result(SECONDS) == 1, "the worker was replaced"
    assert big.result(SECONDS) == BIG, "it had not begun"
    assert pool.is_whole(1)


def test_stop_in_the_middle_of_a_big_argument(local_pool: MakePool) -> None:
    pool = local_pool(1)
    with stopped(pid_of(pool)):
        big = pool.submit(len, bytes(BIG))
        pool.stop()
    assert big.cancelled()


def announce_then_return(path: str, size: int) -> bytes:
    with open(path + ".arrivals", "wb", buffering=0) as arrivals:
        arrivals.write(b"!")
    return bytes(size)


def announce_then_raise(path: str, size: int) -> None:
    """Values go by memory; what was raised goes through the pipe."""
    raise ValueError(announce_then_return(path, size))


@pytest.mark.parametrize("method", METHODS)
def test_inv10_killed_in_the_middle_of_a_big_result(local_pool: MakePool, gate: Gate, method: str) -> None:
    pool = quick_pool(local_pool, 2, mp_context=method)
    with holding() as held:  # nobody reads the result
        hold(pool, held)
        big = pool.submit(announce_then_raise, gate.path, BIG)
        gate.arrivals(1)
        (pid,) = [w.pid for w in pool.stats().workers if w.task == "announce_then_raise"]
        assert pid is not None
        await_status(pid, psutil.STATUS_SLEEPING)  # it waits for the pipe
        kill(pid)
    assert crashed(big)
    assert goes_on(pool)
    assert pool.is_whole(2)


def test_cancelled_in_the_middle_of_a_big_result(local_pool: MakePool, gate: Gate) -> None:
    pool = quick_pool(local_pool, 2)
    with holding() as held:
        hold(pool, held)
        big = pool.submit(announce_then_return, gate.path, BIG)
        gate.arrivals(1)
        assert big.cancel(kill=True)
    assert big.cancelled()
    assert goes_on(pool)
    assert pool.is_whole(2)


def test_inv12_stopped_in_the_middle_of_a_big_result(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    big = pool.submit(announce_then_return, gate.path, BIG)
    gate.arrivals(1)
    (pid,) = [w.pid for w in pool.stats().workers if w.task == "announce_then_return"] or [None]
    if pid is not None:
        with stopped(pid):
            assert goes_on(pool), "half a frame stalls nobody"
    assert len(big.result(SECONDS)) == BIG


# -- killed in every state --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_inv11_killed_while_idle(local_pool: MakePool, method: str) -> None:
    pool = local_pool(2, mp_context=method)
    assert goes_on(pool)
    for _ in range(TIMES):
        for pid in pids(pool):
            kill(pid)
        assert goes_on(pool)
        assert pool.is_whole(2)
    assert pool.stats().groups[None].lost == 0


def write_pid_and_wait(note: str, path: str) -> None:
    with open(note, "w") as file:
        file.write(str(os.getpid()))
    pass_gate(path)


@pytest.mark.parametrize("method", METHODS)
def test_inv11_killed_while_starting(local_pool: MakePool, gate: Gate, tmp_path: Path, method: str) -> None:
    note = tmp_path / "pid"
    pool = local_pool(1, mp_context=method, initializer=write_pid_and_wait, initargs=(str(note), gate.path))
    waiting = [pool.submit(abs, -n) for n in range(10)]
    for _ in range(TIMES):
        gate.arrivals(1)
        kill(int(note.read_text()))
    gate.arrivals(1)
    assert not any(f.done() for f in waiting)
    gate.open()
    assert [f.result(SECONDS) for f in waiting] == list(range(10))
    assert pool.is_whole(1)


def test_inv06_killed_while_draining(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    running = [pool.submit(pass_gate, gate.path, n) for n in range(2)]
    gate.arrivals(2)
    pool.adjust(None, 1)
    (draining,) = pids(pool, "draining")
    kill(draining)
    pool.adjust(None, 1, wait=True, timeout=SECONDS)
    assert len(pids(pool)) == 1, "it is not replaced"
    gate.open()
    outcomes = sorted(str(f.exception(SECONDS) and type(f.exception()).__name__) for f in running)
    assert outcomes == ["None", "WorkerCrashed"]
    assert goes_on(pool)


def test_inv06_grown_again_while_draining(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    running = [pool.submit(pass_gate, gate.path, n) for n in range(2)]
    gate.arrivals(2)
    pool.adjust(None, 0)
    assert len(pids(pool, "draining")) == 2
    pool.adjust(None, 2)
    assert goes_on(pool), "the new ones work while the old ones drain"
    gate.open()
    assert [f.result(SECONDS) for f in running] == [0, 1]
    assert pool.is_whole(2)


def test_inv06_killed_while_it_was_asked_to_stop(local_pool: MakePool) -> None:
    pool = local_pool(2)
    assert goes_on(pool)
    assert pool.is_whole(2)
    everyone = pids(pool)
    with stopped(everyone[0]), stopped(everyone[1]):
        pool.adjust(None, 1)
        (leaving,) = pids(pool, "stopping")
        kill(leaving)
        pool.adjust(None, 1, wait=True, timeout=SECONDS)
    assert goes_on(pool)
    assert pool.is_whole(1)


def kill_all(victims: list[int]) -> None:
    for pid in victims:
        with suppress(ProcessLookupError):
            kill(pid)


@pytest.mark.parametrize("method", METHODS)
def test_inv10_workers_that_kill_each_other(local_pool: MakePool, gate: Gate, method: str) -> None:
    pool = local_pool(3, mp_context=method)
    for _ in range(TIMES):
        assert pool.is_whole(3)
        everyone = pids(pool)
        shots = [pool.submit(kill_all, [p for p in everyone if p != spared]) for spared in everyone]
        calm = [pool.submit(abs, -n) for n in range(20)]
        assert all(f.exception(SECONDS) is None or crashed(f) for f in (*shots, *calm))
        assert sum(map(crashed, calm)) <= 2 * len(everyone)
        assert goes_on(pool)
        assert pool.is_whole(3)


# -- SIGSTOP and SIGCONT ----------------------------------------------------------------------------------------------


def test_stopped_while_it_runs_a_task_and_continued(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    running = pool.submit(pass_gate, gate.path, 1)
    gate.arrivals(1)
    (pid,) = pids(pool, "busy")
    with stopped(pid):
        gate.open()
        assert goes_on(pool)
        assert not running.done()
    assert running.result(SECONDS) == 1


def test_inv13_stopped_workers_can_be_killed(local_pool: MakePool, gate: Gate) -> None:
    clock = FakeClock()
    pool = quick_pool(local_pool, clock=clock)
    cancelled = pool.submit(pass_gate, gate.path)
    gate.arrivals(1)
    with stopped(pids(pool)[0]):
        assert cancelled.cancel(kill=True)
        assert goes_on(pool)
    late = pool.options(timeout=5).submit(pass_gate, gate.path)
    gate.arrivals(1)
    with stopped(pids(pool)[0]):
        clock.advance(10)
        assert pool.submit(abs, -1).result(SECONDS) == 1
        assert type(late.exception(SECONDS)) is TaskTimeout


@pytest.mark.parametrize("busy", [True, False])
def test_stop_ends_stopped_workers(local_pool: MakePool, gate: Gate, busy: bool) -> None:
    pool = local_pool(1)
    pid = pid_of(pool)
    if busy:
        pool.submit(pass_gate, gate.path)
        gate.arrivals(1)
    with stopped(pid):
        pool.stop()


def test_shutdown_ends_stopped_workers(local_pool: MakePool) -> None:
    clock = FakeClock()
    pool = quick_pool(local_pool, clock=clock)
    with stopped(pid_of(pool)):
        pool.shutdown(wait=False)
        clock.advance(60)
        pool.stats()  # time is looked at
        pool.shutdown()


def test_shrinking_ends_stopped_workers(local_pool: MakePool) -> None:
    clock = FakeClock()
    pool = quick_pool(local_pool, clock=clock)
    with stopped(pid_of(pool)):
        pool.adjust(None, 0)
        clock.advance(60)
        pool.adjust(None, 0, wait=True, timeout=SECONDS)
        assert not pids(pool)


# -- resizing during all of it ----------------------------------------------------------------------------------------


def _toggle(pid: int) -> None:
    for number in (signal.SIGSTOP, signal.SIGCONT):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.mark.parametrize("seed", range(3))
def test_inv06_08_resizing_while_workers_die_and_tasks_are_cancelled(local_pool: MakePool, seed: int) -> None:
    chance = random.Random(seed)
    pool = local_pool(tags={"a": 1, "b": 0, None: 2})
    futures: list[Future[Any]] = []
    for number in range(300):
        futures.append(pool.group(chance.choice(("a", "b", None))).submit(abs, -number))
        pid = chance.choice(pids(pool) or [0]) if number % 10 == 0 else 0
        match number % 50:
            case 0 if pid:
                kill_all([pid])
            case 10 if pid:
                _toggle(pid)
            case 5 | 25:
                pool.adjust("a", chance.randrange(3))
            case 15 | 35:
                pool.adjust(None, 1 + chance.randrange(3))
            case 45:
                pool.adjust("b", chance.randrange(2))
            case 7 | 27:
                futures[-1].cancel(kill=number % 50 == 7)
    for number, future in enumerate(futures):
        with suppress(CancelledError):
            assert future.exception(SECONDS) is None or crashed(future)
            assert crashed(future) or future.result() == number
    lost = sum(not f.cancelled() and crashed(f) for f in futures)
    assert lost <= 6, "no more than were killed"
    for tag, slots in (("a", 1), ("b", 0), (None, 2)):
        pool.adjust(tag, slots, wait=True, timeout=SECONDS)
    assert pool.is_whole(3)
    assert goes_on(pool)


# -- the end ----------------------------------------------------------------------------------------------------------


def _shut_down_then_stop(pool: GroupedPool) -> None:
    pool.shutdown(wait=False)
    pool.stop()


ENDINGS: dict[str, Callable[[GroupedPool], None]] = {
    "stop": GroupedPool.stop,
    "shutdown": GroupedPool.shutdown,
    "shutdown, cancelling": lambda pool: pool.shutdown(cancel_futures=True),
    "shutdown, then stop": _shut_down_then_stop,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_inv08_submitting_while_the_pool_ends(local_pool: MakePool, ending: str) -> None:
    pool = local_pool(2)
    submitted: list[Future[int]] = []
    going = SimpleQueue[None]()
    threads = [threading.Thread(target=_submit_until_closed, args=(pool, submitted, going)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        going.get(timeout=SECONDS)
    ENDINGS[ending](pool)
    for thread in threads:
        thread.join(SECONDS)
    assert all(f.done() for f in submitted), "nothing hangs"
    allowed = {"returned", "PoolClosed"} if ending == "shutdown" else {"returned", "PoolClosed", "cancelled"}
    assert {_word(f) for f in submitted} <= allowed


def _submit_until_closed(pool: GroupedPool, submitted: list[Future[int]], going: SimpleQueue[None]) -> None:
    with suppress(PoolClosed):
        while True:
            submitted.append(pool.submit(abs, -1))
            going.put(None)


def _word(future: Future[Any]) -> str:
    if future.cancelled():
        return "cancelled"
    error = future.exception(SECONDS)
    return "returned" if error is None else type(error).__name__


@pytest.mark.parametrize("ending", ENDINGS)
def test_inv08_putting_and_feeding_while_the_pool_ends(local_pool: MakePool, ending: str) -> None:
    pool = local_pool(2, iteration=False)
    going = SimpleQueue[None]()

    def put() -> None:
        with suppress(PoolClosed):
            while True:
                pool.put(None, abs, (-1,))
                going.put(None)

    threads = [threading.Thread(target=put) for _ in range(2)]
    feed = pool.ingest(iter(int, 1), None, abs)
    for thread in threads:
        thread.start()
        going.get(timeout=SECONDS)
    feed.cancel()  # a shutdown waits for feeds, and this one is endless
    ENDINGS[ending](pool)
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert feed.join(SECONDS)


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    pool = GroupedPool(1)
    results = pool.map(abs, [-1, -2, -3])
    assert next(results) == 1
    pool.stop()
    files = [(tmp_path / str(n)).open("wb") for n in range(30)]  # they get the numbers of the pool's descriptors
    del results, pool
    gc.collect()
    for file in files:
        file.close()
    assert not [file.name for file in files if os.path.getsize(file.name)]


# -- callbacks that use the pool --------------------------------------------------------------------------------------


def test_done_callbacks_may_submit_and_adjust(local_pool: MakePool) -> None:
    pool = local_pool(1)
    ended = SimpleQueue[int]()

    def again(future: Any) -> None:
        left = future.result()
        pool.adjust(None, 1 + left % 2)
        if left == 0:
            ended.put(left)
        else:
            pool.submit(abs, left - 1).add_done_callback(again)

    pool.submit(abs, 50).add_done_callback(again)
    assert ended.get(timeout=SECONDS) == 0
    assert pool.is_whole(1)


def test_handlers_may_put_and_adjust(local_pool: MakePool) -> None:
    pool = local_pool(1)
    values: list[int] = []

    def again(value: int) -> None:
        values.append(value)
        pool.adjust(None, 1 + value % 2)
        if value:
            pool.put(None, abs, (value - 1,), callback=again)

    pool.put(None, abs, (50,), callback=again)
    assert pool.join(SECONDS)
    assert values == list(range(50, -1, -1))


@pytest.mark.parametrize("ending", ENDINGS)
def test_done_callbacks_may_end_the_pool(local_pool: MakePool, gate: Gate, ending: str) -> None:
    pool = local_pool(2)
    returned = threading.Event()

    def end(_: object) -> None:
        ENDINGS[ending](pool)
        returned.set()

    waiting = pool.submit(pass_gate, gate.path) if "stop" in ending else None
    if waiting is not None:
        gate.arrivals(1)
    pool.submit(abs, -1).add_done_callback(end)
    assert returned.wait(SECONDS)
    pool.stop()
    assert waiting is None or waiting.cancelled()
    with pytest.raises(PoolClosed):
        pool.submit(abs, -1)


@pytest.mark.parametrize(("ending", "fails"), [*((ending, False) for ending in ENDINGS), ("shutdown", True)])
def test_handlers_may_end_the_pool(local_pool: MakePool, ending: str, fails: bool) -> None:
    pool = local_pool(2)
    returned = threading.Event()

    def end(_: object) -> None:
        ENDINGS[ending](pool)
        returned.set()

    pool.put(None, abs, ("x" if fails else 1,), callback=end, error=end)
    assert returned.wait(SECONDS)
    pool.stop()


def test_callbacks_may_cancel_and_kill(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    for _ in range(TIMES):
        running = pool.submit(pass_gate, gate.path)
        gate.arrivals(1)
        said = SimpleQueue[bool]()

        def end(_: object, running: Future[Any] = running, said: SimpleQueue[bool] = said) -> None:
            said.put(running.cancel(kill=True))

        pool.submit(abs, -1).add_done_callback(end)
        assert said.get(timeout=SECONDS)
        assert running.cancelled()
    assert pool.is_whole(2)
