"""Faults that a task commits: it dies, it leaves, or what it takes, returns or raises does not travel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.breakage import tasks
from benchmarks.breakage.bench import AFTER, BEFORE, Bench
from benchmarks.breakage.fault import Fault, Run
from benchmarks.breakage.record import Record
from benchmarks.breakage.subjects import Function


def _one_faulty(fn: Function, *args: Any) -> Run:
    """Queue one faulty call among innocent ones and see."""

    def run(name: str, record: Record, folder: Path) -> None:
        bench = Bench(name, record, folder)
        bench.innocents(BEFORE)
        faulty = bench.submit(fn, *args)
        bench.innocents(AFTER)
        bench.observe([faulty])

    return run


FAULTS = (
    Fault("segfault", "segmentation fault in a task", _one_faulty(tasks.segfault)),
    Fault("exit", "a task calls `os._exit(7)`", _one_faulty(tasks.drop_dead)),
    Fault("sys-exit", "a task calls `sys.exit(3)`", _one_faulty(tasks.leave)),
    Fault("argument", "unpickling an argument raises in the worker", _one_faulty(tasks.take, tasks.Spring())),
    Fault("result", "a result does not pickle", _one_faulty(tasks.return_lock)),
    Fault("result-back", "unpickling a result raises in the parent", _one_faulty(tasks.return_spring)),
    Fault("exception", "an exception does not pickle", _one_faulty(tasks.raise_locked)),
    Fault("exception-back", "an exception does not unpickle in the parent", _one_faulty(tasks.raise_picky)),
    Fault("lambda", "a task is a lambda", _one_faulty(lambda: 42)),
)
