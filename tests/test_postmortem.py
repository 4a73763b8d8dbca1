"""Where it was: stacks of workers that crashed, were killed, or hang; and log records from workers."""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from gpool import GroupedPool, TaskTimeout, WorkerCrashed
from tests.conftest import METHODS
from tests.gates import Gate, pass_gate

MakePool = Callable[..., GroupedPool]


def nothing() -> None:
    pass


def read_nothing() -> None:
    ctypes.string_at(0)


def backtrack_for_years() -> None:
    re.match(r"(a+)+b", "a" * 64)


def crash_in_a_thread() -> None:
    import threading

    thread = threading.Thread(target=read_nothing)
    thread.start()
    thread.join()


@pytest.mark.parametrize("method", METHODS)
def test_a_segfault_tells_where(local_pool: MakePool, method: str) -> None:
    pool = local_pool(1, mp_context=method)
    for task in (read_nothing, crash_in_a_thread):
        error = pool.options(name="mine").submit(task).exception()
        assert isinstance(error, WorkerCrashed)
        assert (error.signal, error.task, error.attempt, error.started) == ("SIGSEGV", "mine", 1, True)
        assert error.seconds >= 0
        assert "in read_nothing" in (error.stack or "")
    assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("method", METHODS)
def test_inv13_a_timeout_in_c_with_the_gil_held_tells_where(local_pool: MakePool, method: str) -> None:
    pool = local_pool(1, mp_context=method)
    pool.submit(nothing).result()  # the worker has imported this module now
    error = pool.options(timeout=0.3).submit(backtrack_for_years).exception()
    assert isinstance(error, TaskTimeout)
    assert "in backtrack_for_years" in (error.stack or "")


@pytest.mark.parametrize("end", [lambda: os._exit(1), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_no_stack_where_no_code_could_run(local_pool: MakePool, end: Callable[[], None]) -> None:
    error = local_pool(1).submit(end).exception()
    assert isinstance(error, WorkerCrashed)
    assert error.stack is None


def test_inv13_a_worker_that_is_stopped_or_ignores_signals_is_gone_at_its_deadline(
    local_pool: MakePool, gate: Gate
) -> None:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def ignore(path: str) -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if number <= signal.SIGTERM or number >= signal.SIGRTMIN:
                signal.signal(number, signal.SIG_IGN)
        pass_gate(path)

    pool = local_pool(1)
    assert isinstance(pool.options(timeout=0.3).submit(stop).exception(), TaskTimeout)
    assert isinstance(pool.options(timeout=0.3).submit(ignore, gate.path).exception(), TaskTimeout)
    assert pool.submit(abs, -1).result() == 1


def test_the_live_stack_of_a_worker(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    future = pool.submit(pass_gate, gate.path)
    gate.arrivals(1)
    pid = next(worker.pid for worker in pool.stats().workers if worker.state == "busy")
    assert pid is not None
    for _ in range(3):
        assert "in pass_gate" in (pool.stack(pid) or "")
    os.kill(pid, signal.SIGSTOP)
    assert pool.stack(pid, timeout=0.05) is None, "a stopped worker costs no more than the time given"
    os.kill(pid, signal.SIGCONT)
    gate.open()
    future.result()
    with pytest.raises(ValueError, match="no worker"):
        pool.stack(1)


def test_errors_pickle_with_their_facts(local_pool: MakePool) -> None:
    pool = local_pool(1)
    crash = pool.submit(read_nothing).exception()
    pool.submit(nothing).result()
    late = pool.options(timeout=0.2).submit(backtrack_for_years).exception()
    for error in (crash, late):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def speak(n: int) -> int:
    log = logging.getLogger("some.where")
    log.info("number %d", n, extra={"mood": "fine", "odd": object()})
    log.debug("not asked for")
    try:
        int("no number")
    except ValueError:
        log.exception("it failed")
    return os.getpid()


@pytest.fixture
def heard() -> Any:
    handler, logger = Heard(), logging.getLogger("some.where")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("method", METHODS)
def test_log_records_reach_the_programs_handlers(method: str, heard: Heard) -> None:
    with GroupedPool(1, mp_context=method) as pool:
        pid = pool.submit(speak, 7).result()
    first, second = heard.records
    assert (first.getMessage(), first.name, first.levelname) == ("number 7", "some.where", "INFO")
    assert (first.process, first.mood) == (pid, "fine")  # type: ignore[attr-defined]
    assert (second.getMessage(), second.levelname) == ("it failed", "ERROR")
    assert "no number" in (second.exc_text or "")


def test_forward_logs_can_be_turned_off(heard: Heard) -> None:
    with GroupedPool(1, forward_logs=False) as pool:
        pool.submit(speak, 7).result()
    assert heard.records == []


def test_records_from_threads_and_large_results_do_not_mix(heard: Heard) -> None:
    def chatter(n: int) -> bytes:
        import threading

        def speak_often() -> None:
            for i in range(100):
                logging.getLogger("some.where").info("%d of %d", i, n)

        threads = [threading.Thread(target=speak_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        return b"x" * 3_000_000

    with GroupedPool(2) as pool:
        assert [len(body) for body in pool.map(chatter, range(5))] == [3_000_000] * 5
    assert len(heard.records) == 5 * 4 * 100
