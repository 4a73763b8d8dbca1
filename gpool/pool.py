"""The faces: ``GroupedPool`` and the views of its groups.

Owns the public methods and the checking of what users pass; what it keeps besides is the user's wishes, the
handlers and the results kept for iteration. All state of tasks and workers is the supervisor's.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import Any, Literal, NamedTuple

from gpool.delivery import logger
from gpool.errors import InsufficientSlots, NoSlots, PayloadError, UnknownTag
from gpool.events import CancelAsked, ResizeAsked
from gpool.feeds import Feed
from gpool.futures import Future
from gpool.model import NO_OPTIONS, Group, Options, WorkerState, check_count, check_slots
from gpool.outcome import Outcome, raised
from gpool.results import Kept, MapIterator, MapResults
from gpool.snapshot import PoolStats
from gpool.supervisor import Listener, Supervisor
from gpool.workers.backend import Backend, Settings
from gpool.workers.payload import Call, Shared, dump_call, one_call

Callback = Callable[[Any], object]
ErrorCallback = Callable[[BaseException], object]

UNREAD_LIMIT = 1_000
"""Results unread, or undelivered, at which feeds pause."""
KEPT_WARNING = 100_000
"""Results kept for an iteration that nobody began, at which one warning is given."""
MEMORY_SECONDS = 0.25
"""Between two looks at the workers' memory, where a group has a limit."""


class _Handlers(NamedTuple):
    """Who is told of a task's end, in place of the pool's own."""

    callback: Callback | None
    error: ErrorCallback | None


