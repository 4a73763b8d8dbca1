"""Batches: tasks that were submitted one by one and travel as one block.

Owns which submissions go together, and the futures of those that do. While all workers have work in hand, submissions
gather in the supervisor's inbox. What has gathered leaves it as few tasks with a size; each submission keeps its own
outcome, blame and cancellation, as the items of a feed do. What stands alone, or asks for what a block does not have (a
timeout, retries, memory beside the frame), is a task of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from gpool import limits
from gpool.blocks import copied
from gpool.futures import Future, settle_all
from gpool.model import NO_OPTIONS, Options, Task
from gpool.outcome import Outcome
from gpool.workers.blocks import answers_in, pack_entries
from gpool.workers.payload import Call
from gpool.workers.wire import Frame

_LARGEST = limits.BLOCK_BYTES // 8
"""Bytes of a call that may travel with others."""
_MOST = 1024
"""Submissions of a batch: to take one out of the middle, or some off its front, takes the longer the more there are."""


def may_travel(packed: Call | bytes, options: Options) -> bool:
    """True if a submission may travel with others."""
    if options is not NO_OPTIONS and (options.timeout is not None or options.retries):
        return False
    return isinstance(packed, bytes) and len(packed) <= _LARGEST


def parties(futures: Iterable[Future[Any]]) -> list[list[Future[Any]]]:
    """Submissions, those together that may be, in the order of the first of them; inside a tag, in their order.

    Two have the same tag if it is the same object: to compare tags might run user code. How many of a party a worker
    gets is decided later.
    """
    found: list[list[Future[Any]]] = []
    latest: dict[int, list[Future[Any]]] = {}  # by tag
    sizes: dict[int, int] = {}  # bytes of these
    for future in futures:
        tag, size = id(future.tag), len(future.packed)
        party = latest.get(tag)
        together = 0 if party is None else sizes[tag] + size
        if party is None or together > limits.BLOCK_BYTES or len(party) >= _MOST or party[0].options != future.options:
            party = latest[tag] = []
            found.append(party)
            together = size
        party.append(future)
        sizes[tag] = together
    return found


class Owner(Protocol):
    """Whose futures a batch's are."""

    def later(self, do: Callable[[], object]) -> None:
        """Wake somebody when the turn is over."""

    def let_go(self, futures: Sequence[Future[Any]]) -> None:
        """These are about to settle."""

    def call_back(self, due: Iterable[tuple[Future[Any], Sequence[Callable[..., object]]]]) -> None:
        """Run the done-callbacks of these."""


class Batch:
    """See the module's docstring. All under the supervisor's turn, but for ``has_begun``.

    Attributes:
        task: what the scheduler knows of it. It is called as the first that has not ended.
        futures: of those that have not ended.
    """

    __slots__ = ("_owner", "futures", "task")

    def __init__(self, task: Task, futures: Sequence[Future[Any]], owner: Owner) -> None:
        self.task = task
        self._owner = owner
        for future in futures:
            future.unit = self
        self._keep(futures)

    def __repr__(self) -> str:
        return f"<Batch of {len(self.futures)} from {self.task.name!r} on>"

    @property
    def call(self) -> Call:
        """What to send a worker."""
        futures = self.futures
        if len(futures) == 1:
            return futures[0].call
        return Call(pack_entries([future.packed for future in futures]), None, len(futures))

    def has_begun(self, future: Future[Any]) -> bool:
        """True when this is the one in hand. Any thread may ask."""
        return self.task.attempt > 0 and next(iter(self.futures), None) is future

    def split(self, part: Task) -> Batch:
        """The first ``part.size`` become a batch of their own."""
        size = part.size
        batch = Batch(part, self.futures[:size], self._owner)
        self._keep(self.futures[size:])
        return batch

    def withdraw(self, item: int) -> None:
        """The one at this place is cancelled."""
        future = self.futures[item]
        self._keep([*self.futures[:item], *self.futures[item + 1 :]])
        self._settle([future], None)

    def answer(self, frame: Frame) -> None:
        """A worker has answered the next ones."""
        futures = self.futures
        answers = answers_in(frame.body)[: len(futures)]  # one may have been cancelled, with its worker, as it ended
        ended = futures[: len(answers)]
        self._keep(futures[len(answers) :])
        self._owner.let_go(ended)
        self._owner.call_back(settle_all(ended, answers, self._owner.later))

    def settle(self, verdict: Outcome | Frame | None) -> None:
        """The pool's word on those that are left; None means cancelled."""
        left = self.futures
        self._keep(())
        self._settle(left, verdict)

    def _keep(self, futures: Sequence[Future[Any]]) -> None:
        self.futures = futures
        if futures:
            self.task.name = futures[0].name

    def _settle(self, futures: Sequence[Future[Any]], verdict: Outcome | Frame | None) -> None:
        self._owner.let_go(futures)
        for number, future in enumerate(futures):
            word = copied(verdict) if number and isinstance(verdict, Outcome) else verdict
            self._owner.call_back(((future, future.settle(word, self._owner.later)),))
