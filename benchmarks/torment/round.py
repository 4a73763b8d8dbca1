"""One round: a pool of its own, tormented for some seconds and then ended in one of the ways there are."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from time import monotonic, sleep

import psutil

from benchmarks.torment.books import Account, Audit, Books, audit
from benchmarks.torment.leaks import belongings, leaks_since
from benchmarks.torment.orders import MEMORY_LIMIT
from benchmarks.torment.routes import ALL, Stream, ingest, put, read_map, submit
from benchmarks.torment.tasks import KINDS, initialize
from gpool import Group, GroupedPool, InsufficientSlots
from gpool.feeds import Feed
from gpool.futures import Future

TAGS: tuple[str | None, ...] = ("web", "work", "own", "memory", None)
METHODS = ("forkserver", "forkserver", "forkserver", "spawn", "fork")
ENDINGS = ("shutdown", "join", "stop", "cancel")
BACKLOG = 120
"""Unfinished tasks above which the soak waits before it submits more."""
THREADS = 6
"""For ``put`` and for reading maps, which block."""


class Round:
    """See the module's docstring. All choices are made by ``random``, in the thread that calls ``run``.

    Attributes:
        doing: what the round is at, for whoever reports that it hangs.
    """

    def __init__(self, random: Random, folder: Path, only: list[str] | None = None) -> None:
        self._random = random
        self._kinds = only or list(KINDS)
        self._weights = [KINDS[kind].share for kind in self._kinds]
        self._method = random.choice(METHODS)
        self._ending = random.choice(ENDINGS)
        self.books = Books(folder / "begun")
        self.doing = "starting"
        self._futures: list[tuple[Account, Future[tuple[int, object]]]] = []
        self._streams: list[Stream] = []
        self._feeds: list[tuple[Stream, Feed]] = []
        self._stopped: dict[int, float] = {}  # pid: when it goes on
        self._actions: list[tuple[int, Callable[[], None]]] = [
            (100, self._submit),
            (12, self._put),
            (3, self._map),
            (3, self._ingest),
            (15, self._cancel),
            (2, self._cancel_feed),
            (6, self._resize),
            (4, self._kill),
            (3, self._stop),
        ]

    def __str__(self) -> str:
        return f"{self._method}, ending by {self._ending}"

    def state_of_pool(self) -> str:
        """What the pool itself says."""
        stats = self._pool.stats()
        return "\n".join(map(str, (*stats.groups.values(), *stats.workers, f"{stats.pending} pending")))

    def run(self, seconds: float) -> Audit:
        """Torment a pool, end it, and say what came of it."""
        before = belongings()
        self._threads = ThreadPoolExecutor(THREADS)
        self._pool = self._make_pool()
        self._torment(monotonic() + seconds)
        self._end()
        del self._pool
        self.doing = "counting"
        self.books.note_closed()
        begun, begun_by = self.books.begun(), self.books.begun_by()
        for stream in self._streams:
            stream.settle(begun, begun_by, self.books.killed)
        result = audit(self.books, cut_short=self._ending in ("stop", "cancel"))
        self._futures.clear()
        leaks = leaks_since(before)
        result.leaked = len(leaks)
        result.reports += [f"leaked: {leak}" for leak in leaks]
        return result

    def _make_pool(self) -> GroupedPool:
        # What a forked worker has of the program's memory counts as its own.
        inherited = psutil.Process().memory_info().rss if self._method == "fork" else 0
        groups: dict[Hashable, int | Group] = {
            "web": 1,
            "work": Group(1, max_tasks_per_child=7),
            "own": Group(1, initializer=initialize, initargs=("own",)),
            "memory": Group(1, memory_limit=MEMORY_LIMIT + inherited, weight=3),
            None: 2,
        }
        return GroupedPool(
            tags=groups,
            iteration=False,
            mp_context=self._method,
            max_start_failures=1000,  # on a slow machine five workers in a row may be killed before they are up
            max_crashes=1000,
            listener=self.books.transitions.append,
        )

    def _torment(self, until: float) -> None:
        self.doing = "tormenting"
        weights, actions = zip(*self._actions, strict=True)
        while monotonic() < until:
            self._continue(monotonic())
            (action,) = self._random.choices(actions, weights)
            action()
            if self._random.random() < 0.3 or self._pool.pending > BACKLOG:
                sleep(self._random.uniform(0, 0.02))

    # -- submitting -----------------------------------------------------------------------------------------------

    def _kind(self, tag: str | None) -> str:
        while True:
            (kind,) = self._random.choices(self._kinds, self._weights)
            if kind != "grow" or tag == "memory":
                return kind

    def _account(self, route: str, retries: int) -> Account:
        tag = self._random.choice(TAGS)
        return self.books.open(self._kind(tag), tag, route, retries)

    def _submit(self) -> None:
        if self._pool.pending > BACKLOG:
            return
        account = self._account("submit", self._random.choice((0, 0, 1, 2)))
        future = submit(self._pool, self.books, account)
        if future is not None:
            self._futures.append((account, future))

    def _put(self) -> None:
        """Without a timeout, which ``put`` has not got, what hangs would hang for ever."""
        tag = self._random.choice(TAGS)
        (kind,) = self._plan(tag, 1)
        self._threads.submit(put, self._pool, self.books, self.books.open(kind, tag, "put"))

    def _plan(self, tag: str | None, length: int) -> list[str]:
        """Kinds for a route that knows no timeout and takes nothing that needs an argument of its own."""
        plan: list[str] = []
        while len(plan) < length:
            kind = self._kind(tag)
            if KINDS[kind].timeout is None and kind not in ("read booby", "large call"):
                plan.append(kind)
        return plan

    def _stream(self, route: str, most: int) -> Stream:
        tag = self._random.choice(TAGS)
        stream = Stream(self.books, self._plan(tag, self._random.randrange(most)), tag, route)
        self._streams.append(stream)
        return stream

    def _map(self) -> None:
        ordered = self._random.random() < 0.5
        buffersize = self._random.choice((None, None, 1, 5))
        stream = self._stream("map" if ordered else "map_unordered", 30)
        self._threads.submit(read_map, self._pool, stream, ordered=ordered, buffersize=buffersize)

    def _ingest(self) -> None:
        stream = self._stream("ingest", 40)
        feed = ingest(self._pool, stream)
        if feed is not None:
            self._feeds.append((stream, feed))

    # -- interfering ----------------------------------------------------------------------------------------------

    def _cancel(self) -> None:
        if not self._futures:
            return
        account, future = self._futures.pop(self._random.randrange(max(0, len(self._futures) - 50), len(self._futures)))
        kill = self._random.random() < 0.4
        account.may_cancel = account.may_cancel or not future.done()
        account.note(f"cancel(kill={kill})")
        answer = future.cancel(kill)
        account.note(f"cancel returned {answer}")
        account.not_begun = answer and not kill
        if answer and not future.cancelled():
            account.wrong.append("cancel() returned True, but it is not cancelled")

    def _cancel_feed(self) -> None:
        if self._feeds:
            stream, feed = self._feeds.pop(self._random.randrange(len(self._feeds)))
            stream.given_up = max(stream.given_up, 1)  # what it is just drawing is not submitted any more
            feed.cancel()

    def _resize(self) -> None:
        tag = self._random.choice(TAGS)
        slots = self._random.randrange(1 if tag is None else 0, 4)
        with suppress(InsufficientSlots):
            self._pool.adjust(tag, slots, use_general_slots=tag is not None and self._random.random() < 0.5)

    def _victim(self) -> int | None:
        pids = sorted(worker.pid for worker in self._pool.stats().workers if worker.pid is not None)
        return self._random.choice(pids) if pids else None

    def _kill(self) -> None:
        pid = self._victim()
        if pid is not None:
            self.books.killed.add(pid)
            _signal(pid, signal.SIGKILL)

    def _stop(self) -> None:
        pid = self._victim()
        if pid is not None:
            self._stopped[pid] = monotonic() + self._random.uniform(0, 0.5)
            _signal(pid, signal.SIGSTOP)

    def _continue(self, now: float) -> None:
        """Let the stopped workers go on whose time has come."""
        for pid in [pid for pid, when in self._stopped.items() if when <= now]:
            del self._stopped[pid]
            _signal(pid, signal.SIGCONT)

    # -- the end --------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """End the pool. Only ``stop`` has to cope with workers that are stopped."""
        self.doing = f"ending by {self._ending}"
        if self._ending == "stop":
            self._give_up_streams()
            self._pool.stop()
        else:
            self._continue(float("inf"))
            for tag in TAGS:
                self._pool.adjust(tag, 2)
        if self._ending == "join":
            self._threads.shutdown()
            self._pool.join()
        if self._ending == "cancel":
            self._give_up_streams()
        self._pool.shutdown(cancel_futures=self._ending == "cancel")
        self.doing = "ending the readers"
        self._threads.shutdown()

    def _give_up_streams(self) -> None:
        for stream in self._streams:
            stream.given_up = ALL


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
