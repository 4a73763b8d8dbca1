"""Every way a pool can end: asked to, dropped, at interpreter exit; idle, busy, starting, broken, fed."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
import pytest

from gpool import Future, Group, GroupBroken, GroupedPool, PoolClosed
from gpool.deliveries import UNREAD_LIMIT
from gpool.workers.backend import Settings
from gpool.workers.process import Host, WorkerProcess
from tests.conftest import METHODS
from tests.gates import Gate, pass_gate
from tests.programs import left_alive, run_script

MakePool = Callable[..., GroupedPool]
End = Callable[[GroupedPool], None]

ENDS: dict[str, End] = {
    "stop": GroupedPool.stop,
    "shutdown": GroupedPool.shutdown,
    "shutdown, cancel": lambda pool: pool.shutdown(cancel_futures=True),
}


@pytest.fixture(params=ENDS)
def end(request: pytest.FixtureRequest) -> End:
    """A way to end a pool and wait for that."""
    return ENDS[request.param]


@pytest.fixture
def leftovers() -> Callable[[], list[str]]:
    """Gives the names of the threads that are new since the test began."""
    before = set(threading.enumerate())
    return lambda: [thread.name for thread in threading.enumerate() if thread not in before]


def _aside(do: Callable[[], object]) -> threading.Thread:
    """Do something in a thread."""
    thread = threading.Thread(target=do)
    thread.start()
    return thread


def _in_handler(pool: GroupedPool, do: Callable[[], Any], kind: str) -> Any:
    """Do something in a callback of ``put``, or in a done-callback, and return what it returned."""
    answers: SimpleQueue[Any] = SimpleQueue()

    def handler(_: object) -> None:
        try:
            answers.put(do())
        except BaseException as error:
            answers.put(error)

    if kind == "callback":
        pool.put(None, abs, (1,), callback=handler)
    else:
        pool.submit(abs, 1).add_done_callback(handler)
    return answers.get(timeout=60)


def _workers(pool: GroupedPool) -> list[psutil.Process]:
    return [psutil.Process(worker.pid) for worker in pool.stats().workers if worker.pid]


def _ended_well(future: Future[Any]) -> bool:
    """True for a future that ended by a value or by having been cancelled."""
    try:
        future.result(timeout=60)
    except CancelledError:
        return future.cancelled()
    return True


# -- shutdown and stop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("waiting", [False, True])
def test_inv08_shutdown_finishes_what_it_does_not_cancel(
    local_pool: MakePool, gate: Gate, waiting: bool, cancel: bool
) -> None:
    pool = local_pool(1)
    running = pool.submit(pass_gate, gate.path, "ran")
    gate.arrivals(1)
    queued = [pool.submit(abs, -n) for n in range(20)]
    processes = _workers(pool)
    asking = _aside(lambda: pool.shutdown(waiting, cancel_futures=cancel))
    if cancel:
        wait(queued)
    if not waiting:
        asking.join(60)
    assert asking.is_alive() is waiting, "the gate is closed"
    assert not running.done()
    gate.open()
    asking.join(60)
    assert running.result() == "ran"
    if waiting:
        assert not any(process.is_running() for process in processes)
    if cancel:
        assert all(future.cancelled() for future in queued)
    else:
        assert [future.result() for future in queued] == list(range(20))
    with pytest.raises(PoolClosed):
        pool.submit(abs, 1)


def test_when_it_returns_nothing_is_left(local_pool: MakePool, end: End, leftovers: Callable[[], list[str]]) -> None:
    pool = local_pool(2)
    pool.put(None, abs, (-1,), callback=str)
    list(pool.map(abs, range(50)))
    processes = _workers(pool)
    end(pool)
    assert leftovers() == []
    assert not any(process.is_running() for process in processes)


@pytest.mark.parametrize("first", ENDS)
def test_ending_twice_is_ending_once(local_pool: MakePool, end: End, first: str) -> None:
    pool = local_pool(1)
    future = pool.submit(abs, -1)
    ENDS[first](pool)
    end(pool)
    assert _ended_well(future)
    assert pool.join(60)


def test_many_threads_end_a_pool_at_once(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    futures = [pool.submit(pass_gate, gate.path) for _ in range(20)]
    gate.arrivals(2)
    asking = [_aside(lambda do=do: do(pool)) for do in (*ENDS.values(), *ENDS.values())]
    for thread in asking:
        thread.join(60)
    assert not any(thread.is_alive() for thread in asking)
    assert all(_ended_well(future) for future in futures)


def test_stop_overtakes_a_shutdown_that_waits(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1)
    running = pool.submit(pass_gate, gate.path)
    gate.arrivals(1)
    asking = _aside(pool.shutdown)
    pool.stop()
    asking.join(60)
    assert not asking.is_alive()
    assert running.cancelled()


def test_nothing_is_written_to_descriptors_the_pool_has_closed(local_pool: MakePool) -> None:
    pool = local_pool(1)
    pool.submit(abs, 1).result()
    pool.stop()
    files = [os.memfd_create("user's") for _ in range(40)]  # the lowest numbers free: those the pool had
    try:
        pool.stats()
        pool.shutdown()
        pool.stop()
        assert sum(os.fstat(file).st_size for file in files) == 0
    finally:
        for file in files:
            os.close(file)


# -- from handlers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["callback", "done-callback"])
def test_ended_from_a_handler(local_pool: MakePool, gate: Gate, end: End, kind: str) -> None:
    pool = local_pool(2)
    held = pool.submit(pass_gate, gate.path)
    gate.arrivals(1)
    processes = _workers(pool)
    queued = [pool.submit(abs, -n) for n in range(50)]

    def ending() -> list[bool]:
        gate.open()
        end(pool)
        return [process.is_running() for process in processes] + [not each.done() for each in (held, *queued)]

    assert not any(_in_handler(pool, ending, kind)), "it has waited for all but the handler itself"
    assert all(_ended_well(each) for each in (held, *queued))


@pytest.mark.parametrize("kind", ["callback", "done-callback"])
def test_join_in_a_handler_does_not_wait_for_the_handler(local_pool: MakePool, kind: str) -> None:
    pool = local_pool(1)
    assert _in_handler(pool, lambda: pool.join(60), kind) is True
    assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("ended", [GroupedPool.join, GroupedPool.shutdown])
def test_handlers_however_slow_are_waited_for(local_pool: MakePool, ended: Callable[[GroupedPool], object]) -> None:
    handled: list[int] = []

    def slow(value: int) -> None:
        time.sleep(0.6)
        handled.append(value)

    pool = local_pool(1)
    for n in range(2):
        pool.put(None, abs, (-n,), callback=slow)
    ended(pool)
    assert handled == [0, 1]


def test_stop_while_a_handler_blocks(local_pool: MakePool, leftovers: Callable[[], list[str]]) -> None:
    pool = local_pool(1)
    entered, leave = threading.Event(), threading.Event()
    pool.put(None, abs, (1,), callback=lambda value: (entered.set(), leave.wait()))
    entered.wait(60)
    pool.stop()
    assert len(leftovers()) == 1, "the thread that stands in the handler"
    leave.set()


def test_stop_hands_out_no_more_results(local_pool: MakePool) -> None:
    pool = local_pool(1)
    entered, leave = threading.Event(), threading.Event()
    handled: list[int] = []

    def block(value: int) -> None:
        handled.append(value)
        entered.set()
        leave.wait()

    for n in range(5):
        pool.put(None, abs, (n,), callback=block)
    assert pool.submit(abs, -1).result() == 1
    entered.wait(60)
    pool.stop()
    leave.set()
    for thread in threading.enumerate():
        if thread.daemon and thread.name.startswith("gpool"):
            thread.join(60)
    assert handled == [0]


# -- during start-up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_ended_before_a_worker_is_up(local_pool: MakePool, end: End, method: str) -> None:
    pool = local_pool(3, mp_context=method)
    futures = [pool.submit(abs, -n) for n in range(3)]
    end(pool)
    assert all(future.done() and _ended_well(future) for future in futures)


@pytest.mark.parametrize("method", METHODS)
def test_an_unused_pool_ends(local_pool: MakePool, end: End, method: str) -> None:
    end(local_pool(3, mp_context=method))


@pytest.mark.parametrize("method", METHODS)
def test_stop_while_an_initializer_runs(local_pool: MakePool, gate: Gate, method: str) -> None:
    pool = local_pool(1, mp_context=method, initializer=pass_gate, initargs=(gate.path,))
    future = pool.submit(abs, -1)
    gate.arrivals(1)
    processes = [each for each in psutil.Process().children(recursive=True) if "_tracker" not in str(each.cmdline())]
    pool.stop()
    assert future.cancelled()
    assert not any(process.is_running() for process in processes)


def test_shutdown_while_an_initializer_runs_still_runs_what_was_submitted(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1, initializer=pass_gate, initargs=(gate.path,))
    future = pool.submit(abs, -1)
    gate.arrivals(1)
    pool.shutdown(wait=False)
    assert not future.done()
    gate.open()
    assert future.result(60) == 1


# -- feeds ------------------------------------------------------------------------------------------------------


def test_endless_feeds_end_with_the_pool(local_pool: MakePool, leftovers: Callable[[], list[str]]) -> None:
    came = threading.Event()
    pool = local_pool(2, callback=lambda value: came.set())
    feeds = [pool.ingest(itertools.count(), None, abs) for _ in range(3)]
    came.wait(60)
    pool.stop()
    assert leftovers() == []
    assert not any(feed.is_alive() for feed in feeds)
    assert all(feed.join(60) for feed in feeds)


def test_shutdown_that_cancels_ends_endless_feeds(local_pool: MakePool, leftovers: Callable[[], list[str]]) -> None:
    came = threading.Event()
    pool = local_pool(2, callback=lambda value: came.set())
    feed = pool.ingest(itertools.count(), None, abs)
    results = pool.map(abs, itertools.count())
    came.wait(60)
    pool.shutdown(cancel_futures=True)
    assert leftovers() == []
    assert not feed.is_alive()
    with suppress(CancelledError):
        assert len(list(results)) < 10**9


def test_shutdown_finishes_finite_feeds(local_pool: MakePool) -> None:
    handled: list[int] = []
    pool = local_pool(2, callback=handled.append)
    pool.ingest(range(300), None, abs)
    pool.shutdown()
    assert sorted(handled) == list(range(300))


def test_shutdown_does_not_wait_for_a_reader(local_pool: MakePool) -> None:
    """It may well be the one that waits in ``shutdown``."""
    pool = local_pool(2)
    results = pool.map(abs, itertools.count(), buffersize=5)
    assert next(results) == 0
    pool.shutdown()
    assert [next(results) for _ in range(5)] == list(range(1, 6))
    with pytest.raises(PoolClosed):
        next(results)
    assert not list(results)


def test_shutdown_waits_for_readers_that_read_on(local_pool: MakePool) -> None:
    """Another thread, or another feed of the pool's."""
    pool = local_pool(2, callback=id)
    fed = pool.ingest(pool.map(abs, range(300), buffersize=5), None, abs)
    results = pool.map(abs, range(300), buffersize=5)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(list, results)
        pool.shutdown()
        assert read.result(60) == list(range(300))
    assert fed.drawn == 300


