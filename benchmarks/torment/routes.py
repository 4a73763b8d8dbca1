"""The ways in which the soak submits, each with its own means to learn of a task's end.

``submit`` and ``put`` give a future for each task. The items of ``ingest`` and ``map`` have none: a value names its
task, an error does not, so errors are kept by the stream and dealt out at the round's end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as StockFuture
from contextlib import suppress
from typing import Any

from benchmarks.torment.acts import Booby
from benchmarks.torment.books import Account, Books, kind_of
from benchmarks.torment.orders import CANCELLED, CRASHED, Order, large_of
from benchmarks.torment.tasks import perform
from gpool import GroupedPool, NoSlots, PoolClosed, WorkerCrashed
from gpool.batches import Batch
from gpool.feeds import Feed
from gpool.futures import Future
from gpool.model import Task

Named = tuple[int, object]
"""What every task returns: its number and its value."""
ALL = 1 << 62


def arguments(books: Books, account: Account) -> tuple[Any, ...]:
    needs = account.tag if account.tag == "own" else ""
    order = Order(account.number, account.kind, str(books.record), needs or "")
    if account.kind == "read booby":
        return order, Booby()
    return (order, large_of(account.number)) if account.kind == "large call" else (order,)


def watch(account: Account, future: Future[Named]) -> None:
    """Enter in the account what the future says, each time it says something."""

    def done(ended: StockFuture[Named]) -> None:
        unit = future.unit
        task = unit.task if isinstance(unit, Batch) else unit
        account.pool_id = task.id if isinstance(task, Task) else None
        if ended.cancelled():
            account.ended(CANCELLED)
        elif (error := ended.exception()) is not None:
            account.raised(error)
        else:
            account.returned(ended.result())

    future.add_done_callback(done)


def submit(pool: GroupedPool, books: Books, account: Account) -> Future[Named] | None:
    """One task by a view of its group; None if the pool refused it."""
    view = pool.group(account.tag).options(
        timeout=kind_of(account).timeout, retries=account.retries, priority=account.number % 3
    )
    order, *rest = arguments(books, account)
    try:
        if account.number % 5:
            future = view.submit(perform, order, *rest)
        else:
            future = view.submit(lambda *more: perform(order, *more), *rest)
    except (NoSlots, PoolClosed):
        books.close(account)
        return None
    watch(account, future)
    return future


def put(pool: GroupedPool, books: Books, account: Account) -> None:
    """One task by ``put``, which waits for a slot, so this is for a thread of its own."""
    handlers = Handlers(account)
    try:
        future = pool.put(account.tag, perform, arguments(books, account), handlers.value, handlers.error)
    except NoSlots:
        books.close(account)
    except PoolClosed:
        account.may_cancel = True
        account.uncertain = True  # refused, or cancelled while it waited
        account.ended(CANCELLED)
    else:
        watch(account, future)


class Handlers:
    """The callbacks of one ``put``."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._calls = 0

    def value(self, result: Named) -> None:
        self._call(f"callback({str(result)[:40]})")

    def error(self, error: BaseException) -> None:
        self._call(f"error({type(error).__name__})")

    def _call(self, what: str) -> None:
        self._calls += 1
        self._account.note(what)
        if self._calls > 1:
            self._account.wrong.append(f"its handlers were called {self._calls} times")


