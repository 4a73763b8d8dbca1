"""A pool among the user's own forks, threads, locks and processes, and a pool inside a pool."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpool import Future, Group, GroupedPool, PoolClosed
from tests import programs
from tests.conftest import METHODS
from tests.gates import Gate, pass_gate
from tests.programs import left_alive, run_script

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="it is about fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),  # what newer versions say at a fork
]

MakePool = Callable[..., GroupedPool]


def _in_child(do: Callable[[], object]) -> int:
    """Fork, do something in the child; its exit code is 0 if that returned something true, and 3 if it hung."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, lambda *_: os._exit(3))
            signal.alarm(30)
            code = 0 if do() else 2
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _raises_closed(use: Callable[[], object]) -> bool:
    try:
        use()
    except PoolClosed:
        return True
    return False


# -- the user forks ---------------------------------------------------------------------------------------------

_USES: dict[str, Callable[[GroupedPool], object]] = {
    "submit": lambda pool: pool.submit(abs, 1),
    "put": lambda pool: pool.put(None, abs, (1,)),
    "ingest": lambda pool: pool.ingest([1], None, abs),
    "map": lambda pool: list(pool.map(abs, [1])),
    "map_unordered": lambda pool: list(pool.map_unordered(abs, [1])),
    "group": lambda pool: pool.group(None).submit(abs, 1),
    "options": lambda pool: pool.options(retries=1).submit(abs, 1),
    "adjust": lambda pool: pool.adjust(None, 3),
    "iteration": lambda pool: next(iter(pool), None),
    "stats": lambda pool: pool.stats(),
    "join": lambda pool: pool.join(),
    "stop": lambda pool: pool.stop(),
    "shutdown": lambda pool: pool.shutdown(),
}


@pytest.mark.parametrize("use", _USES)
def test_inv20_every_use_in_a_forked_child_raises(local_pool: MakePool, gate: Gate, use: str) -> None:
    pool = local_pool(1)
    running = pool.submit(pass_gate, gate.path, "ran")
    queued = pool.submit(abs, -1)
    gate.arrivals(1)
    assert _in_child(lambda: _raises_closed(lambda: _USES[use](pool))) == 0
    gate.open()
    assert (running.result(), queued.result(), pool.submit(abs, -2).result()) == ("ran", 1, 2)


def test_inv20_a_child_may_leave_with_and_drop_what_it_inherited(local_pool: MakePool, gate: Gate) -> None:
    pool = [local_pool(1)]
    rows = [pool[0].map(abs, range(10)), iter(pool[0])]
    next(rows[0])
    running = pool[0].submit(pass_gate, gate.path, "ran")
    gate.arrivals(1)

    def drop() -> bool:
        ends = [end for _ in range(30) for end in socket.socketpair()]  # the lowest numbers: those the pool had
        for end in ends:
            end.setblocking(False)
        rows.clear()
        pool.clear()
        gc.collect()
        return not any(map(_has_data, ends))

    assert _in_child(drop) == 0
    gate.open()
    assert running.result() == "ran"


def _has_data(end: socket.socket) -> bool:
    with suppress(BlockingIOError):
        return bool(end.recv(1))
    return False


@pytest.mark.parametrize("method", METHODS)
def test_inv20_a_child_that_lives_on_keeps_no_worker_alive(local_pool: MakePool, gate: Gate, method: str) -> None:
    pool = local_pool(2, mp_context=method)
    for _ in range(2):
        pool.submit(pass_gate, gate.path)
    gate.arrivals(2)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(theirs)
        os._exit(len(os.read(ours, 1)))  # until the test closes its end
    workers = [psutil.Process(worker.pid) for worker in pool.stats().workers if worker.pid]
    assert len(workers) == 2
    pool.stop()
    assert not any(worker.is_running() for worker in workers)
    os.close(theirs)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(ours)


