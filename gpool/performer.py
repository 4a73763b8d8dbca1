"""The performer: what the scheduler decides, done.

Owns what is told how a task ended: a future, a block, or a batch of futures. It hands the scheduler an event,
performs the actions on them and on the backend, and hands it what comes of that at once. All of it under the
supervisor's turn; who calls here has it.

An action that fails breaks the pool in the open: every future ends, with the failure as its cause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from gpool.actions import Answer, Begin, Break, Close, Dispatch, Kill, Recall, Settle, Split, Start, Stop, Withdraw
from gpool.batches import Batch, parties
from gpool.blocks import Block
from gpool.delivery import Courier, logger
from gpool.errors import PoolError
from gpool.events import CancelAsked, Event, Recalled, SubmitAsked, WorkerExited
from gpool.futures import Future
from gpool.model import Task, Verdict
from gpool.outcome import Outcome, raised
from gpool.scheduler import Scheduler, Transition
from gpool.verdicts import Verdicts
from gpool.workers.backend import Backend, Exited, Sample, Settings
from gpool.workers.wire import Frame

Unit = Future[Any] | Block | Batch
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
        self.unended: set[Future[Any]] = set()  # those in the inbox too
        self.units: dict[int, Unit] = {}  # by task
        self.verdicts = Verdicts()
        self.samples: Mapping[int, Sample] = {}
        self.transitions: deque[Transition] = deque()
        self._scheduler = scheduler
        self._backend = backend
        self._overseer = overseer
        self._clock = clock
        self._settings = settings
        self._listening = scheduler.listening = listening
        self._blocks: set[Block] = set()
        self._report: Frame | Exited | None = None
        self._failure: BaseException | None = None

    @property
    def pending(self) -> int:
        """Tasks that have not ended. Any thread may ask."""
        return len(self.unended) + sum(block.task.size for block in tuple(self._blocks))

    def note(self, unit: Unit, task: Task) -> None:
        """This is to be told how the task ends."""
        self.units[task.id] = unit
        if isinstance(unit, Future):
            unit.unit = task
        elif isinstance(unit, Block):
            self._blocks.add(unit)

    def admit(self, futures: Sequence[Future[Any]], task_ids: Iterator[int]) -> list[Task]:
        """Make tasks of submissions, as few as may be."""
        tasks: list[Task] = []
        for party in parties(futures):
            first, size = party[0], len(party)
            task = Task(next(task_ids), first.tag, first.options, first.name, size=size)
            self.note(first if size == 1 else Batch(task, party, self), task)
            tasks.append(task)
        return tasks

    def disown(self, future: Future[Any]) -> None:
        """Forget a future that never got as far as the inbox."""
        if future.unit is None:
            self.unended.discard(future)
            self._overseer.notify()

    def cancel(self, future: Future[Any], kill: bool) -> None:
        """Cancel a submission if the machine allows it."""
        unit = future.unit
        if future.done():
            return
        if isinstance(unit, Batch):
            self.handle(CancelAsked(unit.task.id, kill, unit.futures.index(future)))
        elif isinstance(unit, Task):
            self.handle(CancelAsked(unit.id, kill))

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
        ends: list[Future[Any] | Block] = [*self._blocks, *self.unended]
        self.units.clear()
        self._blocks.clear()
        for each in ends:
            if each.done():
                continue
            failure = PoolError(f"the pool failed: {error!r}; see the cause, and make a new one")
            failure.__cause__ = error
            self._tell(each, raised(failure))
        self._overseer.notify()

    # Actions, one method each. What one returns is handled before anything else.

    def _start(self, action: Start) -> Event | None:
        worker = action.worker
        try:
            self._backend.start(worker.id, self._settings(worker.kind))
        except OSError as error:
            return WorkerExited(worker.id, None, reason=str(error))
        return None

    def _dispatch(self, action: Dispatch) -> None:
        units = self.units
        self._backend.send(action.worker.id, [(lease.number, units[lease.task.id].call) for lease in action.leases])

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
        unit = self.units[action.task.id]
        if isinstance(unit, Future) and unit.follow_up is not None:
            unit.follow_up(unit)

    def _split(self, action: Split) -> None:
        self.note(self._several(action.task).split(action.part), action.part)

    def _withdraw(self, action: Withdraw) -> None:
        batch = self._several(action.task)
        assert isinstance(batch, Batch)
        batch.withdraw(action.item)

    def _answer(self, action: Answer) -> None:
        frame = self._report
        assert isinstance(frame, Frame)
        self._several(action.task).answer(frame)

    def _several(self, task: Task) -> Block | Batch:
        unit = self.units[task.id]
        assert not isinstance(unit, Future)
        return unit

    def _settle(self, action: Settle) -> None:
        unit = self.units.pop(action.task.id)
        if isinstance(unit, Block):
            self._blocks.discard(unit)
        self._tell(unit, self.verdicts.of(action.task, action.verdict, self._report, self._clock()))
        if not (self.unended or self._blocks):
            self._overseer.notify()

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
        Withdraw: _withdraw,
        Answer: _answer,
        Settle: _settle,
        Break: _break,
        Close: _close,
    }

    def _tell(self, unit: Unit, verdict: Outcome | Frame | None) -> None:
        """Tell it how its task ended, wake whoever waits for that, pass the callbacks on."""
        if not isinstance(unit, Future):
            unit.settle(verdict)
            return
        self.unended.discard(unit)
        self.call_back(((unit, unit.settle(verdict, self.later)),))
        follow_up, unit.follow_up = unit.follow_up, None
        if follow_up is not None:
            follow_up(unit)

    def later(self, do: Callable[[], object]) -> None:
        """Wake somebody when the turn is over."""
        self._overseer.later(do)

    def let_go(self, futures: Iterable[Future[Any]]) -> None:
        """These are about to settle."""
        self.unended.difference_update(futures)

    def call_back(self, due: Iterable[tuple[Future[Any], Sequence[Callable[..., object]]]]) -> None:
        """Run the done-callbacks of these, on the notifier's thread."""
        for future, callbacks in due:
            for callback in callbacks:
                self._overseer.notifier.call(_done, callback, future)


def _done(callback: Callable[..., object], future: Future[Any]) -> None:
    if not future.cancelled():
        with suppress(KeyboardInterrupt):  # which a payload may raise; whoever asks next tries again
            future.outcome()  # unpickled here, so that an event loop need not
    callback(future)
