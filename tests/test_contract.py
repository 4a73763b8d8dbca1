"""The pool's contract, over the fake backend and over processes with every start method."""

from __future__ import annotations

import asyncio
import functools
import logging
import operator
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, as_completed, wait
from pathlib import Path
from typing import Any

import pytest

from gpool import (
    Group,
    GroupedPool,
    InsufficientSlots,
    NoSlots,
    PayloadError,
    PoolClosed,
    PyPool,
    UnknownTag,
)

MakePool = Callable[..., GroupedPool]


class Odd(Exception):
    """An exception whose constructor takes other arguments than it keeps."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.second = second


class Unpicklable:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


class Unloadable:
    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("not here")


def _raise(error: BaseException) -> None:
    raise error


def _raise_odd() -> None:
    raise Odd(1, 2)


def test_is_an_executor(make_pool: MakePool) -> None:
    pool = make_pool(2)
    assert isinstance(pool, Executor)
    assert PyPool is GroupedPool
    assert pool.submit(divmod, 7, 2).result() == (3, 1)
    assert pool.submit(int, "ff", base=16).result() == 255
    assert list(pool.map(pow, range(5), range(5))) == [n**n for n in range(5)]


def test_lambdas_closures_partials_and_methods(make_pool: MakePool) -> None:
    pool = make_pool(1)
    k = 10

    class Local:
        def __init__(self, n: int) -> None:
            self.n = n

        def plus(self, m: int) -> int:
            return self.n + m

    assert pool.submit(lambda x: x + k, 1).result() == 11
    assert pool.submit(functools.partial(operator.mul, 3), 4).result() == 12
    assert pool.submit(Local(1).plus, 2).result() == 3
    assert pool.submit("a-b".split, "-").result() == ["a", "b"]
    assert isinstance(pool.submit(Local, 5).result(), Local), "it comes back as the very class"
    assert pool.submit(lambda: lambda y: y * k).result()(2) == 20


def test_captured_state_is_of_the_moment_and_not_shared(make_pool: MakePool) -> None:
    pool = make_pool(1)
    seen = [1]

    def add(n: int) -> list[int]:
        seen.append(n)
        return seen

    first = pool.submit(add, 2)
    seen.append(99)
    second = pool.submit(add, 3)
    assert first.result() == [1, 2]
    assert second.result() == [1, 99, 3]


def test_exceptions_arrive_as_themselves_with_the_workers_traceback(make_pool: MakePool) -> None:
    pool = make_pool(1)
    error = pool.submit(lambda: 1 / 0).exception()
    assert isinstance(error, ZeroDivisionError)
    assert "1 / 0" in str(error.__cause__)
    odd = pool.submit(_raise_odd).exception()
    assert isinstance(odd, Odd)
    assert (str(odd), odd.second) == ("1 and 2", 2)
    assert pool.submit(_raise, SystemExit(3)).exception().code == 3  # type: ignore[union-attr]


def test_an_exception_object_that_is_returned_is_a_value(make_pool: MakePool) -> None:
    value = make_pool(1).submit(ValueError, "x").result()
    assert isinstance(value, ValueError)


def test_inv10_what_cannot_be_pickled_harms_itself_alone(make_pool: MakePool) -> None:
    pool = make_pool(1)
    with pytest.raises(PayloadError) as refused:
        pool.submit(len, Unpicklable())
    assert refused.value.side == "call"
    assert isinstance(refused.value.__cause__, ValueError)
    before = pool.submit(abs, -1)
    for bad, side in ((lambda: Unpicklable(), "result"), (lambda: Unloadable(), "result")):
        error = pool.submit(bad).exception()
        assert isinstance(error, PayloadError)
        assert error.side == side
    error = pool.submit(len, Unloadable()).exception()
    assert isinstance(error, PayloadError)
    assert error.side == "call"
    assert [before.result(), *pool.map(abs, [-2, -3])] == [1, 2, 3]


def test_bad_input_gets_a_clear_error_at_once(make_pool: MakePool) -> None:
    pool = make_pool(tags={"web": 1, "never": 0})
    with pytest.raises(UnknownTag) as unknown:
        pool.group("wbe")
    assert unknown.value.tag == "wbe"
    assert "web" in unknown.value.known
    with pytest.raises(UnknownTag):
        pool.put("wbe", abs, (1,))
    with pytest.raises(NoSlots):
        pool.put("never", abs, (1,))
    with pytest.raises(NoSlots):
        pool.submit(abs, 1)
    with pytest.raises(TypeError):
        pool.group("web").submit(42)  # type: ignore[arg-type]
    for kwargs in (3, [("a", 1)], {1: 2}):
        with pytest.raises(TypeError, match="kwargs"):
            pool.put("web", dict, kwargs=kwargs)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="kwargs"):
            pool.ingest([1], "web", dict, kwargs=kwargs)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name"):
        pool.options(name=3)  # type: ignore[arg-type]
    for wait_badly in (
        lambda: pool.join("1"),  # type: ignore[arg-type]
        lambda: pool.group("web").submit(abs, 1).result("1"),  # type: ignore[arg-type]
        lambda: pool.group("web").map(abs, [1], timeout="1"),  # type: ignore[arg-type]
        lambda: pool.adjust("web", 2, wait=True, timeout="1"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="timeout"):
            wait_badly()
    with pytest.raises(ValueError):
        pool.adjust("web", -1)
    for slots in (1.5, True, "2", None):
        with pytest.raises(TypeError):
            pool.adjust("web", slots)  # type: ignore[arg-type]
    with pytest.raises(InsufficientSlots) as short:
        pool.adjust("web", 5, use_general_slots=True)
    assert isinstance(short.value, IndexError)
    assert (short.value.wanted, short.value.available) == (4, 0)
    assert pool.get_tags() == {"web": 1, "never": 0, None: 0}
    with pytest.raises(ValueError, match="itself"):
        pool.adjust(None, 1, use_general_slots=True)
    assert pool.group("web").submit(abs, -1).result() == 1


def test_constructor_checks() -> None:
    for arguments, error in (
        ({"limit": 1, "tags": {"a": 2}}, ValueError),
        ({"limit": -1}, ValueError),
        ({"limit": 1.5}, TypeError),
        ({"tags": {"a": -1}}, ValueError),
        ({"tags": {"a": "1"}}, TypeError),
        ({"callback": 1}, TypeError),
        ({"limit": 1, "mp_context": "telepathy"}, ValueError),
        ({"limit": 1, "initializer": 5}, TypeError),
        ({"limit": 1, "max_tasks_per_child": 0}, ValueError),
        ({"limit": 1, "mp_context": 3}, TypeError),
        ({"limit": 1, "clock": 3}, TypeError),
        ({"limit": 1, "iteration": "yes"}, TypeError),
        ({"tags": ["a"]}, TypeError),
        ({"tags": "ab"}, TypeError),
    ):
        with pytest.raises(error):
            GroupedPool(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit"):
        GroupedPool(-1)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"slots": -1}, ValueError),
        ({"slots": "1"}, TypeError),
        ({"initializer": 5}, TypeError),
        ({"memory_limit": 0}, ValueError),
        ({"recycle_memory": 1.5}, TypeError),
        ({"max_tasks_per_child": True}, TypeError),
        ({"start_timeout": 0}, ValueError),
        ({"max_start_failures": 0}, ValueError),
        ({"max_crashes": "3"}, TypeError),
        ({"burst": -1}, ValueError),
        ({"weight": 0}, ValueError),
        ({"weight": float("nan")}, ValueError),
        ({"weight": "1"}, TypeError),
        ({"initargs": 3}, TypeError),
        ({"env": 3}, TypeError),
        ({"env": {"A": 1}}, TypeError),
        ({"env": {"A=B": "1"}}, ValueError),
        ({"nice": 1.5}, TypeError),
    ],
)
def test_settings_of_groups_are_checked_and_the_group_is_named(setting: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(setting))) as refused:
        GroupedPool(tags={"fine": 1, "web": Group(**{"slots": 1, **setting})})
    assert "'web'" in refused.value.__notes__[0]


def test_limit_gives_the_general_group_what_tags_leave(make_pool: MakePool) -> None:
    pool = make_pool(limit=5, tags={"a": 2, 0: 1})
    assert pool.get_tags() == {"a": 2, 0: 1, None: 2}
    assert pool.group(0).submit(abs, -4).result() == 4


def test_futures_are_the_standard_librarys(make_pool: MakePool) -> None:
    pool = make_pool(2)
    futures = [pool.submit(abs, -n) for n in range(20)]
    assert {f.result() for f in as_completed(futures)} == set(range(20))
    done, not_done = wait(futures)
    assert len(done) == 20
    assert not not_done
    assert (futures[3].get(), futures[3].ready(), futures[3].successful()) == (3, True, True)
    assert not futures[3].cancel()
    called: list[Any] = []
    came = threading.Event()
    pool.submit(abs, -7).add_done_callback(lambda f: (called.append(f.result()), came.set()))
    assert came.wait(30)
    assert called == [7]


def test_asyncio(make_pool: MakePool) -> None:
    pool = make_pool(2)

    async def gather() -> list[int]:
        return await asyncio.gather(*(asyncio.wrap_future(pool.submit(abs, -n)) for n in range(10)))

    assert asyncio.run(gather()) == list(range(10))


def test_map_is_ordered_lazy_and_raises_in_place(make_pool: MakePool) -> None:
    pool = make_pool(2)
    assert list(pool.map(lambda x: x * x, range(300))) == [x * x for x in range(300)]
    assert sorted(pool.map_unordered(lambda x: x * x, range(300))) == [x * x for x in range(300)]
    results = pool.map(lambda x: 1 // x, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(pool.map(abs, [])) == []
    with pytest.raises(TypeError):
        pool.map(abs)


def test_map_of_an_iterable_that_raises_ends_with_its_error(make_pool: MakePool) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    results = make_pool(1).map(abs, items())
    assert next(results) == 1
    with pytest.raises(LookupError):
        next(results)


def test_map_with_buffersize_draws_no_further_than_that_ahead(make_pool: MakePool) -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for n in range(10**6):
            drawn.append(n)
            yield n

    results = make_pool(2).map(abs, items(), buffersize=5)
    for expected in range(20):
        assert next(results) == expected
        assert len(drawn) <= expected + 1 + 5
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("seconds", [25 * 86_400, 1e10, 1e300, float("inf")])
def test_any_number_of_seconds_is_a_timeout(make_pool: MakePool, seconds: float) -> None:
    """Some calls of the system take no more than 25 days."""
    pool = make_pool(1, start_timeout=seconds)
    assert pool.submit(abs, -1).result(seconds) == 1
    assert pool.options(timeout=seconds).submit(time.sleep, 0.01).result(seconds) is None
    assert list(pool.map(abs, [-1], timeout=seconds)) == [1]
    pool.adjust(None, 1, wait=True, timeout=seconds)
    assert pool.join(seconds)


def test_iterables_stay_open(make_pool: MakePool, tmp_path: Path) -> None:
    """They are the caller's, as with the builtin ``map``."""
    pool = make_pool(1)
    (tmp_path / "lines").write_text("a\nb\n")
    with (tmp_path / "lines").open() as lines:
        assert list(pool.map(len, lines)) == [2, 2]
        lines.seek(0)
        assert pool.ingest(lines, None, len, callback=id).join(60)
        assert lines.read() == ""

    def numbers() -> Iterator[int]:
        yield from range(10**6)

    kept = numbers()
    feed = pool.ingest(kept, None, abs, callback=id)
    feed.cancel()
    assert feed.join(60)
    assert next(kept) >= feed.drawn


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_iterable_that_does_not_end_well_ends(make_pool: MakePool) -> None:
    class Odd:
        left = 3

        def __iter__(self) -> Odd:
            return self

        def __next__(self) -> int:
            self.left -= 1
            if self.left < 0:
                raise StopIteration
            return self.left

        def close(self, really: bool) -> None: ...

    def failing() -> Iterator[int]:
        try:
            yield from range(10**6)
        finally:
            raise ValueError

    pool = make_pool(1)
    assert list(pool.map(abs, Odd())) == [2, 1, 0]
    results = pool.map(abs, failing())
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert pool.join(60)


