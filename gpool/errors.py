"""Every error of gpool.

Owns the error types: one sentence that says what happened and what to do, plus the facts as attributes.
Imports nothing but the standard library's exception types, and decides nothing.

Every error pickles with its facts: ``__reduce__`` rebuilds it from the keyword arguments it was made with.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Iterable
from concurrent.futures import BrokenExecutor
from typing import Any


class PoolError(Exception):
    """The root of gpool's errors."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self._facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self._facts)


def _rebuild(cls: type[PoolError], message: str, facts: dict[str, Any]) -> PoolError:
    error = cls.__new__(cls)
    PoolError.__init__(error, message, **facts)
    return error


class PoolClosed(PoolError, RuntimeError):
    """The pool was stopped or shut down, or belongs to another process."""

    def __init__(self, message: str = "the pool is closed; make a new one to run more tasks") -> None:
        super().__init__(message)


class UnknownTag(PoolError, KeyError):
    """The tag was never declared.

    Attributes:
        tag: the tag as given.
        known: the tags the pool has.
    """

    tag: Hashable
    known: tuple[Hashable, ...]

    def __init__(self, tag: Hashable, known: Iterable[Hashable]) -> None:
        names = tuple(known)
        listing = ", ".join(map(repr, names))
        super().__init__(
            f"unknown tag {tag!r}; this pool knows {listing}: declare it in tags={{...}} or by adjust()",
            tag=tag,
            known=names,
        )


class NoSlots(PoolError):
    """The tag has no reserved slot and there is no general one, so nothing could ever run the task.

    Attributes:
        tag: the tag as given.
    """

    tag: Hashable

    def __init__(self, tag: Hashable) -> None:
        super().__init__(
            f"tag {tag!r} has no slot it could run in; give it or the general group one with adjust()", tag=tag
        )


class InsufficientSlots(PoolError, IndexError):
    """The general group lacks the slots to move; nothing was changed.

    Attributes:
        wanted: how many slots were to move out of the general group.
        available: how many it has.
    """

    wanted: int
    available: int

    def __init__(self, wanted: int, available: int) -> None:
        super().__init__(
            f"{wanted} slot(s) were to move out of the general group, which has {available}; nothing was changed: move "
            "fewer, or give it more first",
            wanted=wanted,
            available=available,
        )


class PayloadError(PoolError, pickle.PicklingError):
    """A call or a result did not survive pickling; the pickle error is the ``__cause__``.

    Attributes:
        side: ``"call"`` or ``"result"``.
    """

    side: str

    def __init__(self, side: str, problem: str) -> None:
        super().__init__(f"the {side} could not be {problem}; see the cause, and pass only what pickles", side=side)


class GroupBroken(PoolError, BrokenExecutor):
    """The group's workers keep dying, so its tasks fail; other groups go on.

    Attributes:
        tag: the group's tag.
        failures: how many workers in a row died, before they were ready or in a task.
        reason: what the last one said.
    """

    tag: Hashable
    failures: int
    reason: str

    def __init__(self, tag: Hashable, failures: int, reason: str) -> None:
        super().__init__(
            f"group {tag!r} is broken: {failures} workers in a row died ({reason}); "
            "mend its initializer or its tasks, then call adjust() to try again",
            tag=tag,
            failures=failures,
            reason=reason,
        )


class TaskError(PoolError):
    """A task was ended from outside.

    Attributes:
        tag: the tag it was submitted under.
        task: its name.
        attempt: which attempt this was, from 1.
        started: True when user code may have begun.
        seconds: for how long it had run.
    """

    tag: Hashable
    task: str
    attempt: int
    started: bool
    seconds: float


class WorkerCrashed(TaskError, BrokenExecutor):
    """The worker died while it ran the task.

    Attributes:
        pid: the worker's process id.
        exitcode: as in ``multiprocessing.Process.exitcode``: negative for a signal; None if unknown.
        signal: the signal's name, such as ``"SIGSEGV"``; None if it exited by itself.
        stack: the worker's Python stack at that moment; None where none could be had.
    """

    pid: int | None
    exitcode: int | None
    signal: str | None
    stack: str | None


class MemoryLimitExceeded(WorkerCrashed):
    """The worker was killed because its process tree used more memory than its group allows.

    Attributes:
        rss: bytes measured.
        limit: bytes allowed.
    """

    rss: int
    limit: int


class TaskTimeout(TaskError, TimeoutError):
    """The task ran longer than its timeout, and its worker was killed.

    Attributes:
        timeout: the limit in seconds.
        stack: the worker's Python stack at that moment; None where none could be had.
    """

    timeout: float
    stack: str | None
