"""A group as the scheduler keeps it: slots, settings, backlog, workers, virtual time.

Owns which worker is where, as sets whose sizes are the counts: running is ``len(own) + len(bursting)``, burst
is ``len(bursting)``. Nothing is counted here that could be read off a set, except the tallies of what ended.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from gpool.backlog import Backlog
from gpool.limits import OUT_OF_LINE, SMOOTHING
from gpool.model import Group, GroupState, Verdict, Worker

WorkerSet = dict[Worker, None]
"""An ordered set."""


class ByKind:
    """An ordered set of workers that also answers by kind."""

    __slots__ = ("_sets",)

    def __init__(self) -> None:
        self._sets: dict[int, WorkerSet] = {}

    def __len__(self) -> int:
        return sum(map(len, self._sets.values()))

    def __bool__(self) -> bool:
        return bool(self._sets)

    def __iter__(self) -> Iterator[Worker]:
        return (worker for same in self._sets.values() for worker in same)

    def __contains__(self, worker: Worker) -> bool:
        return worker in self._sets.get(worker.kind, ())

    def add(self, worker: Worker) -> None:
        self._sets.setdefault(worker.kind, {})[worker] = None

    def remove(self, worker: Worker) -> None:
        same = self._sets[worker.kind]
        del same[worker]
        if not same:
            del self._sets[worker.kind]

    def count(self, kind: int) -> int:
        return len(self._sets.get(kind, ()))

    def newest(self, kind: int) -> Worker | None:
        same = self._sets.get(kind)
        return next(reversed(same)) if same else None

    def stranger(self, kind: int) -> Worker | None:
        """A worker of any other kind."""
        for other, workers in self._sets.items():
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
        "hungry",
        "idle",
        "index",
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
        self.state = GroupState.SOUND
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
        self.mean_seconds = 0.0
        self.failures = 0
        self.crashes = 0
        self.blocked_until = 0.0
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
    def idle_count(self) -> int:
        return len(self.idle)

    def charge(self, now: float) -> None:
        """Bring the virtual time up to ``now``; to be called before ``bursting`` changes."""
        self.vtime += len(self.bursting) * (now - self.charged) / self.settings.weight
        self.charged = now

    def learn(self, seconds: float) -> None:
        """Take one measured run time into the moving average. One that is out of line counts as a few times the mean:
        the worker may have lost its CPU for a while."""
        mean = self.mean_seconds
        if mean == 0.0:
            self.mean_seconds = max(seconds, 1e-6)
        else:
            self.mean_seconds = mean + SMOOTHING * (max(min(seconds, OUT_OF_LINE * mean), 1e-6) - mean)

    def tally(self, verdict: Verdict) -> None:
        """Count a task that ended."""
        if verdict is Verdict.RETURNED:
            self.done += 1
        elif verdict is Verdict.CRASHED or verdict is Verdict.OUT_OF_MEMORY:
            self.lost += 1
        elif verdict is not Verdict.CANCELLED:
            self.failed += 1
