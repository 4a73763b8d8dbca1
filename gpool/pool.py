"""The pool that users make.

Owns the public methods of ``GroupedPool``. It keeps nothing but its parts: all state of tasks and workers is the
supervisor's, all of results on their way to handlers and readers the deliveries'.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from gpool.deliveries import Callback, Deliveries, ErrorCallback, Ingest, check_handler, check_iteration, handlers
from gpool.errors import InsufficientSlots
from gpool.events import ResizeAsked
from gpool.feeds import Feed, is_at_hand
from gpool.futures import Future
from gpool.interrupts import Signal, instant_in, seconds_until
from gpool.interrupts import wait as wait_until
from gpool.model import NO_OPTIONS, Group, WorkerState, check_count
from gpool.results import Kept
from gpool.settings import Kinds, groups_of
from gpool.supervisor import Listener, Supervisor
from gpool.views import Changes, GroupView, check_callable, keywords, name_of, submit
from gpool.workers.backend import Backend, Settings
from gpool.workers.payload import Shared, one_call

if TYPE_CHECKING:
    from typing import Unpack

    from gpool.snapshot import PoolStats
    from gpool.workers.local import LocalBackend

MEMORY_SECONDS = 0.25
"""Between two looks at the workers' memory, where a group has a limit."""
_FORKS_AT_EXIT = sys.version_info[:2] != (3, 12)
"""Whether a program that has come to its end may still fork."""
_LEAVING = (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED)


