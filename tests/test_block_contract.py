"""Blocks, as users see them: over processes with every start method, items of one call fare as if each went alone.

An iterable at hand whose first items are short makes blocks by itself; ``Blocks`` notes how they were sent, so every
test sees that what it is about happened in the middle of one.
"""

from __future__ import annotations

import copy
import functools
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from gpool import FakeBackend, GroupedPool, PayloadError, TaskTimeout, WorkerCrashed
from gpool.results import MapResults
from gpool.workers.backend import Settings, Taken
from gpool.workers.boards import Board, Kept
from gpool.workers.local import LocalBackend
from gpool.workers.payload import Call
from tests.bombs import Bomb, Mine, go_off
from tests.conftest import METHODS
from tests.gates import Gate, pass_gate

MakePool = Callable[..., GroupedPool]

SHORT = 3_000
"""Items, each short, after which blocks are as large as they get."""
SECONDS = 60
"""After which what has not come counts as hung."""


class Blocks:
    """Notes what is sent to workers."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        send = LocalBackend.send

        def note(backend: LocalBackend, worker: int, calls: Sequence[tuple[int, Call]]) -> None:
            self.sizes += [call.items for _, call in calls]
            send(backend, worker, calls)

        patch.setattr(LocalBackend, "send", note)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Blocks:
    return Blocks(monkeypatch)


def either(special: Mapping[int, tuple[Any, ...]], n: int) -> object:
    """A task: short, but for the items that are special: of these it calls a function."""
    if n not in special:
        return n
    fn, *args = special[n]
    return fn(*args)


class Collected:
    """What comes of an ingest, told by callbacks."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.errors: list[BaseException] = []

    def ingest(self, pool: GroupedPool, items: Any, fn: Callable[..., Any]) -> None:
        pool.ingest(items, None, fn, callback=self.values.append, error=self.errors.append)
        assert pool.join(SECONDS)


def among_short(special: Mapping[int, tuple[Any, ...]]) -> Callable[[int], Any]:
    return functools.partial(either, dict(special))


def in_line(special: object) -> bool:
    return isinstance(special, int)


# -- each item fares alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_inv10_whatever_an_item_does_costs_it_alone(local_pool: MakePool, blocks: Blocks, method: str) -> None:
    parent = os.getpid()
    ways: list[tuple[tuple[Any, ...], type[BaseException]]] = [
        ((go_off, "raise"), ValueError),
        ((go_off, "sys.exit"), SystemExit),
        ((go_off, "exit 7"), WorkerCrashed),
        ((go_off, "SIGKILL"), WorkerCrashed),
        ((go_off, "SIGSEGV"), WorkerCrashed),
        ((Bomb, "raise", "pickling", parent), PayloadError),
        ((Bomb, "raise", "unpickling", parent), PayloadError),
        ((Bomb, "SIGKILL", "pickling", parent), WorkerCrashed),
    ]
    fn = among_short(
        {
            SHORT + 50 * number: (
                functools.partial(way[0], in_parent=way[2] == "unpickling") if way[0] is Bomb else way[0],
                *way[1:],
            )
            for number, (way, _) in enumerate(ways)
        }
    )
    bad_items = [
        Bomb("raise", "pickling", parent, in_parent=True),
        Bomb("raise", "unpickling", parent, in_parent=False),
    ]
    items: list[Any] = list(range(SHORT + 1_000))
    for number, bad in enumerate(bad_items):
        items.insert(SHORT - 100 * (number + 1), bad)
    collected = Collected()
    collected.ingest(local_pool(2, mp_context=method), items, functools.partial(none_of_bombs, fn))
    assert max(blocks.sizes) > 1
    lost = {SHORT + 50 * number for number in range(len(ways))}
    assert sorted(collected.values) == [n for n in range(SHORT + 1_000) if n not in lost]
    due = [kind.__name__ for _, kind in ways] + ["PayloadError"] * 2
    assert sorted(type(error).__name__ for error in collected.errors) == sorted(due)


def none_of_bombs(fn: Callable[[int], Any], item: Any) -> Any:
    return fn(item) if in_line(item) else None


