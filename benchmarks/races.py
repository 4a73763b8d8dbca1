"""Run the races many times and count how they end: ``python benchmarks/races.py [--times N] [NAMES...]``.

Each repetition brings two things close together – a cancellation and the end of a task, a deadline and a result, a
kill and whatever a worker is doing – and shifts them a little against each other, so that over the repetitions either
comes first, and either falls into the middle of the other. Whoever wins, this must hold:

- every task ends, and only in a way that its race allows;
- a task that returned, returned its own value and ran exactly once; no task ran twice; a task that was cancelled
  before it began never ran;
- nobody but the victim is hit.

What differs is a violation. The exit code is 1 if there was any.
"""

from __future__ import annotations

import argparse
import os
import signal
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpool import GroupedPool
    from gpool.futures import Future

HUNG_SECONDS = 60.0
"""After which a task that has not ended counts as hung."""
STEP_SECONDS = 17e-6
"""By how much one repetition is shifted against the one before."""
STEPS = 61
CHAIN = 4
"""Tasks of one repetition: the victim, and who stands around it."""
BIG = 2_000_000
"""Bytes that no pipe takes at once."""
TIMEOUT = 0.003
_RECORD = struct.Struct("<q")


class Hung(Exception):
    """A task has not ended; what follows cannot be trusted."""


# -- what the workers run ---------------------------------------------------------------------------------------------


def note(log: str, n: int, load: bytes = b"", answer: int = 0) -> tuple[int, int]:
    """Write into the log that this task ran; return its number, and a count of the bytes that travelled."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, _RECORD.pack(n))
    os.close(file)
    return (n, len(load)) if not answer else (n, Bulk(answer))  # type: ignore[return-value]


class Bulk:
    """Is many bytes on its way, and their number on arrival."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __reduce__(self) -> tuple[Callable[[bytes], int], tuple[bytes]]:
        return len, (bytes(self._size),)


def note_and_spin(log: str, n: int, seconds: float) -> tuple[int, int]:
    """``note`` that takes its time."""
    noted = note(log, n)
    spin(seconds)
    return noted


def kill(log: str, n: int, pid: int) -> tuple[int, int]:
    """``note``, and kill a process."""
    noted = note(log, n)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return noted


def spin(seconds: float) -> None:
    """Let so much time pass, to the microsecond."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


# -- what came of it --------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """How often what happened.

    Attributes:
        repetitions: races run.
        outcomes: how their victims ended.
        violations: what must not have been.
    """

    repetitions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.violations.append(f"repetition {self.repetitions}: {what}")


class Course:
    """One race under way: its pool, its log, its tally.

    Attributes:
        pool: where the tasks run.
        tally: what came of it so far.
        log: path of the file in which tasks note that they ran.
    """

    def __init__(self, pool: GroupedPool, log: str) -> None:
        self.pool = pool
        self.log = log
        self.tally = Tally()
        self._next = 0
        self._runs: dict[int, str] = {}

    def shift(self) -> None:
        """Let this repetition's share of time pass."""
        spin(self.tally.repetitions * 7 % STEPS * STEP_SECONDS)

    def number(self) -> int:
        """For a new task."""
        self._next += 1
        return self._next - 1

    def ended(self, number: int, future: Future[Any], *allowed: str, load: int = 0) -> str:
        """Wait for a task's end, see that it is one of those allowed, and return it in a word."""
        word = ending(future)
        if word == "returned" and future.result() != (number, load):
            word = f"returned {future.result()!r} instead of {(number, load)!r}"
        self.tally.expect(word in allowed, f"task {number} {word}, which may have {' or '.join(allowed)}")
        self._runs[number] = word
        return word

    def withdraw(self, number: int) -> None:
        """The task was cancelled before it began, so it must never run."""
        self._runs[number] = "withdrawn"

    def check_runs(self) -> None:
        """Compare with the log: who ran how often."""
        records = Path(self.log).read_bytes() if Path(self.log).exists() else b""
        times = Counter(number for (number,) in _RECORD.iter_unpack(records))
        for number, word in self._runs.items():
            ran = times.pop(number, 0)
            right = ran == 1 if word == "returned" else ran == 0 if word == "withdrawn" else ran <= 1
            self.tally.expect(right, f"task {number} {word} and ran {ran} times")
        self.tally.expect(not times, f"tasks nobody waited for ran: {sorted(times)[:5]}")
        self._runs.clear()


