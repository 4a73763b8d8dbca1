"""Whatever goes off, wherever it goes off, costs its own task and nothing else: ways × places × start methods.

One pool goes through all the ways of one place, so every case also shows that the ones before it did no harm.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from gpool import FakeClock, PayloadError, WorkerCrashed
from gpool.futures import Future
from tests.bombs import (
    DEATHS,
    RAISES,
    Bomb,
    Carrier,
    Mine,
    go_off,
    raise_bomb,
    raise_mine,
    return_bomb,
    return_mine,
    take_mine,
)
from tests.conftest import METHODS
from tests.gates import Gate
from tests.watched import WatchedPool, making_pools

MakePool = Callable[..., WatchedPool]
Submit = Callable[[WatchedPool, str], Future[Any]]

SLOTS = 2
SECONDS = 60
"""After which a task that has not ended counts as hung."""

IN_WORKER: dict[str, Submit] = {
    "unpickling the call": lambda pool, how: pool.submit(repr, Bomb(how, "unpickling", os.getpid(), in_parent=False)),
    "running": lambda pool, how: pool.submit(go_off, how),
    "pickling the result": lambda pool, how: pool.submit(return_bomb, how, "pickling", os.getpid(), False),
    "pickling the exception": lambda pool, how: pool.submit(raise_bomb, how, "pickling", os.getpid(), False),
}
"""Where a worker may be hit."""

IN_PARENT: dict[str, Submit] = {
    "unpickling the result": lambda pool, how: pool.submit(return_bomb, how, "unpickling", os.getpid(), True),
    "unpickling the exception": lambda pool, how: pool.submit(raise_bomb, how, "unpickling", os.getpid(), True),
    "deciding on a retry": lambda pool, how: pool.options(retries=1, retry_on=ZeroDivisionError).submit(
        raise_bomb, how, "unpickling", os.getpid(), True
    ),
}
"""Where the parent may be hit after submission."""

LET_GO: dict[str, tuple[Submit, type]] = {
    "argument": (lambda pool, how: pool.submit(take_mine, Mine(how, os.getpid()), 42), int),
    "result": (lambda pool, how: pool.submit(return_mine, how, os.getpid()), Mine),
    "exception": (lambda pool, how: pool.submit(raise_mine, how, os.getpid()), Carrier),
}
"""What a worker holds until it has reported the task, and the type of what the task ends in."""


@pytest.fixture
def local_pool() -> Iterator[MakePool]:
    """As everywhere, and the pools can be waited for."""
    with making_pools() as make:
        yield make


class Findings:
    """What differed from what was due, so that one case does not hide the others."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._case = ""

    def begin(self, case: str) -> None:
        self._case = case

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self._lines.append(f"{self._case}: {what}")

    def check(self) -> None:
        assert not self._lines, "\n" + "\n".join(self._lines)


def _returns(findings: Findings, futures: list[Future[int]], which: str) -> None:
    """Each of ``abs(-n)`` has returned n."""
    errors = {n: future.exception(SECONDS) for n, future in enumerate(futures)}
    bad = {n: error for n, error in errors.items() if error is not None}
    findings.expect(not bad, f"tasks {which} were hit: {bad!r}")
    findings.expect(all(f.result() == n for n, f in enumerate(futures) if n not in bad), f"wrong results {which}")


def _among_others(findings: Findings, pool: WatchedPool, submit: Submit, how: str) -> Future[Any]:
    """The case's future, ended, with small tasks before it and after it that must not notice."""
    before = [pool.submit(abs, -n) for n in range(20)]
    future = submit(pool, how)
    after = [pool.submit(abs, -n) for n in range(100)]
    future.exception(SECONDS)
    _returns(findings, before, "before it")
    _returns(findings, after, "after it")
    findings.expect(pool.is_whole(SLOTS), f"workers afterwards: {pool.stats().workers}")
    return future


def _is_payload_error(findings: Findings, error: BaseException | None, side: str, how: str) -> None:
    findings.expect(type(error) is PayloadError, f"{error!r} instead of a PayloadError")
    if isinstance(error, PayloadError):
        findings.expect(error.side == side, f"side {error.side!r} instead of {side!r}")
        types = (RAISES[how], pickle.PicklingError) if how == "recursion" else RAISES[how]
        findings.expect(isinstance(error.__cause__, types), f"the cause is {error.__cause__!r}")


def _is_crash(findings: Findings, error: BaseException | None, how: str) -> None:
    findings.expect(type(error) is WorkerCrashed, f"{error!r} instead of a WorkerCrashed")
    if isinstance(error, WorkerCrashed):
        findings.expect(isinstance(error, BrokenExecutor), "not a BrokenExecutor")
        facts, due = (error.exitcode, error.signal), DEATHS[how]
        findings.expect(facts == due, f"exit code and signal {facts} instead of {due}")
        facts_of_task = (error.tag, error.attempt, error.started)
        findings.expect(facts_of_task == (None, 1, True), f"tag, attempt, started: {facts_of_task}")
        copy = pickle.loads(pickle.dumps(error))
        findings.expect(vars(copy) == vars(error), "it does not pickle with its facts")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", IN_WORKER)