def test_inv08_map_gives_all_in_order_up_to_the_item_that_fails(local_pool: MakePool, blocks: Blocks) -> None:
    pool = local_pool(2)
    for how, kind in (("raise", ValueError), ("exit 7", WorkerCrashed), ("SIGSEGV", WorkerCrashed)):
        bad = SHORT + len(how) * 37
        results, read = pool.map(among_short({bad: (go_off, how)}), range(2 * SHORT)), list[int]()
        with pytest.raises(kind):
            read_all(results, read)
        assert read == list(range(bad))
        assert list(results) == [], "it has ended"
    assert max(blocks.sizes) > 1


def read_all(results: Iterator[int], into: list[int]) -> None:
    """What was read stays there when the next one raises."""
    for value in results:
        into.append(value)


def test_inv08_map_is_in_order_and_complete(local_pool: MakePool, blocks: Blocks) -> None:
    pool = local_pool(2)
    assert list(pool.map(abs, range(0, -20_000, -1))) == list(range(20_000))
    assert list(pool.map(pow, range(5_000), [2] * 5_000)) == [n * n for n in range(5_000)]
    assert list(pool.map(len, ["x" * (n % 300) for n in range(5_000)])) == [n % 300 for n in range(5_000)]
    assert sorted(pool.map_unordered(abs, range(0, -20_000, -1))) == list(range(20_000))
    assert max(blocks.sizes) > 1


def test_inv13_an_item_that_hangs_past_its_timeout_is_lost_alone(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(2)
    results = pool.options(timeout=0.5).map_unordered(among_short({30: (pass_gate, gate.path)}), range(60))
    read: list[int] = []
    with pytest.raises(TaskTimeout):
        read += results  # type: ignore[arg-type]
    assert 30 not in read


@pytest.mark.parametrize("how", ["SIGKILL", "exit 0"])
def test_inv10_a_destructor_that_ends_the_worker_costs_nothing(local_pool: MakePool, blocks: Blocks, how: str) -> None:
    items: list[Any] = list(range(SHORT))
    for number in range(8):
        items.insert(SHORT - 100 - 10 * number, Mine(how, os.getpid()))
    collected = Collected()
    collected.ingest(local_pool(1), items, number_or_nothing)
    assert collected.errors == []
    assert [value for value in collected.values if value is not None] == list(range(SHORT))
    assert collected.values.count(None) == 8
    assert max(blocks.sizes) > 1


def number_or_nothing(item: object) -> object:
    return item if in_line(item) else None


def test_inv08_a_task_that_forks_in_a_block_goes_on_once(local_pool: MakePool, blocks: Blocks) -> None:
    collected = Collected()
    collected.ingest(local_pool(1), range(2 * SHORT), among_short({SHORT + 7 * n: (fork_and_wait,) for n in range(5)}))
    assert collected.errors == []
    assert collected.values.count("forked") == 5
    assert len(collected.values) == 2 * SHORT
    assert max(blocks.sizes) > 1


def fork_and_wait() -> str:
    """A task: the child comes back from it as if it were the worker; the worker waits until it is gone."""
    child = os.fork()
    if child:
        reaper = threading.Thread(target=os.waitpid, args=(child, 0))
        reaper.start()
    return "forked"


# -- what has ended is there, and who waits gets a slot, while an item takes long -------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_inv05_what_has_ended_is_delivered_while_a_later_item_runs(
    local_pool: MakePool, blocks: Blocks, gate: Gate, method: str, ordered: bool
) -> None:
    view = local_pool(1, mp_context=method)
    results = (view.map if ordered else view.map_unordered)(
        among_short({SHORT: (pass_gate, gate.path, "late")}), range(SHORT + 50)
    )
    assert [next(results) for _ in range(SHORT)] == list(range(SHORT))
    gate.arrivals(1)
    gate.open()
    rest = list(results)
    assert rest == ["late", *range(SHORT + 1, SHORT + 50)]
    assert max(blocks.sizes) > 1


