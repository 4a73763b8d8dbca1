"""A short soak is part of the tests: what users' code can corrupt, and who is killed, costs the tasks concerned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.torment.books import Account, Books, audit, faults_of
from benchmarks.torment.orders import CRASHED, FAILED, SUCCEEDED, value_of
from benchmarks.torment.routes import Stream
from gpool import MemoryLimitExceeded, PayloadError, WorkerCrashed

CHAOS = Path(__file__).resolve().parent.parent / "benchmarks" / "chaos.py"


@pytest.mark.timeout(240)
def test_ten_seconds_of_chaos_are_clean() -> None:
    command = [sys.executable, str(CHAOS), "--seconds", "10", "--seed", "1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    summary = run.stdout.strip().rpartition("\n")[2]
    assert run.returncode == 0, run.stdout + run.stderr
    assert summary.startswith("chaos: seed 1: clean: submitted ")
    assert summary.endswith("lost 0, settled twice 0, run twice without permission 0, ended wrongly 0, leaked 0")


def stream_of(folder: Path, *kinds: str) -> tuple[Books, Stream]:
    books = Books(folder / "begun")
    stream = Stream(books, list(kinds), None, "ingest")
    assert len(list(stream.orders())) == len(kinds)
    return books, stream


def crash_of(pid: int) -> WorkerCrashed:
    return WorkerCrashed("", tag=None, task="", attempt=1, started=True, seconds=0.0, pid=pid, exitcode=-9, signal="")


def settle(books: Books, stream: Stream, *begun: tuple[int, int]) -> list[Account]:
    """Deal out a stream's errors, the workers having noted these tasks and pids."""
    books.record.write_text("".join(f"{number} {pid}\n" for number, pid in begun))
    books.note_closed()
    stream.settle(books.begun(), books.begun_by(), books.killed)
    return stream.drawn


def test_a_crash_is_dealt_to_the_task_that_its_worker_began_last(tmp_path: Path) -> None:
    """Both tasks ran in the worker that the soak killed as well, so either might have had the crash."""
    books, stream = stream_of(tmp_path, "return lock", "grow")
    books.killed.add(7)
    stream.errors = [PayloadError("result", "pickled"), crash_of(7)]
    assert [account.ends for account in settle(books, stream, (1, 7), (2, 7))] == [[FAILED], [CRASHED]]


def test_an_error_that_might_be_several_tasks_is_dealt_so_that_all_find_one(tmp_path: Path) -> None:
    """The crash may be either task's, as a worker may die before it comes to note what it has begun."""
    books, stream = stream_of(tmp_path, "fail locked", "answer")
    books.killed.add(7)
    stream.errors = [crash_of(7), PayloadError("result", "pickled")]
    assert [account.ends for account in settle(books, stream, (1, 7))] == [[FAILED], [CRASHED]]


@pytest.mark.parametrize(("tag", "clean"), [("memory", True), ("web", False)])
def test_a_child_may_take_its_task_past_the_memory_limit(tmp_path: Path, tag: str, clean: bool) -> None:
    books = Books(tmp_path / "begun")
    account = books.open("hang with child", tag, "submit")
    books.record.write_text("1 7\n")
    facts = {"tag": tag, "task": "", "attempt": 1, "started": True, "seconds": 0.0, "stack": None}
    account.raised(MemoryLimitExceeded("", rss=2, limit=1, pid=7, exitcode=-9, signal="SIGKILL", **facts))
    assert (not list(faults_of(account, [7], set(), cut_short=False))) == clean


def test_an_error_that_is_nobodys_is_a_fault(tmp_path: Path) -> None:
    books, stream = stream_of(tmp_path, "fail", "fail")
    stream.errors = [ValueError(1), ValueError(3)]
    first, second = settle(books, stream, (1, 7), (2, 7))
    assert (first.ends, second.ends) == ([FAILED], [])
    assert "fits no task" in first.wrong[0]


def test_a_worker_whose_descriptors_were_closed_may_die_in_a_later_item(tmp_path: Path) -> None:
    books, stream = stream_of(tmp_path, "close all", "large", "answer")
    stream.value((1, value_of(1)))
    stream.errors = [crash_of(7)]
    stream.value((3, value_of(3)))
    accounts = settle(books, stream, (1, 7), (2, 7), (3, 8))
    assert [account.ends for account in accounts] == [[SUCCEEDED], [CRASHED], [SUCCEEDED]]
    assert audit(books, cut_short=False).clean
