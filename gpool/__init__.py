"""gpool: a worker-process pool in which every tag has slots that nobody else can take.

This module only names what is public. Each name is imported from its module when it is first asked for, so
that a worker process, which needs none of them, does not pay for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpool.errors import (
        GroupBroken,
        InsufficientSlots,
        MemoryLimitExceeded,
        NoSlots,
        PayloadError,
        PoolClosed,
        PoolError,
        TaskError,
        TaskTimeout,
        UnknownTag,
        WorkerCrashed,
    )
    from gpool.feeds import Feed
    from gpool.futures import Future
    from gpool.model import Group
    from gpool.pool import GroupedPool, PyPool
    from gpool.snapshot import GroupStats, PoolStats, WorkerStats
    from gpool.views import GroupView
    from gpool.workers.fake import FakeBackend, FakeClock

__version__ = "0.1.0"

_HOMES = {
    "gpool.errors": (
        "GroupBroken",
        "InsufficientSlots",
        "MemoryLimitExceeded",
        "NoSlots",
        "PayloadError",
        "PoolClosed",
        "PoolError",
        "TaskError",
        "TaskTimeout",
        "UnknownTag",
        "WorkerCrashed",
    ),
    "gpool.feeds": ("Feed",),
    "gpool.futures": ("Future",),
    "gpool.model": ("Group",),
    "gpool.pool": ("GroupedPool", "PyPool"),
    "gpool.views": ("GroupView",),
    "gpool.snapshot": ("GroupStats", "PoolStats", "WorkerStats"),
    "gpool.workers.fake": ("FakeBackend", "FakeClock"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "FakeBackend",
    "FakeClock",
    "Feed",
    "Future",
    "Group",
    "GroupBroken",
    "GroupStats",
    "GroupView",
    "GroupedPool",
    "InsufficientSlots",
    "MemoryLimitExceeded",
    "NoSlots",
    "PayloadError",
    "PoolClosed",
    "PoolError",
    "PoolStats",
    "PyPool",
    "TaskError",
    "TaskTimeout",
    "UnknownTag",
    "WorkerCrashed",
    "WorkerStats",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
