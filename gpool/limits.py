"""The numbers of the policy: back-off, retries, restarts, and how much is sent ahead.

Owns rules of the form "given these counts, how long or how many"; pure functions and constants.
"""

from __future__ import annotations

MAX_START_FAILURES = 5
"""Workers of a group that may die in a row before they are ready; then the group is broken. Supervisor's
``startretries`` (3) and Erlang's restart intensity are of this kind; 5 lets a slow disk have a bad moment."""

CRASHES_AT_ONCE = 10
"""Crashed workers in a row, with no task completed in between, that are replaced without delay."""

MAX_CRASHES = 30
"""Crashed workers in a row, with no task completed in between, after which the group is broken."""

MAX_UNDELIVERED = 3
"""Workers that may die while a task is on its way to them, as happens when they have no memory for it. One more might
be chance; after so many the task is to blame."""

MAX_AHEAD = 256
"""Leases a worker may hold beyond the one it runs."""

AHEAD_SECONDS = 0.004
"""Work, by measured run time, that may be sent ahead: a few scheduler ticks, so taking it back is rare."""

WORTH_SECONDS = 20e-6
"""Work, by measured run time, that is worth sending to a worker that has not run out: what sending it costs."""

FEED_SECONDS = 0.020
"""Work, by measured run time, that a feed may have unfinished per slot, beyond the block that runs there."""

BLOCK_SECONDS = 0.008
"""Work, by measured run time, that makes a block of a feed's items."""

MAX_BLOCK = 8000
"""Items of a block: two milliseconds of the shortest, whose answers fit on a board."""

MAX_AHEAD_OF_FEED = 4 * MAX_BLOCK
"""Items that a feed may have unfinished per slot, beyond the block that runs there."""

SMALLEST_PORTION = 8
"""Items of a block below which it is not worth while to share it out."""

BLOCK_BYTES = 1 << 17
"""Bytes of packed items after which a block is submitted though it has not the length its run times justify."""

AHEAD_BYTES = 1 << 21
"""Bytes of items that a feed may have unfinished per slot, beyond the block that runs there."""

STUCK_SECONDS = 0.010
"""A task in front that runs this long has turned out long: what was sent behind it is taken back."""

STOP_SECONDS = 5.0
"""For a worker that was asked to end: it may hang in a thread or an exit handler that a task left behind. After that
it is killed. Ten seconds is what Supervisor and Docker give whole programs; a worker has no task in hand."""

OUT_OF_LINE = 8
"""Times the mean that a run time counts at most."""

SHORTEST = 1e-6
"""Seconds that a run time counts at least: a mean above zero says that there is one."""

SMOOTHING = 0.2
"""Weight of the newest run time in the moving average (as in TCP's round-trip estimate, RFC 6298, rounded)."""


def restart_delay(failures: int) -> float:
    """Seconds before the next try after ``failures`` workers in a row died young: 0, 0.1, 0.2, … at most 5."""
    return 0.0 if failures < 2 else min(5.0, 0.1 * 2.0 ** (failures - 2))


def crash_delay(crashes: int) -> float:
    """Seconds before a worker that died in a task is replaced: none for the first few in a row, at most 1."""
    excess = crashes - CRASHES_AT_ONCE
    return 0.0 if excess <= 0 else min(1.0, 0.01 * 2.0 ** min(excess, 10))


def retry_delay(task: int, attempt: int) -> float:
    """Seconds before the attempt after ``attempt``: 0.05 doubling to 5, spread over its upper half.

    The spread comes from the task's number (Knuth's multiplicative hash), so a history replays exactly.
    """
    span = min(5.0, 0.05 * 2.0 ** min(attempt - 1, 10))
    spread = ((task * 31 + attempt) * 2654435761 % 2**32) / 2**32
    return span * (0.5 + 0.5 * spread)


def ahead(mean_seconds: float) -> int:
    """How many tasks of this mean run time may be sent ahead to one worker. Unknown (0) means none."""
    if not 0.0 < mean_seconds <= STUCK_SECONDS:
        return 0
    return max(1, min(MAX_AHEAD, int(AHEAD_SECONDS / mean_seconds)))


def block(mean_seconds: float, mean_bytes: float = 0.0) -> int:
    """How many items of this mean run time and size make a block. An unknown run time (0) means one."""
    if mean_seconds <= 0.0:
        return 1
    return max(1, min(MAX_BLOCK, int(BLOCK_SECONDS / mean_seconds), int(BLOCK_BYTES / max(1.0, mean_bytes))))


def ahead_of_feed(mean_seconds: float, mean_bytes: float) -> int:
    """How many items of this mean run time and size a feed may have unfinished per slot, beyond the block that runs.

    At least one, known or not: with none in the queue the tag would miss its turn whenever a general slot comes free.
    """
    if mean_seconds <= 0.0:
        return 1
    return max(1, min(MAX_AHEAD_OF_FEED, int(FEED_SECONDS / mean_seconds), int(AHEAD_BYTES / max(1.0, mean_bytes))))


def smoothed_size(mean_bytes: float, size: float) -> float:
    """The moving average of items' bytes after one more, or after several of that mean size."""
    return mean_bytes + SMOOTHING * (size - mean_bytes) if mean_bytes else size


def smoothed(mean_seconds: float, seconds: float) -> float:
    """The moving average after one more measured run time.

    One that is out of line counts as a few times the mean: the worker may have lost its CPU for a while.
    """
    if seconds < SHORTEST:
        seconds = SHORTEST
    elif seconds > OUT_OF_LINE * mean_seconds > 0.0:
        seconds = OUT_OF_LINE * mean_seconds
    return mean_seconds + SMOOTHING * (seconds - mean_seconds) if mean_seconds else seconds
