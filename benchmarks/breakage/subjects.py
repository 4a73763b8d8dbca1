"""The pools that are given the same fault, behind one face.

Owns what is particular to each: its names, its start method, how it cancels, which features it lacks. All have two
workers and use forkserver, except loky, which has a start method of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

METHOD = "forkserver"
WORKERS = 2

Function = Callable[..., Any]


class Unsupported(Exception):
    """The pool offers no such thing."""


class Subject:
    """One open pool. The methods here are those of an executor of the standard library.

    Args:
        initializer: for its workers.
        max_tasks: after how many tasks a worker is replaced.
    """

    title = ""
    module = ""

    def __init__(self, *, initializer: Function | None = None, max_tasks: int | None = None) -> None:
        self.pool: Any = self._open(initializer, max_tasks)
        """Leaving it as a context manager is how its documentation says it should be ended."""

    def _open(self, initializer: Function | None, max_tasks: int | None) -> Any:
        raise NotImplementedError

    def submit(self, fn: Function, *args: Any) -> Any:
        """Submit; returns the pool's own future, or what stands for one."""
        return self.pool.submit(fn, *args)

    def submit_timed(self, seconds: float, fn: Function, *args: Any) -> Any:
        """Submit with a limit on the task's own time."""
        raise Unsupported

    def submit_with_callback(self, callback: Callable[[Any], object], fn: Function, *args: Any) -> Any:
        future = self.submit(fn, *args)
        future.add_done_callback(callback)
        return future

    def cancel(self, future: Any) -> bool:
        """Cancel a running task by the strongest means there are for one task; what the pool says to it."""
        return bool(future.cancel())

    def map(self, fn: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(self.pool.map(fn, items))

    def done(self, future: Any) -> bool:
        return bool(future.done())

    def fetch(self, future: Any) -> Any:
        """The value of a future that is done; raises what it holds."""
        return future.result(0)

    def close(self) -> None:
        """Let the pool finish, and wait for it."""
        self.pool.shutdown()


class Gpool(Subject):
    title = module = "gpool"

    def _open(self, initializer: Function | None, max_tasks: int | None) -> Any:
        from gpool import GroupedPool

        return GroupedPool(
            tags={"work": WORKERS}, mp_context=METHOD, initializer=initializer, max_tasks_per_child=max_tasks
        )

    def submit(self, fn: Function, *args: Any) -> Any:
        return self.pool.group("work").submit(fn, *args)

    def submit_timed(self, seconds: float, fn: Function, *args: Any) -> Any:
        return self.pool.group("work").options(timeout=seconds).submit(fn, *args)

    def cancel(self, future: Any) -> bool:
        return bool(future.cancel(kill=True))

    def map(self, fn: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(self.pool.group("work").map(fn, items))


class Executor(Subject):
    title = "ProcessPoolExecutor"
    module = "concurrent.futures"

    def _open(self, initializer: Function | None, max_tasks: int | None) -> Any:
        from concurrent.futures import ProcessPoolExecutor

        context = get_context(METHOD)
        return ProcessPoolExecutor(WORKERS, context, initializer, max_tasks_per_child=max_tasks)


class Pool(Subject):
    title = "multiprocessing.Pool"
    module = "multiprocessing"

    def _open(self, initializer: Function | None, max_tasks: int | None) -> Any:
        return get_context(METHOD).Pool(WORKERS, initializer, maxtasksperchild=max_tasks)

    def submit(self, fn: Function, *args: Any) -> Any:
        return self.pool.apply_async(fn, args)

    def submit_with_callback(self, callback: Callable[[Any], object], fn: Function, *args: Any) -> Any:
        return self.pool.apply_async(fn, args, callback=callback)

    def cancel(self, future: Any) -> bool:
        raise Unsupported

    def map(self, fn: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(self.pool.imap(fn, items))

    def done(self, future: Any) -> bool:
        return bool(future.ready())

    def fetch(self, future: Any) -> Any:
        return future.get(0)

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class Loky(Subject):
    title = module = "loky"

    def _open(self, initializer: Function | None, max_tasks: int | None) -> Any:
        if max_tasks is not None:
            raise Unsupported
        return import_module("loky").ProcessPoolExecutor(WORKERS, initializer=initializer)


class Pebble(Subject):
    title = "Pebble"
    module = "pebble"

    def _open(self, initializer: Function | None, max_tasks: int | None) -> Any:
        context = get_context(METHOD)
        pebble = import_module("pebble")
        return pebble.ProcessPool(WORKERS, max_tasks=max_tasks or 0, initializer=initializer, context=context)

    def submit(self, fn: Function, *args: Any) -> Any:
        return self.pool.schedule(fn, args=args)

    def submit_timed(self, seconds: float, fn: Function, *args: Any) -> Any:
        return self.pool.schedule(fn, args=args, timeout=seconds)

    def map(self, fn: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(self.pool.map(fn, items).result())

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


SUBJECTS: dict[str, type[Subject]] = {
    "gpool": Gpool,
    "PPE": Executor,
    "Pool": Pool,
    "loky": Loky,
    "pebble": Pebble,
}
"""By the names that ``benchmarks/run.py`` uses too."""


def installed(name: str) -> bool:
    return find_spec(SUBJECTS[name].module.partition(".")[0]) is not None
