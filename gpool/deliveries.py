"""What becomes of the results of ``put`` and ``ingest``: handlers and iteration.

Owns the user's handlers, the results kept for iteration, and what has ended but was not delivered. Everything of the
user's runs on the supervisor's delivery thread; nothing here decides about tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from gpool.blocks import Block, Chunk, outcome_in
from gpool.delivery import logger
from gpool.feeds import ANY_NUMBER
from gpool.futures import Future
from gpool.outcome import Outcome, raised
from gpool.supervisor import Supervisor

Callback = Callable[[Any], object]
ErrorCallback = Callable[[BaseException], object]

UNREAD_LIMIT = 1_000
"""Results unread, or undelivered, at which feeds pause."""
KEPT_WARNING = 100_000
"""Results kept for an iteration that nobody began, at which one warning is given."""


class Handlers(NamedTuple):
    """Who is told of a task's end, in place of the pool's own."""

    callback: Callback | None
    error: ErrorCallback | None


def handlers(callback: Callback | None, error: ErrorCallback | None) -> Handlers:
    """Handlers, once they are found to be callable; TypeError otherwise."""
    check_handler("callback", callback)
    check_handler("error", error)
    return Handlers(callback, error)


def check_handler(name: str, handler: object) -> None:
    """Refuse what is neither callable nor None."""
    if handler is not None and not callable(handler):
        raise TypeError(f"{name} must be callable or None, not {handler!r}")


def check_iteration(iteration: object) -> None:
    """Refuse what is no answer to whether results are kept."""
    if iteration is not None and not isinstance(iteration, bool):
        raise TypeError(f"iteration must be True, False or None, not {iteration!r}")


class Deliveries:
    """See the module's docstring.

    Args:
        iteration: whether results are kept for iteration; None: when there is no callback.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        callback: Callback | None,
        on_error: ErrorCallback | None,
        iteration: bool | None,
    ) -> None:
        self.callback = callback
        self.on_error = on_error
        self._supervisor = supervisor
        self._iteration = iteration
        self._kept: deque[Any] = deque()
        self._readers = 0
        self._warned = False
        self._out: set[object] = set()  # what has not ended, or not been delivered
        self._arrived = 0  # outcomes of feeds that came; written under the turn alone
        self._holds_feeds = False
        self._delivered = 0  # those of them that were delivered; written by the delivery thread alone

    @property
    def all_made(self) -> bool:
        """True when nothing that was submitted is still to be delivered."""
        return not self._out

    # -- tasks end ----------------------------------------------------------------------------------------------

    def expect(self, work: Future[Any] | Block) -> None:
        """What comes of this is to be delivered."""
        self._out.add(work)

    def settled(self, future: Future[Any], wanted: Handlers) -> None:
        """It has ended. Called under the supervisor's turn."""
        if future.cancelled():
            self._made(future)
        else:
            self._supervisor.deliverer.call(self._hand_over, future, wanted, future.outcome)

    def fail(self, error: BaseException, wanted: Handlers) -> None:
        """An error that is no task's: an iterable that raised, an item that does not pickle."""
        token = object()
        self._out.add(token)
        self._supervisor.deliverer.call(self._hand_over, token, wanted, lambda: raised(error))

    def items_ended(self, chunk: Chunk, wanted: Handlers) -> None:
        """Items of a feed have ended. Called under the supervisor's turn."""
        if not chunk.cancelled:
            self._arrived += chunk.size
            self._out.add(chunk)
            self._supervisor.deliverer.call(self._hand_over_all, chunk, wanted)

    def block_ended(self, block: Block) -> None:
        """All items of a block have ended. Called under the supervisor's turn."""
        self._supervisor.deliverer.call(self._made, block)

    def _hand_over_all(self, chunk: Chunk, wanted: Handlers) -> None:
        awaited = self._wants_values(wanted.callback or self.callback)
        for entry in chunk.entries():
            if awaited or type(entry) is tuple or type(entry) is Outcome:  # else a value that nobody asks for
                self._give(wanted, partial(outcome_in, entry))
            self._delivered += 1
        self._made(chunk)

    def _wants_values(self, callback: Callback | None) -> bool:
        return callback is not None or self._iteration is not False

    def _hand_over(self, token: object, wanted: Handlers, open_outcome: Callable[[], Outcome]) -> None:
        """On the delivery thread: give an outcome to whom it belongs."""
        self._give(wanted, open_outcome)
        self._made(token)

    def _give(self, wanted: Handlers, open_outcome: Callable[[], Outcome]) -> None:
        try:
            outcome = open_outcome()
            if outcome.error is not None:
                self._tell_error(wanted, outcome.error)
                return
            callback = wanted.callback or self.callback
            if callback is None if self._iteration is None else self._iteration:
                self._keep(outcome.value)
            if callback is not None:
                callback(outcome.value)
        except BaseException:
            logger.exception("exception in a handler of a gpool pool")

    def _tell_error(self, wanted: Handlers, error: BaseException) -> None:
        handler = wanted.error or self.on_error
        if handler is not None:
            handler(error)
        else:
            logger.error("a task failed and nobody handles errors", exc_info=error)

    def _made(self, token: object) -> None:
        self._out.discard(token)
        if not self._out:
            self._supervisor.notify()
        self._let_feeds_go_on()

    def _let_feeds_go_on(self) -> None:
        if self._holds_feeds and self._undelivered <= UNREAD_LIMIT // 2:
            self._holds_feeds = False
            self._supervisor.nudge_feeds()

    # -- iteration ----------------------------------------------------------------------------------------------

    def _keep(self, value: Any) -> None:
        self._kept.append(value)
        if self._readers:
            self._supervisor.notify()
        elif len(self._kept) >= KEPT_WARNING and not self._warned:
            self._warned = True
            logger.warning(
                "%d results are kept for an iteration that nobody began; iteration=False keeps none", KEPT_WARNING
            )

    def reader_came(self) -> None:
        """An iterator exists: unread results pause feeds from now on."""
        self._readers += 1

    def reader_went(self) -> None:
        """It is gone. Its finalizer calls this."""
        self._supervisor.leave(self._forget_reader)

    def _forget_reader(self) -> None:
        self._readers -= 1
        self._supervisor.nudge_feeds()

    def take(self) -> Any:
        """The next kept result; StopIteration when there is none and none can come."""
        self._supervisor.await_(lambda: bool(self._kept) or self._none_can_come(), None)
        if not self._kept:
            raise StopIteration
        value = self._kept.popleft()
        if len(self._kept) == UNREAD_LIMIT // 2:
            self._supervisor.nudge_feeds()
        return value

    def _none_can_come(self) -> bool:
        return not self._supervisor.feeds and not self._out

    @property
    def _undelivered(self) -> int:
        return self._arrived - self._delivered + len(self._supervisor.deliverer)

    def backed_up(self) -> bool:
        """True when feeds should wait for handlers or readers."""
        if self._undelivered >= UNREAD_LIMIT:
            self._holds_feeds = True  # before another look: all may have been delivered meanwhile
            if self._undelivered >= UNREAD_LIMIT:
                return True
        return self._readers > 0 and len(self._kept) >= UNREAD_LIMIT and self._supervisor.is_open


class Ingest:
    """Where the outcomes of one ``ingest`` go. Keeps the pool alive until the feed is over."""

    def __init__(self, deliveries: Deliveries, wanted: Handlers, keep: object) -> None:
        self._deliveries = deliveries
        self._wanted = wanted
        self._keep: object = keep

    def room(self) -> int:
        return 0 if self._deliveries.backed_up() else ANY_NUMBER

    def began(self, block: Block) -> None:
        self._deliveries.expect(block)

    def take(self, chunk: Chunk) -> None:
        self._deliveries.items_ended(chunk, self._wanted)

    def ended(self, block: Block) -> None:
        self._deliveries.block_ended(block)

    def over(self, error: BaseException | None) -> None:
        if error is not None:
            self._deliveries.fail(error, self._wanted)
        self._keep = None