def test_callbacks_and_error_callbacks(make_pool: MakePool) -> None:
    good: list[Any] = []
    bad: list[BaseException] = []
    pool = make_pool(2, callback=good.append, on_error=bad.append)
    pool.put(None, abs, (-1,))
    pool.put(None, lambda: 1 / 0)
    assert pool.join(60)
    assert good == [1]
    assert [type(e) for e in bad] == [ZeroDivisionError]
    own: list[Any] = []
    pool.put(None, abs, (-2,), callback=own.append)
    pool.put(None, int, ("x",), error=own.append)
    pool.callback(None)
    assert pool.join(60)
    assert own[0] == 2 or own[1] == 2
    assert good == [1]
    assert pool.pending == 0


def test_a_callback_may_call_the_pool(make_pool: MakePool) -> None:
    pool = make_pool(2)
    seen: list[Any] = []

    def again(value: int) -> None:
        seen.append((value, pool.pending))
        if value < 3:
            pool.put(None, operator.add, (value, 1), callback=again)
        pool.adjust(None, 2)
        pool.join()

    pool.put(None, abs, (0,), callback=again)
    assert pool.join(60)
    assert seen == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_a_callback_that_raises_is_logged_and_harms_nothing(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(1, callback=lambda value: 1 / 0)
    with caplog.at_level(logging.ERROR, "gpool"):
        pool.put(None, abs, (1,))
        assert pool.join(60)
    assert "ZeroDivisionError" in caplog.text
    assert pool.submit(abs, -1).result() == 1


def test_a_failure_nobody_handles_is_logged_with_its_traceback(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(1)
    with caplog.at_level(logging.ERROR, "gpool"):
        pool.put(None, lambda: 1 / 0)
        assert pool.join(60)
    assert "1 / 0" in caplog.text


def test_iteration_yields_put_and_ingest_and_ends(make_pool: MakePool) -> None:
    pool = make_pool(2, on_error=lambda error: None)
    pool.ingest(range(50), None, lambda n, k: n * k, [2])
    pool.put(None, abs, (-1000,))
    pool.submit(abs, -5000)
    pool.put(None, int, ("no",))
    assert sorted(pool) == sorted([*(n * 2 for n in range(50)), 1000])
    assert list(pool) == []


@pytest.mark.parametrize(("iteration", "callback", "kept"), [(False, None, 0), (True, id, 1), (None, id, 0)])
def test_what_is_kept_for_iteration(make_pool: MakePool, iteration: bool | None, callback: Any, kept: int) -> None:
    pool = make_pool(1, iteration=iteration, callback=callback)
    pool.put(None, abs, (1,))
    assert pool.join(60)
    assert len(list(pool)) == kept


def test_ingest_an_iterable_that_raises_ends_its_feed_and_is_reported_once(make_pool: MakePool) -> None:
    errors: list[BaseException] = []
    pool = make_pool(2, on_error=errors.append)

    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("gone")

    feed = pool.ingest(items(), None, abs)
    assert sorted(pool) == [0, 1, 2]
    assert feed.join(60)
    assert pool.join(60)
    assert not feed.is_alive()
    assert [type(e) for e in errors] == [LookupError]


def test_ingest_an_item_that_does_not_pickle_costs_only_itself(make_pool: MakePool) -> None:
    errors: list[BaseException] = []
    pool = make_pool(1, on_error=errors.append)
    pool.ingest([1, Unpicklable(), 3], None, lambda x: x)
    assert sorted(pool) == [1, 3]
    assert pool.join(60)
    assert [type(e) for e in errors] == [PayloadError]


def test_join_waits_for_the_handler_of_an_item_that_does_not_pickle(make_pool: MakePool) -> None:
    asked, told = threading.Event(), threading.Event()

    def tell(error: BaseException) -> None:
        asked.wait(60)
        told.set()

    pool = make_pool(1, on_error=tell)
    feed = pool.ingest([Unpicklable()], None, lambda x: x)
    assert feed.join(60)
    assert not pool.join(0.01)
    asked.set()
    assert pool.join(60)
    assert told.is_set()


def test_ingest_of_an_endless_iterable_can_be_cancelled(make_pool: MakePool) -> None:
    came = threading.Event()
    pool = make_pool(2, callback=lambda value: came.set())

    def endless() -> Iterator[int]:
        while True:
            yield 1

    feed = pool.ingest(endless(), None, abs)
    assert came.wait(60)
    assert feed.is_alive()
    feed.cancel()
    assert feed.join(60)
    assert pool.join(60)


def test_a_view_keeps_its_options_to_itself(make_pool: MakePool) -> None:
    web = make_pool(tags={"web": 1}).group("web")
    view = web.options(timeout=60, retries=1, retry_on=KeyError, priority=3, name="mine")
    assert view is not web
    assert view.submit(abs, -1).result() == 1
    for wrong in ({"timeout": 0}, {"retries": -1}):
        with pytest.raises(ValueError):
            web.options(**wrong)  # type: ignore[arg-type]
    for wrong in ({"retry_on": "x"}, {"priority": "high"}, {"retries": 1.5}):
        with pytest.raises(TypeError):
            web.options(**wrong)  # type: ignore[arg-type]


def test_initializers_run_in_each_worker_and_may_be_lambdas(make_pool: MakePool) -> None:
    import os

    def set_mark(mark: str) -> None:
        os.environ["GPOOL_MARK"] = mark

    pool = make_pool(1, initializer=set_mark, initargs=("here",))
    assert pool.submit(os.getenv, "GPOOL_MARK").result() == "here"


def test_shutdown_refuses_new_tasks_and_finishes_old_ones(make_pool: MakePool) -> None:
    pool = make_pool(1)
    futures = [pool.submit(abs, -n) for n in range(10)]
    pool.ingest(range(10), None, abs)
    pool.shutdown()
    assert [f.result() for f in futures] == list(range(10))
    for use in (lambda: pool.submit(abs, 1), lambda: pool.put(None, abs, (1,)), lambda: pool.adjust(None, 2)):
        with pytest.raises(PoolClosed):
            use()
    pool.shutdown()
    pool.stop()
    assert pool.stats().workers == ()


def test_with_shuts_down(make_pool: MakePool) -> None:
    with make_pool(1) as pool:
        future = pool.submit(abs, -1)
        rest = pool.map(abs, range(50))
    assert future.result() == 1
    assert list(rest) == list(range(50)), "a map runs to its end before the pool goes"


def test_stop_cancels(make_pool: MakePool) -> None:
    pool = make_pool(tags={"a": Group(1)})
    pool.stop()
    with pytest.raises(PoolClosed):
        pool.group("a").submit(abs, 1)


def test_stats_and_repr(make_pool: MakePool) -> None:
    pool = make_pool(tags={"web": 1, None: 1})
    pool.group("web").submit(abs, 1).result()
    assert pool.group("web").submit(int, "x").exception() is not None
    stats = pool.stats()
    assert (stats.groups["web"].done, stats.groups["web"].failed, stats.pending) == (1, 1, 0)
    assert len(stats.workers) == 2
    assert "web" in repr(pool)
    with pytest.raises(AttributeError):
        stats.pending = 3  # type: ignore[misc]


def test_futures_do_not_travel(make_pool: MakePool) -> None:
    """They are told of their end in one process alone."""
    pool = make_pool(1)
    future = pool.submit(abs, -1)
    for _ in range(2):
        with pytest.raises(PayloadError):
            pool.submit(id, future)
        assert future.result() == 1


def test_many_threads_submit_at_once(make_pool: MakePool) -> None:
    pool = make_pool(2)
    sums: list[int] = []

    def client() -> None:
        sums.append(sum(f.result() for f in [pool.submit(abs, -n) for n in range(200)]))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [19900] * 8


def test_cancelled_futures_are_the_standard_librarys(make_pool: MakePool) -> None:
    pool = make_pool(1)
    futures = [pool.submit(abs, n) for n in range(1000)]
    cancelled = [f for f in futures if f.cancel()]
    for future in futures:
        if future in cancelled:
            with pytest.raises(CancelledError):
                future.result()
        else:
            assert future.result() >= 0