def ending(future: Future[Any]) -> str:
    """How a future ended, in a word or two. Hung if it has not."""
    from gpool import PoolClosed, TaskTimeout, WorkerCrashed

    try:
        error = future.exception(HUNG_SECONDS)
    except CancelledError:
        return "cancelled"
    except TimeoutError:
        raise Hung(f"{future!r} has not ended in {HUNG_SECONDS:g} s") from None
    if error is None:
        return "returned"
    words = {WorkerCrashed: "crashed", TaskTimeout: "timed out", PoolClosed: "closed"}
    return words.get(type(error), f"raised {error!r}")


# -- the races --------------------------------------------------------------------------------------------------------


def cancel(course: Course) -> None:
    """A cancellation against the end of the task before it, and its own beginning."""
    chain = [(n, course.pool.submit(note, course.log, n)) for n in (course.number() for _ in range(CHAIN))]
    victim = course.tally.repetitions % CHAIN
    course.shift()
    said = chain[victim][1].cancel()
    for place, (number, future) in enumerate(chain):
        if place != victim:
            course.ended(number, future, "returned")
    number, future = chain[victim]
    course.tally.outcomes[course.ended(number, future, "cancelled" if said else "returned")] += 1
    if said:
        course.withdraw(number)


def cancel_and_kill(course: Course) -> None:
    """A cancellation by killing against the end of the task and the beginning of the next."""
    chain = [(n, course.pool.submit(note, course.log, n)) for n in (course.number() for _ in range(CHAIN))]
    victim = course.tally.repetitions % CHAIN
    course.shift()
    said = chain[victim][1].cancel(kill=True)
    for place, (number, future) in enumerate(chain):
        if place != victim:
            course.ended(number, future, "returned")
    number, future = chain[victim]
    course.tally.outcomes[course.ended(number, future, "cancelled" if said else "returned")] += 1


def timeout(course: Course) -> None:
    """A deadline against the result, with another task right behind."""
    first, second = course.number(), course.number()
    seconds = TIMEOUT * (0.5 + 2.0 * (course.tally.repetitions * 7 % STEPS) / STEPS)
    hurried = course.pool.options(timeout=TIMEOUT).submit(note_and_spin, course.log, first, seconds)
    behind = course.pool.submit(note, course.log, second)
    course.ended(second, behind, "returned")
    course.tally.outcomes[course.ended(first, hurried, "returned", "timed out")] += 1


def _kill_worker(course: Course, *, load: int = 0, answer: int = 0) -> None:
    pid = course.pool.submit(os.getpid).result(HUNG_SECONDS)
    payload = bytes(load)
    chain = [
        (n, course.pool.submit(note, course.log, n, payload, answer)) for n in (course.number() for _ in range(CHAIN))
    ]
    course.shift()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    words = [course.ended(number, future, "returned", "crashed", load=load or answer) for number, future in chain]
    crashed = words.count("crashed")
    course.tally.expect(crashed <= 1, f"one death crashed {crashed} tasks")
    course.tally.outcomes["crashed" if crashed else "returned"] += 1


def kill_small(course: Course) -> None:
    """A worker's death against small tasks."""
    _kill_worker(course)


def kill_big_argument(course: Course) -> None:
    """A worker's death against calls that are half written."""
    _kill_worker(course, load=BIG)


def kill_big_result(course: Course) -> None:
    """A worker's death against results that are half read."""
    _kill_worker(course, answer=BIG)


def kill_each_other(course: Course) -> None:
    """Workers that kill one another while they work."""
    pids = [worker.pid for worker in course.pool.stats().workers if worker.pid is not None]
    shots = [(n, course.pool.submit(kill, course.log, n, pid)) for pid in pids for n in (course.number(),)]
    bystanders = [(n, course.pool.submit(note, course.log, n)) for n in (course.number() for _ in range(CHAIN))]
    for number, future in (*shots, *bystanders):
        course.tally.outcomes[course.ended(number, future, "returned", "crashed")] += 1


def resize(course: Course) -> None:
    """Sizes that change against tasks that come and go."""
    from gpool import InsufficientSlots

    repetition = course.tally.repetitions
    chain = []
    for place in range(2 * CHAIN):
        number = course.number()
        chain.append((number, course.pool.group(place % 2 or None).submit(note, course.log, number)))
        if place % 3 == 0:
            course.pool.adjust(None, 2 + (repetition + place) % 3)
        if place % 3 == 1:
            with suppress(InsufficientSlots):
                course.pool.adjust(1, (repetition + place) % 2, use_general_slots=repetition % 3 == 0)
    for number, future in chain:
        course.tally.outcomes[course.ended(number, future, "returned")] += 1


