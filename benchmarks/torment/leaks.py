"""What a round may not leave behind: descriptors, threads, processes.

The soak adopts orphans (Linux's child subreaper), so a process that somebody forgot is found among its descendants
whatever became of its parents.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NamedTuple

import psutil

_PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 10.0
"""Seconds that what ends by itself is given."""


class Belongings(NamedTuple):
    """What this process has at one moment."""

    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]
    processes: frozenset[int]


def adopt_orphans() -> None:
    """To be called once; from then on nothing can get lost. Starts the standard library's resource tracker too."""
    resource_tracker.ensure_running()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def belongings() -> Belongings:
    gc.collect()
    _reap()
    return Belongings(frozenset(_descriptors()), frozenset(threading.enumerate()), frozenset(_processes()))


def leaks_since(before: Belongings) -> list[str]:
    """What has come since and does not go."""
    deadline = time.monotonic() + PATIENCE
    while leaks := _compare(before, belongings()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return leaks


def kill_all() -> None:
    """The last resort: kill every descendant."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()


def _compare(before: Belongings, now: Belongings) -> list[str]:
    # By number alone a descriptor may be another one; by number and target it is the same or a new one.
    fds = now.descriptors - before.descriptors
    leaks = [f"descriptor {fd} ({what})" for fd, what in fds] if len(now.descriptors) > len(before.descriptors) else []
    leaks += [f"thread {thread.name}" for thread in now.threads - before.threads]
    leaks += [f"process {_described(pid)}" for pid in now.processes - before.processes]
    return leaks


def _descriptors() -> list[tuple[int, str]]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


def _processes() -> list[int]:
    return [process.pid for process in psutil.Process().children(recursive=True)]


def _reap() -> None:
    """Adopted processes that have ended are ours to reap. No pool is up, so nobody else waits for a child."""
    for process in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)


def _described(pid: int) -> str:
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        where = Path(f"/proc/{pid}/wchan").read_text()
        return f"{pid} ({process.status()}, parent {process.ppid()}, {where}: {' '.join(process.cmdline())[:120]})"
    return str(pid)
