"""Fetching: a thread that waits for a result gets the answer itself, and whatever happens meanwhile harms nobody."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from types import FrameType
from typing import Any

import pytest

from gpool import GroupedPool, TaskTimeout, WorkerCrashed, supervisor
from gpool.fetching import Fetcher
from gpool.futures import Future
from gpool.turn import Turn
from gpool.workers.backend import Report
from gpool.workers.loans import _CAN_LEND, Lender, Loan
from tests.gates import Gate, pass_gate
from tests.stage import MakeStage

pytestmark = pytest.mark.skipif(not _CAN_LEND, reason="nothing is lent here")

MakePool = Callable[..., GroupedPool]


class Watched:
    """What fetchers do: the future and the loan each time one is out, and the threads that have handled an answer."""

    def __init__(self) -> None:
        self.out = threading.Semaphore(0)
        self.loans: list[Loan] = []
        self.threads: list[int] = []


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    seen = Watched()
    borrow, collect = Fetcher._borrow, Fetcher._collect

    def borrowed(self: Fetcher, future: Future[Any]) -> Any:
        loan = borrow(self, future)
        if loan is not None:
            assert isinstance(loan, Loan)
            seen.loans.append(loan)
            seen.out.release()
        return loan

    def collected(self: Fetcher, future: Future[Any], loan: Any, *, last: bool = False) -> bool:
        seen.threads.append(threading.get_ident())
        return collect(self, future, loan, last=last)

    monkeypatch.setattr(Fetcher, "_borrow", borrowed)
    monkeypatch.setattr(Fetcher, "_collect", collected)
    return seen


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path / "gate")
    yield made
    made.open()


@contextmanager
def waiter(watched: Watched, wait: Callable[[], object]) -> Iterator[list[object]]:
    """A thread that waits for a result, with a loan out when the block begins; what came of it, after the block."""
    came: list[object] = []

    def run() -> None:
        try:
            came.append(wait())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert watched.out.acquire(timeout=30)
    try:
        yield came
    finally:
        thread.join(30)
    assert not thread.is_alive()
    assert watched.loans[-1].is_over, "it was given back"


def settle(pool: GroupedPool) -> None:
    """Wait until the workers are up and idle."""
    for _ in range(2):
        pool.submit(os.getpid)
    assert pool.join(30)


def begun(pool: GroupedPool, gate: Gate, fn: Callable[..., Any], *args: Any) -> Future[Any]:
    """A task that stands at the gate, alone on its worker."""
    settle(pool)
    future: Future[Any] = pool.submit(fn, *args)
    gate.arrivals(1)
    return future


def test_the_thread_that_waits_handles_the_answer(local_pool: MakePool, watched: Watched, gate: Gate) -> None:
    pool = local_pool(1)
    future = begun(pool, gate, pass_gate, gate.path, 7)
    with waiter(watched, future.result) as came:
        gate.open()
    assert came == [7]
    assert len(set(watched.threads)) == 1
    assert not any(thread.ident in watched.threads for thread in threading.enumerate())
    assert pool.submit(abs, -2).result(30) == 2


def test_a_wait_that_ends_before_the_answer_gives_the_stream_back(
    local_pool: MakePool, watched: Watched, gate: Gate
) -> None:
    pool = local_pool(1)
    future = begun(pool, gate, pass_gate, gate.path, 7)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    assert watched.loans[-1].is_over
    came = threading.Event()
    future.add_done_callback(lambda _: came.set())
    gate.open()
    assert came.wait(30), "the supervisor's thread has heard it"
    assert future.result() == 7


@pytest.mark.parametrize("how", ["cancel", "stop", "kill"])
def test_inv08_whoever_ends_the_task_wakes_who_waits_for_it(
    local_pool: MakePool, watched: Watched, gate: Gate, how: str
) -> None:
    pool = local_pool(1)
    future = begun(pool, gate, pass_gate, gate.path)
    with waiter(watched, future.result) as came:
        if how == "cancel":
            assert future.cancel(kill=True)
        elif how == "stop":
            pool.stop()
        else:
            os.kill(pool.stats().workers[0].pid or 0, signal.SIGKILL)
    assert isinstance(came[0], WorkerCrashed if how == "kill" else CancelledError)


def test_inv13_a_deadline_strikes_while_somebody_waits(local_pool: MakePool, watched: Watched, gate: Gate) -> None:
    pool = local_pool(1)
    settle(pool)
    future = pool.group(None).options(timeout=0.2).submit(pass_gate, gate.path)
    gate.arrivals(1)
    with waiter(watched, future.result) as came:
        pass
    assert isinstance(came[0], TaskTimeout)
    assert pool.submit(abs, -2).result(30) == 2


def test_a_worker_that_gets_more_to_do_is_the_supervisors_again(
    local_pool: MakePool, watched: Watched, gate: Gate
) -> None:
    pool = local_pool(1)
    for _ in range(20):
        pool.submit(abs, -1).result(30)  # so little that more is sent ahead
    future = pool.submit(pass_gate, gate.path, 7)
    gate.arrivals(1)
    while watched.out.acquire(blocking=False):
        pass
    with waiter(watched, future.result) as came:
        others = [pool.submit(abs, -n) for n in range(3)]
        assert pool._supervisor.look(lambda: len(pool._supervisor.scheduler.workers)) == 1
        gate.open()
    assert came == [7]
    assert [each.result(30) for each in others] == [0, 1, 2]


def test_two_wait_for_two_workers(local_pool: MakePool, watched: Watched, gate: Gate) -> None:
    pool = local_pool(2)
    settle(pool)
    first, second = (pool.submit(pass_gate, gate.path, n) for n in range(2))
    gate.arrivals(2)
    with waiter(watched, first.result) as came:
        other: list[int] = []
        thread = threading.Thread(target=lambda: other.append(second.result(30)))
        thread.start()
        gate.open()
        thread.join(30)
    assert (came, other) == ([0], [1])


def test_two_wait_for_one_answer(local_pool: MakePool, watched: Watched, gate: Gate) -> None:
    pool = local_pool(1)
    future = begun(pool, gate, pass_gate, gate.path, 7)
    with waiter(watched, future.result) as came:
        other: list[int] = []
        thread = threading.Thread(target=lambda: other.append(future.result(30)))
        thread.start()
        gate.open()
        thread.join(30)
    assert came == other == [7]


def much(path: str, megabytes: int) -> str:
    pass_gate(path)
    logging.getLogger("much").warning("on its way")
    return "ü" * megabytes * 1_000_000


def test_an_answer_in_many_pieces_and_logs_before_it(
    local_pool: MakePool, watched: Watched, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    pool = local_pool(1)
    future = begun(pool, gate, much, gate.path, 3)
    with waiter(watched, future.result) as came:
        gate.open()
    assert came == ["ü" * 3_000_000]
    assert pool.join(30)
    assert "on its way" in caplog.text


def shut_all(path: str) -> None:
    pass_gate(path)
    os.closerange(3, 100)


def test_a_task_that_closes_its_workers_stream_ends_the_wait(
    local_pool: MakePool, watched: Watched, gate: Gate
) -> None:
    pool = local_pool(1)
    future = begun(pool, gate, shut_all, gate.path)
    with waiter(watched, future.result) as came:
        gate.open()
    assert isinstance(came[0], WorkerCrashed)
    assert pool.submit(abs, -2).result(30) == 2


class Alarm(Exception):
    """What a signal's handler raises."""


