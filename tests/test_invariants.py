"""The invariants, on real processes: crashes, kills, resizes and signals, by gates and without sleeping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpool import Group, GroupBroken, GroupedPool, PoolClosed, TaskTimeout, WorkerCrashed
from tests.gates import Gate, pass_gate

MakePool = Callable[..., GroupedPool]


def test_inv01_a_tag_below_its_reserve_waits_for_no_other(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(tags={"web": 1, "jobs": 0, None: 1})
    held = [pool.group("jobs").submit(pass_gate, gate.path) for _ in range(5)]
    gate.arrivals(1)
    assert pool.group("web").submit(abs, -1).result() == 1
    assert not any(f.done() for f in held)


def test_inv02_bindings_swap_when_the_reserve_is_free_again(local_pool: MakePool, gate: Gate, tmp_path: Path) -> None:
    other = Gate(tmp_path / "other")
    pool = local_pool(tags={"a": 1, "b": 0, None: 1})
    first = pool.group("a").submit(pass_gate, other.path)
    other.arrivals(1)
    second = pool.group("a").submit(pass_gate, gate.path)  # a burst
    gate.arrivals(1)
    assert pool.stats().groups["a"].burst == 1
    other.open()
    first.result()
    assert pool.group("b").submit(abs, -1).result() == 1, "the general slot is free again"
    assert pool.stats().groups["a"].burst == 0
    assert not second.done()


def test_inv04_a_reserved_slot_is_never_lent(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(tags={"web": 1, "jobs": 1})
    waiting = [pool.group("jobs").submit(pass_gate, gate.path) for _ in range(3)]
    gate.arrivals(1)
    stats = pool.stats()
    assert (stats.groups["jobs"].busy, stats.groups["jobs"].queued) == (1, 2)
    assert pool.group("web").submit(abs, -1).result() == 1
    assert not any(f.done() for f in waiting)


def test_inv05_small_tasks_do_not_wait_behind_a_long_one(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    for future in [pool.submit(abs, 1) for _ in range(200)]:
        future.result()  # run times are measured now, so tasks travel together
    long = pool.submit(pass_gate, gate.path)
    small = [pool.submit(abs, -n) for n in range(200)]
    assert [f.result() for f in small] == list(range(200))
    assert not long.done()


def test_inv06_resize_live(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(tags={"a": 2, None: 2})
    busy = [pool.group("a").submit(pass_gate, gate.path, n) for n in range(2)]
    gate.arrivals(2)
    pool.adjust("a", 1, use_general_slots=True)
    assert pool.get_tags() == {"a": 1, None: 3}
    pool.adjust("a", 4)
    more = [pool.group("a").submit(pass_gate, gate.path, n) for n in range(2)]
    gate.arrivals(2)
    gate.open()
    assert [f.result() for f in (*busy, *more)] == [0, 1, 0, 1]
    pool.adjust("a", 0, wait=True, timeout=60)
    pool.adjust(None, 1, wait=True, timeout=60)
    assert len(pool.stats().workers) == 1


def _value(name: str) -> str | None:
    return os.environ.get(name)


def test_inv07_a_group_bursts_in_workers_of_its_own_kind(local_pool: MakePool) -> None:
    groups: dict[Any, Any] = {
        "own": Group(0, env={"KIND": "own"}, initializer=lambda: os.environ.update(READY="yes")),
        "plain": 0,
        None: 1,
    }
    pool = local_pool(tags=groups)
    for _ in range(2):
        assert pool.group("plain").submit(_value, "KIND").result() is None
        assert pool.group("own").submit(_value, "KIND").result() == "own"
        assert pool.group("own").submit(_value, "READY").result() == "yes"


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
@pytest.mark.parametrize(
    ("ending", "signame", "exitcode"),
    [
        (lambda: os._exit(7), None, 7),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV", -signal.SIGSEGV),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL", -signal.SIGKILL),
        (lambda: os.abort(), "SIGABRT", -signal.SIGABRT),
    ],
)
def test_inv08_10_a_crash_costs_its_task_alone(
    local_pool: MakePool, method: str, ending: Callable[[], None], signame: str | None, exitcode: int
) -> None:
    pool = local_pool(2, mp_context=method)
    before = [pool.submit(abs, -n) for n in range(50)]
    crash = pool.submit(ending)
    after = [pool.submit(abs, -n) for n in range(100)]
    error = crash.exception()
    assert isinstance(error, WorkerCrashed)
    assert (error.signal, error.exitcode, error.attempt) == (signame, exitcode, 1)
    assert error.pid is not None
    assert [f.result() for f in before] == list(range(50))
    assert [f.result() for f in after] == list(range(100))
    assert pool.stats().groups[None].lost == 1


def test_inv08_retries_count_crashes(local_pool: MakePool, tmp_path: Path) -> None:
    marks = str(tmp_path / "marks")

    def third_time_lucky() -> int:
        with open(marks, "a") as file:
            file.write("x")
        if os.path.getsize(marks) < 3:
            os._exit(1)
        return os.path.getsize(marks)

    pool = local_pool(1)
    assert pool.options(retries=2).submit(third_time_lucky).result() == 3
    assert pool.stats().groups[None].retried == 2


def test_inv08_retry_on_counts_exceptions(local_pool: MakePool, tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    def fail() -> None:
        with open(marks, "a") as file:
            file.write("x")
        raise KeyError(marks.stat().st_size)

    view = local_pool(1).options(retries=1, retry_on=KeyError)
    assert view.submit(fail).exception().args == (2,)  # type: ignore[union-attr]
    with pytest.raises(ZeroDivisionError):
        view.submit(lambda: 1 / 0).result()


def test_inv11_a_worker_killed_while_idle_costs_nothing(local_pool: MakePool) -> None:
    pool = local_pool(1)
    for _ in range(5):
        pid = pool.submit(os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        assert pool.submit(abs, -1).result() == 1


def test_inv13_a_timeout_kills_the_tree_and_names_the_task(local_pool: MakePool, tmp_path: Path) -> None:
    alive = str(tmp_path / "alive")
    os.mkfifo(alive)

    def with_child() -> None:
        with open(alive, "w") as held:
            subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"], stdout=held, check=False)

    pool = local_pool(1)
    future = pool.options(timeout=1.5, name="slow").submit(with_child)
    with open(alive) as file:
        error = future.exception()
        assert file.read() == "", "the end comes when the last who holds the other end has gone"
    assert isinstance(error, TaskTimeout)
    assert isinstance(error, TimeoutError)
    assert (error.task, error.timeout) == ("slow", 1.5)
    assert pool.submit(abs, -1).result() == 1


def test_cancel_kill_stops_a_running_task(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1)
    running = pool.submit(pass_gate, gate.path)
    gate.arrivals(1)
    assert running.running()
    assert not running.cancel()
    assert running.cancel(kill=True)
    assert running.cancelled()
    assert pool.submit(abs, -1).result() == 1


_ORPHANS = """
import os, sys, time, subprocess
from gpool import GroupedPool
pool = GroupedPool(2)
def busy():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return os.getpid(), child.pid
def spin(): sum(range(10**12))
pids = pool.submit(busy).result()
pool.submit(spin)
print(*pids, *(w.pid for w in pool.stats().workers), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the lifeline is Linux's")
def test_inv14_workers_die_with_the_program() -> None:
    program = subprocess.Popen([sys.executable, "-c", _ORPHANS], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    pids = [int(pid) for pid in program.stdout.readline().split()]
    watched = [psutil.Process(pid) for pid in pids]
    program.kill()
    program.wait()
    program.stdout.close()
    _, alive = psutil.wait_procs(watched, timeout=30)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


_CTRL_C = """
import os, signal, time
from gpool import GroupedPool
with GroupedPool(2) as pool:
    futures = [pool.submit(time.sleep, 600) for _ in range(4)]
    pool.submit(abs, 1)
    print("up", flush=True)
    futures[0].result()
"""


def test_inv15_one_ctrl_c_gives_one_traceback() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _CTRL_C],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    os.killpg(program.pid, signal.SIGINT)
    _, stderr = program.communicate(timeout=60)
    assert stderr.count("Traceback") == 1
    assert stderr.strip().endswith("KeyboardInterrupt")
    assert program.returncode == -signal.SIGINT


def test_inv16_an_initializer_that_fails_breaks_its_group_alone(local_pool: MakePool) -> None:
    def fail() -> None:
        raise RuntimeError("no database")

    pool = local_pool(tags={"bad": Group(1, initializer=fail), "good": 1})
    error = pool.group("bad").submit(abs, -1).exception(timeout=60)
    assert isinstance(error, GroupBroken)
    assert "no database" in str(error)
    assert pool.group("good").submit(abs, -1).result() == 1
    assert pool.stats().groups["bad"].state == "broken"


def test_inv18_the_users_multiprocessing_is_left_alone(local_pool: MakePool) -> None:
    import multiprocessing
    from multiprocessing import forkserver

    before = list(forkserver._forkserver._preload_modules)  # type: ignore[attr-defined]
    pool = local_pool(2)
    pool.submit(abs, 1).result()
    assert multiprocessing.active_children() == []
    assert forkserver._forkserver._preload_modules == before  # type: ignore[attr-defined]


def test_inv20_a_forked_childs_use_of_the_pool_raises(local_pool: MakePool) -> None:
    pool = local_pool(1)
    assert pool.submit(abs, -1).result() == 1
    pid = os.fork()
    if pid == 0:
        try:
            pool.submit(abs, -1)
        except PoolClosed:
            os._exit(42)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    assert pool.submit(abs, -2).result() == 2


def test_interpreter_exit_finishes_what_was_submitted(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import gpool\n"
        "pool = gpool.GroupedPool(2)\n"
        "def note(n):\n"
        f"    open({str(tmp_path)!r} + f'/done-{{n}}', 'w').close()\n"
        "for n in range(20):\n"
        "    pool.submit(note, n)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(tmp_path.glob("done-*"))) == 20


def test_an_abandoned_pool_finishes_and_goes() -> None:
    future = GroupedPool(1).submit(abs, -3)
    assert future.result() == 3


def test_ingest_draws_only_as_slots_free_up(local_pool: MakePool, gate: Gate) -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for n in range(10**6):
            drawn.append(n)
            yield n

    pool = local_pool(2)
    feed = pool.ingest(items(), None, lambda n, path: pass_gate(path), [gate.path])
    gate.arrivals(2)
    assert len(drawn) <= 4, "two that run, and one queued for each slot"
    feed.cancel()
    gate.open()
    assert feed.join(60)


def test_put_blocks_until_it_has_a_slot_and_never_hangs_on_stop(local_pool: MakePool, gate: Gate) -> None:
    import threading

    pool = local_pool(1)
    pool.put(None, pass_gate, (gate.path,))
    gate.arrivals(1)
    ended: list[BaseException] = []

    def wait_for_slot() -> None:
        try:
            pool.put(None, abs, (1,))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=wait_for_slot)
    thread.start()
    while pool.pending < 2:
        os.sched_yield()
    pool.stop()
    thread.join(60)
    assert [type(e) for e in ended] == [PoolClosed]


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_100_mb_both_ways(local_pool: MakePool, method: str) -> None:
    pool = local_pool(1, mp_context=method)
    assert pool.submit(len, b"x" * 100_000_000).result() == 100_000_000
    assert len(pool.submit(bytes, 100_000_000).result()) == 100_000_000


def test_100_000_queued_tasks(local_pool: MakePool) -> None:
    pool = local_pool(2)
    futures = [pool.submit(abs, -n) for n in range(100_000)]
    assert sum(f.result() for f in futures) == 100_000 * 99_999 // 2


def test_max_tasks_per_child_replaces_workers_between_tasks(local_pool: MakePool) -> None:
    pool = local_pool(2, max_tasks_per_child=3)
    pids = [f.result() for f in [pool.submit(os.getpid) for _ in range(60)]]
    assert max(pids.count(pid) for pid in set(pids)) <= 3


def test_memory_limit(local_pool: MakePool, gate: Gate) -> None:
    from gpool import MemoryLimitExceeded

    path = gate.path

    def hog() -> None:
        block = b"x" * 300_000_000
        pass_gate(path, len(block))

    pool = local_pool(1, memory_limit=200_000_000)
    error = pool.submit(hog).exception(timeout=60)
    assert isinstance(error, MemoryLimitExceeded)
    assert error.limit == 200_000_000
    assert pool.submit(abs, -1).result() == 1


def test_a_worker_that_is_stopped_stalls_nobody(local_pool: MakePool) -> None:
    pool = local_pool(2)
    pid = pool.submit(os.getpid).result()
    os.kill(pid, signal.SIGSTOP)
    try:
        big = [pool.submit(len, b"x" * 1_000_000) for _ in range(2)]
        assert pool.submit(time.monotonic).result(timeout=60) > 0
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [f.result() for f in big] == [1_000_000] * 2
