"""A group's queue: priority first, then order of submission.

Owns the order of queued tasks, nothing else. A task that came back (its worker died, or it was taken back)
takes the place its age gives it. O(1) for what arrives in order, O(log n) only for what came back.

A cancelled task is passed over when it is reached, so its state, not the queue, says whether it is queued.
"""

from __future__ import annotations

import heapq
from collections import deque

from gpool.model import QUEUED, Task


class _Level:
    """The tasks of one priority."""

    __slots__ = ("fresh", "priority", "returned")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.fresh: deque[Task] = deque()
        self.returned: list[tuple[tuple[int, int], Task]] = []

    def peek(self) -> Task | None:
        fresh, returned = self.fresh, self.returned
        while fresh and fresh[0].state is not QUEUED:
            fresh.popleft()
        while returned and returned[0][1].state is not QUEUED:
            heapq.heappop(returned)
        if returned and not (fresh and fresh[0].age < returned[0][0]):
            return returned[0][1]
        return fresh[0] if fresh else None

    def pop(self) -> Task | None:
        task = self.peek()
        if task is not None:
            if self.fresh and self.fresh[0] is task:
                self.fresh.popleft()
            else:
                heapq.heappop(self.returned)
        return task


class Backlog:
    """Queued tasks of one group."""

    __slots__ = ("_levels", "_order", "items", "size")

    def __init__(self) -> None:
        self._levels: dict[int, _Level] = {}
        self._order: list[_Level] = []  # the same, highest priority first
        self.size = 0  # queued tasks, those passed over not counted
        self.items = 0  # those of blocks counted one by one

    def __bool__(self) -> bool:
        return self.size > 0

    def push(self, task: Task) -> None:
        """Add a new task behind its equals."""
        priority = task.options.priority
        level = self._levels.get(priority) or self._new_level(priority)
        level.fresh.append(task)
        self.size += 1
        self.items += task.size

    def push_back(self, task: Task) -> None:
        """Put a task that came back where its age belongs."""
        priority = task.options.priority
        level = self._levels.get(priority) or self._new_level(priority)
        heapq.heappush(level.returned, (task.age, task))
        self.size += 1
        self.items += task.size

    def peek(self) -> Task:
        """The next task. The backlog must not be empty."""
        for level in self._order:
            task = level.peek()
            if task is not None:
                return task
        raise IndexError("the backlog is empty")

    def pop(self) -> Task:
        """Take the next task out. The backlog must not be empty."""
        order = self._order
        while True:
            task = order[0].pop()
            if task is not None:
                self.size -= 1
                self.items -= task.size
                return task
            del self._levels[order.pop(0).priority]

    def forget(self, task: Task) -> None:
        """A queued task left by another door: its state has changed already."""
        self.size -= 1
        self.items -= task.size
        level = self._levels[task.options.priority]
        if len(level.fresh) + len(level.returned) > 64 and self.size * 2 < len(level.fresh) + len(level.returned):
            # Mostly tombstones: let go of them, they may be many and hold what they refer to.
            level.fresh = deque(each for each in level.fresh if each.state is QUEUED)
            level.returned = [each for each in level.returned if each[1].state is QUEUED]
            heapq.heapify(level.returned)

    def shrink(self) -> None:
        """A queued task has one item less."""
        self.items -= 1

    def tasks(self) -> list[Task]:
        """All queued tasks in order."""
        found: list[Task] = []
        for level in self._order:
            every = list(level.fresh) + [task for _, task in level.returned]
            found += sorted((t for t in every if t.state is QUEUED), key=lambda t: t.age)
        return found

    def _new_level(self, priority: int) -> _Level:
        level = self._levels[priority] = _Level(priority)
        self._order.append(level)
        self._order.sort(key=lambda each: -each.priority)
        return level
