"""The soak's own books: one account per task, and the audit at a round's end.

Owns what the soak knows without asking the pool: what it submitted, how it was told of each end, which attempts the
workers noted themselves, whom it killed. Decides whether that agrees, and what history to show where it does not.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from benchmarks.torment.orders import CANCELLED, CRASHED, ENDS, FAILED, SUCCEEDED, TIMED_OUT, large_of, value_of
from benchmarks.torment.tasks import KINDS, Kind
from gpool import MemoryLimitExceeded, TaskTimeout, WorkerCrashed
from gpool.model import State, TaskState
from gpool.scheduler import Transition

START = monotonic()
LOST, TWICE, AGAIN, WRONG = "lost", "settled twice", "run twice without permission", "ended wrongly"
KEEPS_ONE_OF = 8
"""Of the large results, to see at the round's end whether they still are what they were."""
FAULTS = (LOST, TWICE, AGAIN, WRONG)


@dataclass(eq=False)
class Account:
    """One task.

    Attributes:
        route: how it was submitted.
        retries: attempts it may make beyond the first.
        may_cancel: somebody asked for its end.
        uncertain: it may have been refused, so the pool need not know of it.
        not_begun: a plain ``cancel`` said that it had not begun.
        ends: what its future, or its handlers, said, each time they said something.
        pool_id: its number in the pool's own transitions, where that is known.
        events: what the soak did about it, and when.
        kept: a large value that it gave.
    """

    number: int
    kind: str
    tag: str | None
    route: str
    retries: int = 0
    may_cancel: bool = False
    uncertain: bool = False
    not_begun: bool = False
    ends: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    pool_id: int | None = None
    events: list[tuple[float, str]] = field(default_factory=list)
    kept: object = None

    def note(self, what: str) -> None:
        self.events.append((monotonic(), what))

    def ended(self, end: str, error: BaseException | None = None) -> None:
        self.ends.append(end)
        if error is not None:
            self.errors.append(error)
        self.note(end if error is None else f"{end}: {type(error).__name__}: {error}")

    def returned(self, result: object) -> None:
        """It gave a value: is it the right one?"""
        self.ended(SUCCEEDED)
        right: object = value_of(self.number)
        if self.kind == "large":
            right = (right, large_of(self.number))
            self.kept = result if self.number % KEEPS_ONE_OF == 1 else None
        if result != (self.number, right):
            self.wrong.append(f"a wrong value: {str(result)[:200]}")

    def look_again(self) -> None:
        """Is what was kept still as it came?"""
        if self.kept is not None and self.kept != (self.number, (value_of(self.number), large_of(self.number))):
            self.wrong.append("a value that changed later")

    def raised(self, error: BaseException) -> None:
        self.ended(end_of(error), error)


def end_of(error: BaseException) -> str:
    """The end that an exception stands for."""
    if isinstance(error, TaskTimeout):
        return TIMED_OUT
    return CRASHED if isinstance(error, WorkerCrashed) else FAILED


class Books:
    """All accounts of a round.

    Attributes:
        killed: pids of workers that the soak killed. At a round's end those join them in which a task has closed all
            descriptors: in a block that strikes the first item after it whose answer is too large to be kept.
        transitions: what the pool's listener was told.
    """

    def __init__(self, record: Path) -> None:
        self.record = record
        record.touch()
        self.accounts: dict[int, Account] = {}
        self.killed: set[int] = set()
        self.transitions: list[Transition] = []
        self._lock = threading.Lock()

    def open(self, kind: str, tag: str | None, route: str, retries: int = 0) -> Account:
        """A new account, with the next number."""
        with self._lock:
            account = Account(len(self.accounts) + 1, kind, tag, route, retries)
            self.accounts[account.number] = account
        account.note(f"{route} under {tag!r}: {kind}, {retries} retries")
        return account

    def close(self, account: Account) -> None:
        """It was refused: it never was a task."""
        with self._lock:
            account.route = "refused"

    def tasks(self) -> list[Account]:
        with self._lock:
            return [each for each in self.accounts.values() if each.route != "refused"]

    def begun(self) -> dict[int, list[int]]:
        """The pids of each task's begun attempts, as the workers noted them."""
        return gathered(self._begins())

    def begun_by(self) -> dict[int, list[int]]:
        """By pid, the tasks that each worker began, in order."""
        return gathered((pid, number) for number, pid in self._begins())

    def _begins(self) -> Iterator[tuple[int, int]]:
        """Each begun attempt's task and pid."""
        for line in self.record.read_text().splitlines():
            number, pid = map(int, line.split())
            yield number, pid

    def pool_ends(self) -> Counter[object]:
        """How often each of the pool's tasks ended, by its listener."""
        return Counter(each.id for each in self.transitions if is_end(each.new))

    def note_closed(self) -> None:
        """The round is over: see in which workers a task has closed all descriptors."""
        for pid, numbers in self.begun_by().items():
            if any(self.accounts[number].kind == "close all" for number in numbers):
                self.killed.add(pid)