class GroupedPool(Executor):
    """A pool of worker processes in which every tag has slots that nobody else can take.

    Args:
        limit: slots in all; the general group gets what ``tags`` leave. Without ``tags``, general slots; None
            for one per usable CPU.
        tags: slots, or a ``Group``, by tag; the tag None is the general group.
        callback: called with each result of ``put`` and ``ingest``.
        on_error: called with each exception of theirs.
        iteration: whether those results are kept for iteration; None: when there is no callback.
        mp_context: a start method's name or context; None for forkserver where it exists, else spawn.
        initializer, initargs: called in each new worker.
        max_tasks_per_child, memory_limit, recycle_memory, start_timeout, max_start_failures, max_crashes: what groups
            have that set none of their own; see ``Group``.
        forward_logs: whether log records made in workers reach the handlers of this process.
        backend: where workers run, in place of processes on this machine.
        clock: seconds, monotonic.
        listener: called with each state change of a task, worker, group and the scheduler.

    Raises:
        ValueError, TypeError: an argument is not what it should be; ``limit`` is below the sum of ``tags``.
    """

    def __init__(
        self,
        limit: int | None = None,
        tags: Mapping[Hashable, int | Group] | None = None,
        callback: Callback | None = None,
        on_error: ErrorCallback | None = None,
        *,
        iteration: bool | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        memory_limit: int | None = None,
        recycle_memory: int | None = None,
        start_timeout: float | None = None,
        max_start_failures: int | None = None,
        max_crashes: int | None = None,
        forward_logs: bool = True,
        backend: Backend | None = None,
        clock: Callable[[], float] = monotonic,
        listener: Listener | None = None,
    ) -> None:
        check_handler("callback", callback)
        check_handler("on_error", on_error)
        check_iteration(iteration)
        check_callable(clock)
        defaults = Group(
            0,
            initializer,
            tuple(initargs),
            memory_limit=memory_limit,
            recycle_memory=recycle_memory,
            max_tasks_per_child=max_tasks_per_child,
            start_timeout=start_timeout,
            max_start_failures=max_start_failures,
            max_crashes=max_crashes,
        )
        groups = groups_of(limit, tags, defaults)
        local = None
        if backend is None:
            backend = local = _local_backend(mp_context, forward_logs)
        kinds = Kinds(groups, list(groups), Settings(initializer, tuple(initargs)))
        sampled = any(group.memory_limit or group.recycle_memory for group in groups.values())
        self._defaults = defaults._replace(initializer=None)  # a group declared later has plain workers
        self._supervisor = Supervisor(
            backend,
            clock=clock,
            settings=kinds.__getitem__,
            memory_interval=MEMORY_SECONDS if sampled else None,
            listeners=() if listener is None else (listener,),
        )
        self._deliveries = Deliveries(self._supervisor, callback, on_error, iteration)
        self._supervisor.ask(ResizeAsked({tag: group.slots for tag, group in groups.items()}, groups))
        # First, because weakref has something of its own to do at exit, where a Ctrl-C would be printed and ignored:
        # what is registered last runs first, and there a Ctrl-C is dealt with.
        self._finalizer = weakref.finalize(self, self._supervisor.abandon)
        self._finalizer.atexit = False
        self._supervisor.begin()
        if local is not None and local.method == "fork" and not _FORKS_AT_EXIT:
            local.await_starts()  # what a program that ends at once may need

    def __repr__(self) -> str:
        scheduler = self._supervisor.scheduler
        groups = ", ".join(
            f"{group.tag!r}: {group.running}/{group.slots} busy, {group.backlog.size} queued"
            for group in list(scheduler.groups.values())
        )
        return f"<{type(self).__name__} {self._supervisor.state.value}; {groups}>"

    # -- submitting -------------------------------------------------------------------------------------------

    def group(self, tag: Hashable) -> GroupView:
        """An executor for one tag. UnknownTag if it was never declared."""
        self._supervisor.group(tag)
        return self._view(tag)

    def options(self, **changes: Unpack[Changes]) -> GroupView:
        """``group(None).options(...)``."""
        return self._view(None).options(**changes)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue ``fn(*args, **kwargs)`` in the general group; see ``GroupView.submit``."""
        return submit(self._supervisor, None, NO_OPTIONS, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """``GroupView.map`` in the general group."""
        return self._view(None).map(fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)

    def map_unordered(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """``GroupView.map_unordered`` in the general group."""
        view = self._view(None)
        return view.map_unordered(fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)

    def put(
        self,
        tag: Hashable,
        fn: Callable[..., Any],
        args: Iterable[Any] = (),
        callback: Callback | None = None,
        error: ErrorCallback | None = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Future[Any]:
        """Run ``fn(*args, **kwargs)`` under ``tag``; blocks until it holds a slot.

        Args:
            callback: called with the result, in place of the pool's.
            error: called with the exception, in place of the pool's.

        Raises:
            PoolClosed: also when the pool ends while this waits.
            PayloadError, UnknownTag, NoSlots, TypeError: as ``submit``.
        """
        wanted = handlers(callback, error)
        self._supervisor.check(tag)
        packed = one_call(check_callable(fn), tuple(args), keywords(kwargs), self._supervisor.room)
        holds_slot = Signal()

        def follow_up(future: Future[Any]) -> None:
            self._supervisor.later(holds_slot.set)
            if future.done():
                self._deliveries.settled(future, wanted)

        expect = self._deliveries.expect
        future = self._supervisor.submit(
            tag, packed, NO_OPTIONS, name_of(fn), announce=True, follow_up=follow_up, register=expect
        )
        try:
            wait_until(holds_slot.wait)
        except BaseException:
            future.cancel()
            raise
        if future.never_ran:
            self._supervisor.check_open()
        return future

    def ingest(
        self,
        iterable: Iterable[Any],
        tag: Hashable,
        fn: Callable[..., Any],
        args: Iterable[Any] = (),
        callback: Callback | None = None,
        error: ErrorCallback | None = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Feed:
        """Run ``fn(item, *args, **kwargs)`` for each item in the background; returns at once.

        Items are drawn as fast as slots free up. An iterable that raises ends the feed, and the error handler
        gets what it raised.

        Raises:
            PayloadError, PoolClosed, UnknownTag, NoSlots, TypeError: as ``submit``; items that do not pickle go
                to the error handler, one by one.
        """
        wanted = handlers(callback, error)
        supervisor, deliveries, name = self._supervisor, self._deliveries, name_of(fn)
        supervisor.check(tag)
        shared = Shared(check_callable(fn), tuple(args), keywords(kwargs))

        taker = Ingest(deliveries, wanted, keep=self)
        feed = Feed(supervisor, tag, NO_OPTIONS, name, iterable, shared, taker, at_hand=is_at_hand(iterable))
        feed.begin()
        return feed

    # -- resizing -----------------------------------------------------------------------------------------------

    def adjust(
        self,
        tag: Hashable,
        slots: int,
        use_general_slots: bool = False,
        *,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Make ``slots`` the size of a group, declaring its tag if need be. Never kills; busy workers finish.

        Args:
            use_general_slots: move the difference to or from the general group.
            wait: return when the workers that are to leave have left.
            timeout: seconds for that.

        Raises:
            InsufficientSlots: the general group lacks the slots to move; nothing was changed.
            TypeError, ValueError: an argument is not what it should be, or slots were to move from the general group
                to itself.
            TimeoutError: ``wait`` took longer than ``timeout``.
            PoolClosed: the pool has ended.
        """
        check_count("slots", slots, least=0, optional=False)
        until = instant_in(timeout)
        if use_general_slots and tag is None:
            raise ValueError("slots cannot move between the general group and itself")
        self._supervisor.check_open()
        hash(tag)
        leaving = self._supervisor.look(lambda: self._resize(tag, slots, use_general_slots))
        workers = self._supervisor.scheduler.workers
        if wait and not self._supervisor.await_(lambda: workers.keys().isdisjoint(leaving), seconds_until(until)):
            raise TimeoutError("the pool had not drained in time; the new size stands")

    def _resize(self, tag: Hashable, slots: int, move: bool) -> set[int]:
        """Under the supervisor's turn. Returns the workers that are on their way out."""
        supervisor = self._supervisor
        groups, general = supervisor.scheduler.groups, supervisor.scheduler.general
        target = {tag: slots}
        if move:
            wanted = slots - (groups[tag].slots if tag in groups else 0)
            left = general.slots - wanted
            if left < 0:
                raise InsufficientSlots(wanted, general.slots)
            target[None] = left
        new = {} if tag in groups else {tag: self._defaults._replace(slots=slots)}
        supervisor.handle(ResizeAsked(target, new))
        return {worker.id for worker in supervisor.scheduler.workers.values() if worker.state in _LEAVING}

    def get_tags(self) -> dict[Hashable, int]:
        """The target sizes by tag."""
        groups = self._supervisor.scheduler.groups
        return {tag: groups[tag].slots for tag in list(groups)}

    # -- handlers and iteration -----------------------------------------------------------------------------------

    def callback(self, callback: Callback | None) -> None:
        """Replace the handler of results."""
        check_handler("callback", callback)
        self._deliveries.callback = callback

    def on_error(self, on_error: ErrorCallback | None) -> None:
        """Replace the handler of errors."""
        check_handler("on_error", on_error)
        self._deliveries.on_error = on_error

    def __iter__(self) -> Iterator[Any]:
        """Results of ``put`` and ``ingest`` as they finish; ends when nothing is pending and no feed is alive."""
        self._deliveries.reader_came()
        return Kept(self._deliveries.take, self, self._deliveries.reader_went)

    # -- looking ----------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Tasks that have not ended."""
        return self._supervisor.pending

    def stats(self) -> PoolStats:
        """What every group and worker is doing, at one moment."""
        return self._supervisor.stats()

    def stack(self, pid: int, timeout: float = 1.0) -> str | None:
        """The Python stack of a worker as it is now, also of one that hangs in C.

        Returns None when it does not answer within ``timeout`` seconds (it may be stopped), or where the platform
        offers no way.

        Raises:
            ValueError: no worker of this pool has that process id.
        """
        return self._supervisor.stack(pid, timeout)

    # -- waiting and ending -----------------------------------------------------------------------------------------

    def join(self, timeout: float | None = None) -> bool:
        """Wait for feeds, tasks and their handlers; the pool stays usable. False if ``timeout`` seconds passed before.

        A feed that pauses for a reader is waited for too, though nobody may be reading.
        """
        return self._supervisor.await_(self._quiet, timeout)

    def _quiet(self) -> bool:
        supervisor = self._supervisor
        if supervisor.feeds or supervisor.pending:
            return False
        return supervisor.deliverer.is_current or self._deliveries.all_made

    def stop(self) -> None:
        """End now: cancel what is queued, kill what runs, end the feeds, and return when all is gone."""
        self._supervisor.close(now=True)
        if self._supervisor.wait_closed(None, drop=True):
            self._finalizer.detach()  # here a Ctrl-C is raised; from a finalizer it would not be

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks and end when what there is has ended.

        Args:
            wait: return when that has happened, handlers included.
            cancel_futures: cancel what is queued, and let feeds draw no more.
        """
        supervisor = self._supervisor
        if cancel_futures:
            supervisor.look(supervisor.forget_feeds)
        supervisor.close()
        if cancel_futures:
            supervisor.cancel_all(supervisor.scheduler.tasks.values)
        if wait and supervisor.wait_closed(None):
            self._finalizer.detach()

    def __enter__(self) -> GroupedPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if self._supervisor.is_inherited:
            return False  # a forked child leaves: the pool is its parent's
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.stop()
            return False
        try:
            self.shutdown()
        except KeyboardInterrupt:
            self.stop()
            raise
        return False

    def _view(self, tag: Hashable) -> GroupView:
        return GroupView(self, self._supervisor, tag, NO_OPTIONS)


PyPool = GroupedPool


def _local_backend(mp_context: Any, forward_logs: bool) -> LocalBackend:
    from gpool.workers.forking import coming_up, start_method

    method = start_method(mp_context)
    with coming_up(method):
        from gpool.workers.local import LocalBackend

        return LocalBackend(method, forward_logs=forward_logs)
