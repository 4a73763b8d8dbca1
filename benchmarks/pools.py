"""The contenders, each opened with two functions that mean the same: submit a call, map over rows.

Owns what is particular to a peer: its names, its start method, its idea of a chunk. All use forkserver, except
loky and joblib, which have a start method of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from operator import methodcaller
from typing import Any, NoReturn

METHOD = "forkserver"
CHUNK = 1000
"""The chunksize that a careful user of an executor would pick for a tiny function."""

Mapper = Callable[[Callable[[int], int], Sequence[int]], list[int]]


@dataclass(frozen=True)
class Open:
    """An open pool.

    Attributes:
        submit: run a function of no arguments; returns the peer's own future.
        result: wait for such a future's value.
        map: all results, in order.
        close: end the pool, workers included.
    """

    submit: Callable[[Callable[[], object]], Any]
    result: Callable[[Any], Any]
    map: Mapper
    close: Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """Attributes: module to be found for it to take part; the statement that imports its pool class; its opener."""

    module: str
    imports: str
    opener: Callable[[int], Open]


@contextmanager
def opened(name: str, slots: int = 2) -> Iterator[Open]:
    """The named contender, constructed; closed when the block is left."""
    pool = CONTENDERS[name].opener(slots)
    try:
        yield pool
    finally:
        pool.close()


def installed(name: str) -> bool:
    """True for whatever is no contender from elsewhere, too: the machine, the bare socketpair."""
    return name not in CONTENDERS or find_spec(CONTENDERS[name].module) is not None


def warm_up(pool: Open, task: Callable[[], object], times: int) -> None:
    """Run a task so many times that each worker has very likely had it."""
    for handle in [pool.submit(task) for _ in range(times)]:
        pool.result(handle)


def _gpool(slots: int) -> Open:
    from gpool import GroupedPool

    pool = GroupedPool(tags={"work": slots}, mp_context=METHOD)
    work = pool.group("work")
    return Open(work.submit, methodcaller("result"), lambda fn, rows: list(work.map(fn, rows)), pool.shutdown)


def _executor(slots: int) -> Open:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return _like_executor(ProcessPoolExecutor(slots, mp_context=get_context(METHOD)))


def _loky(slots: int) -> Open:
    return _like_executor(import_module("loky").ProcessPoolExecutor(slots))


def _like_executor(pool: Any) -> Open:
    return Open(
        pool.submit,
        methodcaller("result"),
        lambda fn, rows: list(pool.map(fn, rows, chunksize=CHUNK)),
        pool.shutdown,
    )


def _multiprocessing(slots: int) -> Open:
    from multiprocessing import get_context

    pool = get_context(METHOD).Pool(slots)

    def close() -> None:
        pool.close()
        pool.join()

    return Open(pool.apply_async, methodcaller("get"), pool.map, close)


def _pebble(slots: int) -> Open:
    from multiprocessing import get_context

    pool = import_module("pebble").ProcessPool(max_workers=slots, context=get_context(METHOD))

    def close() -> None:
        pool.close()
        pool.join()

    def map_(fn: Callable[[int], int], rows: Sequence[int]) -> list[int]:
        return list(pool.map(fn, rows, chunksize=CHUNK).result())

    return Open(pool.schedule, methodcaller("result"), map_, close)


def _mpire(slots: int) -> Open:
    pool = import_module("mpire").WorkerPool(n_jobs=slots, start_method=METHOD)

    def close() -> None:
        pool.stop_and_join()
        pool.terminate()

    return Open(pool.apply_async, methodcaller("get"), lambda fn, rows: list(pool.map(fn, rows)), close)


def _joblib(slots: int) -> Open:
    joblib = import_module("joblib")
    pool = joblib.Parallel(n_jobs=slots)

    def submit(task: Callable[[], object]) -> NoReturn:
        raise NotImplementedError("joblib has no submit")

    def map_(fn: Callable[[int], int], rows: Sequence[int]) -> list[int]:
        return list(pool(joblib.delayed(fn)(row) for row in rows))

    def close() -> None:
        import_module("joblib.externals.loky").get_reusable_executor().shutdown()

    return Open(submit, methodcaller("result"), map_, close)


CONTENDERS = {
    "gpool": Contender("gpool", "from gpool import GroupedPool", _gpool),
    "PPE": Contender("concurrent", "from concurrent.futures import ProcessPoolExecutor", _executor),
    "Pool": Contender("multiprocessing", "import multiprocessing.pool", _multiprocessing),
    "loky": Contender("loky", "from loky import ProcessPoolExecutor", _loky),
    "pebble": Contender("pebble", "from pebble import ProcessPool", _pebble),
    "mpire": Contender("mpire", "from mpire import WorkerPool", _mpire),
    "joblib": Contender("joblib", "from joblib import Parallel", _joblib),
}
"""PPE is concurrent.futures.ProcessPoolExecutor, Pool is multiprocessing.Pool."""

SUBMITTERS = tuple(name for name in CONTENDERS if name != "joblib")