def test_inv10_what_raises_in_a_worker_harms_its_own_task_alone(local_pool: MakePool, place: str, method: str) -> None:
    findings, pool = Findings(), local_pool(SLOTS, mp_context=method)
    assert pool.is_whole(SLOTS)
    pids = {worker.pid for worker in pool.stats().workers}
    for how, kind in RAISES.items():
        findings.begin(how)
        error = _among_others(findings, pool, IN_WORKER[place], how).exception()
        if place == "running":
            findings.expect(type(error) is kind, f"{error!r} instead of a {kind.__name__}")
            findings.expect("go_off" in str(error and error.__cause__), f"the cause is {error and error.__cause__!r}")
        else:
            _is_payload_error(findings, error, "call" if "call" in place else "result", how)
    findings.expect({worker.pid for worker in pool.stats().workers} == pids, "a worker was replaced")
    findings.check()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", IN_WORKER)
def test_inv10_what_kills_a_worker_harms_its_own_task_alone(local_pool: MakePool, place: str, method: str) -> None:
    findings, pool = Findings(), local_pool(SLOTS, mp_context=method)
    for lost, how in enumerate(DEATHS, start=1):
        findings.begin(how)
        error = _among_others(findings, pool, IN_WORKER[place], how).exception()
        _is_crash(findings, error, how)
        pids = [worker.pid for worker in pool.stats().workers]
        findings.expect(getattr(error, "pid", None) not in pids, "the dead worker is still there")
        count = pool.stats().groups[None].lost
        findings.expect(count == lost, f"{count} tasks count as lost instead of {lost}")
    findings.check()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", IN_PARENT)
def test_inv10_what_raises_in_the_parent_harms_its_own_task_alone(
    local_pool: MakePool, place: str, method: str
) -> None:
    findings, pool = Findings(), local_pool(SLOTS, mp_context=method)
    for how in RAISES:
        if how == "interrupt":
            continue  # in the main thread that is taken for Ctrl-C
        findings.begin(how)
        error = _among_others(findings, pool, IN_PARENT[place], how).exception()
        _is_payload_error(findings, error, "result", how)
    findings.check()


@pytest.mark.parametrize("how", RAISES)
@pytest.mark.parametrize("place", IN_PARENT)
def test_inv10_what_raises_in_the_parents_threads_harms_its_own_task_alone(
    local_pool: MakePool, place: str, how: str
) -> None:
    findings, pool = Findings(), local_pool(SLOTS)
    told: SimpleQueue[BaseException | None] = SimpleQueue()
    gone = IN_PARENT[place](pool, how)
    gone.add_done_callback(lambda future: told.put(future.exception()))
    after = [pool.submit(abs, -n) for n in range(100)]
    _returns(findings, after, "after it")
    findings.check()
    try:
        error = told.get(timeout=10)
    except Empty:
        pytest.fail("its done-callback was not called")
    _is_payload_error(findings, error, "result", how)
    findings.check()


@pytest.mark.parametrize("how", RAISES)
def test_inv10_a_result_of_put_that_cannot_be_unpickled_is_an_error(local_pool: MakePool, how: str) -> None:
    errors: list[BaseException] = []
    values: list[int] = []
    findings, pool = Findings(), local_pool(SLOTS, callback=values.append, on_error=errors.append)
    pool.put(None, return_bomb, (how, "unpickling", os.getpid(), True))
    pool.put(None, abs, (-1,))
    assert pool.join(10), "join waits for ever"
    assert (values, len(errors)) == ([1], 1)
    _is_payload_error(findings, errors[0], "result", how)
    findings.check()


def _refused(pool: WatchedPool, how: str) -> BaseException | None:
    try:
        pool.submit(repr, Bomb(how, "pickling", os.getpid(), in_parent=True))
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize("how", [how for how in RAISES if how != "interrupt"])
def test_inv10_a_call_that_does_not_pickle_is_refused(local_pool: MakePool, how: str) -> None:
    findings, pool = Findings(), local_pool(SLOTS)
    _is_payload_error(findings, _refused(pool, how), "call", how)
    _returns(findings, [pool.submit(abs, -n) for n in range(100)], "after it")
    findings.check()
    assert pool.pending == 0


def test_inv10_ctrl_c_while_a_call_is_pickled_is_the_users(local_pool: MakePool) -> None:
    pool = local_pool(SLOTS)
    assert type(_refused(pool, "interrupt")) is KeyboardInterrupt
    assert pool.submit(abs, -1).result(SECONDS) == 1
    assert pool.pending == 0


PICKLING = ["raise", "raise bare", "raise unpicklable", "sys.exit", "recursion"]


