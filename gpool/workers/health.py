"""Health by psutil: samples, and who descends from whom.

Owns all use of psutil, which is imported when first needed. It samples and never judges: what a figure means is
the scheduler's business.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any

from gpool.workers.backend import Sample

if TYPE_CHECKING:
    import psutil

FRESH_SECONDS = 0.2
"""A sample younger than this is given again."""


@cache
def _psutil() -> Any:
    import psutil

    return psutil


class Sampler:
    """Samples of a changing set of processes. CPU is measured from one sample to the next."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}
        self._samples: dict[int, Sample] = {}
        self._taken = -FRESH_SECONDS
        self._lock = threading.Lock()

    def sample(self, pids: Mapping[int, int]) -> Mapping[int, Sample]:
        """One sample per worker whose process could be looked at."""
        with self._lock:
            if monotonic() - self._taken >= FRESH_SECONDS or not self._samples.keys() >= pids.keys():
                trees = self._trees(pids.values())
                self._processes = {pid: self._process(pid) for pid in pids.values()}
                taken = ((worker, self._one(pid, trees[pid])) for worker, pid in pids.items())
                self._samples = {worker: sample for worker, sample in taken if sample is not None}
                self._taken = monotonic()
            return {worker: sample for worker, sample in self._samples.items() if worker in pids}

    def _trees(self, pids: Iterable[int]) -> Mapping[int, Iterable[int]]:
        try:
            return descendants(pids)
        except OSError:  # as in ``_unseen``; who kills must not go on like this
            return dict.fromkeys(pids, ())

    def _process(self, pid: int) -> Any:
        known = self._processes.get(pid)
        if known is not None:
            return known
        with _unseen():
            return _psutil().Process(pid)
        return None

    def _one(self, pid: int, tree: Iterable[int]) -> Sample | None:
        process = self._processes[pid]
        if process is None:
            return None
        with _unseen():
            with process.oneshot():
                rss, status, cpu = _own_rss(process), process.status(), process.cpu_percent()
            for child in tree:
                with _unseen():
                    rss += _own_rss(_psutil().Process(child))
            return Sample(rss, cpu, status)
        return None


def _unseen() -> suppress:
    """For what can't be looked at: the process is gone, or no descriptor is free just now."""
    return suppress(_psutil().Error, OSError)


def _own_rss(process: Any) -> int:
    """A process's resident memory but for what is shared, such as the pool's: its end would free none of that."""
    shared = 0
    with suppress(OSError), open(f"/proc/{process.pid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"RssShmem:"):
                shared = int(line.split()[1]) << 10
    return max(0, int(process.memory_info().rss) - shared)


def descendants(pids: Iterable[int]) -> dict[int, list[int]]:
    """The children of each process, their children, and so on, as one look at the process table shows them."""
    children: dict[int, list[int]] = {}
    wanted = {pid: list[int]() for pid in pids}
    for process in _psutil().process_iter():
        with suppress(_psutil().Error):
            children.setdefault(process.ppid(), []).append(process.pid)
    for pid, tree in wanted.items():
        generation = children.get(pid, [])
        while generation:
            tree.extend(generation)
            generation = [grandchild for child in generation for grandchild in children.get(child, ())]
    return wanted


def kill_descendants(pids: Iterable[int]) -> None:
    """Kill what descends from these processes, but for what moved to a session of its own.

    The processes lead groups, and most of what descends from them is in these, which are killed when their leaders
    are gone; the look at the process table finds those that left the group.
    """
    for pid, tree in descendants(pids).items():
        session = _session(pid)
        for each in tree:
            if _session(each) == session:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(each, signal.SIGKILL)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