class Stream:
    """Tasks that are drawn from an iterable: what was drawn, what came back, what went wrong.

    Args:
        plan: the kinds of its items, in order.

    Attributes:
        given_up: how many of its tasks may have been cancelled, or drawn and never submitted, because the reader
            or the soak ended it.
    """

    def __init__(self, books: Books, plan: list[str], tag: str | None, route: str) -> None:
        self.drawn: list[Account] = []
        self.errors: list[BaseException] = []
        self.given_up = 0
        self.tag = tag
        self.route = route
        self._books = books
        self._plan = plan
        self._lock = threading.Lock()

    def orders(self) -> Iterator[Order]:
        """What the pool draws from."""
        for kind in self._plan:
            account = self._books.open(kind, self.tag, self.route)
            with self._lock:
                self.drawn.append(account)
            yield arguments(self._books, account)[0]

    def value(self, result: Named) -> None:
        self._books.accounts[result[0]].returned(result)

    def error(self, error: BaseException) -> None:
        with self._lock:
            self.errors.append(error)

    def settle(self, begun: dict[int, list[int]], begun_by: dict[int, list[int]], killed: set[int]) -> None:
        """Deal the errors out to the accounts that they fit; what was given up and has no end was cancelled."""
        left = [account for account in self.drawn if not account.ends]

        def fits(error: BaseException, account: Account) -> bool:
            return fit(account, error, begun[account.number], begun_by, killed)

        dealt = deal(self.errors, left, fits)
        for number, error in enumerate(self.errors):
            if number in dealt:
                dealt[number].raised(error)
            elif self.drawn:
                what = f"an error that fits no task of its {self.route}: {error!r}"
                if isinstance(error, WorkerCrashed):
                    what += f"; its worker began {self._named(begun_by[error.pid or 0][-10:])}"
                self.drawn[0].wrong.append(what)
        left = [account for account in left if not account.ends]
        for account in left[: self.given_up]:
            account.may_cancel = account.uncertain = True
            account.ended(CANCELLED)

    def _named(self, numbers: list[int]) -> str:
        return ", ".join(f"{number} ({self._books.accounts[number].kind})" for number in numbers)


def fit(
    account: Account, error: BaseException, begun: list[int], begun_by: dict[int, list[int]], killed: set[int]
) -> bool:
    """Whether this error may be that task's end. ``begun_by`` says which tasks each worker began, in order."""
    kind = kind_of(account)
    if isinstance(error, WorkerCrashed):  # it has one task in hand: the last it noted, or one it did not come to note
        if begun_by[error.pid or 0][-1:] == [account.number]:
            return kind.end == CRASHED or error.pid in killed
        return not begun and error.pid in killed
    if error.args and isinstance(error.args[0], int) and error.args != (account.number,):
        return False  # it says whose it is
    return bool(begun) and type(error).__name__ == kind.error


def deal(
    errors: Sequence[BaseException], accounts: Sequence[Account], fits: Callable[[BaseException, Account], bool]
) -> dict[int, Account]:
    """Give as many errors as possible an account each that they fit, by their places: a bipartite matching.

    Several tasks may fit one error, so whoever is dealt one first may have to make do with another (Kuhn's method of
    augmenting paths).
    """
    holder: dict[Account, int] = {}

    def place(number: int, asked: set[Account]) -> bool:
        for account in accounts:
            if account not in asked and fits(errors[number], account):
                asked.add(account)
                if account not in holder or place(holder[account], asked):
                    holder[account] = number
                    return True
        return False

    for number in range(len(errors)):
        place(number, set())
    return {number: account for account, number in holder.items()}


def ingest(pool: GroupedPool, stream: Stream) -> Feed | None:
    try:
        return pool.ingest(stream.orders(), stream.tag, perform, (), stream.value, stream.error)
    except (NoSlots, PoolClosed):
        return None


def read_map(pool: GroupedPool, stream: Stream, *, ordered: bool, buffersize: int | None) -> None:
    """Map and read it all, or up to its first error, which ends it: for a thread of its own."""
    view = pool.group(stream.tag)
    make: Callable[..., Iterator[Any]] = view.map if ordered else view.map_unordered
    with suppress(NoSlots, PoolClosed):
        _read(make(perform, stream.orders(), buffersize=buffersize), stream, ordered=ordered)


def _read(results: Iterator[Any], stream: Stream, *, ordered: bool) -> None:
    try:
        for place, result in enumerate(results):
            stream.value(result)
            if ordered and result[0] != stream.drawn[place].number:
                stream.drawn[place].wrong.append(f"the map gave task {result[0]} in its place")
    except BaseException as error:
        stream.given_up = ALL
        if isinstance(error.__cause__, StopIteration):
            error = error.__cause__  # an iterator cannot raise it as itself
        if not isinstance(error, CancelledError | PoolClosed):  # the pool was stopped, perhaps while an item was drawn
            stream.error(error)
