"""What the scheduler may ask for, in the imperative.

Owns the messages out of the scheduler. The supervisor performs them after ``handle`` returned, in order.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, TypeAlias

from gpool.model import Lease, Task, Verdict, Worker


class Start(NamedTuple):
    """Start a process for this worker, with the settings of its kind. Answered by one ``WorkerExited``."""

    worker: Worker


class Dispatch(NamedTuple):
    """Send these attempts to their worker, in this order."""

    worker: Worker
    leases: tuple[Lease, ...]


class Recall(NamedTuple):
    """Take back what the worker has not begun, except lease number ``keep``. Answered at once by ``Recalled``."""

    worker: Worker
    keep: int


class Stop(NamedTuple):
    """Ask the worker to end."""

    worker: Worker


class Kill(NamedTuple):
    """Make the worker end, its whole process tree with it."""

    worker: Worker


class Begin(NamedTuple):
    """The task holds a slot for the first time."""

    task: Task


class Split(NamedTuple):
    """The first items of the task, as many as ``part`` has, are that task's from now on."""

    task: Task
    part: Task


class Answer(NamedTuple):
    """The report in hand answers the next items of the task."""

    task: Task


class Withdraw(NamedTuple):
    """The item at this place of the task, counted from the first that has not ended, was cancelled."""

    task: Task
    item: int


class Settle(NamedTuple):
    """The task has ended for good."""

    task: Task
    verdict: Verdict


class Break(NamedTuple):
    """The group was given up."""

    tag: Hashable
    failures: int
    reason: str


class Close(NamedTuple):
    """Nothing is left: no task and no worker."""


# Half the price of the constructors, for the two actions that every task leads to.
new_dispatch = Dispatch._make
new_settle = Settle._make

Action: TypeAlias = Start | Dispatch | Recall | Stop | Kill | Begin | Split | Answer | Withdraw | Settle | Break | Close
