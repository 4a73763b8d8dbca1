"""A backend without processes, and a clock that moves when told: for tests, gpool's and its users'.

Owns ``FakeBackend`` and ``FakeClock``. Calls are really pickled and unpickled, both ways, by the code that real
workers use, so what would not survive the journey does not survive it here either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from gpool.interrupts import Signal
from gpool.limits import SHORTEST
from gpool.workers import payload, wire
from gpool.workers.backend import Exited, Ready, Replied, Report, Sample, Settings, Taken
from gpool.workers.blocks import open_entries, pack_answers, runner
from gpool.workers.main import run_call
from gpool.workers.payload import Call
from gpool.workers.wire import Frame


class FakeClock:
    """A clock for ``GroupedPool(clock=...)``: calling it tells the time, in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeBackend:
    """Workers that are entries in a dictionary; each call runs in the thread that polls.

    Args:
        auto: workers come up and calls run by themselves at the next ``poll``. Otherwise nothing happens until
            ``ready``, ``begin``, ``run`` or ``die`` is called.
    """

    can_kill = True
    can_recall = True
    has_blocks = True
    room = None
    has_health = False

    def __init__(self, *, auto: bool = True) -> None:
        self.auto = auto
        self.settings: dict[int, Settings] = {}
        self.sent: dict[int, dict[int, Call]] = {}  # by worker, unanswered leases in order
        self.begun: dict[int, int] = {}  # by worker, the lease it runs
        self._items: dict[int, int] = {}  # by lease of a block, how many items the worker may begin
        self._answered: dict[int, int] = {}  # and how many it has answered
        self._functions: dict[int, payload.Function] = {}
        self._stopping: set[int] = set()
        self._up: set[int] = set()
        self._reports: deque[Report] = deque()
        self._something = Signal()

    def __repr__(self) -> str:
        return f"<FakeBackend, {len(self.sent)} workers>"

    # -- the port ---------------------------------------------------------------------------------------------

    def start(self, worker: int, settings: Settings) -> None:
        self.sent[worker] = {}
        self.settings[worker] = settings
        self._something.set()

    def send(self, worker: int, calls: Sequence[tuple[int, Call]]) -> None:
        if worker in self.sent:
            self.sent[worker].update(calls)
            self._items |= {lease: call.items for lease, call in calls if call.items > 1}
        self._something.set()

    def recall(self, worker: int, keep: int) -> Taken:
        if worker not in self.sent:
            return Taken()
        unbegun = [each for each in self.sent[worker] if each not in (keep, self.begun.get(worker))]
        for lease in unbegun:
            del self.sent[worker][lease]
            self._items.pop(lease, None)
        return Taken(tuple(unbegun), *self._part(self.begun.get(worker, keep)))

    def _part(self, lease: int) -> tuple[int | None, int]:
        """Take back what has not begun of a block; at least one item stays."""
        if lease not in self._items:
            return None, 0
        limit = self._answered.get(lease, 0) + 1
        rest, self._items[lease] = self._items[lease] - limit, limit
        return (lease, rest) if rest else (None, 0)

    def flush(self) -> None:
        return

    def forget(self, shared: int) -> None:
        self._functions.pop(shared, None)

    def stop(self, worker: int) -> None:
        self._stopping.add(worker)
        self._something.set()

    def kill(self, worker: int, *, stack: bool = False) -> None:
        if worker in self.sent:
            self.die(worker, -9)

    def stack(self, worker: int, patience: float) -> str | None:
        return None

    def wait(self, timeout: float | None) -> None:
        self._something.wait(timeout)
        self._something.clear()

    def poll(self) -> list[Report]:
        if self.auto:
            self._run_all()
        reports = list(self._reports)
        self._reports.clear()
        if reports:
            self._something.set()  # what they lead to may give more to do
        return reports

    def wake(self) -> None:
        self._something.set()

    def sample(self) -> Mapping[int, Sample]:
        return {}

    def pids(self) -> Mapping[int, int]:
        return {}

    def close(self) -> None:
        self._reports.clear()

    # -- the strings a test pulls -------------------------------------------------------------------------------

    def ready(self, worker: int) -> None:
        """The worker comes up; if its initializer raises, it dies instead."""
        self._up.add(worker)
        settings = self.settings[worker]
        try:
            if settings.initializer is not None:
                settings.initializer(*settings.initargs)
        except BaseException as error:
            self.die(worker, 1, f"{type(error).__name__}: {error}")
        else:
            self._report(Ready(worker, None))

    def begin(self, worker: int) -> int:
        """The worker begins the first lease it has; returns its number."""
        lease = next(iter(self.sent[worker]))
        self.begun[worker] = lease
        return lease

    def run(self, worker: int, seconds: float = 0.0, items: int | None = None) -> None:
        """The worker runs its first lease to its end and answers it; of a block, only so many ``items`` if given."""
        lease = self.begin(worker)
        call = self.sent[worker][lease]
        if lease in self._items:
            frame = self._run_block(lease, call, seconds, items)
            final = lease not in self._items
        else:
            answer = run_call(call.body, None if call.shared is None else lambda: self._function(call))
            frame, final = Frame(answer.kind, lease, seconds, answer.body), True
        if final:
            del self.begun[worker], self.sent[worker][lease]
        self._report(Replied(worker, (frame,)))

    def _run_block(self, lease: int, call: Call, seconds: float, items: int | None) -> Frame:
        first = self._answered.get(lease, 0)
        stop = self._items[lease] if items is None else first + items
        entries = open_entries(call.body)[first:stop]
        run = runner(None if call.shared is None else lambda: self._function(call))
        answers = [run(entry, []) for entry in entries]
        final = stop == self._items[lease]
        self._answered[lease] = stop
        if final:
            del self._items[lease], self._answered[lease]
        return Frame(wire.ANSWERS, lease, seconds, pack_answers(first, answers, final=final))

    def die(self, worker: int, exitcode: int = -9, reason: str = "") -> None:
        """The worker dies; whatever it had begun is to blame: of a block, the item after the last one answered."""
        self.sent.pop(worker)
        self._up.discard(worker)
        self._stopping.discard(worker)
        begun = self.begun.pop(worker, None)
        unbegun = 0
        if begun in self._items:
            unbegun = self._items.pop(begun) - self._answered.pop(begun, 0) - 1
        reason = reason or f"exit code {exitcode}"
        self._report(Exited(worker, begun, None, exitcode, reason, unbegun=unbegun))

    def _function(self, call: Call) -> payload.Function:
        assert call.shared is not None
        function = self._functions.get(call.shared.number)
        if function is None:
            function = self._functions[call.shared.number] = payload.open_function(call.shared.body)
        return function

    def lend(self, worker: int) -> None:
        """What is reported here is reported by the test, so nobody need wait for it."""

    def _report(self, report: Report) -> None:
        self._reports.append(report)
        self._something.set()

    def _run_all(self) -> None:
        for worker in list(self.sent):
            if worker not in self._up:
                self.ready(worker)
            while self.sent.get(worker):
                self.run(worker, SHORTEST)
            if worker in self._stopping and worker in self.sent:
                self.die(worker, 0)