def gathered(pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """What comes with each first number, in order."""
    found: dict[int, list[int]] = defaultdict(list)
    for first, second in pairs:
        found[first].append(second)
    return found


def is_end(state: State) -> bool:
    return state is TaskState.DONE


@dataclass
class Audit:
    """What a round came to, or several added up."""

    submitted: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    leaked: int = 0
    reports: list[str] = field(default_factory=list)

    def add(self, other: Audit) -> None:
        self.submitted += other.submitted
        self.ends += other.ends
        self.faults += other.faults
        self.leaked += other.leaked
        self.reports += other.reports

    @property
    def clean(self) -> bool:
        return not self.reports and not self.leaked and self.submitted == sum(self.ends.values())

    def __str__(self) -> str:
        ends = " + ".join(f"{self.ends[end]} {end}" for end in ENDS)
        faults = ", ".join(f"{fault} {self.faults[fault]}" for fault in FAULTS)
        return f"submitted {self.submitted} = {ends}; {faults}, leaked {self.leaked}"


def audit(books: Books, *, cut_short: bool) -> Audit:
    """Compare the books with each other. ``cut_short``: the pool was stopped in the middle."""
    result, begun = Audit(), books.begun()
    for account in books.tasks():
        account.look_again()
        result.submitted += 1
        result.ends.update(account.ends[:1])
        for fault, why in faults_of(account, begun[account.number], books.killed, cut_short):
            result.faults[fault] += 1
            result.reports.append(f"{fault}: {why}\n{history(books, account, begun[account.number])}")
    for fault, why in pool_faults(books):
        result.faults[fault] += 1
        result.reports.append(f"{fault}: {why}")
    return result


def faults_of(account: Account, begun: list[int], killed: set[int], cut_short: bool) -> Iterable[tuple[str, str]]:
    """What is wrong with one account."""
    if not account.ends:
        yield LOST, "nobody was told of its end"
        return
    if len(account.ends) > 1:
        yield TWICE, ", ".join(account.ends)
    if len(begun) > account.retries + 1:
        yield AGAIN, f"{len(begun)} attempts were begun, {account.retries + 1} allowed"
    if account.not_begun and begun:
        yield WRONG, "cancel() said that it had not begun, but it had"
    for why in account.wrong:
        yield WRONG, why
    why = _why_not(account, begun, killed, cut_short)
    if why:
        yield WRONG, why


def _why_not(account: Account, begun: list[int], killed: set[int], cut_short: bool) -> str:
    """Why it may not have ended as it did; empty if it may."""
    kind, end = KINDS[account.kind], account.ends[0]
    error = account.errors[0] if account.errors else None
    if end == CANCELLED:
        return "" if account.may_cancel or cut_short else "nobody cancelled it"
    if end == SUCCEEDED:
        return "" if SUCCEEDED in (kind.end, kind.also) and begun else "it cannot have succeeded"
    if isinstance(error, WorkerCrashed):
        return _why_not_crashed(account, error, begun, killed)
    if end != kind.end or type(error).__name__ != kind.error:
        return f"{type(error).__name__} is not what it should end in"
    if isinstance(error, TaskTimeout):
        return _why_not_last(account, error.attempt)
    return ""


def _why_not_crashed(account: Account, error: WorkerCrashed, begun: list[int], killed: set[int]) -> str:
    own = KINDS[account.kind].end == CRASHED and error.pid in begun
    if isinstance(error, MemoryLimitExceeded) and account.kind == "hang with child":
        own = account.tag == "memory"  # a forked child counts in full, also with what it shares with the worker
    if not own and error.pid not in killed:
        return f"nobody killed worker {error.pid}"
    return _why_not_last(account, error.attempt)


def _why_not_last(account: Account, attempt: int) -> str:
    return "" if attempt == account.retries + 1 else f"attempt {attempt} was not its last"


def pool_faults(books: Books) -> Iterable[tuple[str, str]]:
    """What is wrong by the word of the pool's own listener, to which a block of items is one task."""
    for task, times in books.pool_ends().items():
        if times > 1:
            yield TWICE, f"the pool's task {task} ended {times} times"


def history(books: Books, account: Account, begun: list[int]) -> str:
    """All that is known of one task, in order."""
    events = list(account.events)
    for each in list(books.transitions):
        if account.pool_id is not None and each.noun == "task" and each.id == account.pool_id:
            events.append((each.when, f"{each.old.value} → {each.new.value}"))
    lines = [f"    {when - START:8.3f} s  {what}" for when, what in sorted(events)]
    return "\n".join([f"  task {account.number} ({account.kind}), begun in workers {begun}", *lines])


def kind_of(account: Account) -> Kind:
    return KINDS[account.kind]
