"""Two tags that both want all general slots, with weights 1 and 3 and tasks of unequal length: who gets how much.

The tasks sleep, so the machine's cores are no limit, and say when they began and ended, so what counts is slot-time as
the workers saw it. Slots are idle when no task runs in them while both tags have work waiting: between two tasks of a
slot lies one trip through the parent, which weighs the more the shorter the tasks are.

The work comes from feeds, which draw as slots free up, or has all been submitted before.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from concurrent.futures import Future
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.pools import METHOD
from benchmarks.tasks import nap

if TYPE_CHECKING:
    from gpool import GroupedPool

SLOTS = 4
SECONDS = 10.0
WARM_SECONDS = 1.0
WEIGHTS = (1, 3)


class Flood(NamedTuple):
    """Attributes: seconds of a task of weight 1, of one of weight 3, and whether the work comes from feeds."""

    light: float
    heavy: float
    feeds: bool


FLOODS = {
    f"light {1e3 * light:g} ms, heavy {1e3 * heavy:g} ms, {'fed' if feeds else 'submitted'}": Flood(light, heavy, feeds)
    for feeds in (False, True)
    for light, heavy in ((0.050, 0.020), (0.020, 0.050))
}

DRAWN_LATE = (
    "A feed draws when there is a slot for its item, so a tag that is fed may have nothing queued at the moment in "
    "which a general slot frees, and the other tag gets it."
)
ONE_TRIP = (
    "Nothing is sent ahead into a general slot while another tag waits, so between two tasks of a slot lies one trip "
    "through the parent. Both processes have slept for milliseconds then, and Python that the core's caches have "
    "forgotten takes about ten times as long. By a trace, half of the gap is the parent's, a third the worker's."
)

Ran = tuple[float, float, float]
"""What a task returns: the seconds asked for, when it began, when it ended."""


def run(contender: str, quick: bool) -> Rows:
    from gpool import Group, GroupedPool

    light, heavy, feeds = FLOODS[contender]
    lengths = (light, heavy)
    seconds = 0.5 if quick else SECONDS
    ran: list[Ran] = []
    tags: dict[Hashable, int | Group] = {None: SLOTS}
    tags |= {length: Group(0, weight=weight) for length, weight in zip(lengths, WEIGHTS, strict=True)}
    with GroupedPool(tags=tags, callback=ran.append, mp_context=METHOD) as pool:
        for length in lengths:
            if feeds:
                pool.ingest(repeat(length), length, nap)
            else:
                submit_enough(pool, length, seconds, ran)
        time.sleep(WARM_SECONDS)
        since = time.monotonic()
        time.sleep(seconds)
        until = time.monotonic()
        pool.stop()
    one, three = (slot_time(ran, length, since, until) for length in lengths)
    return {
        contender: {
            "heavy ÷ light": three / one,
            "off by %": 100 * abs(three / one / (WEIGHTS[1] / WEIGHTS[0]) - 1),
            "idle %": 100 * (1 - (one + three) / (SLOTS * (until - since))),
        }
    }


def submit_enough(pool: GroupedPool, length: float, seconds: float, ran: list[Ran]) -> None:
    """More than all slots together can do meanwhile."""

    def note(future: Future[Any]) -> None:
        if not future.cancelled():
            ran.append(future.result())

    submit = pool.group(length).submit
    for _ in range(int(2 * SLOTS * (WARM_SECONDS + seconds) / length)):
        submit(nap, length).add_done_callback(note)


def slot_time(ran: Iterable[Ran], length: float, since: float, until: float) -> float:
    """Of the tasks of one length, between two moments."""
    return sum(max(0.0, min(ended, until) - max(began, since)) for seconds, began, ended in ran if seconds == length)


WORKLOAD = Workload(
    name="shares",
    about=f"two tags without a reserve flood {SLOTS} general slots for {SECONDS:g} s, weights 1 (light) and 3 (heavy), "
    "unequal tasks: slot-time of heavy over light, how far from 3, and slots idle while work waits",
    contenders=tuple(FLOODS),
    metrics=(
        Metric("heavy ÷ light", 3, False, False),
        Metric("off by %", 2, False),
        Metric("idle %", 2, False),
    ),
    run=run,
    marks=tuple(
        mark
        for each, flood in FLOODS.items()
        for mark in (
            Mark("off by %", of=each, most=5, why=DRAWN_LATE if flood.feeds else ""),
            Mark("idle %", of=each, most=1, why=ONE_TRIP),
        )
    ),
)
