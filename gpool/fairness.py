"""Who gets the next general slot: weighted fairness on slot-time.

Owns the order of the tags that wait for a general slot: lowest virtual time first, then lowest burst ÷ weight,
then the oldest task. This is start-time fair queueing (Goyal, Vin and Cheng, 1996) with slot-seconds as
the service: a tag that comes back from idleness starts at the present virtual time, so it banks no credit.

A tag's virtual time is a straight line: it rises by burst ÷ weight per second. Lines of one slope never change
places, so there is one heap per slope, ordered by where the line starts, and the best is the lowest of the few
heaps' first lines. An entry is good as long as it is its group's ``entry``; the others are swept out by and by.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple

from gpool.groups import GroupRecord


class _Entry(NamedTuple):
    start: float  # the line at instant 0
    oldest: int
    serial: int
    slope: float
    group: GroupRecord


class Contenders:
    """The tags that wait for a general slot."""

    __slots__ = ("_heaps", "_members", "_serial", "_size", "vnow")

    def __init__(self) -> None:
        self._heaps: dict[float, list[_Entry]] = {}  # by slope
        self._members: dict[GroupRecord, None] = {}
        self._serial = 0
        self._size = 0  # entries in all heaps, the spent ones too
        self.vnow = 0.0  # virtual time of the tag served last

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, group: GroupRecord) -> bool:
        return group in self._members

    def others_than(self, group: GroupRecord) -> bool:
        """True when another tag waits."""
        count = len(self._members)
        return count > 1 or (count == 1 and group not in self._members)

    def wake(self, group: GroupRecord, now: float) -> None:
        """A tag had nothing queued and has now: whatever it did not use meanwhile is forfeit."""
        group.charge(now)
        group.vtime = max(group.vtime, self.vnow)

    def enter(self, group: GroupRecord, now: float) -> None:
        """Add a tag, or renew its place after its burst changed."""
        group.charge(now)
        slope = len(group.bursting) / group.settings.weight
        self._serial += 1
        entry = _Entry(group.vtime - slope * now, group.backlog.peek().id, self._serial, slope, group)
        group.entry = entry
        self._members[group] = None
        if self._size > 4 * len(self._members) + 64:
            self._sweep()
        heapq.heappush(self._heaps.setdefault(slope, []), entry)
        self._size += 1

    def leave(self, group: GroupRecord) -> None:
        """A tag waits no more."""
        if group.entry is not None:
            group.entry = None
            del self._members[group]

    def best(self, now: float, may_use: Callable[[GroupRecord], bool]) -> GroupRecord | None:
        """The tag to be served next among those that ``may_use`` admits; it stays a contender."""
        if not self._members:
            return None
        passed_over: list[_Entry] = []
        found = self._first(now)
        while found is not None and not may_use(found.group):
            passed_over.append(heapq.heappop(self._heaps[found.slope]))
            found = self._first(now)
        for entry in passed_over:
            heapq.heappush(self._heaps[entry.slope], entry)
        if found is None:
            return None
        self.vnow = max(self.vnow, found.start + found.slope * now)
        return found.group

    def _first(self, now: float) -> _Entry | None:
        best: _Entry | None = None
        best_key: tuple[float, float, int] | None = None
        for slope, heap in self._heaps.items():
            while heap and heap[0].group.entry is not heap[0]:
                heapq.heappop(heap)
                self._size -= 1
            if heap:
                entry = heap[0]
                key = (entry.start + slope * now, slope, entry.oldest)
                if best_key is None or key < best_key:
                    best, best_key = entry, key
        return best

    def _sweep(self) -> None:
        heaps: dict[float, list[_Entry]] = {}
        for heap in self._heaps.values():
            for entry in heap:
                if entry.group.entry is entry:
                    heaps.setdefault(entry.slope, []).append(entry)
        for heap in heaps.values():
            heapq.heapify(heap)
        self._heaps = heaps
        self._size = sum(map(len, heaps.values()))
