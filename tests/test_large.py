"""Large buffers: what travels by the pool's memory file arrives as it was sent, is nobody else's, and comes back."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import struct
import sys
import threading
from array import array
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpool import FakeBackend, GroupedPool, PayloadError, TaskTimeout, WorkerCrashed
from gpool.workers import payload, windows
from gpool.workers.arena import KEEP, SEGMENT, Blocks, Range, start_of
from gpool.workers.parcels import LARGE, open_parcel, references_in
from gpool.workers.returns import Returns, Strange
from gpool.workers.windows import PAGE, Panes
from tests import programs
from tests.conftest import METHODS
from tests.gates import Gate, pass_gate
from tests.programs import left_alive

pytestmark = pytest.mark.skipif(windows.system() is None, reason="large buffers travel by the stream here")

MakePool = Callable[..., GroupedPool]
MB = 1 << 20


class Load:
    """Bytes that pickle hands over by themselves: what an array is, without numpy."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Load, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Load) and bytes(self.data) == bytes(other.data)

    def __hash__(self) -> int:
        return 0


def filled(size: int, start: int = 0) -> Load:
    return Load(bytearray(bytes((start + i) % 256 for i in range(256)) * (size // 256 + 1))[:size])


def echo(value: Any) -> Any:
    return value


def total(load: Load) -> int:
    return sum(load.data)


def spoil(load: Load) -> int:
    """Change the argument in place; returns what it was."""
    found = sum(load.data)
    load.data[:] = bytes(len(load.data))
    return found


def spoil_and_die(load: Load, path: str) -> int:
    """The first attempt changes its argument and dies; the second says what it got."""
    if not os.path.exists(path):
        Path(path).touch()
        spoil(load)
        os.kill(os.getpid(), signal.SIGKILL)
    return sum(load.data)


def keep(load: Load) -> None:
    sys.kept = load  # type: ignore[attr-defined]


def kept_total() -> int:
    return sum(sys.kept.data)  # type: ignore[attr-defined]


def drop() -> None:
    del sys.kept  # type: ignore[attr-defined]


def large(size: int) -> Load:
    return Load(bytearray(b"\1") * size)


def memory_of(pool: GroupedPool) -> int:
    """Bytes that the pool's memory file takes."""
    fd = pool._supervisor._backend._host.stacks.fd  # type: ignore[attr-defined]
    return os.fstat(fd).st_blocks * 512


def lent_by(pool: GroupedPool) -> int:
    """Leases of which workers may hold views."""
    return sum(len(line.lent) for line in pool._supervisor._backend._lines.values())  # type: ignore[attr-defined]


@pytest.fixture
def pool(local_pool: MakePool) -> GroupedPool:
    return local_pool(1)


# -- round trips ------------------------------------------------------------------------------------------------


SIZES = st.sampled_from((0, 1, LARGE - 1, LARGE, LARGE + 1, 2 * LARGE, LARGE + PAGE - 1, 3 * MB + 17))


def test_what_was_sent_arrives_both_ways(pool: GroupedPool) -> None:
    @settings(max_examples=40, deadline=None)
    @given(sizes=st.lists(SIZES, max_size=4), start=st.integers(0, 255))
    def check(sizes: list[int], start: int) -> None:
        loads = [filled(size, start + i) for i, size in enumerate(sizes)]
        assert pool.submit(echo, loads).result() == loads

    check()


@pytest.mark.parametrize(
    "value",
    [
        bytes(3 * LARGE),
        bytearray(b"ab" * LARGE),
        "ä" * LARGE,
        [b"x" * 100_000, b"y" * 70_000, "z" * 80_000, bytearray(90_000)] * 3,
        {"a": [b"__main__" * 20_000], "b": b"__main__" * LARGE},
        array("d", [1.5]) * LARGE,
        list(range(200_000)),
        [b"a" * 66_000, "__main__", b"b" * 66_000],
    ],
    ids=["bytes", "bytearray", "str", "list", "mentions", "array", "many", "mentions aside"],
)
def test_long_pickles_arrive_both_ways(pool: GroupedPool, value: Any) -> None:
    assert pool.submit(echo, value).result() == value
    assert pool.submit(echo, (value, 1)).result() == (value, 1)


@pytest.mark.parametrize("make", [bytes, bytearray, lambda size: "x" * size, lambda size: [bytes(size // 2)] * 2])
@pytest.mark.parametrize("size", [1 << 16, 100_000, LARGE - 1, LARGE, LARGE + 1])
def test_long_strings_of_any_length_arrive_both_ways(pool: GroupedPool, make: Callable[[int], Any], size: int) -> None:
    value = make(size)
    assert pool.submit(echo, value).result() == value
    assert list(pool.map(echo, [value, 1, value])) == [value, 1, value]


def test_a_function_by_value_brings_what_it_captured(pool: GroupedPool) -> None:
    load, text = filled(MB), b"t" * MB
    assert pool.submit(lambda: (sum(load.data), len(text))).result() == (total(load), MB)


def test_the_same_buffer_twice_is_one(pool: GroupedPool) -> None:
    load = filled(MB)
    assert pool.submit(lambda a, b: a is b, load, load).result()
    first, second = pool.submit(lambda made: (made, made), load).result()
    assert first is second


def test_read_only_buffers_stay_so(pool: GroupedPool) -> None:
    assert pool.submit(lambda load: memoryview(load.data).readonly, Load(bytes(MB))).result()
    assert not pool.submit(lambda load: memoryview(load.data).readonly, filled(MB)).result()


def test_what_pickle_refuses_is_refused(pool: GroupedPool) -> None:
    gaps = Load(memoryview(bytearray(2 * MB))[::2])
    with pytest.raises(PayloadError):
        pool.submit(echo, gaps)
    with pytest.raises(PayloadError):
        pool.submit(lambda: Load(memoryview(bytearray(2 * MB))[::2])).result()
    assert pool.submit(total, filled(MB)).result() == total(filled(MB))


@pytest.mark.parametrize("method", METHODS)
def test_every_start_method(local_pool: MakePool, method: str) -> None:
    pool = local_pool(2, mp_context=method)
    loads = [filled(MB, i) for i in range(6)]
    assert [future.result() for future in [pool.submit(echo, load) for load in loads]] == loads
    assert list(pool.map(echo, loads)) == loads


def test_several_pools_and_a_pool_in_a_worker(local_pool: MakePool) -> None:
    def nested(load: Load) -> Load:
        with GroupedPool(1) as inner:
            return inner.submit(echo, load).result()

    pools = [local_pool(1) for _ in range(3)]
    loads = [filled(MB, i) for i in range(3)]
    futures = [pool.submit(nested, load) for pool, load in zip(pools, loads, strict=True)]
    assert [future.result() for future in futures] == loads


def test_the_fake_backend_has_them_too() -> None:
    with GroupedPool(1, backend=FakeBackend()) as pool:
        assert pool.submit(echo, filled(MB)).result() == filled(MB)
        assert list(pool.map(echo, [filled(MB)] * 3)) == [filled(MB)] * 3


def test_map_ingest_and_callbacks(local_pool: MakePool) -> None:
    got: list[Load] = []
    pool = local_pool(2, callback=got.append)
    loads = [filled(LARGE + i, i) for i in range(30)]
    assert list(pool.map(echo, loads)) == loads
    assert [len(load.data) for load in pool.map(large, range(0, 300_000, 9_999))] == list(range(0, 300_000, 9_999))
    pool.ingest(loads, None, echo)
    assert pool.join(60)
    assert sorted(len(load.data) for load in got) == sorted(len(load.data) for load in loads)


def test_where_there_are_no_windows_the_stream_does(local_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpool.workers.arena.system", lambda: None)
    pool = local_pool(1, mp_context="fork")
    assert pool.submit(echo, filled(3 * MB)).result() == filled(3 * MB)
    assert list(pool.map(echo, [filled(MB)] * 3)) == [filled(MB)] * 3
    assert memory_of(pool) < MB


def test_what_cannot_be_mapped_is_copied(tmp_path: Path) -> None:
    fd = os.memfd_create("test")
    try:
        room = Range(fd, 0)
        place = room.take(2 * MB)
        assert place is not None
        place.fill([b"x" * 2 * MB])
        told: list[None] = []
        panes = Panes(fd, SEGMENT)
        panes._window = None  # type: ignore[method-assign,assignment]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gpool.workers.windows.system", lambda: None)
            view = panes.view(place.offset, 2 * MB, lambda: told.append(None))
        assert view == b"x" * 2 * MB
        assert told == [None]
    finally:
        os.close(fd)


# -- whose it is ------------------------------------------------------------------------------------------------


def test_a_call_is_what_it_was_when_it_was_made(pool: GroupedPool, gate: Gate) -> None:
    load = filled(MB)
    wanted = total(load)
    front = pool.submit(pass_gate, gate.path)
    future = pool.submit(total, load)
    load.data[:] = bytes(MB)
    gate.open()
    assert (front.result(), future.result()) == (None, wanted)


def test_a_task_may_change_its_argument(local_pool: MakePool) -> None:
    pool = local_pool(2)
    load = filled(2 * MB)
    wanted = total(load)
    for future in [pool.submit(spoil, load) for _ in range(20)]:
        assert future.result() == wanted
    assert total(load) == wanted


def test_inv08_a_retry_gets_the_original(local_pool: MakePool, tmp_path: Path) -> None:
    load = filled(2 * MB)
    pool = local_pool(1)
    assert pool.options(retries=1).submit(spoil_and_die, load, str(tmp_path / "died")).result() == total(load)


def test_a_result_may_be_changed(pool: GroupedPool) -> None:
    for _ in range(5):
        load = pool.submit(echo, filled(2 * MB)).result()
        assert load == filled(2 * MB)
        load.data[:] = bytes(2 * MB)
        assert total(load) == 0


def test_a_result_outlives_its_pool() -> None:
    with GroupedPool(1) as pool:
        load = pool.submit(echo, filled(2 * MB)).result()
    assert load == filled(2 * MB)
    load.data[0] = 7
    assert load.data[0] == 7


def test_a_last_look_when_the_interpreter_ends(tmp_path: Path) -> None:
    """Modules are cleared one after the other; a finalizer may run when gpool's are gone."""
    source = """
        import sys
        from pickle import PickleBuffer
        from gpool import GroupedPool

        class Looks:
            def __init__(self, data):
                self.data, self.write, self.flush = data, sys.stdout.write, sys.stdout.flush

            def __del__(self, sum=sum, str=str):
                self.write(str(sum(self.data)))
                self.flush()

        with GroupedPool(1) as pool:
            data = pool.submit(lambda: PickleBuffer(bytearray(b"1") * 300_000)).result()
        sys.kept = Looks(data)
        del data, pool
    """
    ended = programs.run_script(tmp_path, source)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, str(49 * 300_000), "")


def test_a_result_outlives_its_worker(local_pool: MakePool) -> None:
    pool = local_pool(1, max_crashes=100)
    load = pool.submit(echo, filled(2 * MB)).result()
    unread = pool.submit(echo, filled(2 * MB, 3))
    wait([unread])
    for i in range(3):
        with pytest.raises(WorkerCrashed):
            pool.submit(os._exit, 1).result()
        assert pool.submit(echo, filled(2 * MB, i)).result() == filled(2 * MB, i)
    assert load == filled(2 * MB)
    assert unread.result() == filled(2 * MB, 3)


def test_an_argument_kept_by_the_worker_stays_as_it_is(pool: GroupedPool) -> None:
    pool.submit(keep, filled(2 * MB)).result()
    for i in range(10):
        pool.submit(spoil, filled(2 * MB, i)).result()
    assert pool.submit(kept_total).result() == total(filled(2 * MB))


def test_inv20_a_forked_childs_arrays_are_its_own(local_pool: MakePool) -> None:
    """What the program gives back after the fork, and what a worker writes there then, is not seen in the child."""
    pool = local_pool(1)
    read = pool.submit(echo, filled(2 * MB)).result()
    unread = pool.submit(echo, filled(2 * MB, 1))
    wait([unread])
    woken, waker = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(waker)
            os.read(woken, 1)  # the program has overwritten all it could
            if read == filled(2 * MB) and unread.result() == filled(2 * MB, 1):
                read.data[:] = bytes(2 * MB)
                del read
                gc.collect()
                code = 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    os.close(woken)
    kept = pool.submit(echo, filled(2 * MB, 2)).result()
    del read, unread
    gc.collect()
    for i in range(10):
        assert pool.submit(echo, filled(2 * MB, i)).result() == filled(2 * MB, i)
    os.close(waker)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert kept == filled(2 * MB, 2)


def test_a_child_forked_by_a_task_sees_what_the_task_saw(pool: GroupedPool, tmp_path: Path) -> None:
    def fork_and_end(load: Load, gate: str, told: str) -> None:
        if os.fork() == 0:
            os.setsid()
            pass_gate(gate)
            Path(told).write_text(str(sum(load.data)))
            os.rename(told, told + ".done")
            os._exit(0)

    gate = Gate(tmp_path / "gate")
    os.mkfifo(tmp_path / "told")
    pool.submit(fork_and_end, filled(2 * MB), gate.path, str(tmp_path / "told")).result()
    gate.arrivals(1)
    for i in range(5):
        pool.submit(spoil, filled(2 * MB, i)).result()
    gate.open()
    assert (tmp_path / "told").read_text() == str(total(filled(2 * MB)))


# -- where it goes ------------------------------------------------------------------------------------------------


def test_memory_is_used_again(local_pool: MakePool) -> None:
    pool = local_pool(2)
    for future in [pool.submit(echo, filled(MB)) for _ in range(4)]:
        future.result()
    del future
    for _ in range(250):
        futures = [pool.submit(echo, filled(MB)) for _ in range(2)]
        assert all(future.result() == filled(MB) for future in futures)
    assert memory_of(pool) <= 20 * MB


def test_regions_come_back_when_nothing_looks_at_them(pool: GroupedPool) -> None:
    pool.submit(keep, filled(MB)).result()
    pool.submit(abs, 1).result()
    pool.submit(abs, 1).result()
    assert lent_by(pool) == 1
    pool.submit(drop).result()
    pool.submit(abs, 1).result()  # the release was written before this was read
    assert lent_by(pool) == 0


def test_what_is_not_needed_goes_back_to_the_system(local_pool: MakePool) -> None:
    pool = local_pool(1)
    loads = [pool.submit(large, KEEP // 4).result() for _ in range(8)]
    calls = [pool.submit(len, bytes(KEEP // 4)) for _ in range(8)]
    assert [call.result() for call in calls] == [KEEP // 4] * 8
    assert memory_of(pool) >= 2 * KEEP
    del loads, calls
    gc.collect()
    pool.submit(abs, 1).result()
    pool.submit(abs, 1).result()
    pool._supervisor._backend.wake()
    pool.stats()
    assert memory_of(pool) <= 2 * KEEP + 2 * MB


def test_a_dead_workers_memory_goes_back(local_pool: MakePool) -> None:
    pool = local_pool(1, max_crashes=100)
    load = pool.submit(large, 4 * MB).result()
    for _ in range(20):
        pool.submit(large, 4 * MB).result()
        assert isinstance(pool.submit(os._exit, 1).exception(), WorkerCrashed)
    assert load == large(4 * MB)
    assert memory_of(pool) <= 14 * MB


def test_no_descriptor_for_a_task(local_pool: MakePool) -> None:
    pool = local_pool(1)
    results = [pool.submit(echo, filled(MB)).result()]
    before, theirs = len(os.listdir("/proc/self/fd")), pool.submit(len, b"").result()
    count = pool.submit(lambda: len(os.listdir("/proc/self/fd"))).result()
    results += [pool.submit(echo, filled(MB)).result() for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert pool.submit(lambda: len(os.listdir("/proc/self/fd"))).result() == count
    assert theirs == 0


def test_the_stack_of_views_does_not_count_as_the_workers_memory(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1, memory_limit=150_000_000)
    for _ in range(12):
        pool.submit(total_of_ends, Load(bytearray(30 * MB))).result()
    assert pool.stats().groups[None].lost == 0


def total_of_ends(load: Load) -> int:
    return bytes(load.data[::PAGE]).count(1)


# -- when something dies -----------------------------------------------------------------------------------------


def test_inv10_a_worker_killed_with_views_costs_its_own_task(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1)
    running = pool.submit(lambda load, path: (pass_gate(path), spoil(load)), filled(2 * MB), gate.path)
    queued = [pool.submit(total, filled(2 * MB, i)) for i in range(3)]
    gate.arrivals(1)
    os.kill(next(worker.pid for worker in pool.stats().workers if worker.pid), signal.SIGKILL)
    assert isinstance(running.exception(), WorkerCrashed)
    assert [future.result() for future in queued] == [total(filled(2 * MB, i)) for i in range(3)]


def test_cancelled_calls_give_their_memory_back(local_pool: MakePool, gate: Gate) -> None:
    pool = local_pool(1)
    running = pool.submit(pass_gate, gate.path)
    gate.arrivals(1)
    queued = [pool.submit(total, Load(bytearray(30 * MB))) for _ in range(8)]
    assert all(future.cancel() for future in queued)
    assert pool.submit(abs, -1).cancel()
    gate.open()
    running.result()
    pool.submit(abs, 1).result()
    assert memory_of(pool) <= KEEP + MB


@pytest.mark.parametrize("end", ["cancel", "timeout", "stop"])
def test_a_task_that_is_ended_with_views_in_hand(local_pool: MakePool, gate: Gate, end: str) -> None:
    pool = local_pool(1)
    view = pool.options(timeout=1 if end == "timeout" else None)
    future = view.submit(lambda load, path: (load.data.tobytes(), pass_gate(path)), filled(2 * MB), gate.path)
    gate.arrivals(1)
    if end == "cancel":
        assert future.cancel(kill=True)
    elif end == "timeout":
        assert isinstance(future.exception(), TaskTimeout)
    else:
        pool.stop()
        assert future.cancelled()
        return
    assert pool.submit(echo, filled(2 * MB)).result() == filled(2 * MB)
    assert lent_by(pool) <= 1


def test_inv14_nothing_is_left_of_a_program_that_is_killed(tmp_path: Path) -> None:
    source = """
        import sys, time
        from gpool import GroupedPool
        pool = GroupedPool(2)
        kept = [pool.submit(bytes, 5_000_000).result() for _ in range(4)]
        print(*[worker.pid for worker in pool.stats().workers], flush=True)
        sys.stdin.read()
        time.sleep(60)
    """
    program = programs.start([sys.executable, str(programs.script(tmp_path, source))])
    try:
        assert program.stdout is not None
        pids = [int(pid) for pid in program.stdout.readline().split()]
        workers = [psutil.Process(pid) for pid in pids]
        program.kill()
        assert not left_alive(workers), "a worker, and the file with it, outlived the program"
    finally:
        programs.end(program)


def test_submitting_from_many_threads(local_pool: MakePool) -> None:
    pool = local_pool(2)
    wrong: list[int] = []

    def submit(number: int) -> None:
        for i in range(15):
            load = filled(LARGE + 1000 * number, i)
            if pool.submit(echo, load).result() != load:
                wrong.append(number)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_result_that_nobody_reads_is_let_go_of(pool: GroupedPool) -> None:
    for _ in range(40):
        wait([pool.submit(large, 8 * MB)])
    assert memory_of(pool) <= KEEP + 20 * MB


class Late:
    """In a cycle, with a finalizer that reads what it has."""

    def __init__(self, load: Load, sums: list[int]) -> None:
        self.load, self.sums, self.me = load, sums, self

    def __del__(self) -> None:
        self.sums.append(sum(self.load.data))


def test_inv19_a_finalizer_in_a_cycle_still_sees_its_result(pool: GroupedPool) -> None:
    sums: list[int] = []
    for i in range(3):
        late = Late(pool.submit(echo, filled(MB, i)).result(), sums)
        late.load.data[0] = 7
        wanted = total(late.load)
        del late
        gc.collect()
        assert sums.pop() == wanted


# -- the parts ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60))
def test_free_stretches(steps: list[tuple[bool, int]]) -> None:
    """Nothing is given out twice, nothing is lost, neighbours become one but across a segment's border."""
    blocks, out = Blocks(), []
    blocks.give(3 * SEGMENT, SEGMENT)
    blocks.give(4 * SEGMENT, SEGMENT)
    for take, size in steps:
        if take:
            start = blocks.take(size * PAGE)
            assert start is not None
            assert not any(start < other + have and other < start + size * PAGE for other, have in out)
            out.append((start, size * PAGE))
        elif out:
            blocks.give(*out.pop(size % len(out)))
    for each in out:
        blocks.give(*each)
    assert blocks.total == 2 * SEGMENT
    assert [blocks.take(SEGMENT) for _ in range(3)] == [3 * SEGMENT, 4 * SEGMENT, None]


def test_what_is_larger_than_a_segment(local_pool: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("arena", "main", "returns"):
        monkeypatch.setattr(f"gpool.workers.{module}.SEGMENT", 4 * MB)
    pool = local_pool(1, mp_context="fork")
    for i in range(4):
        loads = [filled(9 * MB, i), filled(MB, i), filled(5 * MB + 1, i)]
        assert pool.submit(echo, loads).result() == loads
    assert memory_of(pool) <= 2 * KEEP


def test_a_parcel_says_where_its_parts_are() -> None:
    fd = os.memfd_create("test")
    try:
        room = Range(fd, 0)
        packed = payload.pack_value([filled(MB), 5, filled(10), bytes(MB)], room, ())
        assert len(references_in(packed.body)) == len(packed.places) == 2
        panes = Panes(fd, SEGMENT)
        parcel = open_parcel(packed.body, lambda at: panes.view(*at, lambda: None))
        assert pickle.loads(parcel.pickle, buffers=parcel.buffers) == [filled(MB), 5, filled(10), bytes(MB)]
        del parcel
    finally:
        os.close(fd)


def test_small_values_need_no_memory() -> None:
    fd = os.memfd_create("test")
    try:
        packed = payload.pack_value([filled(LARGE - 1000), b"x"], Range(fd, 0), ())
        assert packed.places == ()
        assert os.fstat(fd).st_size == 0
        assert pickle.loads(packed.body) == [filled(LARGE - 1000), b"x"]
    finally:
        os.close(fd)


# -- numpy --------------------------------------------------------------------------------------------------------


def test_arrays_of_every_kind(pool: GroupedPool) -> None:
    np = pytest.importorskip("numpy")
    base = np.arange(400_000, dtype=np.float64).reshape(400, 1000)
    kinds = [
        base,
        np.asfortranarray(base),
        base[::2, ::3],
        base.T,
        base[50:350],
        base.astype(np.complex64),
        base.astype(object)[:5, :5],
        np.zeros((300, 400), dtype=[("a", "i4"), ("b", "f8")]),
        np.ma.masked_array(base, base > 5),
        np.array(["word"] * 90_000),
        np.array(3.0),
        np.empty((0, 5)),
    ]
    for array_ in kinds:
        back, flags = pool.submit(lambda a: (a, a.flags.writeable), array_).result()
        assert type(back) is type(array_)
        assert back.dtype == array_.dtype
        assert np.array_equal(back, array_)
        assert flags
        assert back.flags.writeable


def test_arrays_may_be_written_to(pool: GroupedPool) -> None:
    np = pytest.importorskip("numpy")

    def double(a: Any) -> Any:
        a *= 2
        return a

    array_ = np.arange(1_000_000)
    for _ in range(5):
        back = pool.submit(double, array_).result()
        assert np.array_equal(back, np.arange(1_000_000) * 2)
        back[:] = -1
    assert np.array_equal(array_, np.arange(1_000_000))
    frozen = np.arange(1_000_000)
    frozen.flags.writeable = False
    assert not pool.submit(echo, frozen).result().flags.writeable


def test_a_slice_keeps_what_it_is_of(pool: GroupedPool) -> None:
    np = pytest.importorskip("numpy")
    kept = [pool.submit(np.arange, i, 1_000_000 + i).result()[:10] for i in range(5)]
    for i in range(5):
        pool.submit(np.arange, i, 1_000_000).result()
    assert [int(part[0]) for part in kept] == list(range(5))


def spoil_then_raise(load: Load) -> tuple[int, int, int]:
    """The first attempt changes its argument, keeps it in a cycle and raises; the next, in the same worker, looks."""
    found = sum(load.data[:10])
    if not hasattr(sys, "tried"):
        sys.tried = load  # type: ignore[attr-defined]
        load.data[:] = b"\7" * len(load.data)
        raise ValueError
    load.data[:] = b"\3" * len(load.data)
    before = sum(load.data[:10])
    del sys.tried
    return found, before, sum(load.data[:10])


def test_inv08_a_retry_in_the_same_worker_gets_the_original_and_keeps_what_it_writes(pool: GroupedPool) -> None:
    view = pool.options(retries=1, retry_on=(ValueError,))
    assert view.submit(spoil_then_raise, large(MB)).result() == (10, 30, 30)


def host_of(pool: GroupedPool) -> Any:
    return pool._supervisor._backend._host  # type: ignore[attr-defined]


def test_results_of_recycled_workers_give_their_memory_back_whenever_they_die(local_pool: MakePool) -> None:
    pool = local_pool(1, max_tasks_per_child=1)
    for size in (2 * MB, 40 * MB):
        results = [pool.submit(large, size).result() for _ in range(4)]
        pool.submit(int).result()  # the workers of the others are gone
        del results
        gc.collect()
        pool.submit(int).result()
        free = host_of(pool)._free_ranges
        assert len(set(free)) == len(free), "no range is given back twice"
        pool.submit(int).result()
        assert memory_of(pool) < 2 * MB


def test_memory_lent_to_a_worker_that_is_killed_comes_back_while_its_results_live(local_pool: MakePool) -> None:
    pool, kept = local_pool(1), []
    argument = large(30 * MB)
    for _ in range(3):
        kept.append(pool.submit(large, MB).result())
        with pytest.raises(TaskTimeout):
            pool.options(timeout=0.1).submit(hang_with, argument).result()
    pool.submit(int).result()
    assert memory_of(pool) < 3 * 30 * MB


def hang_with(load: Load) -> None:
    threading.Event().wait()


@pytest.mark.parametrize(
    "body",
    [b"", b"\1\0\0\0\0", struct.pack("<IB", 0, 1), struct.pack("<IB", 2, 0) + 2 * struct.pack("<QQ", start_of(1), 1)],
)
def test_inv10_a_strange_parcel_costs_its_worker_alone(body: bytes, tmp_path: Path) -> None:
    fd = os.memfd_create("test")
    try:
        Range(fd, 1).take(PAGE)
        with pytest.raises(Strange):
            Returns(fd, 1, lambda: None).open(body)
    finally:
        os.close(fd)


def test_a_range_ends_where_the_next_begins() -> None:
    fd = os.memfd_create("test")
    try:
        own = Range(fd, 0)
        own._next = start_of(1) - SEGMENT
        assert own.take(PAGE) is not None
        assert own.take(2 * SEGMENT) is None
        assert own.take(SEGMENT) is None
        assert own.take(PAGE) is not None
    finally:
        os.close(fd)


def test_what_grows_while_it_is_copied_harms_nobody() -> None:
    fd = os.memfd_create("test")
    try:
        own = Range(fd, 0)
        first, second = own.take(PAGE), own.take(PAGE)
        assert first is not None
        assert second is not None
        second.fill([b"o" * PAGE])
        with pytest.raises(ValueError):
            first.fill([b"x" * (PAGE + 1)])
        assert os.pread(fd, 1, second.offset) == b"o"
    finally:
        os.close(fd)


def test_inv20_who_forks_takes_the_locks_in_the_order_of_who_starts_workers(tmp_path: Path) -> None:
    """Hooks of before a fork run in reverse order; who starts a worker has its lock in hand already."""
    done = programs.run_script(
        tmp_path,
        """
        import os
        befores, register = [], os.register_at_fork
        def note(**hooks):
            befores.append(getattr(hooks.get("before"), "__qualname__", ""))
            register(**hooks)
        os.register_at_fork = note
        from gpool.workers.owned import fork_in_order
        names = list(filter(None, befores))
        print(names.index("_own_pages") < names.index("RLock.acquire"))
        import concurrent.futures.thread
        fork_in_order()
        print(befores[-1], "lock.acquire" in befores[:-1])
        """,
    )
    assert (done.stdout, done.stderr) == ("True\nRLock.acquire True\n", "")


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_inv20_forks_while_views_come_and_go(local_pool: MakePool, method: str) -> None:
    """One thread forks all the time: no result shows another's bytes, and nobody waits for ever."""
    pool, over, forks = local_pool(2, mp_context=method, max_tasks_per_child=20), threading.Event(), []

    def fork() -> None:
        while not over.is_set():
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
            forks.append(child)

    thread = threading.Thread(target=fork)
    thread.start()
    try:
        for number in range(60):
            value = bytes(pool.submit(of_bytes, number).result(60).data)
            assert value == bytes([number]) * len(value)
    finally:
        over.set()
        thread.join()
    assert forks


def of_bytes(number: int) -> Load:
    return Load(bytearray([number]) * (LARGE + number * PAGE))
