"""A long life leaves nothing behind, and what tasks hold is let go of at once."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable

import pytest

from benchmarks.leaks import Belongings, belongings, leaks, live
from gpool import GroupedPool

MakePool = Callable[..., GroupedPool]


def test_tasks_crashes_and_resizes_leave_no_descriptor_thread_or_process(local_pool: MakePool) -> None:
    pool = local_pool(tags={"work": 2, None: 1}, max_crashes=1000)
    live(pool, 0.02)
    before = belongings()
    live(pool, 0.1)
    assert belongings()[:3] == before[:3]


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({}, []),
        ({"descriptors": 11}, ["descriptors"]),
        ({"threads": 6, "processes": 4}, ["threads", "processes"]),
        ({"blocks": 80_800, "memory": 21_000_000}, []),
        ({"blocks": 90_000, "memory": 20_000_001}, ["blocks"]),
        ({"memory": 21_000_001}, ["memory"]),
    ],
)
def test_what_counts_as_a_leak(more: dict[str, int], kept: list[str]) -> None:
    before = Belongings(descriptors=10, threads=5, processes=3, blocks=80_000, memory=20_000_000)
    assert leaks(before, before._replace(**more)) == kept


class Thing:
    """Something that a weak reference can point to."""


def watch(thing: Thing) -> None:
    """In the worker: remember a task's argument weakly, beyond the task."""
    sys.seen = weakref.ref(thing)  # type: ignore[attr-defined]


def is_gone() -> bool:
    return sys.seen() is None  # type: ignore[attr-defined,no-any-return]


def test_the_worker_lets_go_of_arguments(local_pool: MakePool) -> None:
    pool = local_pool(1)
    pool.submit(watch, Thing()).result()
    assert pool.submit(is_gone).result()


def test_the_program_lets_go_of_calls_and_results(local_pool: MakePool) -> None:
    pool = local_pool(1)
    future = pool.submit(lambda load: Thing(), b"x" * 1_000_000)
    result = weakref.ref(future.result())
    assert future.call.body == b""
    del future
    gc.collect()
    assert result() is None


def test_queued_calls_are_let_go_of_when_they_are_cancelled(local_pool: MakePool) -> None:
    pool = local_pool(tags={"a": 1})
    pool.adjust("a", 0, wait=True)
    pool.adjust("a", 1)
    futures = [pool.group("a").submit(len, b"x" * 100_000) for _ in range(20)]
    cancelled = [future for future in futures if future.cancel()]
    assert all(future.call.body == b"" for future in cancelled)
    assert all(future.result() == 100_000 for future in futures if future not in cancelled)