def closing(course: Course) -> None:
    """Submissions against the end of the pool."""
    from gpool import GroupedPool, PoolClosed

    pool = GroupedPool(2)
    submitted: list[tuple[int, Future[Any]]] = []
    begun = threading.Event()

    def go_on() -> None:
        with suppress(PoolClosed):
            while True:
                number = course.number()
                submitted.append((number, pool.submit(note, course.log, number)))
                begun.set()

    thread = threading.Thread(target=go_on)
    thread.start()
    begun.wait()
    course.shift()
    way = course.tally.repetitions % 3
    pool.stop() if way == 0 else pool.shutdown(cancel_futures=way == 1)
    thread.join()
    allowed = ("returned", "closed") if way == 2 else ("returned", "closed", "cancelled")
    for number, future in submitted:
        course.tally.expect(future.done(), f"task {number} had not ended when the pool had")
        course.tally.outcomes[course.ended(number, future, *allowed)] += 1


@dataclass(frozen=True)
class Race:
    """One race.

    Attributes:
        run: one repetition.
        tags: of the pool it is run on.
        share: of the repetitions asked for, because some take longer.
    """

    run: Callable[[Course], None]
    tags: dict[Any, Any]
    share: float = 1.0

    @property
    def name(self) -> str:
        return self.run.__name__.replace("_", " ")


RACES = (
    Race(cancel, {None: 1}),
    Race(cancel_and_kill, {None: 1}),
    Race(timeout, {None: 1}),
    Race(kill_small, {None: 1}),
    Race(kill_big_argument, {None: 1}, 0.5),
    Race(kill_big_result, {None: 1}, 0.5),
    Race(kill_each_other, {None: 3}, 0.2),
    Race(resize, {1: 1, None: 2}, 0.2),
    Race(closing, {None: 1}, 0.1),
)


@contextmanager
def started(race: Race, method: str | None = None) -> Iterator[Course]:
    """A course for one race, with a pool that has learnt how long small tasks take, so that they are sent ahead."""
    from gpool import GroupedPool

    with TemporaryDirectory() as folder:
        pool = GroupedPool(tags=dict(race.tags), mp_context=method)
        course = Course(pool, str(Path(folder, "log")))
        for future in [pool.submit(abs, -1) for _ in range(100)]:
            future.result(HUNG_SECONDS)
        yield course
        pool.stop()


def run(race: Race, times: int, method: str | None = None) -> Tally:
    """So many repetitions. After a hang nothing is waited for: the pool is left behind."""
    with started(race, method) as course:
        tally = course.tally
        try:
            for tally.repetitions in range(1, times + 1):
                race.run(course)
            course.check_runs()
        except Hung as hung:
            tally.expect(False, str(hung))
            raise
    return tally


# -- the command ------------------------------------------------------------------------------------------------------


def main() -> int:
    names = [race.name for race in RACES]
    parser = argparse.ArgumentParser(description="Run the races many times and count how they end.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(names)}")
    parser.add_argument("--times", type=int, default=2000, help="repetitions; slow races take a part of them")
    parser.add_argument("--method", help="start method of the workers")
    options = parser.parse_args()
    print(f"{'race':20} {'repetitions':>11}  {'violations':>10}  outcomes", flush=True)
    found = 0
    for race in RACES:
        if options.names and race.name not in options.names:
            continue
        try:
            tally = run(race, max(1, int(options.times * race.share)), options.method)
        except Hung as hung:
            print(f"{race.name:20} hung: {hung}", flush=True)
            os._exit(1)  # threads of that pool may wait for ever
        found += len(tally.violations)
        print(line(race, tally), flush=True)
    return 1 if found else 0


def line(race: Race, tally: Tally) -> str:
    outcomes = ", ".join(f"{count:,} {word}" for word, count in tally.outcomes.most_common())
    lines = [f"{race.name:20} {tally.repetitions:11,}  {len(tally.violations):10,}  {outcomes}"]
    return "\n  ".join([*lines, *tally.violations[:5]])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks.races import main as main_by_name  # so that workers import the tasks by name

    raise SystemExit(main_by_name())
