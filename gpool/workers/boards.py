"""Boards: shared memory in which a worker says what it has begun, and learns what it may not begin any more.

Owns what stands where on a board, which is the end of the worker's region in the pool's memory file. Before a worker
begins a lease, or an item of a block, it *claims* it there under a lock; the supervisor takes the lock to take back
whatever has not been claimed. That makes three things exact:

- Which leases and items have begun: each has either begun or is taken back, never both.
- Who is to blame when the worker dies: what it had claimed and not answered.
- That no finished answer of a block is lost: each is kept on the board before the next item is claimed, until it was
  sent.

The lock is a semaphore in shared memory and costs no system call when nobody else wants it. The supervisor never waits
for a worker: from one that was stopped with the lock in its hand nothing can be taken back as long as it stands still.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from gpool.workers.stacks import BOARD, REGION

_LEASE = 0  # the one begun last
_BEGUN = 1  # items of it that were claimed, if it is a block
_DONE = 2  # items of it whose answers are kept, or sent
_FIRST = 3  # the first item whose answer is kept
_REVOKED = 4  # no lease up to this one may be claimed,
_SPARED = 5  # but for this one
_LIMITED = 6  # the lease to which the limit applies
_LIMIT = 7  # items of it that may be claimed
_WORDS = struct.Struct("8Q")
_AREA = 64
_LOCK_SECONDS = 0.002
"""For the lock, which is held for less than a microsecond by a worker that runs."""


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
    answers: list[Any]


class Board:
    """A worker's region, as the program sees it."""

    def __init__(self, fd: int, region: int, lock: Lock) -> None:
        self._fd = fd
        self._start = (region + 1) * REGION - BOARD
        self._lock = lock
        os.pwrite(fd, b"\0", (region + 1) * REGION - 1)  # it reaches to here; truncating it might make it shorter
        os.pwrite(fd, bytes(_AREA), self._start)

    def revoke(self, last: int, spare: int) -> Begun | None:
        """Let the worker begin no lease up to ``last`` any more, except ``spare``, and no more items of its block.

        If it has not begun ``spare``, that is limited to one item. None when nothing can be taken back now.
        """
        if not self._lock.acquire(True, _LOCK_SECONDS):
            return None
        try:
            words = self._words()
            begun = Begun(words[_LEASE], words[_BEGUN]) if words[_LEASE] >= spare else Begun(words[_LEASE], 0)
            limited, limit = max(begun.lease, spare), max(1, begun.items)
            os.pwrite(self._fd, struct.pack("4Q", last, spare, limited, limit), self._start + _REVOKED * 8)
        finally:
            self._lock.release()
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
        words = self._words()
        if words[_LEASE] != lease:
            return None
        pickles = pickle.Unpickler(io.BytesIO(os.pread(self._fd, BOARD - _AREA, self._start + _AREA)))
        return Kept(words[_FIRST], [pickles.load() for _ in range(words[_DONE] - words[_FIRST])])

    def begun(self) -> Begun:
        """Of a worker that has died: what it had begun last."""
        words = self._words()
        return Begun(words[_LEASE], words[_BEGUN], words[_DONE])

    def _words(self) -> tuple[int, ...]:
        return _WORDS.unpack(os.pread(self._fd, _WORDS.size, self._start))


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
        self._words = memoryview(self._map)[:_AREA].cast("Q")
        self._acquire, self._release = lock.acquire, lock.release
        # It writes straight to the board. An answer has no parts that are worth remembering: each stands alone.
        self._pickler = pickle.Pickler(self._map, pickle.HIGHEST_PROTOCOL)
        self._pickler.fast = True

    def claim(self, lease: int) -> bool:
        """Begin a lease, unless it was taken back."""
        words = self._words
        self._acquire()
        free = lease > words[_REVOKED] or lease == words[_SPARED]
        if free:
            words[_BEGUN] = words[_DONE] = words[_FIRST] = 0
            words[_LEASE] = lease
        self._release()
        return free

    def open_block(self, lease: int) -> None:
        """The lease just begun is a block's."""
        words, acquire, release, dump = self._words, self._acquire, self._release, self._pickler.dump
        self._map.seek(_AREA)

        def claim_item(index: int) -> bool:
            acquire()
            free = words[_LIMITED] != lease or index < words[_LIMIT]
            if free:
                words[_BEGUN] = index + 1
            release()
            return free

        def keep(index: int, answer: Any) -> bool:
            try:
                dump(answer)
            except ValueError:
                return False
            words[_DONE] = index + 1  # after the answer, so what is counted is complete
            return True

        self.claim_item, self.keep = claim_item, keep

    def clear(self) -> None:
        """The answers have been sent."""
        words = self._words
        self._acquire()
        words[_FIRST] = words[_DONE] = words[_BEGUN]
        self._release()
        self._map.seek(_AREA)