@pytest.mark.parametrize("method", METHODS)
def test_inv14_20_nor_does_it_when_the_program_is_killed(tmp_path: Path, gate: Gate, method: str) -> None:
    source = f"""
    import gpool, os, signal, sys
    from tests.gates import pass_gate
    pool = gpool.GroupedPool(2, mp_context={method!r})
    held = [pool.submit(pass_gate, {gate.path!r}) for _ in range(2)]
    while not all(future.running() for future in held):
        pass
    if os.fork() == 0:
        pass_gate({gate.path!r})
        os._exit(0)
    print(*(worker.pid for worker in pool.stats().workers), flush=True)
    signal.pause()
    """
    program = programs.start([sys.executable, "-W", "ignore", str(programs.script(tmp_path, source))])
    try:
        gate.arrivals(3)
        assert program.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in program.stdout.readline().split()]
        program.kill()
        assert not left_alive(workers)
    finally:
        gate.open()
        programs.end(program)


@pytest.mark.parametrize("method", METHODS)
def test_inv20_a_child_makes_a_pool_of_its_own(local_pool: MakePool, gate: Gate, method: str) -> None:
    pool = local_pool(1, mp_context=method)
    running = pool.submit(pass_gate, gate.path, "ran")
    gate.arrivals(1)

    def own_pool() -> bool:
        with GroupedPool(1, mp_context=method) as own:
            return list(own.map(abs, [-1, -2])) == [1, 2] and own.submit(lambda: 3).result() == 3

    assert _in_child(own_pool) == 0
    gate.open()
    assert running.result() == "ran"


def test_inv20_a_child_makes_a_pool_though_a_lock_was_held_when_it_was_forked(local_pool: MakePool) -> None:
    future = local_pool(1).submit(abs, -1)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with future._condition:  # as ``concurrent.futures.wait`` does
            held.set()
            let_go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()

    def own_pool() -> bool:
        with GroupedPool(1) as own:
            return bool(own.submit(abs, -2).result() == 2)

    try:
        assert _in_child(own_pool) == 0
    finally:
        let_go.set()
        holder.join()


def test_inv20_children_forked_while_the_pool_is_busy(local_pool: MakePool) -> None:
    pool = local_pool(2)
    futures: list[Future[int]] = []
    for _ in range(20):
        futures += [pool.submit(abs, -n) for n in range(200)]
        assert _in_child(lambda: _raises_closed(lambda: pool.submit(abs, 1))) == 0
    assert [future.result() for future in futures] == list(range(200)) * 20


def test_inv20_what_has_not_ended_does_not_end_in_a_forked_child(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1)
    future = pool.submit(pass_gate, gate.path, 7)
    results = pool.map(abs, range(-10, 0))
    assert _in_child(lambda: _raises_closed(future.result)) == 0
    assert _in_child(lambda: _raises_closed(lambda: next(results))) == 0
    gate.open()
    assert future.result(60) == 7
    assert list(results) == list(range(10, 0, -1))