class GroupView(Executor):
    """An executor bound to one tag of a pool. It holds no state and keeps its pool alive."""

    def __init__(self, pool: GroupedPool, tag: Hashable, options: Options) -> None:
        self._pool = pool
        self._tag = tag
        self._options = options

    def __repr__(self) -> str:
        return f"<view of group {self._tag!r} of {self._pool!r}>"

    def options(
        self,
        *,
        timeout: float | None = None,
        retries: int = 0,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        priority: int = 0,
        name: str | None = None,
    ) -> GroupView:
        """A view whose tasks have these options; this one stays as it is.

        Args:
            timeout: seconds a task may run before its worker is killed and it ends in ``TaskTimeout``.
            retries: further attempts after a crash or a timeout.
            retry_on: exception types that count too.
            priority: higher goes first inside the tag.
            name: what errors and ``stats()`` call the task.

        Raises:
            TypeError, ValueError: an option is not what it should be.
        """
        check_count("retries", retries, least=0)
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, not {timeout!r}")
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise TypeError(f"priority must be a whole number, not {priority!r}")
        types = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        if not all(isinstance(each, type) and issubclass(each, BaseException) for each in types):
            raise TypeError(f"retry_on takes exception types, not {retry_on!r}")
        return GroupView(self._pool, self._tag, Options(timeout, retries, types, priority, name))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue ``fn(*args, **kwargs)`` and return its future.

        Raises:
            PayloadError: it cannot be pickled.
            PoolClosed, UnknownTag, NoSlots: it could never run.
            TypeError: ``fn`` is not callable.
        """
        return self._pool._submit(self._tag, self._options, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """``fn`` over the iterables, results in their order.

        Args:
            fn: called with one item of each iterable.
            iterables: drawn as slots free up.
            timeout: seconds from now after which ``next`` raises TimeoutError.
            chunksize: a hint; how items travel is the pool's business.
            buffersize: how many items may be drawn ahead of the reader; None: all run, read or not.
        """
        return self._pool._map(self, fn, iterables, timeout, chunksize, buffersize, ordered=True)

    def map_unordered(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """``map`` with the results as they come."""
        return self._pool._map(self, fn, iterables, timeout, chunksize, buffersize, ordered=False)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """A view has nothing of its own to shut down; the pool goes on."""


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
        max_tasks_per_child: tasks after which a worker is replaced.
        memory_limit: bytes of RSS of a worker's process tree above which it is killed.
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
        backend: Backend | None = None,
        clock: Callable[[], float] = monotonic,
        listener: Listener | None = None,
    ) -> None:
        defaults = Group(0, initializer, tuple(initargs), None, None, memory_limit, max_tasks_per_child)
        _check_handler("callback", callback)
        _check_handler("on_error", on_error)
        groups = {tag: _completed(group, defaults) for tag, group in _groups(limit, tags).items()}
        if backend is None:
            from gpool.workers.local import LocalBackend
            from gpool.workers.process import start_method

            backend = LocalBackend(start_method(mp_context))
        order = sorted(groups, key=lambda tag: tag is None)  # reserved groups start first
        kinds = _kinds(groups, Settings(initializer, tuple(initargs)), order)
        limited = any(group.memory_limit for group in groups.values())
        self._supervisor = Supervisor(
            backend,
            clock=clock,
            settings=kinds.__getitem__,
            memory_interval=MEMORY_SECONDS if limited else None,
            listeners=() if listener is None else (listener,),
        )
        self._view = GroupView(self, None, NO_OPTIONS)
        self._defaults = defaults
        self._callback = callback
        self._on_error = on_error
        self._iteration = iteration
        self._kept: deque[Any] = deque()
        self._readers = 0
        self._out: set[object] = set()  # of put and ingest: what has not ended, or not been delivered
        self._supervisor.ask(ResizeAsked({tag: groups[tag].slots for tag in order}, groups))
        self._supervisor.begin()
        weakref.finalize(self, self._supervisor.abandon).atexit = False

    def __repr__(self) -> str:
        scheduler = self._supervisor.scheduler
        groups = ", ".join(
            f"{group.tag!r}: {group.running}/{group.slots} busy, {group.backlog.size} queued"
            for group in list(scheduler.groups.values())
        )
        return f"<{type(self).__name__} {self._supervisor.state.value}; {groups}>"

    # -- submitting -------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue ``fn(*args, **kwargs)`` in the general group; see ``GroupView.submit``."""
        return self._submit(None, NO_OPTIONS, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """``GroupView.map`` in the general group."""
        return self._map(self._view_of(None), fn, iterables, timeout, chunksize, buffersize, ordered=True)

    def map_unordered(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """``GroupView.map_unordered`` in the general group."""
        return self._map(self._view_of(None), fn, iterables, timeout, chunksize, buffersize, ordered=False)

    def group(self, tag: Hashable) -> GroupView:
        """An executor for one tag. UnknownTag if it was never declared."""
        self._known(tag)
        return self._view_of(tag)

    def options(self, **options: Any) -> GroupView:
        """``group(None).options(...)``."""
        return self._view_of(None).options(**options)

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
        _check_handler("callback", callback)
        _check_handler("error", error)
        self._check(tag, fn)
        call = one_call(fn, tuple(args), kwargs or {})
        holds_slot = threading.Event()
        settled = self._deliver_to(_Handlers(callback, error))

        def follow_up(future: Future[Any]) -> None:
            holds_slot.set()
            if future.done():
                settled(future)

        future = self._supervisor.submit(
            tag, call, NO_OPTIONS, _name(fn), announce=True, follow_up=follow_up, register=self._out.add
        )
        try:
            holds_slot.wait()
        except BaseException:
            future.cancel()
            raise
        if future.done() and future._task.attempt == 0:  # it never held one
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
        _check_handler("callback", callback)
        _check_handler("error", error)
        self._check(tag, fn)
        shared = Shared(fn, tuple(args), kwargs or {})
        handlers = _Handlers(callback, error)
        name = _name(fn)
        settle = self._deliver_to(handlers)

        def follow_up(future: Future[Any]) -> None:
            settle(future)
            feed.settled()

        def submit(item: Any) -> Future[Any] | None:
            try:
                call = Call(dump_call((item,)), shared)
            except PayloadError as problem:
                self._hand_error(handlers, problem)
                return None
            return self._supervisor.submit(tag, call, NO_OPTIONS, name, follow_up=follow_up, register=self._out.add)

        def ended(feed: Feed, problem: BaseException | None) -> None:
            if problem is not None:
                self._hand_error(handlers, problem)
            self._supervisor.feed_ended(feed)

        feed = self._feed(iter(iterable), submit, tag, self._backed_up, ended)
        feed.begin()
        return feed

    def _feed(
        self,
        items: Iterator[Any],
        submit: Callable[[Any], Future[Any] | None],
        tag: Hashable,
        paused: Callable[[], bool],
        ended: Callable[[Feed, BaseException | None], None],
    ) -> Feed:
        scheduler = self._supervisor.scheduler
        feed = Feed(
            items,
            submit,
            depth=lambda: scheduler.depth(tag),
            paused=paused,
            ended=ended,
            name=f"gpool-feed-{tag}",
        )
        self._supervisor.look(lambda: self._supervisor.feeds.add(feed))
        return feed

    def _submit(
        self, tag: Hashable, options: Options, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        self._check(tag, fn)
        return self._supervisor.submit(tag, one_call(fn, args, kwargs), options, _name(fn))

    def _map(
        self,
        view: GroupView,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        buffersize: int | None,
        *,
        ordered: bool,
    ) -> Iterator[Any]:
        check_count("buffersize", buffersize, least=1)
        check_count("chunksize", chunksize, least=1)
        if not iterables:
            raise TypeError("map needs at least one iterable")
        tag, options = view._tag, view._options
        self._check(tag, fn)
        shared = Shared(fn, (), {})
        name = _name(fn)
        results = MapResults(ordered=ordered, timeout=timeout, bounded=buffersize is not None)
        put = results.put

        def follow_up(future: Future[Any]) -> None:
            feed.settled()
            if not ordered:
                put(future)

        def submit(items: tuple[Any, ...]) -> Future[Any]:
            try:
                call = Call(dump_call(items), shared)
            except PayloadError as problem:
                call = Call(dump_call((problem, problem.__cause__)), _raiser())
            results.drew()
            future = self._supervisor.submit(tag, call, options, name, follow_up=follow_up)
            if ordered:
                put(future)
            return future

        def ended(feed: Feed, problem: BaseException | None) -> None:
            results.finish(problem)
            self._supervisor.feed_ended(feed)

        def paused() -> bool:
            return buffersize is not None and results.unread >= buffersize

        feed = results.feed = self._feed(zip(*iterables, strict=False), submit, tag, paused, ended)
        feed.begin()
        return MapIterator(results, self, self._supervisor.leave)

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
            wait: return when shrinking has drained and growth has started.
            timeout: seconds for that.

        Raises:
            InsufficientSlots: the general group lacks the slots to move; nothing was changed.
            TypeError, ValueError: ``slots`` is no size, or slots were to move from the general group to itself.
            TimeoutError: ``wait`` took longer than ``timeout``.
            PoolClosed: the pool has ended.
        """
        check_slots(slots)
        if use_general_slots and tag is None:
            raise ValueError("slots cannot move between the general group and itself")
        self._supervisor.check_open()
        hash(tag)
        self._supervisor.look(lambda: self._resize(tag, slots, use_general_slots))
        if wait and not self._await(self._drained, timeout):
            raise TimeoutError("the pool had not drained in time; the new size stands")

    def _resize(self, tag: Hashable, slots: int, move: bool) -> None:
        scheduler = self._supervisor.scheduler
        target = {tag: slots}
        if move:
            group = scheduler.groups.get(tag)
            wanted = slots - (group.slots if group else 0)
            left = scheduler.general.slots - wanted
            if left < 0:
                raise InsufficientSlots(wanted, scheduler.general.slots)
            target[None] = left
        new = {} if tag in scheduler.groups else {tag: replace(self._defaults, slots=slots, initializer=None)}
        self._supervisor._handle(ResizeAsked(target, new))

    def _drained(self) -> bool:
        leaving = (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED, WorkerState.STARTING)
        return not any(worker.state in leaving for worker in list(self._supervisor.scheduler.workers.values()))

    def get_tags(self) -> dict[Hashable, int]:
        """The target sizes by tag."""
        groups = self._supervisor.scheduler.groups
        return {tag: groups[tag].slots for tag in list(groups)}

    # -- handlers and iteration -----------------------------------------------------------------------------------

    def callback(self, callback: Callback | None) -> None:
        """Replace the handler of results."""
        _check_handler("callback", callback)
        self._callback = callback

    def on_error(self, on_error: ErrorCallback | None) -> None:
        """Replace the handler of errors."""
        _check_handler("on_error", on_error)
        self._on_error = on_error

    def __iter__(self) -> Iterator[Any]:
        """Results of ``put`` and ``ingest`` as they finish; ends when nothing is pending and no feed is alive."""
        self._readers += 1
        return Kept(self._take_kept, self, self._reader_gone)

    def _reader_gone(self) -> None:
        self._readers -= 1
        self._nudge_feeds()

    def _take_kept(self) -> Any:
        self._await(lambda: bool(self._kept) or self._all_delivered(), None)
        if not self._kept:
            raise StopIteration
        value = self._kept.popleft()
        if len(self._kept) == UNREAD_LIMIT // 2:
            self._nudge_feeds()
        return value

    def _all_delivered(self) -> bool:
        return not self._supervisor.feeds and not self._out

    def _deliver_to(self, handlers: _Handlers) -> Callable[[Future[Any]], None]:
        """What is done, under the turn, when a task of ``put`` or ``ingest`` has settled."""
        deliverer = self._supervisor.deliverer

        def settled(future: Future[Any]) -> None:
            if future.cancelled():
                self._delivered(future)
            else:
                deliverer.call(self._hand_over, future, handlers, future.outcome)

        return settled

    def _hand_over(self, token: object, handlers: _Handlers, open_outcome: Callable[[], Outcome]) -> None:
        """On the delivery thread: give an outcome to whom it belongs."""
        try:
            outcome = open_outcome()
            if outcome.error is not None:
                self._tell_error(handlers, outcome.error)
                return
            callback = handlers.callback or self._callback
            if callback is None if self._iteration is None else self._iteration:
                self._keep(outcome.value)
            if callback is not None:
                callback(outcome.value)
        except BaseException:
            logger.exception("exception in a handler of %r", self)
        finally:
            self._delivered(token)

    def _keep(self, value: Any) -> None:
        self._kept.append(value)
        if self._readers:
            self._supervisor.notify()
        if len(self._kept) == KEPT_WARNING and not self._readers:
            logger.warning(
                "%d results are kept for an iteration that nobody began; iteration=False keeps none", KEPT_WARNING
            )

    def _hand_error(self, handlers: _Handlers, error: BaseException) -> None:
        """An error that is no task's: an iterable that raised, an item that does not pickle."""
        token = object()
        self._out.add(token)
        self._supervisor.deliverer.call(self._hand_over, token, handlers, lambda: raised(error))

    def _tell_error(self, handlers: _Handlers, error: BaseException) -> None:
        handler = handlers.error or self._on_error
        if handler is not None:
            handler(error)
        else:
            logger.error("a task failed and nobody handles errors", exc_info=error)

    def _delivered(self, token: object) -> None:
        self._out.discard(token)
        if not self._out:
            self._supervisor.notify()
        if len(self._supervisor.deliverer) <= UNREAD_LIMIT // 2:
            self._nudge_feeds()

    def _backed_up(self) -> bool:
        """True when feeds should wait for handlers or readers."""
        if len(self._supervisor.deliverer) >= UNREAD_LIMIT:
            return True
        return self._readers > 0 and len(self._kept) >= UNREAD_LIMIT

    def _nudge_feeds(self) -> None:
        for feed in list(self._supervisor.feeds):
            feed.nudge()

    # -- waiting and ending -----------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Tasks that have not ended."""
        return self._supervisor.pending

    def stats(self) -> PoolStats:
        """What every group and worker is doing, at one moment."""
        return self._supervisor.stats()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for feeds, tasks and their handlers; the pool stays usable. False if time ran out."""
        return self._await(self._quiet, timeout)

    def _quiet(self) -> bool:
        supervisor = self._supervisor
        if supervisor.feeds or supervisor.pending:
            return False
        return supervisor.deliverer.is_current or not self._out

    def _await(self, holds: Callable[[], bool], timeout: float | None) -> bool:
        changed = self._supervisor.changed
        with changed:
            return changed.wait_for(holds, timeout)

    def stop(self) -> None:
        """End now: cancel what is queued, kill what runs, end the feeds, and return when all is gone."""
        self._supervisor.close(now=True)
        self._supervisor.wait_closed(None, drop=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks and end when what there is has ended.

        Args:
            wait: return when that has happened, handlers included.
            cancel_futures: cancel what is queued, and let feeds draw no more.
        """
        supervisor = self._supervisor
        if cancel_futures:
            for feed in list(supervisor.feeds):
                feed.cancel()
        supervisor.close()
        if cancel_futures:
            for task in list(supervisor.scheduler.tasks):
                supervisor.ask(CancelAsked(task))
        if wait and not supervisor.deliverer.is_current and not supervisor.notifier.is_current:
            supervisor.wait_closed(None)

    def __enter__(self) -> GroupedPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.stop()
        else:
            self.shutdown()
        return False

    # -- checking -------------------------------------------------------------------------------------------------

    def _view_of(self, tag: Hashable) -> GroupView:
        return GroupView(self, tag, NO_OPTIONS)

    def _known(self, tag: Hashable) -> Any:
        groups = self._supervisor.scheduler.groups
        group = groups.get(tag)
        if group is None:
            raise UnknownTag(tag, list(groups))
        return group

    def _check(self, tag: Hashable, fn: Callable[..., Any]) -> None:
        """Refuse what could never run."""
        self._supervisor.check_open()
        group = self._known(tag)
        if not callable(fn):
            raise TypeError(f"a callable is needed, not {fn!r}")
        general = self._supervisor.scheduler.general.slots
        if not (general and group.settings.burst != 0) and not (group.slots and tag is not None):
            raise NoSlots(tag)


PyPool = GroupedPool


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__


def _check_handler(name: str, handler: object) -> None:
    if handler is not None and not callable(handler):
        raise TypeError(f"{name} must be callable or None, not {handler!r}")


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(limit: int | None, tags: Mapping[Hashable, int | Group] | None) -> dict[Hashable, Group]:
    """The groups that the constructor's arguments mean."""
    groups = {tag: each if isinstance(each, Group) else Group(each) for tag, each in (tags or {}).items()}
    reserved = sum(group.slots for tag, group in groups.items() if tag is not None)
    if limit is not None:
        check_slots(limit)
        total = sum(group.slots for group in groups.values())
        if limit < total:
            raise ValueError(f"limit is {limit}, but the tags need {total} slots; raise it or lower them")
        general = groups.get(None, Group(0))
        groups[None] = replace(general, slots=limit - reserved)
    elif not groups:
        groups[None] = Group(_usable_cpus())
    groups.setdefault(None, Group(0))
    return groups


def _completed(group: Group, defaults: Group) -> Group:
    """A group with the pool's settings where it has none of its own."""
    changes: dict[str, Any] = {}
    for name in ("memory_limit", "max_tasks_per_child"):
        if getattr(group, name) is None:
            changes[name] = getattr(defaults, name)
    if group.own_kind and group.initializer is None:
        changes |= {"initializer": defaults.initializer, "initargs": defaults.initargs}
    return replace(group, **changes)


class _Kinds(dict[int, Settings]):
    """Settings by kind of worker; a kind that is not here has the pool's own."""

    def __init__(self, own: Settings) -> None:
        super().__init__()
        self._own = own

    def __missing__(self, kind: int) -> Settings:
        return self._own


def _kinds(groups: Mapping[Hashable, Group], own: Settings, order: list[Hashable]) -> _Kinds:
    """What each kind of worker is started with. The scheduler numbers a tag's kind by its order of declaration."""
    kinds = _Kinds(own)
    tags: list[Hashable] = [None, *(tag for tag in order if tag is not None)]
    for index, tag in enumerate(tags):
        group = groups[tag]
        if group.own_kind:
            kinds[index + 1] = Settings(group.initializer, group.initargs, group.env, group.nice)
    return kinds


def _reraise(error: BaseException, cause: BaseException | None) -> None:
    raise error from cause


def _raiser() -> Shared:
    return Shared(_reraise, (), {})
