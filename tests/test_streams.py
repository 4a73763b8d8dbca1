"""What user code prints is out when its item has ended."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.programs import environment

PROLOGUE = """
import io, os, sys
from gpool.workers.streams import Streams
flushed = []
streams = Streams(lambda: flushed.append(1))
flush, note = streams.flush, streams.note
flush()
flush()
assert len(flushed) == 1
"""


def printed(source: str, unbuffered: bool = False) -> str:
    """What a process wrote that ends without a word after this."""
    settings = {**environment(), "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    code = f"{PROLOGUE}\n{source}\nflush()\nos._exit(0)"
    line = [sys.executable, "-c", code]
    out = subprocess.run(line, env=settings, capture_output=True, text=True, check=True, timeout=60)
    return out.stdout + out.stderr


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    "source",
    [
        "print('text', end='')",
        "sys.stdout.write('text')",
        "sys.stdout.writelines(['te', 'xt'])",
        "sys.stdout.buffer.write(b'text')",
        "sys.stdout.buffer.writelines([b'te', b'xt'])",
        "print('text', end='', file=sys.stderr)",
        "sys.stderr.buffer.write(b'text')",
        "sys.stdout.reconfigure(write_through=False, encoding='latin-1'); print('text', end='')",
        "sys.stdout = open(1, 'w', closefd=False); print('text', end='')",
        "sys.stdout = open(1, 'w', closefd=False); flush(); print('text', end='')",
        "del sys.stdout; print('text', end='', file=sys.__stderr__)",
        "sys.stdout = None; print('text', end='', file=sys.stderr)",
        "sys.stdout.close(); print('text', end='', file=sys.stderr)",
        "print('te', end=''); flush(); flush(); print('xt', end='')",
    ],
)
def test_what_was_written_is_flushed(source: str, unbuffered: bool) -> None:
    assert printed(source, unbuffered) == "text"


def test_nothing_is_done_when_nothing_was_written() -> None:
    assert (
        printed("print('x', end=''); flush(); flush(); before = len(flushed); flush(); assert len(flushed) == before")
        == "x"
    )


def test_it_is_done_when_asked_for() -> None:
    assert printed("note(); flush(); assert len(flushed) == 2") == ""