def test_inv05_callbacks_are_called_while_a_later_item_of_the_block_runs(local_pool: MakePool, gate: Gate) -> None:
    told: SimpleQueue[Any] = SimpleQueue()
    pool = local_pool(1)
    pool.ingest(range(SHORT + 9), None, among_short({SHORT: (pass_gate, gate.path, "late")}), callback=told.put)
    assert [told.get(timeout=SECONDS) for _ in range(SHORT)] == list(range(SHORT))
    gate.open()
    assert [told.get(timeout=SECONDS) for _ in range(9)] == ["late", *range(SHORT + 1, SHORT + 9)]
    assert pool.join(SECONDS)


def test_inv05_the_items_behind_one_that_takes_long_go_to_other_slots(local_pool: MakePool, gate: Gate) -> None:
    results = local_pool(2).map_unordered(among_short({SHORT: (pass_gate, gate.path, "late")}), range(2 * SHORT))
    read = [next(results) for _ in range(2 * SHORT - 1)]
    assert "late" not in read
    gate.open()
    assert list(results) == ["late"]
    assert sorted(read) == [n for n in range(2 * SHORT) if n != SHORT]


def test_inv05_a_tag_that_waits_gets_a_slot_in_the_middle_of_a_block(
    local_pool: MakePool, blocks: Blocks, tmp_path: Path
) -> None:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    pool = local_pool(tags={"a": 0, "b": 0, None: 1})
    special = {SHORT: (pass_gate, first.path), SHORT + 1: (pass_gate, second.path)}
    results = pool.group("a").map(among_short(special), range(2 * SHORT))
    try:
        first.arrivals(1)
        waits = pool.group("b").submit(abs, -1)
        assert pool.stats().groups["b"].queued == 1, "the scheduler knows of it"
        first.open()
        assert waits.result(SECONDS) == 1, "the second gate is still closed"
    finally:
        first.open()
        second.open()
    assert len(list(results)) == 2 * SHORT
    assert max(blocks.sizes) > 1


