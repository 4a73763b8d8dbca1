"""One ``map``: its feed, its tasks and the results that its reader takes.

Owns how items become tasks of a map. The reading side is ``gpool.results``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from gpool.errors import PayloadError
from gpool.feeds import Feed
from gpool.futures import Future
from gpool.model import Options
from gpool.results import MapIterator, MapResults
from gpool.supervisor import Supervisor
from gpool.workers.payload import Call, Shared, describe, dump_call


class Mapping:
    """See the module's docstring.

    Args:
        shared: the function, pickled once.
        ordered: whether results come in the order of the items.
        timeout: seconds from now for the reader; None for any.
        buffersize: items drawn ahead of the reader; None for all.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        tag: Hashable,
        options: Options,
        name: str,
        shared: Shared,
        ordered: bool,
        timeout: float | None,
        buffersize: int | None,
    ) -> None:
        self._supervisor = supervisor
        self._tag = tag
        self._options = options
        self._name = name
        self._shared = shared
        supervisor.share(shared)
        self._buffersize = buffersize
        self._ordered = ordered
        self._results = MapResults(ordered=ordered, timeout=timeout, bounded=buffersize is not None)

    def begin(self, items: Iterator[tuple[Any, ...]], keep: object) -> MapIterator:
        """Start drawing; the iterator keeps ``keep`` alive."""
        feed = Feed(self._supervisor, self._tag, items, self._submit, paused=self._paused, ended=self._ended)
        self._feed = self._results.feed = feed
        feed.begin()
        return MapIterator(self._results, keep, self._supervisor.leave)

    def _submit(self, items: tuple[Any, ...]) -> Future[Any]:
        try:
            call = Call(dump_call(items), self._shared)
        except PayloadError as problem:
            call = Call(_refusal(problem), Shared(_reraise, (), {}))
        self._results.drew()
        future = self._supervisor.submit(self._tag, call, self._options, self._name, follow_up=self._settled)
        if self._ordered:
            self._results.put(future)
        return future

    def _settled(self, future: Future[Any]) -> None:
        self._feed.settled()
        if not self._ordered:
            self._results.put(future)

    def _paused(self) -> bool:
        return self._buffersize is not None and self._results.unread >= self._buffersize

    def _ended(self, problem: BaseException | None) -> None:
        self._results.finish(problem)


def _refusal(problem: PayloadError) -> bytes:
    """An item's arguments of ``_reraise``; a cause that does not pickle either is put into words."""
    cause = problem.__cause__
    try:
        return dump_call((problem, cause))
    except PayloadError:
        return dump_call((problem, cause and describe(cause)))


def _reraise(error: BaseException, cause: BaseException | None) -> None:
    raise error from cause
