"""The performer: what the scheduler decides, done.

Owns the futures and blocks of tasks that have not ended, and what they are told. It hands the scheduler an event,
performs the actions on them and on the backend, and hands it what comes of that at once. All of it under the
supervisor's turn; who calls here has it.

An action that fails breaks the pool in the open: every future ends, with the failure as its cause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from gpool.actions import Answer, Begin, Break, Close, Dispatch, Kill, Recall, Settle, Split, Start, Stop
from gpool.blocks import Block
from gpool.delivery import Courier, logger
from gpool.errors import PoolError
from gpool.events import Event, Recalled, SubmitAsked, WorkerExited
from gpool.futures import Future
from gpool.model import Verdict
from gpool.outcome import Outcome, raised
from gpool.scheduler import Scheduler, Transition
from gpool.verdicts import Verdicts
from gpool.workers.backend import Backend, Exited, Sample, Settings
from gpool.workers.wire import Frame

Unended = Future[Any] | Block
"""What is told how a task ended."""


class Overseer(Protocol):
    """Whose turn it is.

    Attributes:
        notifier: makes the done-callbacks.
    """

    notifier: Courier

    def later(self, do: Callable[[], object]) -> None:
        """Wake somebody when the turn is over."""

    def notify(self) -> None:
        """Something that others wait for may have come true."""

    def shut(self) -> None:
        """The pool has ended."""


class Performer:
    """See the module's docstring.

    Args:
        settings: for each kind of worker, what to start it with.
        listening: whether ``transitions`` are kept.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        backend: Backend,
        overseer: Overseer,
        *,
        clock: Callable[[], float],
        settings: Callable[[int], Settings],
        listening: bool,
    ) -> None:
        self.futures: dict[int, Unended] = {}
        self.verdicts = Verdicts()
        self.samples: Mapping[int, Sample] = {}
        self.transitions: deque[Transition] = deque()
        self._scheduler = scheduler
        self._backend = backend
        self._overseer = overseer
        self._clock = clock
        self._settings = settings
        self._listening = scheduler.listening = listening
        self._blocks: set[Block] = set()  # those of ``futures`` that are none
        self._report: Frame | Exited | None = None
        self._failure: BaseException | None = None

    @property
    def pending(self) -> int:
        """Tasks that have not ended. Any thread may ask."""
        blocks = tuple(self._blocks)
        return len(self.futures) - len(blocks) + sum(block.task.size for block in blocks)

    def note(self, block: Block) -> None:
        """A block is to be told how its task ends."""
        self.futures[block.task.id] = block
        self._blocks.add(block)

    def handle(self, event: Event, report: Frame | Exited | None = None) -> None:
        """Let the scheduler decide, and do what it says; what that leads to at once is handled first of all.

        Outcomes are made from the report that led to the event.
        """
        if self._failure is not None:
            if isinstance(event, SubmitAsked):
                self._end_all(self._failure)
            return
        self._report = report
        events = [event]
        try:
            for each in events:  # grows meanwhile
                for action in self._scheduler.handle(each, self._clock()):
                    follow = self._PERFORM[type(action)](self, action)
                    if follow is not None:
                        events.append(follow)
        except Exception as error:
            self.fail(error)
        self._report = None
        if self._listening and self._scheduler.transitions:
            self.transitions += self._scheduler.transitions
            self._scheduler.transitions = []

    def fail(self, error: BaseException) -> None:
        """A bug, or a system out of resources: nothing hangs, everything says why."""
        self._failure = error
        logger.critical("gpool failed and ends all tasks", exc_info=error)
        self._end_all(error)
        self._overseer.shut()

    def _end_all(self, error: BaseException) -> None:
        futures = list(self.futures.values())
        self.futures.clear()
        self._blocks.clear()
        for future in futures:
            if future.done():
                continue
            failure = PoolError(f"the pool failed: {error!r}; see the cause, and make a new one")
            failure.__cause__ = error
            self._finish(future, raised(failure))

    # Actions, one method each. What one returns is handled before anything else.

    def _start(self, action: Start) -> Event | None:
        worker = action.worker
        try:
            self._backend.start(worker.id, self._settings(worker.kind))
        except OSError as error:
            return WorkerExited(worker.id, None, reason=str(error))
        return None

    def _dispatch(self, action: Dispatch) -> None:
        futures = self.futures
        self._backend.send(action.worker.id, [(lease.number, futures[lease.task.id].call) for lease in action.leases])

    def _recall(self, action: Recall) -> Event:
        return Recalled(action.worker.id, *self._backend.recall(action.worker.id, action.keep))

    def _stop(self, action: Stop) -> None:
        self._backend.stop(action.worker.id)

    def _kill(self, action: Kill) -> None:
        worker = action.worker
        if worker.doom is Verdict.OUT_OF_MEMORY:
            limit = (worker.serving or worker.group).settings.memory_limit or 0
            self.verdicts.note_excess(worker.id, self.samples[worker.id].rss, limit)
        self._backend.kill(worker.id, stack=worker.doom is not Verdict.CANCELLED)

    def _begin_task(self, action: Begin) -> None:
        future = self.futures[action.task.id]
        if isinstance(future, Future) and future._follow_up is not None:
            future._follow_up(future)

    def _split(self, action: Split) -> None:
        block = self.futures[action.task.id]
        assert isinstance(block, Block)
        self.note(block.split(action.part))

    def _answer(self, action: Answer) -> None:
        block, frame = self.futures[action.task.id], self._report
        assert isinstance(block, Block)
        assert isinstance(frame, Frame)
        block.answer(frame)

    def _settle(self, action: Settle) -> None:
        future = self.futures.pop(action.task.id)
        if isinstance(future, Block):
            self._blocks.discard(future)
        self._finish(future, self.verdicts.of(action.task, action.verdict, self._report, self._clock()))

    def _break(self, action: Break) -> None:
        self.verdicts.note_broken(action)

    def _close(self, action: Close) -> None:
        self._overseer.shut()

    _PERFORM: Mapping[type, Callable[..., Event | None]] = {
        Start: _start,
        Dispatch: _dispatch,
        Recall: _recall,
        Stop: _stop,
        Kill: _kill,
        Begin: _begin_task,
        Split: _split,
        Answer: _answer,
        Settle: _settle,
        Break: _break,
        Close: _close,
    }

    def _finish(self, future: Unended, verdict: Outcome | Frame | None) -> None:
        """Settle a future, wake whoever waits for it, pass its callbacks on."""
        if isinstance(future, Block):
            future.settle(verdict)
        else:
            for callback in future.settle(verdict, self._overseer.later):
                self._overseer.notifier.call(_done, callback, future)
            follow_up, future._follow_up = future._follow_up, None
            if follow_up is not None:
                follow_up(future)
        if not self.futures:
            self._overseer.notify()


def _done(callback: Callable[..., object], future: Future[Any]) -> None:
    if not future.cancelled():
        with suppress(KeyboardInterrupt):  # which a payload may raise; whoever asks next tries again
            future.outcome()  # unpickled here, so that an event loop need not
    callback(future)
