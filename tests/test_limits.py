"""Limits on memory, tasks, starts and crashes: workers are replaced, groups are broken, and others go on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpool import Group, GroupBroken, GroupedPool, MemoryLimitExceeded
from tests.gates import Gate, pass_gate

MakePool = Callable[..., GroupedPool]
LARGE = 200_000_000
LIMIT = 120_000_000


def hold_memory(path: str) -> None:
    block = b"x" * LARGE
    pass_gate(path, len(block))


def leak(count: int) -> int:
    """Keep memory beyond the task, as a leaking library does."""
    os.leaked = b"x" * count  # type: ignore[attr-defined]
    return os.getpid()


def test_memory_limit_costs_its_task_and_says_how_much(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(tags={"small": Group(1, memory_limit=LIMIT), "free": 1})
    error = pool.group("small").submit(hold_memory, gate.path).exception()
    assert isinstance(error, MemoryLimitExceeded)
    assert error.limit == LIMIT
    assert error.rss > LIMIT
    assert error.stack
    assert "hold_memory" in error.stack
    assert pool.group("small").submit(abs, -1).result() == 1
    assert pool.stats().groups["small"].lost == 1
    assert pool.stats().groups["free"].lost == 0


def test_memory_of_children_counts(local_pool: MakePool, gate: Gate) -> None:
    def with_child(path: str) -> None:
        pid = os.fork()
        if pid == 0:
            hold_memory(path)
            os._exit(0)
        os.waitpid(pid, 0)

    pool = local_pool(1, memory_limit=LIMIT)
    assert isinstance(pool.submit(with_child, gate.path).exception(), MemoryLimitExceeded)


def test_recycle_memory_replaces_the_worker_without_failing_a_task(local_pool: MakePool) -> None:
    pool = local_pool(1, recycle_memory=LIMIT)
    pids = {pool.submit(leak, LARGE).result()}
    while len(pids) < 2:  # samples are taken every quarter of a second
        pids.add(pool.submit(leak, LARGE).result())
    stats = pool.stats().groups[None]
    assert stats.recycled >= 1
    assert (stats.failed, stats.lost) == (0, 0)


def test_max_tasks_per_child_under_a_backlog_ten_times_the_slots(local_pool: MakePool) -> None:
    pool = local_pool(2, max_tasks_per_child=3)
    pids = [future.result() for future in [pool.submit(os.getpid) for _ in range(60)]]
    assert max(pids.count(pid) for pid in pids) <= 3
    stats = pool.stats().groups[None]
    assert stats.done == 60
    assert stats.recycled >= 18


def test_start_timeout_ends_an_initializer_that_hangs(local_pool: MakePool, gate: Gate) -> None:
    hanging = Group(1, initializer=pass_gate, initargs=(gate.path,), start_timeout=0.3, max_start_failures=2)
    pool = local_pool(tags={"hanging": hanging, "fine": 1})
    error = pool.group("hanging").submit(abs, -1).exception()
    assert isinstance(error, GroupBroken)
    assert "in time" in str(error)
    assert pool.group("fine").submit(abs, -1).result() == 1


@pytest.mark.parametrize("way", [lambda: 1 / 0, lambda: os._exit(3)], ids=["raises", "exits"])
def test_inv16_an_initializer_that_fails_breaks_its_group_alone(local_pool: MakePool, way: Callable[[], None]) -> None:
    pool = local_pool(tags={"bad": Group(1, initializer=way, max_start_failures=2), "good": 1})
    assert isinstance(pool.group("bad").submit(abs, -1).exception(), GroupBroken)
    assert isinstance(pool.group("bad").submit(abs, -1).exception(), GroupBroken), "at once from now on"
    assert pool.group("good").submit(abs, -1).result() == 1


def test_inv16_a_crash_loop_breaks_its_group_and_adjust_gives_it_another_chance(local_pool: MakePool) -> None:
    pool = local_pool(tags={"bad": Group(1, max_crashes=3), "good": 1})
    bad = pool.group("bad")
    errors = [future.exception() for future in [bad.submit(os._exit, 1) for _ in range(6)]]
    assert [type(error).__name__ for error in errors] == ["WorkerCrashed"] * 3 + ["GroupBroken"] * 3
    assert pool.stats().groups["bad"].state == "broken"
    assert pool.group("good").submit(abs, -1).result() == 1
    pool.adjust("bad", 1)
    assert bad.submit(abs, -2).result() == 2
    assert pool.stats().groups["bad"].state == "sound"


def test_inv16_a_task_that_ends_well_forgives_crashes(local_pool: MakePool) -> None:
    pool = local_pool(1, max_crashes=3)
    for _ in range(3):
        assert pool.submit(os._exit, 1).exception() is not None
        assert pool.submit(os._exit, 1).exception() is not None
        assert pool.submit(abs, -1).result() == 1


def test_a_worker_that_will_not_end_is_killed(local_pool: MakePool, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "forever")

    def leave_a_thread(path: str) -> int:
        import threading

        threading.Thread(target=pass_gate, args=(path,)).start()
        return os.getpid()

    with GroupedPool(1) as pool:
        pool.submit(leave_a_thread, gate.path).result()
        gate.arrivals(1)
    gate.open()  # only now could that thread have ended


MANY_WORKERS_FEW_DESCRIPTORS = """
import resource, time
from concurrent.futures import FIRST_EXCEPTION, wait
from gpool import GroupedPool

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with GroupedPool(tags={"few": 2, None: 0}) as pool:
    assert pool.group("few").submit(abs, -1).result() == 1
    pool.stats()  # imports psutil, for which there may be no descriptor later
    pool.adjust("many", 100)
    futures = [pool.group("many").submit(time.sleep, 100) for _ in range(100)]
    failed, _ = wait(futures, return_when=FIRST_EXCEPTION)
    print(failed.pop().exception())
    assert pool.group("few").submit(abs, -1).result() == 1
    print("few goes on, lost:", pool.stats().groups["few"].lost)
    pool.stop()
"""


def test_too_low_a_limit_on_open_files_is_named_and_costs_no_other_group() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MANY_WORKERS_FEW_DESCRIPTORS], capture_output=True, text=True, check=False
    )
    assert run.stderr == ""
    broken, others = run.stdout.splitlines()
    assert "group 'many' is broken" in broken
    assert "RLIMIT_NOFILE, ulimit -n) is 64" in broken
    assert others == "few goes on, lost: 0"
