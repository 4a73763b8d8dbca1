"""Boards: shared memory in which a worker says what it has begun, and learns what it may not begin any more.

Owns what stands where on a board, which is the end of the worker's region in the pool's memory file. Before a worker
begins a lease, or an item of a block, it *claims* it there; the supervisor takes back whatever has not been claimed.
That makes three things exact:

- Which leases and items have begun: each has either begun or is taken back, never both.
- Who is to blame when the worker dies: what it had claimed and not answered.
- That no finished answer of a block is lost: each is kept on the board before the next item is claimed, until it was
  sent.

Leases are claimed under a lock. It is a semaphore in shared memory and costs no system call when nobody else wants it.
The supervisor never waits for a worker: from one that was stopped with the lock in its hand nothing can be taken back
as long as it stands still.

Items are claimed without the lock, if the two can have barriers (``gpool.workers.barriers``). The worker writes that it
has begun item *i*, then reads the last item that may begin; if that is before *i*, it asks again under the lock. The
supervisor, with the lock, writes that no item but the first may begin, makes a fence, reads what has begun, and writes
the last of that for good. Take any claim. If the worker wrote before the fence, the supervisor has read it and lets the
item be begun, whatever the worker reads. If not, the worker reads after the fence, finds that the item may not begin,
waits for the lock and finds what has been decided: that the item was taken back. That it wrote a claim then says
nothing, so what has begun is never more than what may. A worker that is stopped or killed between any two steps has
begun the item if and only if the supervisor reads it so.

Numbers are kept in *cells*, one for each item, which are filled with a mark beforehand. To write the answer of an item
to its cell is to claim the next one. So there is one word to write for each item, and one byte to read: it says whether
any item may begin, and changes together with the last one that may.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from gpool.workers import barriers
from gpool.workers.cells import MARK, MARKED, Cells
from gpool.workers.stacks import BOARD, REGION
from gpool.workers.windows import Window, system

_LEASE = 0  # the one begun last
_BEGUN = 1  # items of it that were claimed, if it is a block
_DONE = 2  # items of it whose answers are kept, or sent
_FIRST = 3  # the first item whose answer is kept
_REVOKED = 4  # no lease up to this one may be claimed,
_SPARED = 5  # but for this one, of which one item may be
_LAST = 6  # the last item of the lease begun last that may be claimed
_FENCED = 7  # items are claimed without the lock
_IN_CELLS = 8  # answers are kept in cells: the code of the format; what is claimed and kept is found there
_SIZE = 9  # and of how many items
_FREE = 80  # a byte behind these words: any item may be claimed; if it is 0, _LAST says which
_AREA = 128
_ANY_ITEM = 1 << 62
_LOCK_SECONDS = 0.002
"""For the lock, which is held for less than a microsecond by a worker that runs."""
_CODES: dict[type, Literal["q", "d"]] = {int: "q", float: "d"}
"""Formats of cells."""
_CELLS = (BOARD - _AREA) // 8


class Lock(Protocol):
    """A lock between processes."""

    def acquire(self, block: bool = True, timeout: float | None = None, /) -> bool: ...
    def release(self) -> None: ...


class Begun(NamedTuple):
    """The lease that was begun last; if it is a block, how many of its items were begun, and how many have ended."""

    lease: int
    items: int
    ended: int = 0


class Kept(NamedTuple):
    """Answers found on a board: of the items from number ``first`` on."""

    first: int
    answers: Sequence[Any]


class Board:
    """A worker's region, as the program sees it.

    Args:
        fences: whether items may be claimed without the lock.
    """

    def __init__(self, fd: int, region: int, lock: Lock, *, fences: bool = True) -> None:
        os.pwrite(fd, b"\0", (region + 1) * REGION - 1)  # it reaches to here; truncating it might make it shorter
        self._memory = _mapped(fd, region)
        self._bytes = self._memory.bytes()
        self._bytes[:_AREA] = bytes(_AREA)
        self._words, self._cells = self._bytes[:_AREA].cast("Q"), self._bytes[_AREA:].cast("Q")
        self._lock = lock
        self._words[_FENCED] = fences and barriers.can_fence()

    def revoke(self, last: int, spare: int) -> Begun | None:
        """Let the worker begin no lease up to ``last`` any more, except ``spare``, and no more items of its block.

        If it has not begun ``spare``, that is limited to one item. None when nothing can be taken back now.
        """
        if not self._lock.acquire(True, _LOCK_SECONDS):
            return None
        try:
            words = self._words
            lease, items = words[_LEASE], 0
            if lease >= spare:
                items = self._limit()
            if items >= 0:
                words[_REVOKED], words[_SPARED] = last, spare
        finally:
            self._lock.release()
        return Begun(lease, items) if items >= 0 else None

    def _limit(self) -> int:
        """Let the worker begin no more items of its block; returns how many it has begun, or -1 if nobody can tell."""
        words = self._words
        before, free = words[_LAST], self._bytes[_FREE]
        words[_LAST] = self._bytes[_FREE] = 0  # a claim that sees either waits for the lock
        if not self._fence():
            words[_LAST], self._bytes[_FREE] = before, free
            return -1
        begun = min(self._claimed(), before + 1)
        words[_LAST] = max(0, begun - 1)
        return begun

    def kept(self, lease: int) -> Kept | None:
        """The answers kept of a lease's block; None if there are none to be had."""
        if not self._lock.acquire(True, _LOCK_SECONDS):
            return None
        try:
            return self.left(lease)
        finally:
            self._lock.release()

    def left(self, lease: int) -> Kept | None:
        """``kept``, without the lock: of a worker that has died."""
        words = self._words
        if words[_LEASE] != lease:
            return None
        code, first = words[_IN_CELLS], words[_FIRST]
        done = self._done(code)  # with this code: the worker may turn to cells just now
        if not self._fence():  # what is counted is complete
            return None
        if code:
            return Kept(first, array(chr(code), self._cells[first:done].tobytes()))
        pickles = pickle.Unpickler(io.BytesIO(self._bytes[_AREA:]))
        return Kept(first, [pickles.load() for _ in range(done - first)])

    def begun(self) -> Begun:
        """Of a worker that has died: what it had begun last."""
        words = self._words
        return Begun(words[_LEASE], min(self._claimed(), words[_LAST] + 1), self._done(words[_IN_CELLS]))

    def _fence(self) -> bool:
        """False if it is needed and there is none."""
        return not self._words[_FENCED] or barriers.fence()

    def _claimed(self) -> int:
        words = self._words
        code = words[_IN_CELLS]
        return min(self._done(code) + 1, words[_SIZE]) if code else words[_BEGUN]

    def _done(self, code: int) -> int:
        words = self._words
        if not code:
            return words[_DONE]
        return bisect_left(self._cells, True, words[_FIRST], words[_SIZE], key=MARKED.__eq__)


