"""Waiting costs nothing: who has nothing to do is not woken."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil
import pytest

from gpool import FakeBackend, GroupedPool
from gpool.workers import health

MakePool = Callable[..., GroupedPool]


class Noting(FakeBackend):
    """Notes for how long the supervisor was ready to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float | None] = []

    def wait(self, timeout: float | None) -> None:
        self.timeouts.append(timeout)
        super().wait(timeout)


def test_inv17_a_supervisor_with_nothing_due_waits_without_end() -> None:
    backend = Noting()
    with GroupedPool(2, backend=backend) as pool:
        assert list(pool.map(abs, range(-20, 0))) == list(range(20, 0, -1))
        assert pool.options(timeout=600).submit(abs, -1).result() == 1
        assert pool.submit(abs, -1).result() == 1
        waits = [timeout for timeout in backend.timeouts if timeout != 0.0]  # 0: something was in the inbox
        assert waits[-1] is None, "no timer is kept for a task that has ended"


def switches(pid: int) -> int:
    """How often a process gave up its CPU by itself: it does so each time it was woken and waits again."""
    return int(psutil.Process(pid).num_ctx_switches().voluntary)


def test_inv17_an_idle_worker_sleeps_while_others_work(local_pool: MakePool) -> None:
    pool = local_pool(tags={"idle": 1, "busy": 1})
    idle = pool.group("idle").submit(os.getpid).result()
    busy = pool.group("busy").submit(os.getpid).result()
    before, working = switches(idle), switches(busy)
    while switches(busy) < working + 100:  # on a machine under load a task may find it awake
        pool.group("busy").submit(abs, -1).result()
    assert switches(idle) <= before + 1, "the one with which it went to sleep"


def test_a_full_pipe_is_no_reason_to_look_at_all_processes(
    local_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = local_pool(1)
    looks: list[list[int]] = []
    monkeypatch.setattr(health, "kill_descendants", lambda pids: looks.append(list(pids)))
    futures = [pool.submit(len, bytes(100_000)) for _ in range(50)]
    assert [future.result() for future in futures] == [100_000] * 50
    assert looks == []
