"""A group as the scheduler keeps it: slots, settings, backlog, workers, virtual time.

Owns which worker is where, as sets whose sizes are the counts: running is ``len(own) + len(bursting)``, burst
is ``len(bursting)``. Nothing is counted here that could be read off a set, except the tallies of what ended.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from gpool import limits
from gpool.backlog import Backlog
from gpool.model import RETURNED, SOUND, Group, Verdict, Worker

WorkerSet = dict[Worker, None]
"""An ordered set."""


class ByKind:
    """An ordered set of workers that also answers by kind.

    Attributes:
        by_kind: a set for each kind of which there are any. The set as a whole is empty when this is, and to ask this
            is the quicker way where it is asked at every step.
    """

    __slots__ = ("by_kind",)

    def __init__(self) -> None:
        self.by_kind: dict[int, WorkerSet] = {}

    def __len__(self) -> int:
        return sum(map(len, self.by_kind.values()))

    def __bool__(self) -> bool:
        return bool(self.by_kind)

    def __iter__(self) -> Iterator[Worker]:
        return (worker for same in self.by_kind.values() for worker in same)

    def __contains__(self, worker: Worker) -> bool:
        return worker in self.by_kind.get(worker.kind, ())

    def add(self, worker: Worker) -> None:
        self.by_kind.setdefault(worker.kind, {})[worker] = None

    def remove(self, worker: Worker) -> None:
        same = self.by_kind[worker.kind]
        del same[worker]
        if not same:
            del self.by_kind[worker.kind]

    def count(self, kind: int) -> int:
        return len(self.by_kind.get(kind, ()))

    def newest(self, kind: int) -> Worker | None:
        same = self.by_kind.get(kind)
        return next(reversed(same)) if same else None

    def stranger(self, kind: int) -> Worker | None:
        """A worker of any other kind."""
        for other, workers in self.by_kind.items():
            if other != kind:
                return next(iter(workers))
        return None


class GroupRecord:
    """One tag's group, or the general one (tag None), whose slots are nobody's reserve.

    Attributes:
        kind: the kind of worker its code runs in.
        bound: workers that count towards ``slots``: starting, idle and running ones, not draining ones.
        own: bound workers that run this tag.
        bursting: workers bound to the general group that run this tag.
        ahead: workers serving this tag that hold leases they may not have begun, longest-running head first.
        roomy: workers serving this tag that could be sent more ahead.
        hungry: those of them that need it soon.
        vtime: slot-seconds of burst ÷ weight, up to ``charged``.
        failures: workers that died before they were ready, in a row.
        crashes: workers that died in a task of this tag, in a row.
        blocked_until: no worker of the group's is started before.
        held_until: its workers die in task after task, so its queued tasks get no general worker before; 0 if they may.
    """

    __slots__ = (
        "ahead",
        "ahead_floor",
        "backlog",
        "blocked_until",
        "bound",
        "bursting",
        "charged",
        "crashes",
        "done",
        "failed",
        "failures",
        "general",
        "held_until",
        "hungry",
        "idle",
        "index",
        "item_seconds",
        "kind",
        "lost",
        "mean_seconds",
        "own",
        "recycled",
        "retried",
        "roomy",
        "settings",
        "slots",
        "starting",
        "state",
        "tag",
        "vtime",
    )

    def __init__(self, tag: Hashable, settings: Group, kind: int, index: int) -> None:
        self.tag = tag
        self.settings = settings
        self.slots = 0
        self.kind = kind
        self.index = index
        self.general = tag is None
        self.state = SOUND
        self.backlog = Backlog()
        self.bound: WorkerSet = {}
        self.starting = ByKind()
        self.idle = ByKind()  # the one that was busy last is the newest: its caches are the warmest
        self.own: WorkerSet = {}
        self.bursting: WorkerSet = {}
        self.ahead: WorkerSet = {}
        self.ahead_floor = 0  # priority of what was last sent ahead
        self.roomy: WorkerSet = {}
        self.hungry: WorkerSet = {}
        self.vtime = 0.0
        self.charged = 0.0
        self.mean_seconds = 0.0  # of a task, be it a block
        self.item_seconds = 0.0  # of an item of a block, or of a task that is none
        self.failures = 0
        self.crashes = 0
        self.blocked_until = 0.0
        self.held_until = 0.0
        self.done = self.failed = self.lost = self.retried = self.recycled = 0

    def __repr__(self) -> str:
        return (
            f"<group {self.tag!r} {self.state.value}: {len(self.bound)}/{self.slots} workers, "
            f"{len(self.own)} own, {len(self.bursting)} burst, {self.backlog.size} queued>"
        )

    @property
    def running(self) -> int:
        """Slots held, those of draining workers not counted."""
        return len(self.own) + len(self.bursting)

    @property
    def short(self) -> bool:
        """True when the tag is below its reserve, so a task of it need not contend."""
        return not self.general and len(self.own) + len(self.bursting) < self.slots

    @property
    def burst_room(self) -> bool:
        """True when its own cap lets the tag hold one more general slot."""
        cap = self.settings.burst
        return cap is None or len(self.bursting) < cap

    @property
    def may_take_general(self) -> bool:
        """True when the rule of admission lets its next task have a general slot, if one is free."""
        return not self.held_until and (self.short or self.burst_room)

    @property
    def idle_count(self) -> int:
        return len(self.idle)

    def charge(self, now: float) -> None:
        """Bring the virtual time up to ``now``; to be called before ``bursting`` changes."""
        if now != self.charged:
            self.vtime += len(self.bursting) * (now - self.charged) / self.settings.weight
            self.charged = now

    def learn(self, seconds: float) -> None:
        """Take one measured run time of a task that is no block into the moving averages."""
        mean = self.mean_seconds
        self.mean_seconds = now = limits.smoothed(mean, seconds)
        self.item_seconds = now if self.item_seconds == mean else limits.smoothed(self.item_seconds, seconds)

    def learn_block(self, seconds: float) -> None:
        """The same for a block as a whole."""
        self.mean_seconds = limits.smoothed(self.mean_seconds, seconds)

    def learn_item(self, seconds: float) -> None:
        """The same for an item of one."""
        self.item_seconds = limits.smoothed(self.item_seconds, seconds)

    def tally(self, verdict: Verdict, items: int) -> None:
        """Count a task that ended, or what had not ended of a block."""
        if verdict is RETURNED:
            self.done += items
        elif verdict is Verdict.CRASHED or verdict is Verdict.OUT_OF_MEMORY:
            self.lost += items
        elif verdict is not Verdict.CANCELLED:
            self.failed += items
