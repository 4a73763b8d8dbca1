"""Faults around the workers: in callbacks and iterables, and of the program itself: killed, interrupted, forked.

For those of the program a second program, ``victim.py``, has the pool, and this one looks on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from time import monotonic, sleep

import psutil

from benchmarks.breakage import tasks
from benchmarks.breakage.bench import AFTER, BEFORE, PATIENCE, Bench, Ticket, alive, kill, pids_announced
from benchmarks.breakage.fault import Fault
from benchmarks.breakage.record import Record, in_words

SURVIVORS_AT, SURVIVORS_UNTIL = 2.0, 10.0
KINDS = ("workers", "grandchildren", "helpers")
ITEMS = 50
"""Items that an iterable yields before it raises."""
_GLANCE = 0.005
_VICTIM = Path(__file__).with_name("victim.py")


def raising_callback(name: str, record: Record, folder: Path) -> None:
    def fail(_: object) -> None:
        raise ValueError("callback")

    bench = Bench(name, record, folder)
    bench.innocents(BEFORE)
    first = Ticket(bench.subject, lambda: bench.subject.submit_with_callback(fail, tasks.whoami, 0.1))
    bench.innocents(AFTER)
    bench.observe([first])


def blocking_callback(name: str, record: Record, folder: Path) -> None:
    """A callback that does not return: whom does it hold up?"""
    entered, called, gate = threading.Event(), threading.Event(), threading.Event()

    def block(_: object) -> None:
        entered.set()
        gate.wait()

    bench = Bench(name, record, folder)
    subject = bench.subject
    blocked = Ticket(subject, lambda: subject.submit_with_callback(block, tasks.whoami, 0.1))
    entered.wait(PATIENCE)
    second = Ticket(subject, lambda: subject.submit_with_callback(lambda _: called.set(), tasks.whoami, 0.1))
    others = bench.innocents(AFTER)
    record.doing("waiting for results")
    bench.wait([second, *others])
    arrived = sum(each.done for each in others)
    record.note(f"meanwhile {arrived} of {len(others)} results arrive")
    record.note(f"another callback {'is made' if called.wait(0.5) else 'waits'}")
    gate.set()
    record.note("when it returns:")
    bench.wait([blocked])
    bench.observe()


def raising_iterable(name: str, record: Record, folder: Path) -> None:
    """Read a map of an iterable that raises after some items."""

    def items() -> Iterator[int]:
        yield from range(ITEMS)
        raise ValueError("iterable")

    bench = Bench(name, record, folder)
    bench.innocents(BEFORE)
    record.doing("reading the map")
    got = 0
    try:
        for value in islice(bench.subject.map(tasks.double, items()), 2 * ITEMS):
            got += value == got * 2
        ending = "the map just ends"
    except Exception as error:
        ending = in_words(error)
    record.note(f"{got} of {ITEMS} results, then {ending}")
    bench.innocents(AFTER)
    bench.observe()


def forked(name: str, record: Record, folder: Path) -> None:
    """The program forks, and the child submits to its copy of the pool."""
    bench = Bench(name, record, folder)
    bench.innocents(BEFORE)
    told = folder / "child"
    pid = os.fork()
    if pid == 0:
        _in_child(bench, told)
    record.doing("waiting for the child")
    deadline = monotonic() + 2 * PATIENCE
    while alive(pid) and monotonic() < deadline:
        sleep(_GLANCE)
    kill(pid)
    os.waitpid(pid, 0)
    said = told.read_text(encoding="utf-8") if told.exists() else "hangs in submit"
    record.note(f"in the child: {said}; in the parent:")
    bench.innocents(AFTER)
    bench.observe()


def _in_child(bench: Bench, told: Path) -> None:
    try:
        ticket = bench.submit(tasks.double, 21)
        bench.wait([ticket])
        told.write_text(str(ticket.outcome()), encoding="utf-8")
    finally:
        os._exit(0)


def killed(name: str, record: Record, folder: Path) -> None:
    """Kill the program while one worker holds the GIL in C, the other one sleeps, and both have started a program."""
    _kill_victim("keep_busy", name, record, folder)


def killed_forked(name: str, record: Record, folder: Path) -> None:
    """The same, but the program has forked a child before, which lives on and holds what it inherited."""
    _kill_victim("keep_busy_and_fork", name, record, folder)


def _kill_victim(act: str, name: str, record: Record, folder: Path) -> None:
    with _victim(act, name, folder) as victim:
        kinds: dict[int, str] = {}
        for task in ("one", "two"):
            worker, child = pids_announced(folder / task)
            kinds |= {worker: "workers", child: "grandchildren"}
        forked = pids_announced(folder / "forked")
        tree = {each.pid for each in psutil.Process(victim.pid).children(recursive=True)}.difference(forked)
        kinds = {pid: kinds.get(pid, "helpers") for pid in {*tree, *kinds}}
        kill(victim.pid)
        victim.wait()
        _watch_survivors(kinds, record)


def _watch_survivors(kinds: dict[int, str], record: Record) -> None:
    record.doing("watching what is left")
    began = monotonic()
    last = _wait_gone(kinds, began + SURVIVORS_AT)
    left = [kinds[pid] for pid in kinds if alive(pid)]
    if not left:
        record.note(f"0 of {len(kinds)} processes alive after 2 s: the last one lives {last - began:.1g} s")
        return
    listing = ", ".join(f"{left.count(kind)} {kind}" for kind in KINDS if kind in left)
    record.note(f"{len(left)} of {len(kinds)} processes alive after 2 s ({listing})")
    last = _wait_gone(kinds, began + SURVIVORS_UNTIL)
    count = sum(map(alive, kinds))
    record.note(f"{count} after 10 s" if count else f"the last one lives {last - began:.1f} s")


def _wait_gone(pids: dict[int, str], deadline: float) -> float:
    """Wait until all are gone, or until the deadline; when that was."""
    while any(map(alive, pids)) and monotonic() < deadline:
        sleep(_GLANCE)
    return monotonic()


def interrupted(name: str, record: Record, folder: Path) -> None:
    """Ctrl-C as a terminal does it: SIGINT to the program's process group."""
    with _victim("read_results", name, folder) as victim:
        pids_announced(folder / "begun")
        sleep(0.3)
        tree = [each.pid for each in psutil.Process(victim.pid).children(recursive=True)]
        began = monotonic()
        os.killpg(victim.pid, signal.SIGINT)
        try:
            code = victim.wait(2 * PATIENCE)
            record.note(f"exit code {code} after {monotonic() - began:.1f} s")
        except subprocess.TimeoutExpired:
            record.note(f"does not end within {2 * PATIENCE:g} s")
        sleep(0.5)
        said = (folder / "stderr").read_text(encoding="utf-8", errors="replace")
        count = said.count("Traceback (most recent call last)")
        record.note(f"{count} traceback{'s' * (count != 1)}")
        if left := sum(map(alive, tree)):
            record.note(f"{left} processes left")


@contextmanager
def _victim(act: str, name: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program with a pool of its own, in a process group of its own."""
    command = [sys.executable, str(_VICTIM), act, name, str(folder)]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, process_group=0)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


FAULTS = (
    Fault("callback", "a callback raises", raising_callback),
    Fault("callback-blocks", "a callback blocks", blocking_callback),
    Fault("iterable", "an iterable raises in the middle of a map", raising_iterable),
    Fault("fork", "the program forks and the child uses the pool", forked),
    Fault("killed", "SIGKILL of the program with both workers busy", killed),
    Fault("killed-forked", "the same, after the program forked a child that lives on", killed_forked),
    Fault("interrupt", "Ctrl-C while results are read", interrupted),
)
