"""The supervisor: it owns the scheduler and the backend, and has what the scheduler decides performed.

Theory of operation. Whoever holds *the turn* (one lock) feeds events to the scheduler and performs the actions;
nobody else touches the machine. The supervisor's thread waits in the backend without the turn and takes it when
something has come. A thread that submits leaves its event in the inbox and takes the turn itself if it is free,
which spares a small task the trip through another thread; if it is not free, its holder sees the inbox before it
lets go, or right after.

Guarantees:

- The inbox is appended to without a lock, so a finalizer or a signal handler may submit.
- An asynchronous exception in the main thread is held back while that thread has the turn.
- No user code runs under the turn, nor on the supervisor's thread: results are unpickled by whoever asks for them,
  handlers run on threads of their own. (An exception is unpickled here if the task's ``retry_on`` needs its type.)
- What is left in the inbox is seen: who leaves something looks first whether a turn is due that will come by anyway,
  and every turn ends with a look at the inbox. What cannot wait is seen between two answers of workers.

The mutable state is the inbox and the feeds, what the performer keeps of tasks, and what the scheduler and the backend
keep.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from itertools import count
from typing import Any, Protocol

from gpool import lifetime, snapshot
from gpool.batches import may_travel
from gpool.blocks import Block
from gpool.delivery import Courier, logger
from gpool.errors import (
    NoSlots,
    PoolClosed,
    UnknownTag,
)
from gpool.events import (
    CancelAsked,
    CloseAsked,
    Ended,
    Event,
    ExitBegan,
    MemorySampled,
    Progressed,
    SubmitAsked,
    Ticked,
    WorkerExited,
    WorkerReady,
    new_ended,
)
from gpool.fetching import Fetcher
from gpool.futures import Future
from gpool.groups import GroupRecord
from gpool.interrupts import shielded, wait, wait_for
from gpool.model import CLOSED, RETURNED, Options, PoolState, Task, Verdict
from gpool.performer import Performer
from gpool.scheduler import Scheduler, Transition
from gpool.turn import Turn
from gpool.workers import wire
from gpool.workers.backend import Backend, Exited, Logged, Ready, Replied, Report, Settings
from gpool.workers.blocks import head_of
from gpool.workers.logs import receive
from gpool.workers.payload import Call, Shared, open_outcome
from gpool.workers.wire import Frame


class Feeding(Protocol):
    """What the supervisor needs to know of a feed."""

    tag: Hashable

    @property
    def is_wanted(self) -> bool: ...
    def submit_held(self) -> None: ...
    def cancel(self) -> None: ...
    def nudge(self) -> None: ...
    def wait_gone(self) -> None: ...


FollowUp = Callable[[Future[Any]], object]
Listener = Callable[[Transition], object]

_TICK = Ticked()

_MANY = 1 << 62
_LEFT_IN_THE_INBOX = 512
"""Submissions that may be left lying before their thread deals with them itself, and lets others have the interpreter.

