"""Who gets the next slot that comes free in the general group.

Owns the order of the tags that wait. First those below their reserve, whose own workers are not up yet. Then
weighted fairness on slot-time: lowest virtual time first, then lowest burst ÷ weight, then the oldest task. This is
start-time fair queueing (Goyal, Vin and Cheng, 1996) with slot-seconds as the service: a tag that comes back from
idleness starts at the present virtual time, so it banks no credit.

A tag's virtual time is a straight line: it rises by burst ÷ weight per second. Lines of one slope never change
places, so there is one heap per slope, ordered by where the line starts, and the best is the lowest of the few
heaps' first lines. An entry is good as long as it is its group's; the others are swept out by and by.

Whoever changes a group's backlog, slots or running workers calls ``touch``. Its place is worked out afresh when
somebody asks, not at each of the changes: most of them cancel out before that.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from gpool.groups import GroupRecord

_Entry: TypeAlias = tuple[float, int, int, float, GroupRecord]
"""A line's height at instant 0, the oldest task's id, a serial number, the slope, the group. It is made at every
decision, and a tuple with names costs six times as much to make."""


class Contenders:
    """The tags that wait: they have queued tasks and may hold one more slot. One that is held back does not wait."""

    __slots__ = ("_heaps", "_places", "_serial", "_short", "_size", "_touched", "vnow")

    def __init__(self) -> None:
        self._places: dict[GroupRecord, _Entry | None] = {}  # None for those below their reserve
        self._short: dict[int, dict[GroupRecord, None]] = {}  # those, by kind, first come first
        self._heaps: dict[float, list[_Entry]] = {}  # the others, by slope
        self._size = 0  # entries in all heaps, the spent ones too
        self._serial = 0
        self._touched: dict[GroupRecord, None] = {}
        self.vnow = 0.0  # virtual time of the tag served last

    def touch(self, group: GroupRecord) -> None:
        """What the group waits for may have changed."""
        self._touched[group] = None

    def wake(self, group: GroupRecord, now: float) -> None:
        """A tag had nothing queued and has now: whatever it did not use meanwhile is forfeit."""
        group.charge(now)
        group.vtime = max(group.vtime, self.vnow)
        self._touched[group] = None

    def served(self, group: GroupRecord, now: float) -> None:
        """A task of the tag begins: whoever wakes up from now on starts where this one is."""
        group.charge(now)
        self.vnow = max(self.vnow, group.vtime)

    def waiting(self, now: float) -> dict[GroupRecord, _Entry | None]:
        """All that wait. Not to be changed."""
        if self._touched:
            self._refresh(now)
        return self._places

    def others_than(self, group: GroupRecord, now: float) -> bool:
        """True when another tag waits."""
        places = self.waiting(now)
        return len(places) > (group in places)

    def best_short(self, kind: int, now: float) -> GroupRecord | None:
        """The first tag of this kind that waits below its reserve."""
        if self._touched:
            self._refresh(now)
        short = self._short.get(kind)
        return next(iter(short)) if short else None

    def best(self, kind: int, now: float, may_replace: Callable[[GroupRecord], bool]) -> GroupRecord | None:
        """The tag to be served next, of this kind or one that ``may_replace`` admits; it stays where it is."""
        if self._touched:
            self._refresh(now)
        passed_over: list[_Entry] = []
        best: GroupRecord | None = None
        while (found := self._first(now)) is not None:
            start, _, _, slope, group = found
            if group.kind == kind or may_replace(group):
                self.vnow = max(self.vnow, start + slope * now)
                best = group
                break
            passed_over.append(heappop(self._heaps[slope]))
        for entry in passed_over:
            heappush(self._heaps.setdefault(entry[3], []), entry)
        return best

    def forget(self, group: GroupRecord) -> None:
        """Take the group out, for instance because its kind is about to change; ``touch`` brings it back."""
        if self._places.pop(group, group) is None:
            self._drop_short(group)

    def _refresh(self, now: float) -> None:
        places = self._places
        for group in self._touched:
            waits = group.backlog.size and not group.held_until
            if waits and group.short:
                if places.get(group, group) is not None:
                    places[group] = None
                    self._short.setdefault(group.kind, {})[group] = None
                continue
            self.forget(group)
            if waits and group.burst_room:
                self._enter(group, now)
        self._touched.clear()

    def _enter(self, group: GroupRecord, now: float) -> None:
        group.charge(now)
        slope = len(group.bursting) / group.settings.weight
        self._serial += 1
        entry = (group.vtime - slope * now, group.backlog.peek().id, self._serial, slope, group)
        self._places[group] = entry
        if self._size > 4 * len(self._places) + 64:
            self._sweep()
        self._size += 1
        heap = self._heaps.get(slope)
        if heap:
            heappush(heap, entry)
        else:
            self._heaps[slope] = [entry]

    def _drop_short(self, group: GroupRecord) -> None:
        same = self._short[group.kind]
        del same[group]
        if not same:
            del self._short[group.kind]

    def _first(self, now: float) -> _Entry | None:
        places = self._places
        best: _Entry | None = None
        least = (0.0, 0.0, 0)
        emptied = []
        for slope, heap in self._heaps.items():
            while heap:
                entry = heap[0]
                start, oldest, _, _, group = entry
                if places.get(group) is entry:
                    rank = (start + slope * now, slope, oldest)
                    if best is None or rank < least:
                        best, least = entry, rank
                    break
                heappop(heap)
                self._size -= 1
            else:
                emptied.append(slope)
        for slope in emptied:
            del self._heaps[slope]
        return best

    def _sweep(self) -> None:
        heaps: dict[float, list[_Entry]] = {}
        for heap in self._heaps.values():
            for entry in heap:
                _, _, _, slope, group = entry
                if self._places.get(group) is entry:
                    heaps.setdefault(slope, []).append(entry)
        for heap in heaps.values():
            heapify(heap)
        self._heaps = heaps
        self._size = sum(map(len, heaps.values()))
