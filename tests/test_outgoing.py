"""Frames on their way: whole, in order, written by whoever comes, by one at a time."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from gpool.workers import wire
from gpool.workers.outgoing import Outgoing
from gpool.workers.wire import Frame, FrameReader


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


def received(far: socket.socket, reader: FrameReader) -> list[Frame]:
    """The frames that are there."""
    frames: list[Frame] = []
    while True:
        try:
            size = far.recv_into(reader.space())
        except BlockingIOError:
            return frames
        reader.received(size)
        frames += reader.frames()


def test_frames_wait_until_there_is_a_stream(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    outgoing = Outgoing()
    outgoing.add(wire.CALL, 1, (b"a", b"b"))
    assert outgoing.write()
    assert outgoing
    outgoing.open(near.fileno())
    assert outgoing.write()
    assert not outgoing
    assert [(frame.number, bytes(frame.body)) for frame in received(far, FrameReader())] == [(1, b"ab")]


def test_a_full_stream_takes_the_rest_later(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    outgoing, reader = Outgoing(), FrameReader()
    outgoing.open(near.fileno())
    bodies = [bytes([i]) * (300_000 * i) for i in range(5)]
    for number, body in enumerate(bodies):
        outgoing.add(wire.CALL, number, (body,))
    frames: list[Frame] = []
    assert not outgoing.write()
    while not outgoing.write():
        frames += received(far, reader)
    frames += received(far, reader)
    assert [bytes(frame.body) for frame in frames] == bodies


def test_what_is_dropped_is_not_written_but_for_what_is_half_out(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    outgoing, reader = Outgoing(), FrameReader()
    outgoing.open(near.fileno())
    for number in range(4):
        outgoing.add(wire.CALL, number, (bytes(1_000_000),))
    assert not outgoing.write()
    outgoing.drop({0, 1, 3})
    frames: list[Frame] = []
    while not outgoing.write():
        frames += received(far, reader)
    frames += received(far, reader)
    assert [frame.number for frame in frames] == [0, 2]


def test_several_threads_write_whole_frames_in_order(ends: tuple[socket.socket, socket.socket]) -> None:
    """One adds, as who has the turn does; others write at the same time."""
    near, far = ends
    outgoing, reader, total = Outgoing(), FrameReader(), 2000
    outgoing.open(near.fileno())
    added = threading.Event()

    def write() -> None:
        while outgoing or not added.is_set():
            outgoing.write()

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    frames: list[Frame] = []
    for number in range(total):
        outgoing.add(wire.CALL, number, (bytes(number % 700), b"!"))
        outgoing.write()
        if number % 50 == 0:
            frames += received(far, reader)
    added.set()
    while len(frames) < total:
        frames += received(far, reader)
    for writer in writers:
        writer.join()
    assert [(frame.number, len(frame.body)) for frame in frames] == [(n, n % 700 + 1) for n in range(total)]


def test_who_has_died_gets_nothing_more(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    outgoing = Outgoing()
    outgoing.open(near.fileno())
    far.close()
    outgoing.add(wire.STOP, 0, ())
    assert outgoing.write()
    assert not outgoing


def test_nothing_is_written_after_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    near, far = ends
    outgoing = Outgoing()
    outgoing.open(near.fileno())
    outgoing.close()
    outgoing.add(wire.STOP, 0, ())
    assert outgoing.write()
    with pytest.raises(BlockingIOError):
        os.read(far.fileno(), 1)