class _Map:
    """``Window``, where the system has none."""

    def __init__(self, fd: int, start: int) -> None:
        self._map = mmap.mmap(fd, BOARD, offset=start)

    def bytes(self) -> memoryview:
        return memoryview(self._map)


def _mapped(fd: int, region: int) -> Window | _Map:
    start = (region + 1) * REGION - BOARD
    return _Map(fd, start) if system() is None else Window(fd, start, BOARD, private=False)


class WorkerBoard:
    """The region, as its worker sees it.

    ``claim_item`` and ``keep`` are made anew for each block, with all they need at hand: they are called for each item.

    Attributes:
        claim_item: begins the item of this number, unless it was taken back.
        keep: keeps the answer to it; False if there is no room, so that it must be sent at once.
    """

    claim_item: Callable[[int], bool]
    keep: Callable[[int, Any], bool]

    def __init__(self, fd: int, region: int, lock: Lock) -> None:
        self._map = mmap.mmap(fd, BOARD, offset=(region + 1) * REGION - BOARD)
        self._bytes = memoryview(self._map)
        self._words = self._bytes[:_AREA].cast("Q")
        self._acquire, self._release = lock.acquire, lock.release
        self._fenced: bool | None = None  # not known before the first block: to find out takes milliseconds
        # It writes straight to the board. An answer has no parts that are worth remembering: each stands alone.
        self._pickler = pickle.Pickler(self._map, pickle.HIGHEST_PROTOCOL)
        self._pickler.fast = True

    def claim(self, lease: int) -> bool:
        """Begin a lease, unless it was taken back."""
        words = self._words
        self._acquire()
        free = lease > words[_REVOKED] or lease == words[_SPARED]
        if free:
            words[_IN_CELLS] = words[_BEGUN] = words[_DONE] = words[_FIRST] = 0
            all_items = lease != words[_SPARED]
            words[_LAST], self._bytes[_FREE] = _ANY_ITEM if all_items else 0, all_items
            words[_LEASE] = lease
        self._release()
        return free

    def open_block(self) -> None:
        """The lease just begun is a block's."""
        words, dump = self._words, self._pickler.dump
        if self._fenced is None:
            words[_FENCED] = self._fenced = bool(words[_FENCED]) and barriers.join()
        self._map.seek(_AREA)

        def claim_item(index: int) -> bool:
            words[_BEGUN] = index + 1
            return index <= words[_LAST] or self._claim_locked(index)

        def keep(index: int, answer: Any) -> bool:
            try:
                dump(answer)
            except ValueError:
                return False
            words[_DONE] = index + 1  # after the answer, so what is counted is complete
            return True

        self.claim_item, self.keep = claim_item if self._fenced else self._claim_locked, keep

    def _claim_locked(self, index: int) -> bool:
        words = self._words
        self._acquire()
        free = index <= words[_LAST]
        words[_BEGUN] = index + free
        self._release()
        return free

    def clear(self, ended: int) -> None:
        """The answers to so many items have been sent, and no more were begun."""
        words = self._words
        self._acquire()
        words[_SIZE] = ended  # from left to right and from here on down it says the same, should the worker be killed
        words[_FIRST] = words[_DONE] = words[_BEGUN] = ended
        words[_IN_CELLS] = 0
        self._release()
        self._map.seek(_AREA)

    def open_cells(self, first: int, size: int, answer: Any) -> Cells | None:
        """Keep answers in cells from that to item ``first`` on, of ``size`` items; nothing else is kept.

        None, and nothing is done, where that can't be.
        """
        code = _CODES.get(type(answer))
        if code is None or not self._fenced or not first + 1 < size <= _CELLS:
            return None
        words, cells = self._words, self._bytes[_AREA:].cast(code)
        self._bytes[_AREA + first * 8 : _AREA + size * 8] = MARK * (size - first)
        if answer == cells[first]:
            return None
        try:
            cells[first] = answer
        except ValueError:
            return None
        words[_SIZE] = size
        words[_IN_CELLS] = ord(code)  # and the next item is claimed
        return Cells(cells, first, self._bytes[_FREE : _FREE + 1], self._claim_locked)