def test_shutdown_lets_a_feed_draw_what_its_reader_has_room_for(local_pool: MakePool) -> None:
    for items in (range(3), [0, 1, 2], iter([0, 1, 2])):
        for _ in range(5):
            pool = local_pool(1)
            results = pool.map(abs, items, buffersize=3)
            pool.shutdown()
            assert list(results) == [0, 1, 2]
            items = iter([0, 1, 2]) if isinstance(items, Iterator) else items  # noqa: PLW2901


def test_shutdown_does_not_wait_for_a_reader_of_the_pool(local_pool: MakePool) -> None:
    pool = local_pool(2)
    pool.ingest(range(200 * UNREAD_LIMIT), None, abs)
    results = iter(pool)
    next(results)
    pool.shutdown()
    assert len(list(results)) == 200 * UNREAD_LIMIT - 1


@pytest.mark.parametrize("name", ["stop", "shutdown, cancel"])
def test_ended_while_next_blocks(local_pool: MakePool, leftovers: Callable[[], list[str]], name: str) -> None:
    entered, leave = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        entered.set()
        leave.wait()
        yield 2

    pool = local_pool(1, callback=id)
    feed = pool.ingest(items(), None, abs)
    entered.wait(60)
    asking = _aside(lambda: ENDS[name](pool))
    try:
        asking.join(20)
        assert not asking.is_alive()
        assert len(leftovers()) == 1, "the thread that stands in next()"
    finally:
        leave.set()
        asking.join(60)
    assert feed.join(60)


