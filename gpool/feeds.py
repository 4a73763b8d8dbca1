"""Feeds: drawing from iterables no faster than slots free up.

Owns the threads that call the user's ``next()``, and how many items make a block. A feed draws an item only while
fewer of its items are unfinished than its tag has use for, so an endless iterable runs in flat memory. ``ingest``
hands out a ``Feed``; ``map`` and ``map_unordered`` read from one.

What was drawn is *held* until it is enough for a block. It never waits for that while a slot is free: the feed looks
after each item whether one is, and the supervisor at the end of each turn whether a worker could do with more. So a
slow iterable's items go one by one, and a fast one's in blocks as large as their measured run times justify.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice, repeat
from operator import length_hint
from time import monotonic, sleep
from typing import Any, Protocol

from gpool import limits
from gpool.blocks import Block, Chunk
from gpool.errors import PayloadError, PoolClosed
from gpool.interrupts import Signal, shielded, wait_for
from gpool.model import Options, Task, TaskState
from gpool.outcome import raised
from gpool.supervisor import Supervisor
from gpool.workers.blocks import Entries, Entry, is_plain, is_scalar, pack_item, plain_entries, weight
from gpool.workers.parcels import Packed
from gpool.workers.payload import Shared

_PATIENCE_SECONDS = 1.0
_ONE_BY_ONE = 1
_BREATH_SECONDS = 0.001
"""After which a feed lets other threads have the interpreter, which costs it 0.05 ms. They would get it in 5 ms."""
_STRIDE = 64
"""Items between two looks at the clock."""
ANY_NUMBER = 1 << 62
"""Of items that may be drawn."""


class Taker(Protocol):
    """Where a feed's outcomes go.

    ``room`` and ``over`` are called in the feed's thread, the others under the supervisor's turn.
    """

    def room(self) -> int:
        """How many more outcomes it can do with; ``nudge`` is called when that grows. PoolClosed ends the feed."""

    def began(self, block: Block) -> None:
        """A block was made."""

    def take(self, chunk: Chunk) -> None:
        """Items have ended."""

    def ended(self, block: Block) -> None:
        """All items of a block have ended."""

    def over(self, error: BaseException | None) -> None:
        """Nothing more is drawn; the error is what ``next`` raised, if anything."""


class Feed:
    """Draws from an iterable in the background and submits what it draws.

    ``ingest`` returns one. What is meant for its users: ``cancel``, ``join``, ``is_alive``, ``drawn``, ``unfinished``.

    Args:
        items: what to draw from.
        shared: what to call.
        several: an item is not the one argument of a call, but a tuple of them.
        at_hand: whether ``next`` only reads from memory, so that several items can be drawn at a time.
        taker: where the outcomes go.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        tag: Hashable,
        options: Options,
        name: str,
        items: Iterable[Any],
        shared: Shared,
        taker: Taker,
        *,
        several: bool = False,
        at_hand: bool = False,
    ) -> None:
        self._supervisor = supervisor
        self.tag = tag
        self.options = options
        self._name = name
        self._items = items if type(items) is range else iter(items)
        self._shared = shared
        supervisor.share(shared)
        self._taker = taker
        self._several = several
        self._at_hand = at_hand
        self._in_blocks = supervisor.has_blocks and options.timeout is None and not options.retries
        self._lock = threading.RLock()  # of what is held; its holder may take the turn, and abandon the feed there
        self._held: list[Entry] = []  # the feed's thread appends without the lock; who takes some away has it
        self._held_bytes = 0
        self._submitted = 0  # the number of the next item to be submitted
        self._last: Task | None = None  # the last block submitted
        self._drawn = 0  # written by the feed's thread alone
        self._refused = 0  # items that were never submitted; written under the lock alone
        self._settled = 0  # written under the supervisor's turn alone
        self._mean_seconds = 0.0  # of an item, in a worker; written under the turn alone
        self._breathed = 0.0
        self._mean_bytes = 0.0  # of an item; written by the feed's thread alone
        self._cancelled = False
        self._abandoned = False
        self._over = threading.Event()  # draws no more
        self._room = Signal()
        self._quiet = threading.Condition()
        self._in_user_code = False
        self._thread = threading.Thread(target=self._run, name=f"gpool-feed-{tag}", daemon=True)

    def __repr__(self) -> str:
        return f"<Feed: {self._drawn} drawn, {self._settled} ended, {'alive' if self.is_alive() else 'done'}>"

    def begin(self) -> None:
        with shielded():  # it must not be known and never begin
            self._supervisor.feed_began(self)
            try:
                self._thread.start()
            except RuntimeError as error:
                self._over.set()
                self._supervisor.feed_ended(self)
                raise PoolClosed("nothing can be fed any more: no thread can start") from error

    def is_alive(self) -> bool:
        """True while it may still draw."""
        return not self._over.is_set()

    def cancel(self) -> None:
        """Draw no more; what was drawn already goes on."""
        self._cancelled = True
        self._room.set()

    def abandon(self) -> None:
        """Draw no more, and forget what was drawn and not submitted: nobody will ask for it."""
        with self._lock:
            self._abandoned = True
        self.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it draws no more and its tasks have ended; False if ``timeout`` seconds were not enough."""
        return wait_for(self._quiet, lambda: self._over.is_set() and self.unfinished == 0, timeout)

    def wait_gone(self) -> None:
        """Wait until its thread has ended, unless that stands in the user's ``next``, or is this one."""
        while self._thread.is_alive() and not self._in_user_code and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE_SECONDS)

    @property
    def drawn(self) -> int:
        """Items drawn so far."""
        return self._drawn

    @property
    def unfinished(self) -> int:
        """Items drawn that have not ended."""
        return self._drawn - self._settled - self._refused

    def nudge(self) -> None:
        """The taker's room may have grown."""
        self._room.set()

    # -- under the supervisor's turn ----------------------------------------------------------------------------

    def block_began(self, block: Block) -> None:
        self._taker.began(block)

    def take(self, chunk: Chunk) -> None:
        """Some of its items have ended."""
        if chunk.seconds:
            self._mean_seconds = limits.smoothed(self._mean_seconds, chunk.seconds / chunk.size)
        self._taker.take(chunk)
        self._settled += chunk.size
        if not self._room.is_set():
            # Woken when half is free: fewer wakes, and what is drawn then travels together.
            left = self.unfinished
            if left * 2 <= self._depth or left == 0:
                self._supervisor.later(self._room.set)
        if self.unfinished == 0 and self._over.is_set():
            self._supervisor.later(self._tell_joiners)

    def block_ended(self, block: Block) -> None:
        self._taker.ended(block)

    # -- in the feed's thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            try:
                while (room := self._room_or_end()) and self._draw(room):
                    pass
            finally:
                self.submit_held()
        except BaseException as problem:
            error = problem
        finally:
            self._in_user_code = True
            del self._items  # a generator that nobody else refers to runs its ``finally`` here
            self._in_user_code = False
            self._over.set()
            self._taker.over(error)
            self._supervisor.feed_ended(self)
            self._tell_joiners()

    def _room_or_end(self) -> int:
        """How many items may be drawn; 0 when none is to be any more. PoolClosed if there are some nevertheless."""
        try:
            return self._await_room()
        except PoolClosed:
            self._in_user_code = True
            if any(True for _ in self._items):  # of an iterator, one is drawn in vain
                raise
            return 0
        finally:
            self._in_user_code = False

    def _draw(self, room: int) -> bool:
        """Draw a block, or what is missing of one, at most so many items; False at the end."""
        many = max(1, min(room, self._block_size - len(self._held)))
        more = self._draw_at_once(many) if self._at_hand else self._draw_singly(many)
        if len(self._held) >= self._block_size or self._held_bytes >= limits.BLOCK_BYTES:
            self.submit_held()
        self._breathe()
        return more

    def _draw_at_once(self, many: int) -> bool:
        drawn = self._stretch(many)
        if not drawn or self._cancelled:
            return False
        entries = plain_entries(drawn, self._several)
        if entries is None:
            self._pack(drawn)
        elif self._held or len(entries) < self._block_size:
            self._hold(entries, 0)
        else:
            with shielded(), self._lock:
                self._drawn += len(entries)
                self._submit(entries)
        if self._supervisor.scheduler.may_begin(self.tag) and not self._is_in_the_inbox:
            self.submit_held()
        return True

    def _stretch(self, many: int) -> Sequence[Any]:
        """The next items; those of a range are a range."""
        items = self._items
        if type(items) is range:
            self._items = items[many:]
            return items[:many]
        return list(islice(items, many))

    def _draw_singly(self, many: int) -> bool:
        """Each may be the last for a while, so whoever can begin it gets it at once."""
        may_begin, tag = self._supervisor.scheduler.may_begin, self.tag
        hold, note = self._held.append, self._supervisor.holding.add
        number = 0
        self._in_user_code = True
        try:
            for number, item in enumerate(islice(self._items, many), 1):
                self._in_user_code = False
                if self._cancelled:
                    return False
                if self._several or self._mean_bytes or not is_scalar(item):
                    self._pack((item,))
                    if self._held_bytes >= limits.BLOCK_BYTES:
                        return True
                else:
                    self._drawn += 1
                    hold(item)
                    note(self)
                if may_begin(tag) and not self._is_in_the_inbox:
                    self.submit_held()
                if number % _STRIDE == 0:
                    self._breathe()
                self._in_user_code = True
        finally:
            self._in_user_code = False
        return number == many

    def _breathe(self) -> None:
        """Let others have the interpreter now and then: an iterable need not ever block."""
        if monotonic() - self._breathed > _BREATH_SECONDS:
            sleep(0)
            self._breathed = monotonic()

    def _pack(self, items: Iterable[Any]) -> None:
        """Pack items and hold them."""
        several, room = self._several, self._supervisor.room
        entries: list[Entry] = []
        for item in items:
            if not several and is_plain(item):
                entries.append(item)
                continue
            try:
                entry = pack_item(item if several else (item,), room)
            except BaseException as problem:
                self._hold(entries, sum(map(weight, entries)))
                entries = []
                self._refuse(problem)
                continue
            if type(entry) is Packed:
                self._hold(entries, sum(map(weight, entries)))
                entries = []
                self._submit_alone(entry)
            else:
                entries.append(entry)
        self._hold(entries, sum(map(weight, entries)))

    def _hold(self, entries: Entries, size: int) -> None:
        """Hold packed items, of so many bytes, until they are submitted."""
        if not entries:
            return
        self._drawn += len(entries)
        with self._lock:
            self._held_bytes += size
            self._held += entries
        self._supervisor.holding.add(self)  # after, so that who takes them away between the two leaves nothing unseen
        self._mean_bytes = limits.smoothed_size(self._mean_bytes, size / len(entries))

    def _submit_alone(self, entry: Packed) -> None:
        """What takes memory beside the entry is a block of its own."""
        self.submit_held()
        self._hold([entry], weight(entry))
        self.submit_held()

    def _refuse(self, problem: BaseException) -> None:
        """An item that cannot be pickled has ended before it was submitted; what is no such problem ends the feed."""
        self.submit_held()  # a block's items follow each other
        number = self._drawn
        self._drawn += 1
        self._submitted += 1
        try:
            if not isinstance(problem, PayloadError):
                raise problem
            self._supervisor.look(lambda: self._taker.take(Chunk(number, 1, 1, 0.0, lambda: [raised(problem)])))
        finally:
            with self._lock:
                self._refused += 1

    # -- what is held ---------------------------------------------------------------------------------------------

    @property
    def is_wanted(self) -> bool:
        """True when a worker could do with what is held."""
        return not self._supervisor.can_wait(self.tag, self.options.priority, len(self._held))

    def submit_held(self) -> None:
        """Submit what is held. Any thread may call this."""
        with shielded(), self._lock:
            self._supervisor.holding.discard(self)  # first: what is held from now on is noted anew
            entries = self._held[:]
            del self._held[: len(entries)]
            self._held_bytes = 0
            self._submit(entries)

    def _submit(self, entries: Entries) -> None:
        """Submit the next items, under the lock."""
        first, size = self._submitted, len(entries)
        self._submitted += size
        if self._abandoned:
            self._refused += size
        elif size:
            self._supervisor.submit_block(
                self.tag,
                self.options,
                self._name,
                size,
                lambda task: self._block(task, entries, first),
            )

    def _block(self, task: Task, entries: Entries, first: int) -> Block:
        self._last = task
        return Block(task, entries, self._shared, first, self)

    @property
    def _is_in_the_inbox(self) -> bool:
        """True when the last block has not been dealt with: who does that looks at what is held then."""
        last = self._last
        return last is not None and last.state is TaskState.QUEUED and last.id not in self._supervisor.scheduler.tasks

    @property
    def _block_size(self) -> int:
        """How many items go into a block."""
        return limits.block(self._mean_seconds, self._mean_bytes) if self._in_blocks else _ONE_BY_ONE

    @property
    def _depth(self) -> int:
        """How many of its items may be unfinished at a time: as many as are of use."""
        each = self._block_size + limits.ahead_of_feed(self._mean_seconds, self._mean_bytes)
        scheduler = self._supervisor.scheduler
        return scheduler.usable_slots(scheduler.groups[self.tag]) * each

    def _await_room(self) -> int:
        """How many items may be drawn; 0 when none is to be any more."""
        while not self._cancelled:
            if (room := self._free_room()) > 0:
                return room
            self.submit_held()
            if not self._supervisor.is_open and self._is_at_end:
                return 0  # nobody need read anything for that to be seen
            self._room.clear()
            if self._taker.room() > 0:
                self._supervisor.pausing.add(self)  # first, so that each change is seen by one of them
            if not self._cancelled and self._free_room() <= 0:
                self._room.wait()
            self._supervisor.pausing.discard(self)
        return 0

    @property
    def _is_at_end(self) -> bool:
        """True when nothing is left to draw, as far as that is known without drawing."""
        return type(self._items) in _COUNTED and length_hint(self._items) == 0

    def _free_room(self) -> int:
        room, most = self._depth - self.unfinished, self._taker.room()
        if room <= 0 < most and self._wastes_slot():
            room = self._block_size  # what is unfinished is in the hands of workers that stand still
        return min(room, most)

    def _wastes_slot(self) -> bool:
        """True when there is a slot for an item more, and what lies in the inbox does not fill it."""
        wastes_slot = self._supervisor.scheduler.wastes_slot
        if not wastes_slot(self.tag):
            return False
        self._supervisor.ask()
        return wastes_slot(self.tag)

    def _tell_joiners(self) -> None:
        with shielded(), self._quiet:
            self._quiet.notify_all()


def is_at_hand(iterable: object) -> bool:
    """True if drawing from it only reads from memory: ``next`` takes no time and runs no code of the user's."""
    return type(iterable) in _AT_HAND


_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_COUNTED = frozenset((range, type(iter([])), type(iter(()))))
"""Types that say how many items are left."""
_AT_HAND = frozenset((list, tuple, range, str, bytes, bytearray, set, frozenset, dict, *_VIEWS, deque, repeat))
