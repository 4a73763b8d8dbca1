"""What a task is told, what it must return, and the words for how it may end."""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any, NamedTuple

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


class Array:
    """Bytes that pickle hands over by themselves: what an array is, without numpy."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Array, (PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and bytes(self.data) == bytes(other.data)

    __hash__ = None  # type: ignore[assignment]


def large_of(number: int) -> Array | bytes:
    """The large thing that task ``number`` is given, or returns: nobody else's looks like it."""
    data = number.to_bytes(8, "little") * (LARGE // 8)
    return Array(bytearray(data)) if number % 2 else data
