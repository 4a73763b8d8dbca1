"""Faults that come to a worker from outside: it is killed, stopped, timed out or cancelled, alone or with its children.

A worker is killed outright by its process id, as the system's out-of-memory killer does it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic

from benchmarks.breakage import tasks
from benchmarks.breakage.bench import (
    AFTER,
    BEFORE,
    PATIENCE,
    Bench,
    GaveUp,
    Ticket,
    alive,
    kill,
    lives_on,
)
from benchmarks.breakage.fault import Fault
from benchmarks.breakage.record import Record, others_in_words

LIMIT = 0.5
"""A task's timeout, in seconds."""
TIMELY = 0.01
"""Seconds for innocent tasks that are to outlast that."""
LARGE = 100_000_000
MIDWAY = LARGE // 10
"""How much of a large argument a worker has read when it is killed."""


def kill_busy(name: str, record: Record, folder: Path) -> None:
    bench = Bench(name, record, folder)
    bench.innocents(BEFORE)
    faulty = bench.submit(tasks.stay, bench.announced("busy"))
    bench.innocents(AFTER)
    kill(bench.pids_of("busy")[0])
    bench.observe([faulty])


def kill_idle(name: str, record: Record, folder: Path) -> None:
    """Both in turn, as one may hold what the other one does not. There is no faulty task: what is lost is innocent."""
    bench = Bench(name, record, folder)
    bench.wait(bench.innocents(BEFORE))
    for pid in bench.pids:
        kill(pid)
        bench.wait(bench.innocents(AFTER // 2))
    bench.observe()


def stop_idle(name: str, record: Record, folder: Path) -> None:
    """Stop one of two idle workers, then the other, each time under a new load; wake them and see what was held."""
    bench = Bench(name, record, folder)
    bench.wait(bench.innocents(BEFORE))
    held: list[str] = []
    for pid in bench.pids:
        os.kill(pid, signal.SIGSTOP)
        made = bench.innocents(AFTER // 2)
        record.doing("waiting for results")
        bench.wait(made)
        held.append(f"{sum(not each.done for each in made)} of {len(made)}")
        os.kill(pid, signal.SIGCONT)
        bench.wait(made)
    record.note(f"meanwhile {held[0]} tasks wait, then {held[1]}; when it goes on:")
    bench.observe()


def hang_in_c(name: str, record: Record, folder: Path) -> None:
    """A task keeps the interpreter to itself in C and has a timeout. Its child is looked for as well."""
    bench = Bench(name, record, folder)
    bench.innocents(BEFORE, TIMELY)
    faulty = _timed(bench)
    bench.innocents(AFTER, TIMELY)
    began = monotonic()
    worker, child = bench.pids_of("hanging")
    bench.wait([faulty])
    if faulty.done:
        record.note(f"ends after {monotonic() - began:.1f} s")
    bench.observe([faulty], closes=faulty.done)
    record.note("its worker lives on" if alive(worker) else "")
    record.note("its child lives on" if alive(child) else "its child is gone")


def _timed(bench: Bench) -> Ticket:
    subject, path = bench.subject, bench.announced("hanging")
    return Ticket(subject, lambda: subject.submit_timed(LIMIT, tasks.hold_gil, path))


def cancel(name: str, record: Record, folder: Path) -> None:
    bench = Bench(name, record, folder)
    bench.innocents(BEFORE)
    faulty = bench.submit(tasks.stay_with_child, bench.announced("busy"))
    bench.innocents(AFTER)
    worker, child = bench.pids_of("busy")
    record.doing("cancelling")
    taken = bench.subject.cancel(faulty.future)
    runs_on = lives_on(worker, 2.0)
    record.note(f"{'cancelled' if taken else 'refused'}, the task {'runs on' if runs_on else 'is stopped'}")
    if taken:
        record.note("its child lives on" if lives_on(child, 2.0) else "its child is gone")
    bench.observe(closes=not runs_on)


def child_of_killed(name: str, record: Record, folder: Path) -> None:
    bench = Bench(name, record, folder)
    bench.submit(tasks.stay_with_child, bench.announced("busy"))
    worker, child = bench.pids_of("busy")
    kill(worker)
    record.note("the child lives on" if lives_on(child, 2.0) else "the child is gone")


def kill_midway(name: str, record: Record, folder: Path) -> None:
    """Kill a worker that has read a tenth of its large argument and has not begun the task."""
    bench = Bench(name, record, folder)
    bench.wait(bench.innocents(BEFORE))
    before = {pid: _bytes_read(pid) for pid in bench.pids}
    faulty = bench.submit(tasks.length, bytes(LARGE))
    kill(_reader(before))
    bench.innocents(AFTER)
    bench.observe([faulty])


def too_large(name: str, record: Record, folder: Path) -> None:
    """An argument that no worker has the memory to receive. Some pools try more than once, so this takes patience."""
    bench = Bench(name, record, folder, patience=4 * PATIENCE, initializer=tasks.limit_memory)
    bench.innocents(BEFORE)
    faulty = bench.submit(tasks.length, bytes(2 * tasks.SPARE))
    bench.innocents(AFTER)
    bench.observe([faulty])


def _reader(before: dict[int, int]) -> int:
    """The worker that has read so much, as soon as it has."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        for pid, count in before.items():
            if MIDWAY < _bytes_read(pid) - count < LARGE:
                return pid
    raise GaveUp("no worker was caught reading")


def _bytes_read(pid: int) -> int:
    """By system calls, from pipes and sockets too."""
    line = Path(f"/proc/{pid}/io").read_text(encoding="ascii").partition("\n")[0]
    return int(line.partition(":")[2])


def recycle(name: str, record: Record, folder: Path) -> None:
    """No fault of anybody's, but as many processes end as there are tasks."""
    bench = Bench(name, record, folder, warm=False, max_tasks=1)
    began = monotonic()
    made = bench.innocents(2 * AFTER)
    record.doing("waiting for results")
    bench.wait(made)
    done = others_in_words((each.outcome() for each in made), (n * n for n in range(len(made))), "tasks")
    record.note(f"{done}, in {bench.processes()} processes and {monotonic() - began:.0f} s")
    bench.note_usable()
    bench.note_close()


def broken_initializer(name: str, record: Record, folder: Path) -> None:
    """It raises in every worker, so no task can ever run. What matters is that the tasks are told."""
    bench = Bench(name, record, folder, warm=False, initializer=tasks.fail_to_start)
    began = monotonic()
    made = bench.innocents(AFTER)
    bench.wait(made)
    bench.note_others("tasks")
    if all(each.done for each in made):
        record.note(f"told after {monotonic() - began:.1f} s")
    bench.note_close()


FAULTS = (
    Fault("kill-busy", "SIGKILL of a busy worker", kill_busy),
    Fault("kill-idle", "SIGKILL of an idle worker, then of the other one", kill_idle),
    Fault("kill-midway", "SIGKILL of a worker that is reading a 100 MB argument", kill_midway),
    Fault("too-large", "an argument of 200 MB, workers with 100 MB to spare", too_large, seconds=80.0),
    Fault("stop", "SIGSTOP of an idle worker, then of the other one", stop_idle),
    Fault("timeout", "a task with a timeout of 0.5 s hangs in C with the GIL held", hang_in_c),
    Fault("cancel", "cancelling a running task", cancel),
    Fault("child", "SIGKILL of a worker whose task has started a program", child_of_killed),
    Fault("initializer", "the initializer raises", broken_initializer),
    Fault("recycle", "one task per worker, backlog of 200", recycle, seconds=90.0),
)
