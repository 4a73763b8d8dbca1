"""What is due when.

Owns a heap of instants. It reads no clock: the scheduler says what time it is. A timer is never taken out
early; one whose cause has gone is passed over, and swept out when the heap has doubled.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, NamedTuple


class _Timer(NamedTuple):
    when: float
    serial: int
    subject: Any
    live: Callable[[Any], bool]
    due: Callable[[Any], None]


class Timers:
    """Instants, each with its subject, a test whether it still matters, and what is to be done."""

    __slots__ = ("_heap", "_serial", "_sweep_at", "soonest")

    def __init__(self) -> None:
        self._heap: list[_Timer] = []
        self._serial = 0
        self._sweep_at = 64
        self.soonest = float("inf")  # no timer is due before, whether it matters or not

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> float | None:
        """The earliest instant that matters; None if nothing is due ever."""
        heap = self._heap
        while heap and not heap[0].live(heap[0].subject):
            heapq.heappop(heap)
        self.soonest = heap[0].when if heap else float("inf")
        return heap[0].when if heap else None

    def at(self, when: float, subject: Any, live: Callable[[Any], bool], due: Callable[[Any], None]) -> None:
        if len(self._heap) >= self._sweep_at:
            self._heap = [timer for timer in self._heap if timer.live(timer.subject)]
            heapq.heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + 64
        self._serial += 1
        heapq.heappush(self._heap, _Timer(when, self._serial, subject, live, due))
        self.soonest = self._heap[0].when

    def run(self, now: float) -> None:
        """Do what is due by ``now``, in order."""
        heap = self._heap
        while heap and heap[0].when <= now:
            timer = heapq.heappop(heap)
            if timer.live(timer.subject):
                timer.due(timer.subject)
            heap = self._heap
        self.soonest = heap[0].when if heap else float("inf")