def test_inv05_of_a_map_half_read_nothing_begins_any_more(local_pool: MakePool, gate: Gate, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    special = {SHORT: (pass_gate, gate.path)} | {n: (leave_trace, str(trace), n) for n in range(SHORT + 1, 2 * SHORT)}
    pool = local_pool(1)
    results = pool.map(among_short(special), range(2 * SHORT))
    assert next(results) == 0
    gate.arrivals(1)
    results.close()  # type: ignore[attr-defined]
    gate.open()
    assert pool.join(SECONDS)
    assert pool.submit(abs, -1).result(SECONDS) == 1
    assert not trace.exists()
    assert list(results) == []


def leave_trace(path: str, n: int) -> int:
    with open(path, "a") as file:
        file.write(f"{n}\n")
    return n


def test_inv05_pending_and_stats_count_items(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1)
    results: Any = pool.map(among_short({SHORT: (pass_gate, gate.path, "late")}), range(SHORT + 50))
    for _ in range(SHORT):
        next(results)
    gate.arrivals(1)
    assert results._results.feed._over.wait(SECONDS)
    assert pool.pending == pool.stats().pending == 50
    assert pool.stats().groups[None].done == SHORT
    gate.open()
    assert len(list(results)) == 50
    assert pool.join(SECONDS)
    stats = pool.stats()
    assert (pool.pending, stats.pending, stats.groups[None].done, stats.groups[None].queued) == (0, 0, SHORT + 50, 0)
    assert stats.workers[0].tasks_done == SHORT + 50


# -- what is drawn --------------------------------------------------------------------------------------------------


def test_inv05_an_item_runs_at_once_though_the_next_does_not_come(local_pool: MakePool, blocks: Blocks) -> None:
    read, ahead = threading.Semaphore(0), 30

    def slow() -> Iterator[int]:
        yield from range(SHORT)
        for n in range(SHORT, SHORT + ahead):
            yield n
            read.acquire()

    for n, value in enumerate(local_pool(1).map(abs, slow())):
        assert value == n
        if n >= SHORT:
            read.release()
    assert n == SHORT + ahead - 1
    assert max(blocks.sizes) > 1


@pytest.mark.parametrize("buffersize", [1, 7, 500])
def test_inv05_no_more_is_drawn_ahead_of_the_reader_than_may_be(local_pool: MakePool, buffersize: int) -> None:
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for n in range(SHORT // 2):
            drawn += 1
            yield n

    read = 0
    for value in local_pool(2).map(abs, items(), buffersize=buffersize):
        assert value == read
        assert drawn <= read + 1 + buffersize, "this one has been read"
        read += 1
    assert read == SHORT // 2


class StandingStill(FakeBackend):
    """Nothing can be taken back from its workers."""

    def __init__(self) -> None:
        super().__init__(auto=False)
        self.told: SimpleQueue[tuple[str, int]] = SimpleQueue()

    def start(self, worker: int, settings: Settings) -> None:
        super().start(worker, settings)
        self.told.put(("start", worker))

    def send(self, worker: int, calls: Sequence[tuple[int, Call]]) -> None:
        super().send(worker, calls)
        self.told.put(("send", worker))

    def recall(self, worker: int, keep: int) -> Taken:
        return Taken(refused=True)

    def until(self, what: str, worker: int) -> None:
        while self.told.get(timeout=SECONDS) != (what, worker):
            pass


def test_inv05_a_feed_with_enough_unfinished_draws_for_a_slot_that_comes_free() -> None:
    backend = StandingStill()
    with GroupedPool(2, backend=backend) as pool:
        feed = pool.ingest(range(1_000_000), None, abs, callback=id)
        try:
            backend.until("start", 2)
            backend.ready(1)
            backend.until("send", 1)
            backend.run(1, 0.000_001)
            while feed not in pool._supervisor.pausing:
                time.sleep(0.001)
            backend.ready(2)
            backend.until("send", 2)
        finally:
            feed.cancel()
            backend.auto = True
            backend.wake()


BYTES_AHEAD = 4_000_000
"""Per slot, generously."""


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_of_large_items_only_some_bytes_are_drawn_ahead(local_pool: MakePool, size: int) -> None:
    """Their run time, next to nothing, would justify thousands."""
    pool = local_pool(2)
    ahead: list[int] = []

    def items() -> Iterator[bytes]:
        for _ in range(1000):
            ahead.append(feed[0].unfinished if feed else 0)
            yield bytes(size)

    feed: list[Any] = []
    feed.append(pool.ingest(items(), None, len, callback=lambda length: None))
    assert feed[0].join(SECONDS)
    assert len(ahead) == 1000
    assert max(ahead) <= 2 * BYTES_AHEAD // size + 2


def test_inv08_what_was_drawn_before_the_iterable_raised_is_done(local_pool: MakePool, blocks: Blocks) -> None:
    def items() -> Iterator[int]:
        yield from range(SHORT + 5)
        raise ZeroDivisionError

    pool, read = local_pool(2), list[int]()
    with pytest.raises(ZeroDivisionError):
        read_all(pool.map(abs, items()), read)
    assert read == list(range(SHORT + 5))
    collected = Collected()
    collected.ingest(pool, items(), abs)
    assert sorted(collected.values) == read
    assert [type(error) for error in collected.errors] == [ZeroDivisionError]
    assert max(blocks.sizes) > 1


def test_iteration_gives_each_result_of_an_ingest(local_pool: MakePool, blocks: Blocks) -> None:
    pool = local_pool(2)
    pool.ingest(range(3 * SHORT), None, abs)
    assert sorted(pool) == list(range(3 * SHORT))
    assert max(blocks.sizes) > 1


def test_stop_in_the_middle_ends_it_all(local_pool: MakePool, blocks: Blocks) -> None:
    reached = threading.Event()
    pool = local_pool(2)
    feed = pool.ingest(iter(int, 1), None, abs, callback=lambda _: max(blocks.sizes) > 1 and reached.set())
    assert reached.wait(SECONDS)
    pool.stop()
    assert not feed.is_alive()
    assert pool.pending == 0
    results = local_pool(1).map(abs, iter(int, 1))
    assert next(results) == 0
    del results


def test_inv08_a_map_that_a_stopped_pool_cuts_off_says_so(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1)
    results = pool.map(among_short({SHORT: (pass_gate, gate.path)}), range(2 * SHORT))
    assert [next(results) for _ in range(SHORT)] == list(range(SHORT))
    pool.stop()
    with pytest.raises(CancelledError):
        list(results)


def test_a_map_that_is_dropped_while_its_feed_submits_holds_nobody_up(local_pool: MakePool) -> None:
    """The feed's own thread may be the one that finds out."""
    pool = local_pool(1)
    for _ in range(30):
        results = pool.map(abs, iter(int, 1))
        assert [next(results) for _ in range(200)] == [0] * 200
        del results
    assert pool.join(SECONDS)
    assert pool.submit(abs, -1).result(SECONDS) == 1
    assert pool.pending == 0


# -- races ----------------------------------------------------------------------------------------------------------


def test_inv12_answers_sent_while_the_board_is_looked_at_are_not_overtaken(
    local_pool: MakePool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between the look at the stream and that at the board the worker sends some, and keeps others."""
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    kept = Board.kept

    def look_late(board: Board, lease: int) -> Kept | None:
        first.open()
        if not passed:
            passed.append(True)
            second.arrivals(1)
        return kept(board, lease)

    passed: list[bool] = []
    monkeypatch.setattr(Board, "kept", look_late)
    monkeypatch.setattr(LocalBackend, "recall", take_nothing)
    special = {SHORT: (pass_gate, first.path, "x" * 100_000), SHORT + 2: (pass_gate, second.path, "late")}
    results = local_pool(1).map(among_short(special), range(SHORT + 9))
    try:
        assert [next(results) for _ in range(SHORT)] == list(range(SHORT))
        assert [next(results), next(results)] == ["x" * 100_000, SHORT + 1]
        second.open()
        assert list(results) == ["late", *range(SHORT + 3, SHORT + 9)]
        assert passed
    finally:
        first.open()
        second.open()


def take_nothing(backend: LocalBackend, worker: int, keep: int) -> Taken:
    """Take back nothing, and look at the board all the same."""
    line = backend._lines.get(worker)
    if line is not None and line.sent:
        lease, block = next(reversed(line.sent.items()))
        if block is not None:
            backend._to_harvest.append((line, lease))
            backend.wake()
    return Taken()


ITEMS, EVERY = 24_000, 2_000


@pytest.mark.parametrize("slots", [1, 3])
def test_inv10_a_kill_at_any_moment_costs_one_item_at_most(local_pool: MakePool, blocks: Blocks, slots: int) -> None:
    pool = local_pool(slots)
    values: list[int] = []
    errors: list[BaseException] = []
    kills = 0

    def note(value: int) -> None:
        nonlocal kills
        values.append(value)
        if len(values) % EVERY == 0:
            pids = list(pool._supervisor._backend.pids().values())
            if pids:
                kills += 1
                os.kill(pids[kills % len(pids)], signal.SIGKILL)

    pool.ingest(range(ITEMS), None, add_one, callback=note, error=errors.append)
    assert pool.join(SECONDS)
    assert all(type(error) is WorkerCrashed for error in errors)
    assert len(errors) <= kills
    assert len(values) + len(errors) == ITEMS
    assert len(set(values)) == len(values), "none twice"
    assert set(values) <= set(range(1, ITEMS + 1))
    assert max(blocks.sizes) > 1


def add_one(n: int) -> int:
    return n + 1


def test_inv08_workers_that_are_stopped_and_go_on_lose_nothing(local_pool: MakePool) -> None:
    pool = local_pool(2)
    values: list[int] = []
    stopped: list[int] = []

    def note(value: int) -> None:
        values.append(value)
        if len(values) % 1_000 == 0:
            while stopped:
                os.kill(stopped.pop(), signal.SIGCONT)
            pids = list(pool._supervisor._backend.pids().values())
            if len(values) < ITEMS // 2 and pids:
                stopped.append(pids[len(values) // 1_000 % len(pids)])
                os.kill(stopped[0], signal.SIGSTOP)

    pool.ingest(range(ITEMS), None, add_one, callback=note)
    assert pool.join(SECONDS)
    assert sorted(values) == list(range(1, ITEMS + 1))


@pytest.mark.parametrize("ordered", [True, False])
def test_several_threads_may_read_one_map(local_pool: MakePool, *, ordered: bool) -> None:
    pool = local_pool(2)
    results = (pool.map if ordered else pool.map_unordered)(abs, range(30_000))
    with ThreadPoolExecutor(4) as readers:
        parts = list(readers.map(list, [results] * 4))
    assert sorted(value for part in parts for value in part) == list(range(30_000))


def test_closing_a_map_ends_it_in_the_midst_of_what_came_together(local_pool: MakePool, blocks: Blocks) -> None:
    results: Any = local_pool(1).map(abs, range(2 * SHORT))
    for value in results:
        if value == SHORT + 1:
            results.close()
    assert value == SHORT + 1
    assert max(blocks.sizes) > 1


class _Struck(Exception):
    pass


def _strike(number: int, frame: FrameType | None) -> None:
    raise _Struck


@pytest.mark.parametrize("buffersize", [None, 2 * SHORT])
def test_a_map_is_read_on_after_a_signals_handler_has_raised(
    local_pool: MakePool, gate: Gate, monkeypatch: pytest.MonkeyPatch, buffersize: int | None
) -> None:
    ready = MapResults._ready

    def struck(results: MapResults) -> bool:
        monkeypatch.setattr(MapResults, "_ready", ready)
        os.kill(os.getpid(), signal.SIGUSR1)
        return ready(results)

    results = local_pool(1).map(
        among_short({SHORT: (pass_gate, gate.path, SHORT)}), range(SHORT + 50), buffersize=buffersize
    )
    assert [next(results) for _ in range(SHORT)] == list(range(SHORT))
    monkeypatch.setattr(MapResults, "_ready", struck)
    before = signal.signal(signal.SIGUSR1, _strike)
    try:
        with pytest.raises(_Struck):
            next(results)
    finally:
        signal.signal(signal.SIGUSR1, before)
    gate.open()
    assert list(results) == list(range(SHORT, SHORT + 50))


def struck_at(patch: pytest.MonkeyPatch, name: str) -> None:
    """A signal comes when a map's reader gets there; once."""
    method = getattr(MapResults, name)

    def struck(results: MapResults, *args: Any) -> Any:
        patch.setattr(MapResults, name, method)
        os.kill(os.getpid(), signal.SIGUSR1)
        return method(results, *args)

    patch.setattr(MapResults, name, struck)


@pytest.mark.parametrize("moment", ["_turn", "_next_chunk", "_read"])
@pytest.mark.parametrize("value", [int, str])
def test_inv08_no_results_are_lost_when_a_signals_handler_raises(
    local_pool: MakePool, monkeypatch: pytest.MonkeyPatch, moment: str, value: type
) -> None:
    results = local_pool(1).map(value, range(SHORT))
    read = [next(results)]
    before = signal.signal(signal.SIGUSR1, _strike)
    struck = 0
    try:
        while len(read) < SHORT:
            if struck < 20:
                struck_at(monkeypatch, moment)
            try:
                read.append(next(results))
            except _Struck:
                struck += 1
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert struck
    assert read == list(map(value, range(SHORT)))
    assert not list(results)


def test_a_signals_handler_that_reads_what_is_being_read_is_told(
    local_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = local_pool(1).map(abs, range(SHORT))
    told: list[BaseException] = []

    def read(number: int, frame: FrameType | None) -> None:
        try:
            next(results)
        except ValueError as error:
            told.append(error)

    before = signal.signal(signal.SIGUSR1, read)
    try:
        struck_at(monkeypatch, "_read")
        assert list(results) == list(range(SHORT))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(told) == 1


def test_the_results_of_a_map_cannot_be_copied(local_pool: MakePool) -> None:
    results = local_pool(1).map(abs, range(10))
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            copied(results)
    assert list(results) == list(range(10))