@pytest.mark.parametrize("method", METHODS)
def test_inv20_a_forked_child_exits_as_any_other(tmp_path: Path, method: str) -> None:
    done = run_script(
        tmp_path,
        f"""
        import gpool, os, sys, warnings
        warnings.simplefilter("ignore")
        pool = gpool.GroupedPool(2, mp_context={method!r})
        future = pool.submit(abs, -1)
        rows = pool.map(abs, range(100))
        next(rows)
        pid = os.fork()
        if pid == 0:
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert list(rows) == list(range(1, 100)) and future.result() == 1
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- locks held while workers start -----------------------------------------------------------------------------


class _Locks:
    """Threads of the user's, each of which holds a lock of its own, and all one that logging holds too."""

    def __init__(self, count: int) -> None:
        self._let_go = threading.Event()
        self._ready = threading.Barrier(count + 1)
        self.handlers = [logging.NullHandler() for _ in range(count)]
        self._own = {each: threading.Lock() for each in self.handlers}
        self._threads = [threading.Thread(target=self._hold, args=(each,)) for each in self.handlers]

    def _hold(self, handler: logging.Handler) -> None:
        handler.acquire()
        with self._own[handler]:
            self._ready.wait()
            self._let_go.wait()
        handler.release()

    def __enter__(self) -> _Locks:
        for thread in self._threads:
            thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_start_while_50_threads_hold_locks(local_pool: MakePool, method: str) -> None:
    with _Locks(50) as locks:
        logger = logging.getLogger("tests.locked")
        logger.handlers[:] = locks.handlers
        try:
            pool = local_pool(3, mp_context=method)
            assert list(pool.map(abs, range(-20, 0))) == list(range(20, 0, -1))
            pool.adjust(None, 5)
            assert pool.submit(_log_and_lock).result() == "fine"
        finally:
            logger.handlers.clear()


def _log_and_lock() -> str:
    lock = threading.Lock()
    with lock:
        logging.getLogger("tests.elsewhere").warning("from a worker")
    return "fine"


# -- processes in tasks -----------------------------------------------------------------------------------------


def _nested(method: str) -> list[int]:
    with GroupedPool(2, mp_context=method) as inner:
        return list(inner.map(lambda n: n * n, range(5)))


def _nested_and_left() -> list[int]:
    inner = GroupedPool(1)
    globals()["_kept"] = inner
    return [inner.submit(os.getpid).result(), *(child.pid for child in psutil.Process().children())]


def _run_process(method: str | None) -> int | None:
    process = multiprocessing.get_context(method).Process(target=os._exit, args=(7,))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("inner", METHODS)
def test_a_task_makes_a_pool(local_pool: MakePool, method: str, inner: str) -> None:
    pool = local_pool(1, mp_context=method)
    for _ in range(2):
        assert pool.submit(_nested, inner).result() == [0, 1, 4, 9, 16]


def test_a_pool_that_a_task_made_goes_with_its_worker(local_pool: MakePool) -> None:
    pool = local_pool(1)
    inner = [psutil.Process(pid) for pid in pool.submit(_nested_and_left).result()]
    pool.stop()
    assert not left_alive(inner)


def test_inv13_a_pool_that_a_task_made_goes_with_the_task(local_pool: MakePool, gate: Gate, tmp_path: Path) -> None:
    note = tmp_path / "pids"

    def make() -> None:
        pids = _nested_and_left()
        note.write_text(" ".join(map(str, pids)))
        pass_gate(gate_path)

    gate_path = gate.path
    pool = local_pool(1)
    running = pool.submit(make)
    gate.arrivals(1)
    inner = [psutil.Process(int(pid)) for pid in note.read_text().split()]
    assert running.cancel(kill=True)
    assert not left_alive(inner)
    assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("inner", [None, *METHODS])
def test_a_task_starts_a_process(local_pool: MakePool, method: str, inner: str | None) -> None:
    pool = local_pool(1, mp_context=method)
    assert pool.submit(_run_process, inner).result() == 7


@pytest.mark.parametrize("method", METHODS)
def test_a_task_starts_a_program(local_pool: MakePool, method: str) -> None:
    pool = local_pool(1, mp_context=method)
    command = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT) is not None, 6 * 7)"]
    assert pool.submit(subprocess.check_output, command).result() == b"True 42\n"


@pytest.mark.parametrize("method", METHODS)
def test_a_task_forks(local_pool: MakePool, method: str) -> None:
    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            return 1  # the child must not go on as a worker
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    pool = local_pool(1, mp_context=method)
    assert [pool.submit(fork).result() for _ in range(3)] == [0] * 3
    assert pool.submit(abs, -1).result() == 1


# -- many threads -----------------------------------------------------------------------------------------------


def _client(pool: GroupedPool, seed: int, outcomes: list[tuple[int, object]]) -> None:
    """Submit, cancel and resize at random; note what came of each task."""
    chance = random.Random(seed)
    futures: list[tuple[int, Future[Any]]] = []
    for n in range(120):
        tag = chance.choice(["a", "b", None])
        futures.append((n, pool.group(tag).submit(abs, -n)))
        if chance.random() < 0.2:
            futures[chance.randrange(len(futures))][1].cancel(kill=chance.random() < 0.2)
        if chance.random() < 0.05:
            pool.adjust(tag, chance.randrange(1, 4))
    for n, future in futures:
        try:
            outcomes.append((n, future.result(60)))
        except CancelledError:
            outcomes.append((n, None))


