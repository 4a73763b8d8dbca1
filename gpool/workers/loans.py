"""Loans: a worker's stream, lent to the thread that waits for just that worker's answer.

Owns the one loan that may be out at a time, how its holder waits, and how it is woken. While a stream is lent, the
selector does not tell the supervisor's thread of what comes there: so an answer wakes one thread, where it would wake
two, the second by the first. A loan decides who is told, not who may read: both read with the supervisor's turn only,
so it does no harm if both are told, or if the other was just about to read.

Where the system has no epoll or no eventfd, nothing is lent.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from math import ceil
from selectors import EVENT_READ, BaseSelector

from gpool.workers.backend import Report
from gpool.workers.owned import disown, own

LONGEST_SECONDS = 86_400.0
"""For one call to the system, which takes some 25 days at most: whoever waits longer calls again."""
_CAN_LEND = hasattr(select, "epoll") and hasattr(os, "eventfd")


class Loan:
    """A stream that is lent. Its holder ends it, in any case.

    Attributes:
        is_over: it was taken back, and there is nothing more to be read by its holder.
        has_rung: ``wake`` was called.
    """

    __slots__ = ("_bell", "_end", "_poller", "_read", "has_rung", "is_over", "stream")

    def __init__(self, stream: int, bell: int, read: Callable[[], list[Report]], end: Callable[[], None]) -> None:
        self.stream = stream
        self.is_over = self.has_rung = False
        self._bell = bell
        self._read = read
        self._end = end
        self._poller = select.poll()
        self._poller.register(stream, select.POLLIN)
        self._poller.register(bell, select.POLLIN)

    def wait(self, timeout: float | None) -> bool:
        """Wait until there is something to read, or ``wake`` was called; False if the time was up before."""
        return bool(self._poller.poll(None if timeout is None else ceil(min(timeout, LONGEST_SECONDS) * 1000)))

    def wake(self) -> None:
        """End a ``wait``, now or the next one. With the turn, or in the holder's thread, also by a signal's handler."""
        if not self.is_over:
            self.has_rung = True
            os.eventfd_write(self._bell, 1)

    def read(self) -> list[Report]:
        """What has come. With the turn."""
        return [] if self.is_over else self._read()

    def end(self) -> None:
        """Give it back. With the turn."""
        self._end()


class Lender:
    """Lends streams that a selector watches for reading. All of it with the turn, but for ``close``."""

    def __init__(self, selector: BaseSelector) -> None:
        self._selector = selector
        self._out = threading.Lock()  # held while a loan is out, and for good once closed
        self._loan: Loan | None = None
        self._bell = own(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)) if _CAN_LEND else -1

    def lend(self, stream: int, read: Callable[[], list[Report]]) -> Loan | None:
        """Lend this stream, unless another is out, or it is not to be read just now."""
        if not _CAN_LEND or not self._out.acquire(blocking=False):
            return None
        if not self._watch(stream, EVENT_READ, 0):
            self._out.release()
            return None
        self._loan = loan = Loan(stream, self._bell, read, self._end)
        return loan

    def take_back(self, stream: int) -> None:
        """Whoever it is lent to need not wait for it any more."""
        loan = self._loan
        if loan is not None and loan.stream == stream and not loan.is_over:
            loan.wake()
            loan.is_over = True
            self._watch(stream, 0, EVENT_READ)

    def _end(self) -> None:
        loan, self._loan = self._loan, None
        if loan is None:
            return
        if not loan.is_over:
            loan.is_over = True  # from here on nobody rings
            self._watch(loan.stream, 0, EVENT_READ)
        if loan.has_rung:
            os.eventfd_read(self._bell)
        self._out.release()

    def _watch(self, stream: int, before: int, events: int) -> bool:
        """Change what is watched for; False if that is something else by now, or nothing because the stream is gone."""
        try:
            key = self._selector.get_key(stream)
        except KeyError:
            return False
        if key.events != before:
            return False
        self._selector.modify(stream, events, key.data)
        return True

    def close(self) -> None:
        """Lend no more, and wait for the last loan's end: all futures have ended, so its holder is on its way."""
        self._out.acquire()
        if self._bell >= 0:
            disown(self._bell)
