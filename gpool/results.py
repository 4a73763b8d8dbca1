"""Reading results: the iterators of ``map``, ``map_unordered`` and of the pool itself.

Owns what has ended and was not read yet. Nothing here decides anything; a reader only tells the feed behind it
that there is room again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from gpool.feeds import Feed
from gpool.futures import Future


class MapResults:
    """The results of a ``map``: in the order of its input, or as they come. Its feed refers to it.

    Args:
        ordered: in the order of the input.
        timeout: seconds from now after which ``next`` raises TimeoutError.
        bounded: the feed waits for the reader.
    """

    def __init__(self, *, ordered: bool, timeout: float | None, bounded: bool) -> None:
        self._ordered = ordered
        self._bounded = bounded
        self._discard = False
        self._deadline = None if timeout is None else monotonic() + timeout
        self._futures: deque[Future[Any]] = deque()
        self._error: BaseException | None = None
        self._more = threading.Condition()
        self._drawn = 0
        self._read = 0
        self._over = False
        self.feed: Feed | None = None

    def next(self) -> Any:
        """The next result; raises what the task, or at the end the input, raised."""
        future = self._next_future()
        self._read += 1
        try:
            left = None if self._deadline is None else max(0.0, self._deadline - monotonic())
            value = future.result(left)
        except StopIteration as error:  # an iterator that raised it would end, as if this were the last result
            self.close()
            raise RuntimeError("a mapped function raised StopIteration") from error
        except BaseException:
            self.close()
            raise
        if self.feed is not None:
            self.feed.nudge()
        return value

    @property
    def unread(self) -> int:
        """Items drawn whose results were not read yet."""
        return self._drawn - self._read

    def put(self, future: Future[Any]) -> None:
        """The next future in order, or the next that ended."""
        if self._discard:
            return
        with self._more:
            self._futures.append(future)
            self._more.notify()

    def drew(self) -> None:
        self._drawn += 1

    def finish(self, error: BaseException | None) -> None:
        """No item follows; ``error`` is what the input raised."""
        with self._more:
            self._over, self._error = True, error
            self._more.notify_all()

    def close(self) -> None:
        """Draw no more and cancel what has not begun."""
        if self.feed is not None:
            self.feed.cancel()
        with self._more:
            futures, self._futures = self._futures, deque()
            self._over = self._discard = True
            self._more.notify_all()
        for future in futures:
            future.cancel()

    def dropped(self) -> None:
        """Nobody can read any more: half read, it ends; never read, it runs to its end and keeps nothing."""
        if self._read or self._bounded:
            self.close()
        else:
            self._discard = True
            self._futures.clear()

    def _next_future(self) -> Future[Any]:
        def ready() -> bool:
            if self._futures or self._discard:
                return True
            return self._over and (self._ordered or self._unsettled() == 0)

        with self._more:
            left = None if self._deadline is None else max(0.0, self._deadline - monotonic())
            if not self._more.wait_for(ready, left):
                raise TimeoutError("the map did not yield its next result in time")
            if self._futures:
                return self._futures.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def _unsettled(self) -> int:
        return 0 if self.feed is None else self.feed.unfinished


class MapIterator(Iterator[Any]):
    """What ``map`` hands out. It keeps the pool alive, and nothing refers to it but its reader.

    ``close``, or dropping it half read, cancels what has not begun, as the standard library's ``map`` does.
    """

    def __init__(self, results: MapResults, keep: object, later: Callable[[Callable[[], None]], None]) -> None:
        self._results = results
        self._keep: object = keep
        self._later = later

    def __iter__(self) -> MapIterator:
        return self

    def __next__(self) -> Any:
        return self._results.next()

    def close(self) -> None:
        """Draw no more and cancel what has not begun."""
        self._results.close()

    def __del__(self) -> None:
        if hasattr(self, "_later"):  # Ctrl-C may have kept the constructor from its end
            self._later(self._results.dropped)  # a finalizer takes no lock


class Kept(Iterator[Any]):
    """The results of ``put`` and ``ingest`` as they finish; ends when nothing is pending and no feed is alive."""

    def __init__(self, take: Callable[[], Any], keep: object, gone: Callable[[], None]) -> None:
        self._take = take
        self._keep: object = keep
        self._gone = gone

    def __iter__(self) -> Kept:
        return self

    def __next__(self) -> Any:
        return self._take()

    def __del__(self) -> None:
        if hasattr(self, "_gone"):
            self._gone()