def test_stop_wakes_readers(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1)
    pool.ingest([gate.path], None, pass_gate)
    results = pool.map(pass_gate, [gate.path])
    gate.arrivals(1)
    ends: SimpleQueue[Any] = SimpleQueue()

    def read() -> None:
        try:
            ends.put(next(results))
        except BaseException as error:
            ends.put(type(error))

    threads = [_aside(read), _aside(lambda: ends.put(list(pool)))]
    pool.stop()
    for thread in threads:
        thread.join(60)
    seen = [ends.get(timeout=60) for _ in threads]
    assert [] in seen
    assert CancelledError in seen or StopIteration in seen


def test_put_that_waits_when_the_pool_stops_raises(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(tags={"a": 1, None: 0})
    pool.put("a", pass_gate, (gate.path,))
    waiting = threading.Semaphore(0)
    seen: SimpleQueue[BaseException] = SimpleQueue()

    def put() -> None:
        waiting.release()
        try:
            pool.put("a", abs, (1,))
        except BaseException as error:
            seen.put(error)

    threads = [_aside(put) for _ in range(5)]
    for _ in threads:
        waiting.acquire()
    pool.stop()
    assert [type(seen.get(timeout=60)) for _ in threads] == [PoolClosed] * 5
    for thread in threads:
        thread.join()


# -- broken groups ----------------------------------------------------------------------------------------------


def _fail() -> None:
    raise RuntimeError("no database")


def test_a_broken_group_keeps_no_pool_from_ending(local_pool: MakePool) -> None:
    pool = local_pool(tags={"bad": Group(1, initializer=_fail), "good": 1})
    assert isinstance(pool.group("bad").submit(abs, 1).exception(60), GroupBroken)
    good = pool.group("good").submit(abs, -1)
    pool.shutdown()
    assert good.result() == 1


def test_ended_while_a_group_breaks(local_pool: MakePool, end: End) -> None:
    pool = local_pool(2, initializer=_fail)
    futures = [pool.submit(abs, -n) for n in range(10)]
    end(pool)
    assert all(future.done() for future in futures)
    assert all(future.cancelled() or isinstance(future.exception(), (GroupBroken, PoolClosed)) for future in futures)


# -- join -------------------------------------------------------------------------------------------------------


def test_join_leaves_the_pool_usable(local_pool: MakePool, gate: Gate) -> None:
    handled: list[int] = []
    pool = local_pool(2, callback=handled.append)
    pool.submit(pass_gate, gate.path)
    gate.arrivals(1)
    assert pool.join(0) is False
    gate.open()
    for expected in (5, 10):
        pool.ingest(range(5), None, abs)
        assert pool.join(60)
        assert len(handled) == expected
        assert pool.pending == 0


# -- worker processes that do not end by themselves -------------------------------------------------------------


def test_a_thread_that_a_task_left_does_not_keep_the_worker(local_pool: MakePool) -> None:
    pool = local_pool(1)
    pool.submit(lambda: threading.Thread(target=threading.Event().wait).start()).result()
    (worker,) = _workers(pool)
    asking = _aside(pool.shutdown)
    asking.join(20)
    try:
        assert not asking.is_alive()
    finally:
        if worker.is_running():
            worker.kill()
        asking.join(60)


# -- dropped pools ----------------------------------------------------------------------------------------------


def test_a_busy_pool_that_is_dropped_finishes_and_goes(gate: Gate, leftovers: Callable[[], list[str]]) -> None:
    pool = [GroupedPool(2)]
    futures = [pool[0].submit(pass_gate, gate.path, n) for n in range(10)]
    gate.arrivals(2)
    processes = _workers(pool[0])
    pool.clear()
    gc.collect()
    assert not any(future.done() for future in futures)
    gate.open()
    assert [future.result(60) for future in futures] == list(range(10))
    assert not left_alive(processes)
    for thread in [each for each in threading.enumerate() if each.name in leftovers()]:
        thread.join(60)
    assert leftovers() == []


def test_a_dropped_pool_needs_no_collector_to_go() -> None:
    pool = [GroupedPool(1)]
    pool[0].submit(abs, 1).result()
    gone = threading.Event()
    weakref.finalize(pool[0], gone.set)
    gc.collect()
    gc.disable()
    try:
        pool.clear()
        assert gone.is_set()
    finally:
        gc.enable()


def test_a_dropped_pool_delivers_what_was_put() -> None:
    handled: SimpleQueue[int] = SimpleQueue()
    pool = [GroupedPool(1)]
    for n in range(3):
        pool[0].put(None, abs, (n,), callback=handled.put)
    pool.clear()
    gc.collect()
    assert [handled.get(timeout=60) for _ in range(3)] == [0, 1, 2]


def test_a_feed_keeps_a_dropped_pool_until_it_has_ended() -> None:
    handled: SimpleQueue[int] = SimpleQueue()
    items: SimpleQueue[int | None] = SimpleQueue()
    pool = [GroupedPool(1, callback=handled.put)]
    pool[0].ingest(iter(items.get, None), None, abs)
    gone = weakref.ref(pool[0])
    pool.clear()
    gc.collect()
    items.put(-1)
    assert handled.get(timeout=60) == 1
    assert gone() is not None
    items.put(-2)
    items.put(None)
    assert handled.get(timeout=60) == 2


@pytest.mark.parametrize(
    "keeper",
    [
        lambda pool: pool.group(None),
        lambda pool: pool.options(retries=1),
        lambda pool: pool.map(abs, [1, 2]),
        lambda pool: pool.map_unordered(abs, [1, 2]),
        lambda pool: iter(pool),
    ],
    ids=["group", "options", "map", "map_unordered", "iter"],
)
def test_views_and_iterators_keep_the_pool(keeper: Callable[[GroupedPool], Any]) -> None:
    pool = [GroupedPool(1)]
    kept = [keeper(pool[0])]
    gone = weakref.ref(pool[0])
    pool.clear()
    gc.collect()
    assert gone() is not None
    if isinstance(kept[0], Iterator):
        assert len(list(kept[0])) in (0, 2)
    else:
        assert kept[0].submit(abs, -1).result() == 1
    kept.clear()
    while gone() is not None:  # a thread may be about to let go of it
        gc.collect()


def test_futures_do_not_keep_the_pool() -> None:
    pool = [GroupedPool(1)]
    futures = [pool[0].submit(os.getpid), pool[0].put(None, os.getpid)]
    worker = psutil.Process(futures[0].result(60))
    assert pool[0].join(60)
    pool.clear()
    gc.collect()
    assert not left_alive([worker])
    assert futures[1].result() == worker.pid


# -- interpreter exit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_exit_finishes_what_was_submitted_and_not_cancelled(tmp_path: Path, method: str) -> None:
    done = run_script(
        tmp_path,
        f"""
        import atexit, pathlib
        futures = []
        def tell():
            print(sum(future.cancelled() or type(future.exception()).__name__ == "PoolClosed" for future in futures))
        atexit.register(tell)
        import gpool
        pool = gpool.GroupedPool(1, mp_context={method!r})
        note = lambda n: pathlib.Path({str(tmp_path)!r}, f"done-{{n}}").touch()
        futures += [pool.submit(note, n) for n in range(30)]
        assert futures[29].cancel() and futures[28].cancel()
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ran, refused = len(list(tmp_path.glob("done-*"))), int(done.stdout)
    assert ran + refused == 30
    assert (ran, refused) == (28, 2)


@pytest.mark.parametrize("method", METHODS)
def test_exit_says_how_many_tasks_could_get_no_worker(tmp_path: Path, method: str) -> None:
    done = run_script(
        tmp_path,
        f"""
        import atexit, threading
        futures, exiting = [], threading.Event()
        def tell():
            print(*(type(future.exception()).__name__ for future in futures))
        atexit.register(tell)
        import gpool
        from gpool.supervisor import Supervisor
        from gpool.workers.process import Host
        def launch(self, settings, name):
            exiting.wait()
            raise RuntimeError("can't fork at interpreter shutdown")
        def wait_closed(self, timeout, wait=Supervisor.wait_closed):
            exiting.set()
            return wait(self, timeout)
        pool = gpool.GroupedPool(tags={{"a": 1, None: 0}}, mp_context={method!r})
        pool.adjust("a", 0, wait=True)
        Host.launch, Supervisor.wait_closed = launch, wait_closed
        pool.adjust("a", 1)
        futures += [pool.group("a").submit(abs, -n) for n in range(3)]
        """,
    )
    assert (done.returncode, done.stdout) == (0, "PoolClosed PoolClosed PoolClosed\n")
    assert done.stderr == "the interpreter exits: 3 task(s) could get no worker and ended in PoolClosed\n"


def test_with_fork_a_program_that_may_not_fork_at_its_end_has_its_workers_before(
    monkeypatch: pytest.MonkeyPatch, local_pool: MakePool
) -> None:
    launched: list[str] = []
    launch = Host.launch

    def noted(self: Host, settings: Settings, name: str) -> WorkerProcess:
        made = launch(self, settings, name)
        launched.append(name)
        return made

    monkeypatch.setattr(Host, "launch", noted)
    monkeypatch.setattr("gpool.pool._FORKS_AT_EXIT", False)
    local_pool(tags={"a": 2, None: 3}, mp_context="fork")
    assert len(launched) == 5


def test_at_exit_pools_come_first(tmp_path: Path) -> None:
    """There they deal with a Ctrl-C; in what else runs at exit the interpreter prints it and goes on to wait."""
    done = run_script(
        tmp_path,
        """
        import atexit
        registered = []
        def note(call, register=atexit.register):
            registered.append(call.__qualname__)
            return register(call)
        atexit.register = note
        import gpool
        pool = gpool.GroupedPool(1)
        print(list(pool.map(lambda n: n, [7])), registered[-1])
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[7] _exit_all\n", "")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("use", ["", "pool.submit(abs, 1).result()", "pool.shutdown(wait=False)", "pool.stop()"])
def test_exit_with_nothing_to_do(tmp_path: Path, method: str, use: str) -> None:
    done = run_script(tmp_path, f"import gpool\npool = gpool.GroupedPool(2, mp_context={method!r})\n{use}\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_FEEDS = {
    "endless": "itertools.count()",
    "blocking": "iter(queue.SimpleQueue().get, None)",
    "blocks later": "itertools.chain(range(5), iter(queue.SimpleQueue().get, None))",
}


@pytest.mark.parametrize("feed", _FEEDS)
@pytest.mark.parametrize("how", ["pool.ingest({}, None, abs)", "rows = pool.map(abs, {})"])
def test_exit_while_a_feed_is_alive(tmp_path: Path, feed: str, how: str) -> None:
    done = run_script(
        tmp_path,
        f"""
        import gpool, itertools, queue
        pool = gpool.GroupedPool(2, callback=id)
        {how.format(_FEEDS[feed])}
        pool.submit(abs, 1).result()
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_exit_waits_for_handlers(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import gpool, time
        pool = gpool.GroupedPool(1)
        def slow(value):
            time.sleep(0.6)
            print("handled", value, flush=True)
        for n in range(2):
            pool.put(None, abs, (n,), callback=slow)
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "handled 0\nhandled 1\n", "")


_LATE = """
import atexit, sys, threading, itertools
def say(do):
    try:
        print("got", do())
    except Exception as error:
        print(type(error).__name__)
def late():
    import gpool
    {body}
{before}
import gpool
pool = gpool.GroupedPool(2)
{warm}
{after}
"""

_LATE_BODIES = {
    "create": "say(lambda: gpool.GroupedPool(1).submit(abs, -1).result())",
    "submit": "say(lambda: pool.submit(abs, -1).result())",
    "put": "say(lambda: pool.put(None, abs, (-1,)).result())",
    "map": "say(lambda: list(pool.map(abs, [-1])))",
    "ingest": "say(lambda: pool.ingest([-1], None, abs).join())",
    "iterate": "say(lambda: (pool.put(None, abs, (-1,)), list(pool)))",
    "stop": "say(pool.stop)",
    "map, shutdown": "say(lambda: list(pool.map(abs, [-1]))); say(pool.shutdown)",
    "ingest, join": "say(lambda: pool.ingest([-1], None, abs)); say(pool.join)",
    "adjust": "say(lambda: (pool.adjust(None, 4, wait=True), pool.submit(abs, -1).result()))",
}
_LATE_MOMENTS = {
    "atexit, after the pool": ("atexit.register(late)", ""),
    "atexit, before the pool": ("", "atexit.register(late)"),
    "thread": (
        "",
        "threading.Thread(target=lambda: (threading.main_thread().join(), late())).start()",
    ),
}


@pytest.mark.parametrize("moment", _LATE_MOMENTS)
@pytest.mark.parametrize("body", _LATE_BODIES)
def test_used_at_exit_it_finishes_or_raises_pool_closed(tmp_path: Path, moment: str, body: str) -> None:
    before, after = _LATE_MOMENTS[moment]
    warm = "pool.submit(abs, 1).result()"
    source = _LATE.format(body=_LATE_BODIES[body], before=before, after=after, warm=warm)
    done = run_script(tmp_path, source)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines
    assert not [line for line in lines if line != "PoolClosed" and not line.startswith("got")]


@pytest.mark.parametrize("method", METHODS)
def test_exit_while_workers_die_settles_every_task(tmp_path: Path, method: str) -> None:
    done = run_script(
        tmp_path,
        f"""
        import atexit, os
        futures = []
        def tell():
            assert all(future.done() for future in futures)
            kinds = [type(future.exception()).__name__ for future in futures]
            print(kinds[0], kinds.count("NoneType"), kinds.count("PoolClosed"))
        atexit.register(tell)
        import gpool
        pool = gpool.GroupedPool(1, mp_context={method!r})
        pool.submit(abs, 1).result()
        futures += [pool.submit(os._exit, 7)] + [pool.submit(abs, -n) for n in range(20)]
        """,
    )
    first, served, unserved = done.stdout.split()
    assert (done.returncode, first, int(served) + int(unserved)) == (0, "WorkerCrashed", 20)
    said = f"the interpreter exits: {unserved} task(s) could get no worker and ended in PoolClosed\n"
    assert done.stderr == (said if int(unserved) else "")
    if method != "fork" or sys.version_info[:2] != (3, 12):  # there an interpreter that exits cannot fork
        assert unserved == "0"


@pytest.mark.parametrize("scope", ["if True", "with pool"])
@pytest.mark.parametrize(
    ("ending", "code", "tracebacks"),
    [("sys.exit(3)", 3, 0), ("raise LookupError('mine')", 1, 1), ("sys.exit('words')", 1, 0)],
)
def test_exit_codes_and_tracebacks_are_the_users(
    tmp_path: Path, scope: str, ending: str, code: int, tracebacks: int
) -> None:
    done = run_script(
        tmp_path,
        f"""
        import gpool, itertools, pathlib, sys
        pool = gpool.GroupedPool(2)
        {scope}:
            futures = [pool.submit(lambda: pathlib.Path({str(tmp_path)!r}, "done").touch()) for _ in range(5)]
            {ending}
        """,
    )
    assert done.returncode == code
    assert done.stderr.count("Traceback") == tracebacks
    assert not done.stderr or done.stderr.strip().endswith(("LookupError: mine", "words"))
    assert (tmp_path / "done").exists()
