"""A pool that changes: from 2 to 16 slots while it runs, and a slot whose worker was killed.

All slots serve when as many tasks hold one at the same time. The peers cannot resize; beside gpool stands the
time in which they construct a pool of 16.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Any

from benchmarks.measure import Metric, Rows, Workload
from benchmarks.pools import METHOD, opened
from benchmarks.tasks import meet, noop, stamp

FEW, MANY = 2, 16


class Meeting:
    """Tasks that hold their slots until the last has come."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory()
        started, gate = (Path(self._folder.name, name) for name in ("started", "gate"))
        os.mkfifo(started)
        os.mkfifo(gate)
        self.task: Callable[[], None] = partial(meet, str(started), str(gate))
        self._gate = gate
        self._arrivals: IO[bytes] = open(os.open(started, os.O_RDWR), "rb", buffering=0)  # noqa: SIM115

    def arrival(self) -> tuple[float, int]:
        """Wait for the next task to begin: when, and its pid."""
        moment, pid = self._arrivals.readline().split()
        return float(moment), int(pid)

    def over(self) -> IO[bytes]:
        """Let all go, those too that are about to sit down: until the returned file is closed."""
        return open(os.open(self._gate, os.O_RDWR), "rb", buffering=0)

    def __enter__(self) -> Meeting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._arrivals.close()
        self._folder.cleanup()


def run(contender: str, quick: bool) -> Rows:
    if contender == "gpool":
        return {contender: {"grow ms/worker": grown(), "replace ms": median(replaced(2 if quick else 7))}}
    return {contender: {"grow ms/worker": constructed(contender)}}


def grown() -> float:
    from gpool import GroupedPool

    with GroupedPool(tags={"work": FEW}, mp_context=METHOD) as pool, Meeting() as meeting:
        work = pool.group("work")
        futures: list[Any] = [work.submit(meeting.task) for _ in range(MANY)]
        for _ in range(FEW):
            meeting.arrival()
        asked = time.monotonic()
        pool.adjust("work", MANY)
        taken = max(meeting.arrival()[0] for _ in range(MANY - FEW)) - asked
        finish(meeting, futures, lambda future: future.result())
    return 1e3 * taken / (MANY - FEW)


def constructed(contender: str) -> float:
    with opened(contender, FEW) as pool, Meeting() as meeting:
        pool.result(pool.submit(noop))  # the forkserver runs, as it does when gpool grows
        asked = time.monotonic()
        with opened(contender, MANY) as large:
            futures = [large.submit(meeting.task) for _ in range(MANY)]
            taken = max(meeting.arrival()[0] for _ in range(MANY)) - asked
            finish(meeting, futures, large.result)
    return 1e3 * taken / MANY


def finish(meeting: Meeting, futures: list[Any], result: Callable[[Any], object]) -> None:
    with meeting.over():
        for future in futures:
            result(future)


def replaced(times: int) -> list[float]:
    """ms from SIGKILL of a busy worker to the first line of the task queued behind it."""
    from gpool import GroupedPool, WorkerCrashed

    taken = []
    with GroupedPool(tags={"work": 1}, mp_context=METHOD) as pool, Meeting() as meeting:
        work = pool.group("work")
        for _ in range(times):
            lost, behind = work.submit(meeting.task), work.submit(stamp)
            _, pid = meeting.arrival()
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            taken.append(1e3 * (behind.result() - killed))
            assert isinstance(lost.exception(), WorkerCrashed)
    return taken


WORKLOAD = Workload(
    name="resize",
    about=f"slots {FEW} → {MANY} live until all serve (peers: construction of a pool of {MANY}); SIGKILL of a busy "
    "worker until its slot serves again",
    contenders=("gpool", "PPE", "Pool"),
    metrics=(Metric("grow ms/worker", 1), Metric("replace ms", 1, False)),
    run=run,
)
