"""An executor for one tag, with options for its tasks.

Owns what users call to submit and map under a tag. A view holds no state of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypedDict

from gpool.feeds import Feed, is_at_hand
from gpool.futures import Future
from gpool.model import Options, check_count, check_seconds
from gpool.results import MapIterator, MapResults
from gpool.supervisor import Supervisor
from gpool.workers.payload import Shared, one_call

if TYPE_CHECKING:
    from typing import Unpack


class Changes(TypedDict, total=False):
    """Task options; what is left out stays as it is."""

    timeout: float | None
    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    priority: int
    name: str | None


class GroupView(Executor):
    """An executor bound to one tag of a pool. It keeps its pool alive."""

    def __init__(self, pool: object, supervisor: Supervisor, tag: Hashable, options: Options) -> None:
        self._pool = pool
        self._supervisor = supervisor
        self._tag = tag
        self._options = options

    def __repr__(self) -> str:
        return f"<view of group {self._tag!r} of {self._pool!r}>"

    def options(self, **changes: Unpack[Changes]) -> GroupView:
        """A view whose tasks have these options too; this one stays as it is.

        Args:
            timeout: seconds a task may run before its worker is killed and it ends in ``TaskTimeout``; None: any.
            retries: further attempts after a crash or a timeout.
            retry_on: exception types that count too.
            priority: higher goes first inside the tag.
            name: what errors and ``stats()`` call the task; None: its function's name.

        Raises:
            TypeError, ValueError: an option is not what it should be.
        """
        return GroupView(self._pool, self._supervisor, self._tag, changed(self._options, changes))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue ``fn(*args, **kwargs)`` and return its future.

        Raises:
            PayloadError: it cannot be pickled.
            PoolClosed, UnknownTag, NoSlots: it could never run.
            TypeError: ``fn`` is not callable.
        """
        return submit(self._supervisor, self._tag, self._options, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """``fn`` over the iterables, results in their order.

        The first item that fails raises where its result would come, and ends the iteration: what has not begun is
        cancelled. ``submit`` gives each item's outcome.

        Args:
            fn: called with one item of each iterable.
            iterables: drawn as slots free up.
            timeout: seconds from now after which ``next`` raises TimeoutError.
            chunksize: a hint; how items travel is the pool's business.
            buffersize: how many items may be drawn ahead of the reader; None: all run, read or not. With a number, and
                when its reader waits for the pool to end, nothing further is drawn, and reading on ends in PoolClosed.

        Raises:
            As ``submit``; what an iterable raises comes where its next result would.
        """
        return self._map(fn, iterables, timeout, chunksize, buffersize, ordered=True)

    def map_unordered(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """``map`` with the results as they come."""
        return self._map(fn, iterables, timeout, chunksize, buffersize, ordered=False)

    def _map(
        self,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        buffersize: int | None,
        *,
        ordered: bool,
    ) -> Iterator[Any]:
        check_count("buffersize", buffersize, least=1)
        check_count("chunksize", chunksize, least=1)
        if not iterables:
            raise TypeError("map needs at least one iterable")
        self._supervisor.check(self._tag)
        supervisor = self._supervisor
        shared = Shared(check_callable(fn), (), {})
        results = MapResults(supervisor, ordered=ordered, timeout=timeout, buffersize=buffersize)
        several, at_hand = len(iterables) > 1, all(map(is_at_hand, iterables))
        items = zip(*iterables, strict=False) if several else iterables[0]
        feed = Feed(
            supervisor,
            self._tag,
            self._options,
            name_of(fn),
            items,
            shared,
            results,
            several=several,
            at_hand=at_hand,
        )
        results.feed = feed
        feed.begin()
        return MapIterator.over(results, self._pool, supervisor.leave)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """A view has nothing of its own to shut down; the pool goes on."""


def submit(
    supervisor: Supervisor,
    tag: Hashable,
    options: Options,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Future[Any]:
    """``GroupView.submit``, without the view."""
    tag = supervisor.check(tag)
    return supervisor.submit(tag, one_call(check_callable(fn), args, kwargs, supervisor.room), options, name_of(fn))


def changed(options: Options, changes: Changes) -> Options:
    """Task options with changes; TypeError or ValueError if one is not what it should be."""
    if unknown := changes.keys() - set(Options._fields):
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    merged: dict[str, Any] = {**options._asdict(), **changes}
    timeout, retries, retry_on, priority, name = merged.values()
    check_seconds("timeout", timeout)
    check_count("retries", retries, least=0, optional=False)
    check_count("priority", priority, optional=False)
    types = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in types):
        raise TypeError(f"retry_on takes exception types, not {retry_on!r}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, not {name!r}")
    return Options(timeout, retries, types, priority, name)


def check_callable(fn: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(fn):
        raise TypeError(f"a callable is needed, not {fn!r}")
    return fn


def keywords(kwargs: object) -> dict[str, Any]:
    """Keyword arguments, from a mapping or None; TypeError if they are none."""
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise TypeError(f"kwargs must give arguments by their names, not {kwargs!r}")
    return dict(kwargs)


def name_of(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__