def test_inv08_many_threads_submit_cancel_and_resize(local_pool: MakePool) -> None:
    pool = local_pool(tags={"a": 1, "b": Group(1, weight=2), None: 2})
    outcomes: list[tuple[int, object]] = []
    threads = [threading.Thread(target=_client, args=(pool, seed, outcomes)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 12 * 120
    assert all(value in (n, None) for n, value in outcomes)
    assert pool.join(60)
    assert pool.pending == 0
    assert pool.submit(abs, -5).result() == 5


def test_many_pools_at_once(local_pool: MakePool) -> None:
    sums: list[int] = []

    def use(method: str) -> None:
        with GroupedPool(1, mp_context=method) as pool:
            sums.append(sum(pool.map(abs, range(50))))

    threads = [threading.Thread(target=use, args=(method,)) for method in METHODS * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [1225] * 9


# -- the user's settings ----------------------------------------------------------------------------------------


@contextmanager
def _unchanged(look: Callable[[], Any]) -> Iterator[None]:
    before = look()
    yield
    assert look() == before


@pytest.mark.parametrize("method", METHODS)
def test_inv18_the_users_settings_are_left_alone(local_pool: MakePool, method: str) -> None:
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    looks: list[Callable[[], Any]] = [
        lambda: multiprocessing.get_start_method(allow_none=True),
        multiprocessing.active_children,
        lambda: list(server._preload_modules),
        lambda: (server._forkserver_pid, server._forkserver_address),
        lambda: resource_tracker._resource_tracker._pid,
        lambda: multiprocessing.current_process().authkey,
        lambda: {number: signal.getsignal(number) for number in signal.valid_signals()},
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []),
        lambda: (dict(os.environ), os.getcwd()),
        lambda: (list(sys.path), list(sys.argv), sys.modules["__main__"]),
        lambda: (logging.getLogger().handlers[:], logging.getLogger("gpool").handlers[:]),
        lambda: (sys.excepthook, threading.excepthook, sys.unraisablehook),
    ]
    with ExitStack() as stack:
        for look in looks:
            stack.enter_context(_unchanged(look))
        pool = local_pool(2, mp_context=method)
        assert list(pool.map(abs, range(10))) == list(range(10))
        assert pool.submit(_run_process, None).result() == 7
        for look in looks[:2]:
            with _unchanged(look):
                pool.adjust(None, 3, wait=True)
        pool.stop()


def test_inv18_the_users_forkserver_lives_on(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import multiprocessing, os
        import gpool
        def run(context):
            process = context.Process(target=os.getpid)
            process.start()
            process.join()
            return process.exitcode
        if __name__ == "__main__":
            multiprocessing.set_start_method("forkserver")
            assert run(multiprocessing) == 0
            with gpool.GroupedPool(1) as pool:
                assert pool.submit(abs, -1).result() == 1
                assert run(multiprocessing) == 0
            assert run(multiprocessing) == 0
            with multiprocessing.Pool(1) as theirs, gpool.GroupedPool(1) as ours:
                assert theirs.apply(abs, (-1,)) == ours.submit(abs, -1).result()
            assert multiprocessing.active_children() == []
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_worker_shares_is_the_programs_to_track(tmp_path: Path) -> None:
    """Also in a program that had no resource tracker before: what a worker has made is there when it has gone."""
    done = run_script(
        tmp_path,
        """
        from multiprocessing.shared_memory import SharedMemory
        import gpool
        def make():
            memory = SharedMemory(create=True, size=8)
            memory.buf[:3] = b"abc"
            memory.close()
            return memory.name
        with gpool.GroupedPool(1) as pool:
            name = pool.submit(make).result()
        memory = SharedMemory(name)
        print(bytes(memory.buf[:3]))
        memory.close()
        memory.unlink()
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'abc'\n", "")


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="named semaphores are not to be seen here")
def test_a_program_killed_while_a_worker_starts_leaves_no_lock(tmp_path: Path) -> None:
    """What it had no time to open and remove is removed by the fork server, which is gone when its output has ended."""
    done = run_script(
        tmp_path,
        """
        import os, signal
        from gpool.workers.forking import fork_server
        from gpool.workers.journey import ServedLock
        name = ServedLock().name
        fork_server.acquire(name)
        sentinel, _ = fork_server.fork([], name)
        os.read(sentinel, 8)
        shown = "/dev/shm/sem." + name.removeprefix("/")
        print(shown, os.path.exists(shown), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    shown, existed = done.stdout.split()
    assert (done.returncode, existed) == (-signal.SIGKILL, "True")
    assert not os.path.exists(shown)
