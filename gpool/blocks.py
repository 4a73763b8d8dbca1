"""Blocks, as the program has them: items of one feed that were submitted as one task.

Owns the items that have not ended and how they are sent. How they travel is told in ``gpool.workers.blocks``. A block
gives its outcomes in *chunks*, the next items' each time, as they come; a chunk is opened by whoever reads it.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import NamedTuple, Protocol

from gpool.model import Task
from gpool.outcome import Outcome, raised
from gpool.workers import wire
from gpool.workers.blocks import Entry, answers_in, head_of, outcome_of, pack_entries
from gpool.workers.parcels import Packed
from gpool.workers.payload import Call, Shared
from gpool.workers.wire import Frame


class Chunk(NamedTuple):
    """The outcomes of ``size`` items, from number ``first`` of their feed on; ``failed`` of them are no values.

    An outcome is an entry, or an ``Outcome`` where it is the pool's word; ``outcome_in`` opens it.
    """

    first: int
    size: int
    failed: int
    seconds: float
    entries: Callable[[], Sequence[Entry | Outcome]]
    cancelled: bool = False


def outcome_in(entry: Entry | Outcome) -> Outcome:
    """The outcome in a chunk's entry; user code may run here."""
    return entry if type(entry) is Outcome else outcome_of(entry)


class Owner(Protocol):
    """Whose items a block's are. Called under the supervisor's turn."""

    def block_began(self, block: Block) -> None: ...
    def take(self, chunk: Chunk) -> None: ...
    def block_ended(self, block: Block) -> None: ...


class Block:
    """See the module's docstring.

    Attributes:
        task: what the scheduler knows of it.
        first: the number of its first item that has not ended.
    """

    __slots__ = ("_entries", "_owner", "_shared", "first", "task")

    def __init__(self, task: Task, entries: Sequence[Entry | Packed], shared: Shared, first: int, owner: Owner) -> None:
        self.task = task
        self.first = first
        self._entries = entries
        self._shared = shared
        self._owner = owner
        owner.block_began(self)

    def __repr__(self) -> str:
        return f"<Block of {self.task.name!r}: {len(self._entries)} items from {self.first} on>"

    @property
    def call(self) -> Call:
        """What to send a worker."""
        entries = self._entries
        if len(entries) == 1:
            if type(entries[0]) is Packed:
                return Call(entries[0].body, self._shared, 1, entries[0].places)
            return Call(_one_call(entries[0]), self._shared)
        return Call(pack_entries(entries), self._shared, len(entries))

    def split(self, task: Task) -> Block:
        """The first ``task.size`` items become a block of their own."""
        size = task.size
        part = Block(task, self._entries[:size], self._shared, self.first, self._owner)
        self._entries = self._entries[size:]
        self.first += size
        return part

    def answer(self, frame: Frame) -> None:
        """A worker has answered the next items."""
        head = head_of(frame.body)
        seconds = frame.seconds * head.items / max(1, head.first + head.items)  # the frame's are since the block began
        self._deliver(head.items, head.failed, seconds, lambda: answers_in(frame.body))

    def settle(self, verdict: Outcome | Frame | None) -> None:
        """The pool's word on what is left of it; None means cancelled."""
        left = len(self._entries)
        if left and verdict is None:
            self._deliver(left, left, 0.0, lambda: _copies(raised(CancelledError()), left), cancelled=True)
        elif left and isinstance(verdict, Outcome):
            self._deliver(left, left, 0.0, lambda: _copies(verdict, left))
        elif left and isinstance(verdict, Frame):
            failed = left if verdict.kind != wire.VALUE else 0
            self._deliver(left, failed, verdict.seconds, lambda: [(verdict.kind, verdict.body)] * left)
        self._owner.block_ended(self)

    def done(self) -> bool:
        """True when all its items have ended."""
        return not self._entries

    def _deliver(
        self,
        size: int,
        failed: int,
        seconds: float,
        entries: Callable[[], Sequence[Entry | Outcome]],
        *,
        cancelled: bool = False,
    ) -> None:
        chunk = Chunk(self.first, size, failed, seconds, entries, cancelled)
        self.first += size
        self._entries = self._entries[size:]
        if size:
            self._owner.take(chunk)


def _one_call(entry: Entry) -> bytes:
    """The arguments of a call that is no block."""
    if type(entry) is tuple:
        body: bytes = entry[1]
        return body
    return pickle.dumps(tuple(entry) if type(entry) is list else (entry,), pickle.HIGHEST_PROTOCOL)


def copied(outcome: Outcome) -> Outcome:
    """An exception object of its own: whoever catches one may change it."""
    return Outcome(None, copy.copy(outcome.error))


def _copies(outcome: Outcome, count: int) -> list[Outcome]:
    return [outcome, *(copied(outcome) for _ in range(count - 1))]
