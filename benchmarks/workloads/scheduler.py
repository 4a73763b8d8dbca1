"""The pure machine alone: how many events it decides per second, small and large.

A steady state: a backlog is there throughout; each step submits one task and ends the one that has run longest.
Of the workers as many as there are tags, but three of four at most, are reserved, one each; the others are general, so
the tags contend. Tasks have no payload: what is seen here is what decisions cost when everything is large.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Hashable
from time import perf_counter
from typing import NamedTuple

from benchmarks.measure import Mark, Metric, Rows, Workload
from gpool.actions import Action, Dispatch, Recall
from gpool.events import Ended, Event, Recalled, ResizeAsked, SubmitAsked, WorkerReady
from gpool.model import Lease, Task, Verdict
from gpool.scheduler import Scheduler


class Shape(NamedTuple):
    """Attributes: tags, workers, tasks queued throughout, seconds that each task is said to have run."""

    tags: int
    workers: int
    queued: int
    seconds: float


SMALL, AHEAD, LARGE = "3 tags, 4 workers", "3 tags, 4 workers, sent ahead", "10,000 tags, 100,000 workers"
MIDDLE = "1,000 tags, 1,000 workers"
SHAPES = {
    LARGE: Shape(10_000, 100_000, 10_000_000, 0.1),
    MIDDLE: Shape(1000, 1000, 1_000_000, 0.1),
    SMALL: Shape(3, 4, 1000, 0.1),
    AHEAD: Shape(3, 4, 1000, 0.0001),
}


TOGETHER = 10_000
"""Tasks of the backlog submitted in one event: how it came there is not measured."""


class Bench:
    """A scheduler whose workers are pretended: what it dispatches ends, oldest first, when ``step`` says so."""

    def __init__(self, shape: Shape) -> None:
        self.seconds = shape.seconds
        self.tags = shape.tags
        self.pace = shape.seconds / shape.workers
        self.now = 0.0
        self.events = 0
        self.running: deque[Lease] = deque()
        self.scheduler = Scheduler()
        reserved = min(shape.tags, shape.workers * 3 // 4)
        slots: dict[Hashable, int] = {tag: int(tag < reserved) for tag in range(shape.tags)}
        self.tell(ResizeAsked({**slots, None: shape.workers - reserved}))
        for worker in list(self.scheduler.workers.values()):
            self.tell(WorkerReady(worker.id))
        for first in range(0, shape.queued, TOGETHER):
            numbers = range(first, min(first + TOGETHER, shape.queued))
            self.tell(SubmitAsked(tuple(Task(number, number % self.tags) for number in numbers)))

    def submission(self, number: int) -> SubmitAsked:
        return SubmitAsked((Task(number, number % self.tags),))

    def tell(self, event: Event) -> None:
        self.events += 1
        for action in self.scheduler.handle(event, self.now):
            if type(action) is Dispatch:
                self.running += action.leases
            elif type(action) is Recall:
                self.take_back(action)

    def take_back(self, recall: Action) -> None:
        """All but the task in hand had not begun."""
        assert type(recall) is Recall
        behind = [lease.number for lease in recall.worker.leases][1:]
        self.tell(Recalled(recall.worker.id, tuple(number for number in behind if number != recall.keep)))

    def step(self, submission: SubmitAsked) -> None:
        self.now += self.pace
        self.tell(submission)
        lease = self.running.popleft()
        while lease.task.lease is not lease:  # taken back meanwhile
            lease = self.running.popleft()
        self.tell(Ended(lease.worker.id, lease.number, Verdict.RETURNED, self.seconds))


def run(contender: str, quick: bool) -> Rows:
    shape = SHAPES[contender]
    if quick:
        tags, workers, queued, seconds = shape
        shape = Shape(min(tags, 1000), min(workers, 1000), min(queued, 20_000), seconds)
    gc.disable()  # the collector would walk millions of tasks again and again while they are made
    bench = Bench(shape)
    gc.enable()
    steps = 10_000 if quick else 100_000
    submissions = [bench.submission(shape.queued + number) for number in range(steps)]
    for submission in submissions[: steps // 10]:
        bench.step(submission)
    gc.collect()
    bench.events = 0
    began = perf_counter()
    for submission in submissions[steps // 10 :]:
        bench.step(submission)
    return {contender: {"events/s": bench.events / (perf_counter() - began)}}


IN_PYTHON = "Each event goes through some thirty small functions of Python."
CACHES = (
    "The steps are the same, but what they touch is further away. With 3 tags, 100 busy workers instead of 4 cost a "
    "fifth, 1,000 a third, 100,000 half of the speed; millions of queued tasks alone cost nothing with few workers."
)

WORKLOAD = Workload(
    name="scheduler",
    about=f"decisions of the pure machine in a steady state, with 1,000 tasks queued; the large ones have "
    f"{SHAPES[MIDDLE].queued:,} and {SHAPES[LARGE].queued:,}",
    contenders=tuple(SHAPES),
    metrics=(Metric("events/s", rising=True),),
    run=run,
    subject=LARGE,
    marks=(
        Mark("events/s", of=SMALL, least=200_000, why=IN_PYTHON),
        Mark("events/s", of=LARGE, over=SMALL, least=0.7, why=CACHES),
    ),
    seconds=600,
)
