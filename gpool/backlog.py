"""A group's queue: priority first, then order of submission.

Owns the order of queued tasks, nothing else. A task that came back (its worker died, or it was taken back)
takes the place its age gives it. O(1) for what arrives in order, O(log n) only for what came back.

A cancelled task is passed over when it is reached, so its state, not the queue, says whether it is queued.
"""

from __future__ import annotations

import heapq
from collections import deque

from gpool.model import Task, TaskState

_QUEUED = TaskState.QUEUED


class _Level:
    """The tasks of one priority."""

    __slots__ = ("fresh", "returned")

    def __init__(self) -> None:
        self.fresh: deque[Task] = deque()
        self.returned: list[tuple[int, Task]] = []

    def peek(self) -> Task | None:
        fresh, returned = self.fresh, self.returned
        while fresh and fresh[0].state is not _QUEUED:
            fresh.popleft()
        while returned and returned[0][1].state is not _QUEUED:
            heapq.heappop(returned)
        if returned and not (fresh and fresh[0].id < returned[0][0]):
            return returned[0][1]
        return fresh[0] if fresh else None

    def drop_first(self, task: Task) -> None:
        if self.fresh and self.fresh[0] is task:
            self.fresh.popleft()
        else:
            heapq.heappop(self.returned)


class Backlog:
    """Queued tasks of one group. Task ids grow with submission, so an id is an age."""

    __slots__ = ("_levels", "_order", "size")

    def __init__(self) -> None:
        self._levels: dict[int, _Level] = {}
        self._order: list[int] = []  # priorities, highest first
        self.size = 0  # queued tasks, those passed over not counted

    def __bool__(self) -> bool:
        return self.size > 0

    def push(self, task: Task) -> None:
        """Add a new task behind its equals."""
        self._level(task.options.priority).fresh.append(task)
        self.size += 1

    def push_back(self, task: Task) -> None:
        """Put a task that came back where its age belongs."""
        heapq.heappush(self._level(task.options.priority).returned, (task.id, task))
        self.size += 1

    def peek(self) -> Task:
        """The next task. The backlog must not be empty."""
        for priority in self._order:
            task = self._levels[priority].peek()
            if task is not None:
                return task
        raise IndexError("the backlog is empty")

    def pop(self) -> Task:
        """Take the next task out. The backlog must not be empty."""
        order = self._order
        while True:
            level = self._levels[order[0]]
            task = level.peek()
            if task is not None:
                level.drop_first(task)
                self.size -= 1
                return task
            del self._levels[order.pop(0)]

    def forget(self, task: Task) -> None:
        """A queued task left by another door: its state has changed already."""
        self.size -= 1
        level = self._levels[task.options.priority]
        if len(level.fresh) + len(level.returned) > 64 and self.size * 2 < len(level.fresh) + len(level.returned):
            # Mostly tombstones: let go of them, they may be many and hold what they refer to.
            level.fresh = deque(each for each in level.fresh if each.state is _QUEUED)
            level.returned = [each for each in level.returned if each[1].state is _QUEUED]
            heapq.heapify(level.returned)

    def tasks(self) -> list[Task]:
        """All queued tasks in order."""
        found: list[Task] = []
        for priority in self._order:
            level = self._levels[priority]
            every = list(level.fresh) + [task for _, task in level.returned]
            found += sorted((t for t in every if t.state is _QUEUED), key=lambda t: t.id)
        return found

    def _level(self, priority: int) -> _Level:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
            self._order.append(priority)
            self._order.sort(reverse=True)
        return level