@pytest.mark.parametrize("raises", [True, False])
def test_inv19_a_signal_ends_the_loan_before_its_handler_runs(
    local_pool: MakePool, watched: Watched, gate: Gate, raises: bool
) -> None:
    pool = local_pool(1)
    future = begun(pool, gate, pass_gate, gate.path, 7)
    over: list[bool] = []

    def handler(number: int, frame: FrameType | None) -> None:
        over.append(watched.loans[-1].is_over)
        if raises:
            raise Alarm
        gate.open()

    def send() -> None:
        assert watched.out.acquire(timeout=30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        if raises:
            with pytest.raises(Alarm):
                future.result(60)
        else:
            assert future.result(60) == 7
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert over == [True]
    gate.open()
    assert future.result(30) == 7


def test_inv19_a_signal_that_comes_as_the_stream_is_borrowed_is_not_slept_through(
    local_pool: MakePool, watched: Watched, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = local_pool(1)
    future = begun(pool, gate, pass_gate, gate.path, 7)
    borrow = Fetcher._borrow

    def borrowed(self: Fetcher, future: Future[Any]) -> Any:
        loan = borrow(self, future)
        signal.raise_signal(signal.SIGUSR1)
        return loan

    monkeypatch.setattr(Fetcher, "_borrow", borrowed)

    def handler(number: int, frame: FrameType | None) -> None:
        raise Alarm

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Alarm):
            future.result(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert watched.loans[-1].is_over
    gate.open()


def test_inv08_no_answer_overtakes_one_that_is_being_unpickled(
    local_pool: MakePool, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = local_pool(1)
    for _ in range(20):
        pool.submit(abs, -1).result(30)  # so little that more is sent ahead
    loans = len(watched.loans)
    away, back = threading.Event(), threading.Event()
    opened = supervisor._opened

    def slowly(frame: Any) -> BaseException:
        away.set()
        assert back.wait(30)
        return opened(frame)

    monkeypatch.setattr(supervisor, "_opened", slowly)
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    try:
        held = pool.submit(pass_gate, first.path)
        first.arrivals(1)
        fails = pool.group(None).options(retries=1, retry_on=ValueError).submit(divmod, 1, 0)
        follows = pool.submit(pass_gate, second.path, 7)
        first.open()
        assert away.wait(30)
        second.arrivals(1)
        with pytest.raises(TimeoutError):
            follows.result(0.01)
        second.open()
        with pytest.raises(TimeoutError):
            follows.result(0.1)
        assert len(watched.loans) == loans
        back.set()
        assert follows.result(30) == 7
        assert held.result(30) is None
        assert isinstance(fails.exception(30), ZeroDivisionError)
    finally:
        back.set()
        first.open()
        second.open()


def test_inv08_who_has_fetched_an_answer_keeps_the_turn_until_it_is_handled(
    stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = stage({None: 1})
    paused: list[bool] = []
    monkeypatch.setattr(Turn, "pause", lambda turn: paused.append(True))

    def deal_with(reports: list[Report], *, in_hand: bool) -> None:
        on.supervisor._in_hand, on.supervisor._hurry = in_hand, True
        with on.supervisor._turn:
            on.supervisor._take_fetched(reports)

    deal_with([], in_hand=False)
    assert not paused
    deal_with([], in_hand=True)
    assert paused, "the supervisor's thread lets others go first: nobody reads meanwhile"
    on.supervisor._in_hand = False


def test_who_finds_no_stream_to_be_had_does_no_harm_to_who_has_one(
    local_pool: MakePool, watched: Watched, gate: Gate
) -> None:
    pool = local_pool(2)
    settle(pool)
    first, second = (pool.submit(pass_gate, gate.path, n) for n in range(2))
    gate.arrivals(2)
    with waiter(watched, first.result) as came:
        with pytest.raises(TimeoutError):
            second.result(0.01)
        assert len(watched.loans) == 1
        assert first.cancel(kill=True)
    assert isinstance(came[0], CancelledError)
    gate.open()
    assert second.result(30) == 1


def test_a_signals_handler_may_stop_the_pool(local_pool: MakePool, watched: Watched, gate: Gate) -> None:
    pool = local_pool(1)
    future = begun(pool, gate, pass_gate, gate.path)

    def send() -> None:
        assert watched.out.acquire(timeout=30)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: pool.stop())
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(CancelledError):
            future.result(60)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_what_must_be_unpickled_first_is_left_to_the_supervisors_thread(local_pool: MakePool, watched: Watched) -> None:
    pool = local_pool(1)
    settle(pool)
    task = pool.group(None).options(retries=1, retry_on=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        task.submit(divmod, 1, 0).result(30)
    assert not watched.loans


# -- the lender -------------------------------------------------------------------------------------------------------


class Lent:
    """A lender over one stream."""

    def __init__(self) -> None:
        self.selector = DefaultSelector()
        self.stream, self.other = os.pipe()
        self.selector.register(self.stream, EVENT_READ)
        self.lender = Lender(self.selector)

    def lend(self) -> Loan | None:
        return self.lender.lend(self.stream, list)

    @property
    def is_watched(self) -> bool:
        return self.selector.get_key(self.stream).events == EVENT_READ


@pytest.fixture
def lent() -> Iterator[Lent]:
    made = Lent()
    yield made
    made.lender.close()
    made.selector.close()
    os.close(made.stream)
    os.close(made.other)


def test_one_loan_is_out_at_a_time(lent: Lent) -> None:
    loan = lent.lend()
    assert loan is not None
    assert not lent.is_watched
    assert lent.lend() is None
    assert not loan.wait(0)
    os.write(lent.other, b"!")
    assert loan.wait(None)
    assert not lent.selector.select(0)
    loan.end()
    assert lent.is_watched
    assert lent.selector.select(0)
    again = lent.lend()
    assert again is not None
    again.end()
    again.end()  # once more does nothing


def test_what_was_rung_for_one_loan_is_not_heard_in_the_next(lent: Lent) -> None:
    first = lent.lend()
    assert first is not None
    first.wake()
    first.wake()
    assert first.wait(None)
    first.end()
    first.wake()
    second = lent.lend()
    assert second is not None
    assert not second.wait(0)
    second.end()


def test_a_loan_that_is_taken_back_is_over_but_out_until_its_holder_ends_it(lent: Lent) -> None:
    loan = lent.lend()
    assert loan is not None
    lent.lender.take_back(lent.stream + 1000)
    assert not loan.is_over
    lent.lender.take_back(lent.stream)
    lent.lender.take_back(lent.stream)
    assert loan.is_over
    assert lent.is_watched
    assert loan.wait(None)
    assert loan.read() == []
    assert lent.lend() is None
    loan.end()


def test_what_is_watched_for_otherwise_meanwhile_stays_so(lent: Lent) -> None:
    loan = lent.lend()
    assert loan is not None
    lent.selector.unregister(lent.stream)
    loan.end()
    assert lent.lend() is None, "nobody watches it"
    lent.selector.register(lent.stream, EVENT_READ)


def test_the_lender_closes_when_the_last_loan_has_ended(lent: Lent) -> None:
    loan = lent.lend()
    assert loan is not None
    closed = threading.Event()
    thread = threading.Thread(target=lambda: (lent.lender.close(), closed.set()))
    thread.start()
    assert loan.wait(0) is False
    assert not closed.is_set()
    loan.end()
    thread.join(30)
    assert closed.is_set()
    assert lent.lend() is None
    lent.lender = Lender(lent.selector)
