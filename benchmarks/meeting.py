"""Tasks that meet: each holds its slot until the last has come, which shows that all slots serve at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Any

from benchmarks.pools import Open
from benchmarks.tasks import meet


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


def gathered(pool: Open, slots: int) -> list[int]:
    """Have every slot of a pool serve once, at the same time; the workers' pids."""
    with held(pool, slots) as pids:
        return pids


@contextmanager
def held(pool: Open, slots: int) -> Iterator[list[int]]:
    """Hold every slot of a pool while the block runs; the workers' pids."""
    with Meeting() as meeting:
        tasks: list[Any] = [pool.submit(meeting.task) for _ in range(slots)]
        pids = [meeting.arrival()[1] for _ in tasks]
        try:
            yield pids
        finally:
            with meeting.over():
                for task in tasks:
                    pool.result(task)