@pytest.mark.parametrize("how", PICKLING)
@pytest.mark.parametrize("ordered", [True, False])
def test_inv10_an_item_of_map_that_does_not_pickle_fails_alone(local_pool: MakePool, ordered: bool, how: str) -> None:
    pool = local_pool(SLOTS)
    items: list[Any] = [-1, Bomb(how, "pickling", os.getpid(), in_parent=True), -3]
    results = (pool.map if ordered else pool.map_unordered)(_sign, items, timeout=SECONDS)
    with pytest.raises(PayloadError):
        list(results)
    assert set(results) <= {-1}, "it ends"
    assert pool.submit(abs, -1).result(SECONDS) == 1


def _sign(n: int) -> int:
    return -1 if n < 0 else 1


@pytest.mark.parametrize("how", PICKLING)
def test_inv10_an_item_of_ingest_that_does_not_pickle_fails_alone(local_pool: MakePool, how: str) -> None:
    values: list[Any] = []
    errors: list[BaseException] = []
    pool = local_pool(SLOTS, callback=values.append, on_error=errors.append)
    items: list[Any] = [-1, Bomb(how, "pickling", os.getpid(), in_parent=True), -3]
    pool.ingest(items, None, abs)
    assert pool.join(SECONDS)
    assert sorted(values) == [1, 3]
    assert [type(error) for error in errors] == [PayloadError]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", LET_GO)
def test_inv12_a_worker_killed_by_letting_go_of_a_tasks_things_has_reported_it(
    local_pool: MakePool, what: str, method: str
) -> None:
    findings, pool = Findings(), local_pool(SLOTS, mp_context=method)
    submit, kind = LET_GO[what]
    for how in DEATHS:
        findings.begin(how)
        future = _among_others(findings, pool, submit, how)
        kept = future.exception() or future.result()
        findings.expect(type(kept) is kind, f"it ended in {kept!r}")
        del future, kept
        gc.collect()  # a mine that is garbage here would go off in a worker forked now
    lost = pool.stats().groups[None].lost
    findings.begin("afterwards")
    findings.expect(lost == 0, f"{lost} tasks count as lost")
    findings.check()


def _mapped(pool: WatchedPool, mine: Mine) -> Any:
    """A map that has been read, of a function that has captured a mine."""
    results = pool.map(lambda n, mine=mine: n, range(50))
    assert list(results) == list(range(50))
    return results


def _collect(pool: WatchedPool) -> None:
    """Let go of maps that nobody refers to, once their threads have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("gpool-feed"):
            thread.join(SECONDS)
    pool.stats()  # what finalizers have left is dealt with
    gc.collect()


@pytest.mark.timeout(15)
@pytest.mark.parametrize("how", ["exit 0", "SIGKILL"])
def test_inv11_a_worker_killed_by_forgetting_a_maps_function_harms_no_task(
    local_pool: MakePool, gate: Gate, how: str
) -> None:
    findings, pool = Findings(), local_pool(1)
    results = _mapped(pool, Mine(how, os.getpid(), gate.path + ".arrivals"))
    del results
    _collect(pool)
    gate.arrivals(1)  # a worker lets go of the function when nobody can call it any more
    _returns(findings, [pool.submit(abs, -n) for n in range(100)], "after it")
    findings.expect(pool.stats().groups[None].lost == 0, "a task counts as lost")
    findings.check()


@pytest.mark.timeout(15)
def test_inv11_forgetting_behind_a_call_taken_back_blames_nobody(local_pool: MakePool, gate: Gate) -> None:
    findings, pool = Findings(), local_pool(1, clock=FakeClock())
    results = _mapped(pool, Mine("SIGKILL", os.getpid(), gate.path + ".arrivals"))
    pid = pool.submit(os.getpid).result(SECONDS)
    os.kill(pid, signal.SIGSTOP)
    first, taken_back = pool.submit(abs, -1), pool.submit(abs, -2)
    findings.expect(taken_back.cancel(), "it was sent ahead and had not begun")
    del results
    _collect(pool)
    pool.stats()  # what finalizers have left is dealt with
    behind = pool.submit(abs, -3)
    os.kill(pid, signal.SIGCONT)
    gate.arrivals(1)
    findings.expect(first.result(SECONDS) == 1, "the first was hit")
    findings.expect(behind.exception(SECONDS) is None, f"it had not begun, and ended in {behind.exception()!r}")
    findings.check()


def test_inv08_retries_of_a_crash_do_not_spill_over(local_pool: MakePool, tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    def die_twice() -> int:
        with marks.open("a") as file:
            file.write("x")
        if marks.stat().st_size < 3:
            os._exit(1)
        return marks.stat().st_size

    findings, pool = Findings(), local_pool(SLOTS)
    view = pool.options(retries=2)
    future = _among_others(findings, pool, lambda pool, how: view.submit(die_twice), "exit 1")
    findings.check()
    assert future.result() == 3
    groups = pool.stats().groups
    assert (groups[None].retried, groups[None].lost) == (2, 0)
