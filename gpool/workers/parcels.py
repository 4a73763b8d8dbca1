"""Parcels: what was pickled, its large parts apart from the rest.

Owns what stands in place of the large parts: a parcel's body begins with a list of *references*, each the place and
length of a part in the pool's memory file. The parts are buffers that pickle hands over by themselves (protocol 5), and
the pickle itself, if it is large.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpool.workers.arena import Place, Range

Piece = bytes | memoryview

LARGE = 1 << 17
"""Bytes from which on a part travels through memory. A smaller one is copied through the stream as fast."""
_HEAD = struct.Struct("<IB")
_REFERENCE = struct.Struct("<QQ")


class Packed(NamedTuple):
    """A body and the memory it refers to, which must not be given back before the other side has looked away."""

    body: bytes
    places: tuple[Place, ...] = ()


class Parcel(NamedTuple):
    """A pickle and the buffers it refers to, on the other side. Copies were made of none."""

    pickle: bytes | bytearray | memoryview
    buffers: Sequence[memoryview] = ()


class Reference(NamedTuple):
    """Where a part is."""

    offset: int
    length: int


def pack(pickle: Sequence[Piece], buffers: Sequence[memoryview], room: Range) -> Packed | None:
    """Put the large parts where the other side can see them. None: there is no memory for that.

    Args:
        pickle: in pieces that follow each other.
        buffers: one part each.
    """
    parts: list[Sequence[Piece]] = [(buffer,) for buffer in buffers]
    is_large = sum(map(len, pickle)) >= LARGE
    if is_large:
        parts.append(pickle)
    places: list[Place] = []
    references: list[bytes] = []
    for part in parts:
        length = sum(map(len, part))
        place = room.take(length)
        if place is None:
            return None
        place.fill(part)
        places.append(place)
        references.append(_REFERENCE.pack(place.offset, length))
    rest = () if is_large else pickle
    return Packed(b"".join((_HEAD.pack(len(parts), is_large), *references, *rest)), tuple(places))


def references_in(body: bytes | bytearray | memoryview) -> list[Reference]:
    """What a packed body refers to."""
    count, _ = _HEAD.unpack_from(body)
    return [Reference(*_REFERENCE.unpack_from(body, _HEAD.size + _REFERENCE.size * i)) for i in range(count)]


def open_parcel(body: bytes | bytearray | memoryview, look: Callable[[Reference], memoryview]) -> Parcel:
    """``look`` gives the parts."""
    count, is_large = _HEAD.unpack_from(body)
    views = [look(reference) for reference in references_in(body)]
    if is_large:
        return Parcel(views.pop(), views)
    return Parcel(memoryview(body)[_HEAD.size + _REFERENCE.size * count :], views)
