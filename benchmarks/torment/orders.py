"""What a task is told, what it must return, and the words for how it may end."""

from __future__ import annotations

from typing import NamedTuple

SUCCEEDED, FAILED, CANCELLED, TIMED_OUT, CRASHED = "succeeded", "failed", "cancelled", "timed out", "crashed"
ENDS = (SUCCEEDED, FAILED, CANCELLED, TIMED_OUT, CRASHED)

MEMORY_LIMIT = 200 << 20
LARGE = 1 << 20
FOREVER = 1000.0
"""Seconds after which no round runs any more."""


class Order(NamedTuple):
    """What a task is told: its number, its kind, the file to note its begin in, and the tag whose worker it needs."""

    number: int
    kind: str
    record: str
    needs: str = ""


def value_of(number: int) -> int:
    """What task ``number`` returns."""
    return number * 2654435761 % 1_000_003