That is after some three milliseconds; the interpreter itself would switch after five."""


class Supervisor:
    """See the module's docstring.

    Args:
        backend: where workers run.
        clock: seconds, monotonic.
        settings: for each kind of worker, what to start it with; kind 0 is the pool's own.
        memory_interval: seconds between samples when a group has a memory limit; None for no sampling.
        listeners: told every transition, outside the turn, in the thread that caused it.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        clock: Callable[[], float],
        settings: Callable[[int], Settings],
        memory_interval: float | None = None,
        listeners: Iterable[Listener] = (),
        name: str = "gpool",
    ) -> None:
        self.state = PoolState.OPEN  # what users may do; the scheduler's own follows when the feeds have ended
        self.scheduler = Scheduler(send_ahead=backend.can_recall)
        self.has_blocks = backend.has_blocks
        self.room = backend.room
        self.feeds: set[Feeding] = set()  # that may draw
        self.holding: set[Feeding] = set()  # that hold items not submitted yet
        self.pausing: set[Feeding] = set()  # that draw nothing because they have enough unfinished
        self._all_feeds: weakref.WeakSet[Feeding] = weakref.WeakSet()
        self._listeners = tuple(listeners)
        self._backend = backend
        self._clock = clock
        self._memory_interval = memory_interval
        self._next_sample = clock() if memory_interval is not None else float("inf")
        self._pid = lifetime.this_process
        self._task_ids = count(1)
        self._inbox: deque[Future[Any] | Task | Event | Callable[[], None]] = deque()
        self._turn = Turn(self._before_turn_ends, backend.flush)
        self._hurry = False  # what lies in the inbox may begin at once, if the turn's holder looks there
        self._away = False  # the supervisor's thread runs user code, and handles no reports
        self._in_hand = False  # it has reports, and may let go of the turn before it has handled all: none may overtake
        self._sleeps_until = float("-inf")  # the supervisor's thread, at the latest; written with the turn
        self.changed = threading.Condition()  # notified when something that ``join`` waits for may have come true
        self._awaiting_end: set[int] = set()  # threads
        self.closed = threading.Event()
        self._released = threading.Event()  # the backend has let go of everything
        self.notifier = Courier(f"{name}-notifier", self._turn.later)
        self.deliverer = Courier(f"{name}-delivery", self._turn.later)
        self._performer = Performer(
            self.scheduler, backend, self, clock=clock, settings=settings, listening=bool(self._listeners)
        )
        self.handle = self._performer.handle
        self._fetcher = Fetcher(backend, self._turn, self._take_fetched, lambda: self._in_hand)
        self._thread = threading.Thread(target=self._run, name=f"{name}-supervisor", daemon=True)

    def begin(self) -> None:
        """Start the supervisor's thread."""
        lifetime.ends_with_program(self)
        self._thread.start()

    # -- asked by other threads -------------------------------------------------------------------------------

    def group(self, tag: Hashable) -> GroupRecord:
        """A tag's group; UnknownTag if it was never declared."""
        group = self.scheduler.groups.get(tag)
        if group is None:
            raise UnknownTag(tag, list(self.scheduler.groups))
        return group

    def check(self, tag: Hashable) -> Hashable:
        """The tag as it was declared; PoolClosed, UnknownTag or NoSlots if a task of it could never run."""
        self.check_open()
        group = self.group(tag)
        if group.slots == 0 and not (self.scheduler.general.slots and group.settings.burst != 0):
            raise NoSlots(tag)
        return group.tag

    def check_open(self) -> None:
        """PoolClosed unless tasks may be submitted here and now."""
        self.check_process()
        if not self.is_open:
            raise PoolClosed

    @property
    def is_open(self) -> bool:
        """False when no more tasks are taken."""
        return self.state is PoolState.OPEN

    @property
    def is_inherited(self) -> bool:
        """True in a process forked from the one that made the pool: nothing of it may be touched there."""
        return self._pid != lifetime.this_process

    def check_process(self) -> None:
        """PoolClosed in a process forked from the one that made the pool."""
        if self._pid != lifetime.this_process:
            raise PoolClosed("this pool belongs to the process that made it; make one here to run tasks")

    def submit(
        self,
        tag: Hashable,
        packed: Call | bytes,
        options: Options,
        name: str,
        *,
        announce: bool = False,
        follow_up: FollowUp | None = None,
        register: Callable[[Future[Any]], object] | None = None,
    ) -> Future[Any]:
        """Queue a task.

        ``register`` is called with its future before anything can happen to it; ``follow_up``, under the turn,
        when it has settled, and before that, if ``announce`` is set, when it first holds a slot.
        """
        future: Future[Any] = Future(tag, options, options.name or name, packed, self)
        if follow_up is None and register is None and self.has_blocks and may_travel(packed, options):
            self._leave_future(future)
            return future
        future.follow_up = follow_up
        task = Task(next(self._task_ids), tag, options, future.name, announce)
        with shielded():
            self._performer.unended.add(future)
            self._performer.note(future, task)
            if register is not None:
                register(future)
            self._inbox.append(task)
            self._deal_with_inbox(tag, options)
        return future

    def _leave_future(self, future: Future[Any]) -> None:
        """Leave what may travel with others in the inbox, and deal with that if it can't wait.

        Most can, so nothing is shielded until one can't. What an asynchronous exception cuts off is seen to by the
        supervisor's thread.
        """
        try:
            self._performer.unended.add(future)
            self._inbox.append(future)
            self._deal_with_inbox(future.tag, future.options)
        except BaseException:
            self.leave(partial(self._performer.disown, future))
            raise

    def submit_block(
        self, tag: Hashable, options: Options, name: str, size: int, make: Callable[[Task], Block]
    ) -> None:
        """Queue several items as one task."""
        task = Task(next(self._task_ids), tag, options, options.name or name, size=size)
        with shielded():
            self._performer.note(make(task), task)
            self._inbox.append(task)
            self._deal_with_inbox(tag, options)

    def _deal_with_inbox(self, tag: Hashable, options: Options) -> None:
        """Deal with a task of this tag in the inbox unless it can wait: who handles a worker's report looks there too.

        The order matters: it lies there before it is asked whether it can, so a turn that ends later sees it.
        """
        gathered = len(self._inbox)
        if not self.can_wait(tag, options.priority, gathered) or self.state is CLOSED:
            self._hurry = True
            if not self._turn.is_taken:  # else its holder sees it
                with shielded():
                    self._take_turns()
        elif gathered >= _LEFT_IN_THE_INBOX:
            with shielded():
                self._take_turns()
            time.sleep(0)  # results may have come: their thread needs the interpreter

    def can_wait(self, tag: Hashable, priority: int, gathered: int) -> bool:
        """True when so many new tasks may be left to whoever handles a worker's report. Any thread may ask."""
        return self.scheduler.can_wait(tag, priority, _MANY if self._away else gathered)

    def cancel(self, future: Future[Any], kill: bool) -> None:
        """Cancel a task if the machine allows it; when this returns the future says whether it did."""
        if self.is_inherited:
            return
        cancel = partial(self._performer.cancel, future, kill)
        if self._turn.is_mine:
            self.post(cancel)  # from a finalizer that interrupted the turn
        else:
            self.look(cancel)

    def fetch(self, future: Future[Any], timeout: float | None) -> None:
        """Wait for a future by its worker's answer itself, if that can be had; it need not have ended afterwards."""
        self.check_process()
        self._fetcher.fetch(future, timeout)
        if self._performer.transitions:
            self._announce()

    def cancel_all(self, tasks: Callable[[], Iterable[Task]]) -> None:
        """Cancel all these tasks that have not begun; they are listed when none can be added to them."""

        def cancel() -> None:
            for task in tuple(tasks()):
                self.handle(CancelAsked(task.id))

        if self._turn.is_mine:
            self.post(cancel)  # behind the blocks that lie in the inbox
        elif not self.is_inherited:
            self.look(cancel)

    def post(self, item: Event | Callable[[], None]) -> None:
        """Leave something in the inbox, and deal with it now if the turn is free."""
        with shielded():
            self._inbox.append(item)
            self._take_turns()

    def _take_turns(self) -> None:
        """Empty the inbox, unless somebody else is at it."""
        while self._inbox and self._turn.take_if_free():
            try:
                self._work()
            finally:
                self._turn.end()
            self._announce()

    def leave(self, item: Event | Callable[[], None]) -> None:
        """Leave something in the inbox for the supervisor's thread. Takes no lock."""
        if not self.is_inherited:
            self._inbox.append(item)
            self._backend.wake()

    def ask(self, event: Event | None = None) -> None:
        """Have an event handled before this returns, after all that was in the inbox."""
        self.look(lambda: None if event is None else self.handle(event))

    def look(self, do: Callable[[], Any]) -> Any:
        """Call ``do()`` with the turn held and the inbox empty, and return what it returns."""
        self.check_process()
        if self._turn.is_mine:
            raise RuntimeError("the pool was called from a finalizer that interrupted the pool itself")
        try:
            with shielded(), self._turn:
                self._work()
                answer = do()
                if self.holding or self._inbox:
                    self._work()
            self._announce()
        finally:
            if self._inbox:  # what came meanwhile; also when a signal's handler has raised
                self._backend.wake()
        return answer

    @property
    def pending(self) -> int:
        """Tasks that have not ended."""
        return self._performer.pending

    def stats(self) -> snapshot.PoolStats:
        """A snapshot, with fresh health samples."""
        self.check_process()
        samples = {} if self.closed.is_set() else self._backend.sample()
        taken: snapshot.PoolStats = self.look(
            lambda: snapshot.take(
                self.scheduler,
                {} if self.closed.is_set() else self._backend.pids(),
                samples,
                self.pending,
                self._clock(),
            )
        )
        return taken

    def stack(self, pid: int, patience: float) -> str | None:
        """The Python stack of the worker with this process id; ValueError if there is none."""
        self.check_process()
        pids = {} if self.closed.is_set() else self._backend.pids()
        worker = next((each for each, known in pids.items() if known == pid), None)
        if worker is None:
            raise ValueError(f"no worker of this pool has the process id {pid}")
        return self._backend.stack(worker, patience)

    # -- ending -------------------------------------------------------------------------------------------------

    def close(self, *, now: bool = False) -> None:
        """Take no more tasks; end when feeds and tasks have, or ``now``."""
        self.look(lambda: self._begin_close(now))

    def abandon(self) -> None:
        """Nobody refers to the pool any more. A finalizer calls this."""
        self.leave(lambda: self._begin_close(False))

    def _begin_close(self, now: bool) -> None:
        if self.state is PoolState.OPEN:
            self.state = PoolState.CLOSING
        self._turn.later(self.nudge_feeds)  # their readers hold them up no more
        if now:
            self.cancel_feeds()
            self._submit_all_held()  # so that it is cancelled like the rest
        if now or not self.feeds:
            self.handle(CloseAsked(now))

    def _submit_all_held(self) -> None:
        for feed in tuple(self.holding):
            feed.submit_held()
        self._work()

    def cancel_feeds(self) -> None:
        """Let no feed draw any more."""
        for feed in list(self.feeds):
            feed.cancel()

    def forget_feeds(self) -> None:
        """Let no feed draw any more, and wait for none, not even for one that stands in the user's ``next``."""
        self.cancel_feeds()
        self.feeds.clear()

    def nudge_feeds(self) -> None:
        """What feeds pause for may have changed."""
        for feed in list(self.feeds):
            feed.nudge()

    def share(self, shared: Shared) -> None:
        """Let workers forget a function when nothing refers to it any more."""
        weakref.finalize(shared, self.leave, partial(self._backend.forget, shared.number)).atexit = False

    def feed_began(self, feed: Feeding) -> None:
        """A feed may draw from now on."""
        self.look(lambda: self.feeds.add(feed))
        self._all_feeds.add(feed)

    def feed_ended(self, feed: Feeding) -> None:
        """A feed draws no more."""
        self.look(lambda: self._drop_feed(feed))
        self.notify()

    def _drop_feed(self, feed: Feeding) -> None:
        self.feeds.discard(feed)
        if not self.feeds and self.state is PoolState.CLOSING:
            self.handle(CloseAsked())

    def exit(self, *, now: bool = False) -> None:
        """The interpreter exits: finish what can be finished, start nothing more; or finish nothing."""
        if self.is_inherited:
            return
        if now:
            left = self.pending
            self.close(now=True)
            self.wait_closed(None, drop=True)
            if left:
                logger.error("the interpreter's exit was interrupted: %d task(s) did not finish", left)
            return
        before = self._performer.verdicts.unserved
        self.cancel_feeds()
        self.look(self._submit_all_held)
        self.look(lambda: self._begin_close(False))
        self.ask(ExitBegan())
        self.wait_closed(None)
        unserved = self._performer.verdicts.unserved - before
        if unserved:
            logger.error("the interpreter exits: %d task(s) could get no worker and ended in PoolClosed", unserved)

    def wait_closed(self, timeout: float | None, *, drop: bool = False) -> bool:
        """Wait until no worker and no thread is left.

        With ``drop``, what was not delivered is not, and threads that stand in user code are left to it.
        """
        if self._thread is threading.current_thread() or not self._thread.is_alive():
            return self.closed.is_set()
        self._awaiting_end.add(threading.get_ident())
        try:
            self.nudge_feeds()  # what this thread was to read holds them up no more
            if not wait(self._released.wait, timeout):
                return False
        finally:
            self._awaiting_end.discard(threading.get_ident())
        for feed in list(self._all_feeds):
            feed.wait_gone()
        if drop:
            self.deliverer.end(drop=True)
        couriers = (self.deliverer, self.notifier)
        if not any(courier.is_current for courier in couriers):  # two that wait for each other would wait for ever
            for courier in couriers:
                courier.wait_ended(patient=not drop)
        self._thread.join(timeout)
        return True

    def awaits_end(self, thread: int) -> bool:
        """True while a thread waits for the pool to end."""
        return thread in self._awaiting_end

    def await_(self, holds: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something holds of which ``notify`` tells; False if ``timeout`` seconds were not enough."""
        self.check_process()
        return wait_for(self.changed, holds, timeout)

    def later(self, do: Callable[[], object]) -> None:
        """Wake somebody, if this thread has the turn not before that is over."""
        self._turn.later(do)

    def notify(self) -> None:
        """Something that others wait for may have come true."""
        self._turn.later(self._notify)

    def _notify(self) -> None:
        with shielded(), self.changed:
            self.changed.notify_all()

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self.closed.is_set():
            try:
                self.step(None)
            except BaseException as error:
                with self._turn:
                    self._performer.fail(error)
        with self._turn:
            self._work()  # what was left there just before it closed
        self._backend.close()
        self.deliverer.end()
        self.notifier.end()
        self._released.set()

    def step(self, timeout: float | None) -> None:
        """Wait for the backend, at most so long and never past the next timer; handle what has come."""
        due = self._sleeps_until
        if due != float("inf"):
            left = max(0.0, due - self._clock())
            timeout = left if timeout is None else min(left, timeout)
        if self._inbox:
            timeout = 0.0
        self._backend.wait(timeout)
        opened: Mapping[int, BaseException] = {}
        with self._turn:
            reports = self._backend.poll()
            to_open = self._to_open(reports)
            self._in_hand, self._away = bool(reports), bool(to_open)
            if not to_open:
                self._take_in_hand(reports, opened)
        if to_open:
            opened = {frame.number: _opened(frame) for frame in to_open}
            with self._turn:
                self._away = False
                self._take_in_hand(reports, opened)
        if self._clock() >= self._next_sample:
            self._sample()
            with self._turn:
                self._sleeps_until = self._due()
        if self._performer.transitions:
            self._announce()

    def _take_in_hand(self, reports: list[Report], opened: Mapping[int, BaseException]) -> None:
        """With the turn held, on the supervisor's thread: deal with all that it has in hand, before it sleeps."""
        self._take_all(reports, opened)
        self._in_hand = False
        self._sleeps_until = self._due()

    def _take_all(self, reports: list[Report], opened: Mapping[int, BaseException]) -> None:
        """With the turn held: deal with the inbox, what workers reported, and what is due."""
        if self._hurry:
            self._hurry_up()
        else:
            self._work()  # first, so that what has gathered there travels together
        for report in reports:
            self._take(report, opened)
        if self.scheduler.timers.soonest <= self._clock():
            self.handle(_TICK)
        if self.holding or self._inbox:
            self._work()

    def _take_fetched(self, reports: list[Report]) -> None:
        """With the turn held: deal with what somebody fetched who waits for it."""
        try:
            self._take_all(reports, {})
        except BaseException as error:
            self._performer.fail(error)

    def _due(self) -> float:
        """With the turn held: when the supervisor's thread is wanted though nobody wakes it."""
        timer = self.scheduler.next_timer
        return self._next_sample if timer is None else min(timer, self._next_sample)

    def _sample(self) -> None:
        """Take health samples and tell the scheduler."""
        assert self._memory_interval is not None
        self._next_sample = self._clock() + self._memory_interval
        self._performer.samples = samples = self._backend.sample()
        for worker, sample in samples.items():
            self.post(MemorySampled(worker, sample.rss))

    # -- with the turn held ---------------------------------------------------------------------------------------

    def _before_turn_ends(self) -> None:
        """Wake the supervisor's thread if it would sleep for too long, and feeds that pause while a slot is free.

        What they have unfinished may be in the hands of a worker that stands still.
        """
        for feed in tuple(self.pausing):
            if self.scheduler.wastes_slot(feed.tag):
                self._turn.later(feed.nudge)
        self._fetcher.wake_if_done()
        timer = self.scheduler.next_timer
        if timer is not None and timer < self._sleeps_until:
            self._sleeps_until = timer
            self._backend.wake()
        elif self.closed.is_set():
            self._backend.wake()

    def _work(self) -> None:
        """Empty the inbox."""
        self._hurry = False
        inbox = self._inbox
        futures: list[Future[Any]] = []
        tasks: list[Task] = []
        while inbox or futures or tasks or (self.holding and self._relieve()):
            item = inbox.popleft() if inbox else None
            if isinstance(item, Future):
                futures.append(item)
                continue
            if futures:
                tasks += self._performer.admit(futures, self._task_ids)
                futures.clear()
            if isinstance(item, Task):
                tasks.append(item)
                continue
            self._submit_all(tasks)
            if callable(item):
                item()
            elif item is not None:
                self.handle(item)

    def _hurry_up(self) -> None:
        """Deal with what lies in the inbox, and let workers have it, though there is more to do.

        Who has fetched an answer does not let go of the turn before that is handled: others may have read more by then.
        """
        self._work()
        if self._in_hand:
            self._turn.pause()

    def _relieve(self) -> bool:
        """Have feeds submit what they hold if there is use for it; True if one did."""
        wanted = [feed for feed in tuple(self.holding) if feed.is_wanted]
        for feed in wanted:
            feed.submit_held()
        return bool(wanted)

    def _submit_all(self, tasks: list[Task]) -> None:
        """Tell the scheduler of new tasks, and empty the list."""
        if tasks:
            self.handle(SubmitAsked(tuple(tasks)))
            tasks.clear()

    def shut(self) -> None:
        self.state = PoolState.CLOSED
        lifetime.has_ended(self)
        self.closed.set()

    # -- reports in, events and verdicts out ------------------------------------------------------------------------

    def _to_open(self, reports: list[Report]) -> list[Frame]:
        """What must be unpickled before it can be dealt with: exceptions of tasks that name those to be retried."""
        return [
            frame
            for report in reports
            if type(report) is Replied
            for frame in report.frames
            if frame.kind == wire.ERROR and self._names_exceptions(report.worker, frame.number)
        ]

    def _names_exceptions(self, worker: int, lease: int) -> bool:
        found = self.scheduler.workers.get(worker)
        leases = () if found is None else tuple(found.leases)
        return any(each.task.options.retry_on for each in leases if each.number == lease)

    def _take(self, report: Report, opened: Mapping[int, BaseException]) -> None:
        """Tell the scheduler what has come."""
        if type(report) is Replied:
            worker, handle = report.worker, self.handle
            for frame in report.frames:  # there may be hundreds
                if self._hurry:
                    self._hurry_up()
                if frame.kind == wire.VALUE:
                    handle(new_ended((worker, frame.number, RETURNED, frame.seconds, False)), frame)
                elif frame.kind == wire.ANSWERS:
                    first, count, failed, final, _ = head_of(frame.body)
                    each = frame.seconds / max(1, first + count)
                    returned, seconds = count - failed, frame.seconds
                    handle(Progressed(worker, frame.number, returned, failed, bool(final), seconds, each), frame)
                else:
                    retry = self._may_retry(worker, opened.get(frame.number))
                    handle(Ended(worker, frame.number, Verdict.RAISED, frame.seconds, retry), frame)
        elif type(report) is Ready:
            self.handle(WorkerReady(report.worker))
            self.notify()
        elif type(report) is Logged:
            self.deliverer.call(receive, report.body)
        elif type(report) is Exited:
            self.handle(WorkerExited(report.worker, report.begun, report.unbegun, report.reason), report)
            self._performer.verdicts.forget(report.worker)
            self.notify()

    def _may_retry(self, worker: int, error: BaseException | None) -> bool:
        if error is None:
            return False
        leases = self.scheduler.workers[worker].leases
        return isinstance(error, leases[0].task.options.retry_on)

    def _announce(self) -> None:
        """Tell the listeners, outside the turn."""
        while True:
            try:
                transition = self._performer.transitions.popleft()
            except IndexError:  # none is left, perhaps because another thread was quicker
                return
            for listener in self._listeners:
                try:
                    listener(transition)
                except Exception:
                    logger.exception("exception in a listener: %r", listener)


def _opened(frame: Frame) -> BaseException:
    """What a task raised. User code may run here."""
    error = open_outcome(frame.kind, frame.body).error
    assert error is not None
    return error
