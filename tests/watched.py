"""Pools that tell when their workers have come and gone as they should, so that no test asks again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gpool import GroupedPool

_SECONDS = 60


class WatchedPool(GroupedPool):
    """A pool that can be waited for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._moved = threading.Condition()
        super().__init__(*args, listener=self._notice, **kwargs)

    def _notice(self, transition: object) -> None:
        with self._moved:
            self._moved.notify_all()

    def is_whole(self, slots: int) -> bool:
        """Wait until there are so many workers and all are up, with nothing queued; False if that does not come."""
        with self._moved:
            return self._moved.wait_for(lambda: self._has(slots), _SECONDS)

    def _has(self, slots: int) -> bool:
        stats = self.stats()
        up = [worker for worker in stats.workers if worker.pid is not None and worker.state in ("idle", "busy")]
        return len(up) == len(stats.workers) == slots and not any(group.queued for group in stats.groups.values())


@contextmanager
def making_pools() -> Iterator[Callable[..., WatchedPool]]:
    """Makes pools over processes, and stops them afterwards."""
    made: list[WatchedPool] = []

    def make(*args: Any, **kwargs: Any) -> WatchedPool:
        pool = WatchedPool(*args, **kwargs)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.stop()
