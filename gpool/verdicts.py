"""What futures are told.

Owns the errors that the pool makes itself, and the facts they need that are known before a task ends: which groups
were given up, which workers were killed for their memory. Decides nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Hashable
from typing import Any

from gpool.actions import Break
from gpool.errors import GroupBroken, MemoryLimitExceeded, PoolClosed, PoolError, TaskTimeout, WorkerCrashed
from gpool.model import Task, Verdict
from gpool.outcome import Outcome, raised
from gpool.workers.backend import Exited
from gpool.workers.wire import Frame


class Verdicts:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._broken: dict[Hashable, Break] = {}
        self._excesses: dict[int, tuple[int, int]] = {}  # by worker: bytes measured, bytes allowed
        self.unserved = 0  # tasks, a block's items counted one by one, that ended because the pool did

    def note_broken(self, action: Break) -> None:
        """A group was given up."""
        self._broken[action.tag] = action

    def note_excess(self, worker: int, rss: int, limit: int) -> None:
        """A worker is killed for its memory."""
        self._excesses[worker] = rss, limit

    def forget(self, worker: int) -> None:
        """A worker is gone."""
        self._excesses.pop(worker, None)

    def of(self, task: Task, verdict: Verdict, report: Frame | Exited | None, now: float) -> Outcome | Frame | None:
        """What the task's future is told, after the report that ended it; None when it was cancelled."""
        if verdict is Verdict.RETURNED or verdict is Verdict.RAISED:
            assert isinstance(report, Frame)
            return report
        if verdict is Verdict.CANCELLED:
            return None
        if verdict is Verdict.CLOSED:
            self.unserved += task.size
            return raised(PoolClosed("the pool ended before the task could get a worker"))
        if verdict is Verdict.BROKEN:
            broken = self._broken.get(task.tag) or self._broken[None]
            return raised(GroupBroken(broken.tag, broken.failures, broken.reason))
        assert isinstance(report, Exited)
        return raised(self._casualty(task, verdict, report, now))

    def _casualty(self, task: Task, verdict: Verdict, report: Exited, now: float) -> PoolError:
        """The error of a task whose worker died."""
        seconds = now - task.started
        facts: dict[str, Any] = {
            "tag": task.tag,
            "task": task.name,
            "attempt": task.attempt,
            "started": report.begun is not None,
            "seconds": seconds,
            "stack": report.stack,
        }
        if verdict is Verdict.TIMED_OUT:
            timeout = task.options.timeout
            return TaskTimeout(
                f"{task.name} ran longer than its timeout of {timeout:g} s; see where in .stack, or raise the timeout",
                timeout=timeout,
                **facts,
            )
        facts |= {"pid": report.pid, "exitcode": report.exitcode, "signal": _signal_name(report.exitcode)}
        if verdict is Verdict.OUT_OF_MEMORY:
            rss, limit = self._excesses[report.worker]
            message = (
                f"{task.name} used {rss:,} bytes, more than its memory limit of {limit:,}; use less, or raise the limit"
            )
            return MemoryLimitExceeded(message, rss=rss, limit=limit, **facts)
        how = facts["signal"] or f"exit code {report.exitcode}"
        return WorkerCrashed(
            f"the worker died ({how}) {seconds:.3g} s after it began {task.name}; only this task is lost: "
            ".stack may say where, and retries=1 would try again",
            **facts,
        )


def _signal_name(exitcode: int | None) -> str | None:
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"
