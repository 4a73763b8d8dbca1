"""Framing, fed byte by byte and in lumps of every size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpool.workers import wire
from gpool.workers.wire import HEADER_SIZE, Frame, FrameReader, header

KINDS = st.integers(wire.CALL, wire.RETURNED)
NUMBERS = st.integers(0, 2**64 - 1)
SECONDS = st.floats(0, 1e9)
SMALL = st.binary(max_size=60)
LARGE = wire._CHUNK
FRAMES = st.lists(st.builds(Frame, KINDS, NUMBERS, SECONDS, SMALL), max_size=12)
BIG = st.sampled_from((LARGE // 2, LARGE // 2 + 1, LARGE - HEADER_SIZE, LARGE - HEADER_SIZE + 1, LARGE, 3 * LARGE))


def encode(frames: list[Frame]) -> bytes:
    return b"".join(header(f.kind, f.number, len(f.body), f.seconds) + bytes(f.body) for f in frames)


def feed(reader: FrameReader, data: bytes, most: int) -> list[Frame]:
    """Hand over at most so many bytes at a time, as ``readv`` would."""
    found: list[Frame] = []
    rest = memoryview(data)
    while rest:
        space = reader.space()
        assert len(space) > 0, "there is always room"
        size = min(most, len(space), len(rest))
        space[:size] = rest[:size]
        reader.received(size)
        rest = rest[size:]
        found += reader.frames()
    return found


def plain(frames: list[Frame]) -> list[Frame]:
    return [frame._replace(body=bytes(frame.body)) for frame in frames]


@given(FRAMES)
def test_byte_by_byte(frames: list[Frame]) -> None:
    reader = FrameReader()
    assert plain(feed(reader, encode(frames), 1)) == frames


@given(FRAMES, st.lists(st.integers(1, 100), min_size=1))
def test_in_lumps_of_any_size(frames: list[Frame], lumps: list[int]) -> None:
    reader, data, found = FrameReader(), encode(frames), []
    for turn in range(len(data)):
        size = lumps[turn % len(lumps)]
        found += feed(reader, data[:size], size)
        data = data[size:]
    assert plain(found) == frames


@settings(deadline=None, max_examples=30)
@given(st.lists(st.one_of(BIG, st.integers(0, 100)), min_size=1, max_size=5), st.integers(5_000, 2 * LARGE))
def test_large_and_small_bodies_in_turn(sizes: list[int], most: int) -> None:
    frames = [Frame(wire.VALUE, number, 0.5, bytes([number]) * size) for number, size in enumerate(sizes)]
    reader = FrameReader()
    assert plain(feed(reader, encode(frames), most)) == frames


@given(st.data())
def test_a_frame_is_there_with_its_last_byte_and_not_before(data: st.DataObject) -> None:
    frame = data.draw(st.builds(Frame, KINDS, NUMBERS, SECONDS, SMALL))
    reader, encoded = FrameReader(), encode([frame])
    assert feed(reader, encoded[:-1], len(encoded)) == []
    assert plain(feed(reader, encoded[-1:], 1)) == [frame]


def test_a_large_body_is_received_in_place() -> None:
    reader, body = FrameReader(), bytes(range(256)) * 8192
    assert feed(reader, header(wire.VALUE, 1, len(body)), HEADER_SIZE) == []
    space = reader.space()
    assert len(space) == len(body), "the reader asks for the whole of it"
    buffer = space.obj
    (frame,) = feed(reader, body, len(body))
    assert frame.body is buffer, "what was received is what is handed out"
    assert frame.body == body


def test_what_follows_a_large_body_is_not_asked_for_with_it() -> None:
    reader, body = FrameReader(), b"x" * LARGE
    feed(reader, header(wire.VALUE, 1, len(body)), HEADER_SIZE)
    feed(reader, body[:-10], LARGE)
    assert len(reader.space()) == 10


def test_the_header_can_be_read_before_the_body_has_come() -> None:
    """It says whose frame it is, so whoever unpickles the body knows whom to blame."""
    assert wire._HEADER.unpack(header(wire.ERROR, 2**63, 12345, 0.25))[1:] == (wire.ERROR, 2**63, 0.25, 12345)
    reader = FrameReader()
    feed(reader, header(wire.ERROR, 7, LARGE, 0.25), 3)
    assert reader._head == (wire.ERROR, 7, 0.25)


def test_a_body_that_is_no_pickle_is_framed_all_the_same() -> None:
    reader = FrameReader()
    (frame, after) = feed(reader, encode([Frame(wire.VALUE, 1, 0.0, b"\xff\x00garbage"), Frame(7, 2, 0.0, b"")]), 5)
    assert (frame.number, after.number, bytes(after.body)) == (1, 2, b"")


@pytest.mark.parametrize("frames", [1, 3, 5000])
def test_bodies_do_not_share_the_buffer(frames: int) -> None:
    reader = FrameReader()
    sent = [Frame(wire.VALUE, number, 0.0, number.to_bytes(8, "big") * 10) for number in range(frames)]
    found = feed(reader, encode(sent), LARGE)
    feed(reader, encode([Frame(wire.VALUE, 0, 0.0, b"\xff" * 1000)] * 300), LARGE)
    assert plain(found) == sent


@given(FRAMES, st.data())
def test_what_somebody_else_wrote_between_two_frames_is_passed_over(frames: list[Frame], data: st.DataObject) -> None:
    """A task that writes to descriptors at random may hit this one; what comes after that is read all the same."""
    garbage = st.binary(max_size=80).filter(lambda each: wire._MARK[0] not in each)
    mixed = b"".join(data.draw(garbage) + encode([frame]) for frame in frames)
    assert plain(feed(FrameReader(), mixed, data.draw(st.integers(1, 50)))) == frames


def test_a_long_run_of_garbage_is_passed_over() -> None:
    reader, frame = FrameReader(), Frame(wire.VALUE, 1, 0.0, b"value")
    assert plain(feed(reader, b"x" * (3 * LARGE + 1) + encode([frame]), 5_000)) == [frame]
