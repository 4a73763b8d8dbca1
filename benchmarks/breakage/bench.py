"""One pool under observation, and the innocent tasks around a fault.

Owns the tickets for what was submitted and all waiting. Nothing here waits for ever but what the pool itself does to
its caller: a wait ends when no task has ended for some seconds, and what has not ended then is said to never end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil

from benchmarks.breakage import tasks
from benchmarks.breakage.record import Outcome, Record, in_words, others_in_words
from benchmarks.breakage.subjects import SUBJECTS, Function, Subject, Unsupported

PATIENCE = 5.0
BEFORE, AFTER = 10, 100
"""Innocent tasks submitted before and after the faulty one."""
BRIEF = 0.002
"""Seconds that an innocent task takes: little enough for a pool that sends small tasks ahead to do so."""
_GLANCE = 0.005


class GaveUp(Exception):
    """What was to be brought about did not come about; the text says what."""


class Ticket:
    """One submitted task. A submission that raised is a task that ended so."""

    def __init__(self, subject: Subject, submit: Callable[[], Any]) -> None:
        self._subject = subject
        self.future: Any = None
        self._refusal: Exception | None = None
        try:
            self.future = submit()
        except Unsupported:
            raise
        except Exception as error:
            self._refusal = error

    @property
    def done(self) -> bool:
        return self._refusal is not None or self._subject.done(self.future)

    def outcome(self) -> Outcome:
        if self._refusal is not None:
            return Outcome(True, error=self._refusal)
        if not self.done:
            return Outcome(False)
        try:
            return Outcome(True, self._subject.fetch(self.future))
        except BaseException as error:  # SystemExit too
            return Outcome(True, error=error)


class Bench:
    """An open pool, a folder for its tasks to write to, and a record.

    Args:
        warm: whether to wait until both workers have run something.
        patience: seconds without an end, after which a wait ends.
        wishes: as the subjects take them.
    """

    def __init__(
        self,
        name: str,
        record: Record,
        folder: Path,
        *,
        warm: bool = True,
        patience: float = PATIENCE,
        **wishes: Any,
    ) -> None:
        self._patience = patience
        self.record = record
        self._folder = folder
        self._log = folder / "log"
        self._number = 0
        self._wanted: list[int] = []
        self._tickets: list[Ticket] = []
        record.doing("opening")
        self.subject = SUBJECTS[name](**wishes)
        if warm:
            record.doing("warming up")
            self.pids = self._meet_workers()

    def _meet_workers(self) -> list[int]:
        """The process ids of both workers."""
        deadline = monotonic() + 2 * PATIENCE
        seen: set[int] = set()
        while len(seen) < 2:
            if monotonic() > deadline:
                raise GaveUp("two workers were not met")
            pair = [self.submit(tasks.whoami, 0.1) for _ in range(2)]
            self.wait(pair)
            seen |= {pid for each in pair if (pid := each.outcome().value) is not None}
        return sorted(seen)

    # -- submitting -------------------------------------------------------------------------------------------------

    def submit(self, fn: Function, *args: Any) -> Ticket:
        return Ticket(self.subject, lambda: self.subject.submit(fn, *args))

    def innocents(self, count: int, seconds: float = BRIEF) -> list[Ticket]:
        """Submit tasks that do nothing wrong; they are all asked after by ``note_others``."""
        self.record.doing("submitting")
        numbers = range(self._number, self._number + count)
        self._number += count
        made = [self.submit(tasks.innocent, str(self._log), number, seconds) for number in numbers]
        self._tickets += made
        self._wanted += [number * number for number in numbers]
        return made

    def announced(self, name: str) -> str:
        """Where a task is to announce itself."""
        return str(self._folder / name)

    def pids_of(self, name: str) -> list[int]:
        """Who has announced itself under this name; waits for it."""
        return pids_announced(self._folder / name)

    # -- looking ----------------------------------------------------------------------------------------------------

    def wait(self, tickets: Iterable[Ticket]) -> None:
        """Wait until all have ended, or none has for as long as this bench has patience."""
        left, last = list(tickets), monotonic()
        while left and monotonic() - last < self._patience:
            still = [each for each in left if not each.done]
            if len(still) < len(left):
                last = monotonic()
            left = still
            sleep(_GLANCE)

    def observe(self, faulty: Sequence[Ticket] = (), *, closes: bool = True) -> None:
        """Note what became of the faulty tasks, of the innocent ones and of the pool.

        ``closes`` is False where something is left running that a pool may rightly wait for.
        """
        self.record.doing("waiting for results")
        self.wait([*faulty, *self._tickets])
        for each in faulty:
            self.record.note(str(each.outcome()))
        self.note_others()
        self.note_usable()
        if closes:
            self.note_close()

    def note_others(self, whom: str = "others") -> None:
        self.record.note(others_in_words((each.outcome() for each in self._tickets), self._wanted, whom))
        if twice := sum(count > 1 for count in self.runs().values()):
            self.record.note(f"{twice} ran twice")

    def runs(self) -> Counter[int]:
        """How often each innocent task was begun."""
        return Counter(number for number, _ in self._logged())

    def processes(self) -> int:
        """How many processes the innocent tasks ran in."""
        return len({pid for _, pid in self._logged()})

    def _logged(self) -> list[tuple[int, int]]:
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        return [(int(number), int(pid)) for number, pid in map(str.split, lines)]

    def note_usable(self) -> None:
        """Whether the pool takes and finishes work now."""
        self.record.doing("using the pool again")
        again = [self.submit(tasks.double, number) for number in range(4)]
        self.wait(again)
        outcomes = [each.outcome() for each in again]
        errors = [each.error for each in outcomes if each.error is not None]
        if errors:
            self.record.note(f"unusable ({in_words(errors[0])})")
        elif all(each.ended for each in outcomes):
            self.record.note("usable")
        else:
            self.record.note("pool hangs")

    def note_close(self) -> None:
        """Whether the pool, with nothing left to do, can be closed. Says nothing if so."""
        self.record.doing("closing")
        trouble: list[str] = []
        thread = threading.Thread(target=self._close, args=(trouble,), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        self.record.note("closing it hangs" if thread.is_alive() else "".join(trouble))

    def _close(self, trouble: list[str]) -> None:
        try:
            self.subject.close()
        except Exception as error:
            trouble.append(f"closing it raises {type(error).__name__}")


def pids_announced(path: Path, patience: float = 2 * PATIENCE) -> list[int]:
    """What a task has announced; waits for it."""
    deadline = monotonic() + patience
    while not path.exists():
        if monotonic() > deadline:
            raise GaveUp("the faulty task never began")
        sleep(_GLANCE)
    return [int(pid) for pid in path.read_text(encoding="utf-8").split()]


def alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended and was not reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def lives_on(pid: int, seconds: float) -> bool:
    """Whether a process is still there after so long."""
    deadline = monotonic() + seconds
    while alive(pid):
        if monotonic() > deadline:
            return True
        sleep(_GLANCE)
    return False


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
