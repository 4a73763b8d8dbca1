"""Feeding: drawing from an iterable as fast as slots free up.

Owns the threads that call the user's ``next()``. A feed draws an item only while fewer of its tasks are
unfinished than the tag has use for, so an endless iterable runs in flat memory. ``ingest`` hands out a ``Feed``;
``map`` and ``map_unordered`` read from one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from time import sleep
from typing import Any

from gpool.errors import PoolClosed
from gpool.futures import Future
from gpool.interrupts import shielded
from gpool.supervisor import Supervisor

_PATIENCE_SECONDS = 1.0


class Feed:
    """Draws from an iterable in the background, one task an item.

    Args:
        items: what to draw from.
        submit: turns an item into a task, at whose end ``settled`` is called; None if it could not.
        paused: whether drawing should wait although there is room; ``nudge`` is called when that changes.
        ended: called once, in the feed's thread, with what ``next`` raised, if anything.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        tag: Hashable,
        items: Iterator[Any],
        submit: Callable[[Any], Future[Any] | None],
        *,
        paused: Callable[[], bool],
        ended: Callable[[BaseException | None], object],
    ) -> None:
        self._supervisor = supervisor
        self._tag = tag
        self._items = items
        self._submit = submit
        self._paused = paused
        self._ended = ended
        self._drawn = 0  # written by the feed's thread alone
        self._refused = 0  # items no task could be made of; written by the feed's thread alone
        self._settled = 0  # written under the supervisor's turn alone
        self._cancelled = threading.Event()
        self._over = threading.Event()  # draws no more
        self._room = threading.Event()
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
        """Draw no more; tasks drawn already go on."""
        self._cancelled.set()
        self._room.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it draws no more and its tasks have ended; False if ``timeout`` seconds were not enough."""
        with self._quiet:
            return self._quiet.wait_for(lambda: self._over.is_set() and self.unfinished == 0, timeout)

    def wait_gone(self) -> None:
        """Wait until its thread has ended, unless that stands in the user's ``next``, or is this one."""
        while self._thread.is_alive() and not self._in_user_code and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE_SECONDS)

    @property
    def unfinished(self) -> int:
        """Items drawn whose tasks have not ended."""
        return self._drawn - self._settled - self._refused

    def settled(self) -> None:
        """One of its tasks has ended. Called under the supervisor's turn."""
        self._settled += 1
        if not self._room.is_set():
            # Woken when half is free: fewer wakes, and what is drawn then travels together.
            left = self.unfinished
            if left * 2 <= self._depth or left == 0:
                self._room.set()
        if self.unfinished == 0 and self._over.is_set():
            self._tell_joiners()

    def nudge(self) -> None:
        """What ``paused`` says may have changed."""
        self._room.set()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while self._await_room():
                self._in_user_code = True
                try:
                    item = next(self._items)
                except StopIteration:
                    break
                finally:
                    self._in_user_code = False
                if self._cancelled.is_set():
                    break
                self._drawn += 1
                made = None
                try:
                    made = self._submit(item)
                finally:
                    if made is None:
                        self._refused += 1
                del item, made
                sleep(0)  # who waits for the interpreter gets it now, not in 5 ms: an iterable need not ever block
        except BaseException as problem:
            error = problem
        finally:
            self._in_user_code = True
            _close(self._items)
            self._in_user_code = False
            del self._items
            self._over.set()
            self._ended(error)
            del self._ended, self._submit  # they may keep the pool alive
            self._supervisor.feed_ended(self)
            self._tell_joiners()

    @property
    def _depth(self) -> int:
        """How many of its tasks may be unfinished at a time: as many as are of use."""
        return self._supervisor.scheduler.depth(self._tag)

    def _await_room(self) -> bool:
        """True when an item may be drawn; False when none is to be any more."""
        while not self._cancelled.is_set():
            if self.unfinished < self._depth and not self._paused():
                return True
            self._room.clear()
            if self._cancelled.is_set() or (self.unfinished < self._depth and not self._paused()):
                continue
            self._room.wait()
        return False

    def _tell_joiners(self) -> None:
        with self._quiet:
            self._quiet.notify_all()


def _close(items: Iterator[Any]) -> None:
    """Let a generator run its ``finally`` in the thread that drew from it."""
    close = getattr(items, "close", None)
    if callable(close):
        close()
