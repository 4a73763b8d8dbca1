"""The contenders, each opened with two functions that mean the same: submit a call, map over rows.

Owns what is particular to a peer: its names, its start method, its idea of a chunk. All use forkserver, except
loky and joblib, which have a start method of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from operator import methodcaller
from typing import Any, NoReturn

METHOD = "forkserver"
CHUNK = 1000
"""The chunksize that a careful user of an executor would pick for a tiny function."""

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Open:
    """An open pool.

    Attributes:
        submit: run a function of no arguments; returns the peer's own future.
        result: wait for such a future's value.
        map: results in order, with the batching that suits a tiny function.
        unordered: results as they come, no two tasks in one chunk: what suits tasks of very unequal length.
        close: end the pool, workers included, when all is done.
        drop: end it now, whatever is queued.
    """

    submit: Callable[[Callable[[], object]], Any]
    result: Callable[[Any], Any]
    map: Mapper
    unordered: Mapper
    close: Callable[[], object]
    drop: Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """Attributes: module to be found for it to take part; the statement that imports its pool class; its opener."""

    module: str
    imports: str
    opener: Callable[[int], Open]


@contextmanager
def opened(name: str, slots: int = 2, *, drop: bool = False) -> Iterator[Open]:
    """The named contender, constructed; when the block is left it is closed, or what it holds is dropped."""
    pool = CONTENDERS[name].opener(slots)
    try:
        yield pool
    finally:
        (pool.drop if drop else pool.close)()


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
    return Open(work.submit, methodcaller("result"), work.map, work.map_unordered, pool.shutdown, pool.stop)


def _executor(slots: int) -> Open:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return _like_executor(ProcessPoolExecutor(slots, mp_context=get_context(METHOD)))


def _loky(slots: int) -> Open:
    pool = import_module("loky").ProcessPoolExecutor(slots)
    return replace(_like_executor(pool), drop=lambda: pool.shutdown(kill_workers=True))


def _like_executor(pool: Any) -> Open:
    return Open(
        pool.submit,
        methodcaller("result"),
        lambda fn, rows: pool.map(fn, rows, chunksize=CHUNK),
        lambda fn, rows: _as_completed([pool.submit(fn, row) for row in rows]),
        pool.shutdown,
        lambda: pool.shutdown(cancel_futures=True),
    )


def _as_completed(futures: list[Any]) -> Iterator[Any]:
    from concurrent.futures import as_completed

    return (future.result() for future in as_completed(futures))


def _multiprocessing(slots: int) -> Open:
    from multiprocessing import get_context

    pool = get_context(METHOD).Pool(slots)

    def close() -> None:
        pool.close()
        pool.join()

    return Open(pool.apply_async, methodcaller("get"), pool.map, pool.imap_unordered, close, pool.terminate)


def _pebble(slots: int) -> Open:
    from multiprocessing import get_context

    pool = import_module("pebble").ProcessPool(max_workers=slots, context=get_context(METHOD))

    def close() -> None:
        pool.close()
        pool.join()

    def drop() -> None:
        pool.stop()
        pool.join()

    def unordered(fn: Callable[[Any], Any], rows: Iterable[Any]) -> Iterator[Any]:
        return _as_completed([pool.schedule(fn, (row,)) for row in rows])

    def map_(fn: Callable[[Any], Any], rows: Iterable[Any]) -> Iterable[Any]:
        results: Iterable[Any] = pool.map(fn, rows, chunksize=CHUNK).result()
        return results

    return Open(pool.schedule, methodcaller("result"), map_, unordered, close, drop)


def _mpire(slots: int) -> Open:
    pool = import_module("mpire").WorkerPool(n_jobs=slots, start_method=METHOD)

    def close() -> None:
        pool.stop_and_join()
        pool.terminate()

    def unordered(fn: Callable[[Any], Any], rows: Iterable[Any]) -> Iterator[Any]:
        results: Iterator[Any] = pool.imap_unordered(fn, list(rows), chunk_size=1)
        return results

    return Open(
        pool.apply_async, methodcaller("get"), lambda fn, rows: pool.map(fn, list(rows)), unordered, close, close
    )


def _joblib(slots: int) -> Open:
    joblib = import_module("joblib")
    pool = joblib.Parallel(n_jobs=slots)
    streaming = joblib.Parallel(n_jobs=slots, return_as="generator_unordered", batch_size=1)

    def submit(task: Callable[[], object]) -> NoReturn:
        raise NotImplementedError("joblib has no submit")

    def map_(fn: Callable[[Any], Any], rows: Iterable[Any]) -> Iterable[Any]:
        return list(pool(joblib.delayed(fn)(row) for row in rows))

    def unordered(fn: Callable[[Any], Any], rows: Iterable[Any]) -> Iterable[Any]:
        results: Iterable[Any] = streaming(joblib.delayed(fn)(row) for row in rows)
        return results

    def close() -> None:
        import_module("joblib.externals.loky").get_reusable_executor().shutdown()

    return Open(submit, methodcaller("result"), map_, unordered, close, close)


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
PEERS = tuple(name for name in CONTENDERS if name != "gpool")
