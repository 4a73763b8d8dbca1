"""Reading results: the iterators of ``map``, ``map_unordered`` and of the pool itself.

Owns what has ended and was not read yet. Nothing here decides anything; a reader only tells the feed behind it
that there is room again.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import length_hint
from typing import Any, NoReturn, Protocol, cast

from gpool.blocks import Block, Chunk, outcome_in
from gpool.errors import PoolClosed
from gpool.feeds import ANY_NUMBER, Feed
from gpool.interrupts import instant_in, seconds_until, shielded, wait_for
from gpool.model import Task
from gpool.outcome import Outcome
from gpool.workers.blocks import Entry

_OPENED = frozenset((tuple, Outcome))
"""Entries of these types are not values."""


class Owner(Protocol):
    """Whose results they are: what readers need of the supervisor."""

    def awaits_end(self, thread: int) -> bool:
        """True while a thread, by its identifier, waits for the pool to end: it reads nothing meanwhile."""

    def check_process(self) -> None:
        """PoolClosed in a process that has only a copy of all this."""

    def cancel_all(self, tasks: Callable[[], Iterable[Task]]) -> None:
        """Cancel those of the tasks listed that have not begun."""

    def later(self, do: Callable[[], object]) -> None:
        """Call what wakes the reader, when that harms nobody."""


class MapResults(Iterator[Iterator[Any]]):
    """The results of a ``map``, one chunk after the other: in the order of its input, or as they come.

    Its feed gives the chunks. ``next`` gives an iterator over the values of one.

    Args:
        ordered: in the order of the input.
        timeout: seconds from now after which ``next`` raises TimeoutError.
        buffersize: items drawn ahead of the reader at most; None for any number.
    """

    def __init__(
        self,
        owner: Owner,
        *,
        ordered: bool,
        timeout: float | None,
        buffersize: int | None,
    ) -> None:
        self._owner = owner
        self._ordered = ordered
        self._buffersize = buffersize
        self._discard = False
        self._deadline = instant_in(timeout)
        self._blocks: dict[Block, None] = {}  # that have not ended
        self._chunks: dict[int, Chunk] = {}  # by their first item, in the order in which they came
        self._entries: list[Entry | Outcome] = []  # of the chunk that is being read
        self._values: Iterator[Any] = iter(())  # what is left of that
        self._error: BaseException | None = None
        self._turning = threading.RLock()  # from one chunk to the next
        self._is_turning = False
        self._reader = 0  # the thread that read last; 0 for none
        self._more = threading.Condition()
        self._results_read = 0  # where their number is limited
        self._taken = 0  # items of the chunks begun
        self._over = False
        self.feed: Feed | None = None

    def __next__(self) -> Iterator[Any]:
        """The values of the next chunk; at the end of the input, what that raised."""
        try:
            with self._turning:
                if self._is_turning:
                    raise ValueError("a signal's handler reads the iterator from whose reading it was called")
                self._is_turning = True
                try:
                    return self._turn()
                finally:
                    self._is_turning = False
        except StopIteration:
            raise
        except BaseException as error:
            return _raising(error)  # who reads would take what is raised here for the end

    def _turn(self) -> Iterator[Any]:
        self._reader = threading.get_ident()
        if length_hint(self._values) > 0:
            return self._values  # another thread reads too, and was quicker; or what a handler raised came between
        self._entries = []
        chunk = self._next_chunk()
        values = self._read(chunk.entries())
        with shielded(), self._more:  # it is taken as a whole, whatever a signal's handler raises
            if self._discard:
                raise StopIteration
            del self._chunks[chunk.first]
            self._taken += chunk.size
            self._values = values
        return values

    def _read(self, entries: Sequence[Entry | Outcome]) -> Iterator[Any]:
        """The values of a chunk's entries; where none needs to be opened they are the list's own."""
        numbers = type(entries) is array
        self._entries = entries.tolist() if numbers else list(entries)  # type: ignore[attr-defined]
        if self._buffersize is None and (numbers or _OPENED.isdisjoint(map(type, entries))):
            return iter(self._entries)
        return _Values(self, self._entries)

    def count(self) -> None:
        """One more result is read."""
        if self._buffersize is not None:
            self._results_read += 1
            if self.feed is not None:
                self.feed.nudge()

    def open(self, entry: Entry | Outcome) -> Any:
        """The value, or what is raised in place of one."""
        if type(entry) not in _OPENED:
            return entry
        try:
            value, error = outcome_in(entry)
            if error is not None:
                raise error
        except StopIteration as error:  # an iterator that raised it would end, as if this were the last result
            raise RuntimeError("a mapped function raised StopIteration") from error
        return value

    # What its feed tells it.

    def room(self) -> int:
        if self._buffersize is None or self.feed is None:
            return ANY_NUMBER
        room = self._buffersize - (self.feed.drawn - self._results_read)
        if room <= 0 and self._owner.awaits_end(self._reader):
            raise PoolClosed("the pool was shut down before all of the map's input had been drawn")
        return room

    def began(self, block: Block) -> None:
        self._blocks[block] = None

    def take(self, chunk: Chunk) -> None:
        if self._discard:
            return
        with self._more:
            self._chunks[chunk.first] = chunk
        if not self._ordered or chunk.first == self._taken:
            self._owner.later(self._tell_reader)

    def ended(self, block: Block) -> None:
        del self._blocks[block]
        if not self._blocks and self._over:
            self._owner.later(self._tell_reader)

    def over(self, error: BaseException | None) -> None:
        self._over, self._error = True, error
        self._tell_reader()

    def _tell_reader(self) -> None:
        with shielded(), self._more:
            self._more.notify_all()

    # What its reader tells it.

    def close(self) -> None:
        """Draw no more and cancel what has not begun."""
        if self.feed is not None:
            self.feed.abandon()
        with shielded(), self._more:
            self._discard = True
            self._chunks = {}
            self._entries.clear()  # who reads them finds no more
            self._more.notify_all()
        self._owner.cancel_all(lambda: [block.task for block in list(self._blocks)])

    def dropped(self) -> None:
        """Nobody can read any more: half read, it ends; never read, it runs to its end and keeps nothing."""
        if self._taken or self._buffersize is not None:
            self.close()
        else:
            self._discard = True
            self._chunks.clear()

    def _next_chunk(self) -> Chunk:
        """The next chunk, left where it is; at the end of the input, what that raised."""
        self._owner.check_process()
        if not (self._ready() or wait_for(self._more, self._ready, seconds_until(self._deadline))):
            self.close()
            raise TimeoutError("the map did not yield its next result in time")
        with shielded(), self._more:
            if self._chunks and not self._discard:
                first = self._taken if self._ordered else next(iter(self._chunks))
                return self._chunks[first]
        self._values = iter(())  # else those of the last chunk, which may refer to this, would keep it
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def _ready(self) -> bool:
        if self._discard or (self._taken in self._chunks if self._ordered else self._chunks):
            return True
        return self._over and (self.feed is None or self.feed.unfinished == 0)


class _Values(Iterator[Any]):
    """Those of a chunk of which some must be opened, or counted. Not a generator: several threads may read."""

    def __init__(self, results: MapResults, entries: list[Entry | Outcome]) -> None:
        self._results = results
        self._entries = iter(entries)

    def __next__(self) -> Any:
        try:
            entry = next(self._entries)
            self._results.count()
            return self._results.open(entry)
        except StopIteration:
            raise
        except BaseException:  # also what a signal's handler raises, who might have cost the reader an entry
            self._results.close()
            raise

    def __length_hint__(self) -> int:
        return length_hint(self._entries)


def _raising(error: BaseException) -> Iterator[Any]:
    """Raises it when it is read."""
    raise error
    yield


class MapIterator(chain[Any]):
    """What ``map`` hands out. It keeps the pool alive, and nothing refers to it but its reader.

    The interpreter's own ``chain`` hands on the values of chunk after chunk, which takes no code of ours for each.

    ``close``, or dropping it half read, cancels what has not begun, as the standard library's ``map`` does.
    """

    _results: MapResults
    _keep: object
    _later: Callable[[Callable[[], None]], None]

    @classmethod
    def over(cls, results: MapResults, keep: object, later: Callable[[Callable[[], None]], None]) -> MapIterator:
        iterator = cast(MapIterator, cls.from_iterable(results))
        iterator._results, iterator._keep, iterator._later = results, keep, later
        return iterator

    def close(self) -> None:
        """Draw no more and cancel what has not begun."""
        self._results.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("the results of a map can be neither copied nor pickled")

    def __del__(self) -> None:
        if hasattr(self, "_later"):  # Ctrl-C may have kept it from its beginning
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
