"""What user code prints, in a worker: none of it is left behind when an item has ended.

Owns ``flusher``. To flush two streams after each item costs more than a small item does, so the streams note what is
written to them, at both of their floors. One that cannot note it, or was put in place of ours, is flushed every time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any


def flusher(then: Callable[[], object]) -> tuple[Callable[[], None], Callable[[], None]]:
    """What flushes the standard streams and does something more, if there is need; and what says that there is."""
    needed = True

    def note() -> None:
        nonlocal needed
        needed = True

    out, err = _noting(sys.stdout, note), _noting(sys.stderr, note)

    def flush() -> None:
        nonlocal needed
        try:
            if not needed and sys.stdout is out and sys.stderr is err:
                return
        except AttributeError:  # one was deleted
            pass
        needed = False  # before, so that what other threads write meanwhile is noted
        flush_streams()
        then()

    return flush, note


_BUFFERS = (BufferedWriter, FileIO)  # the latter if the interpreter was told not to buffer
_OTHER = object()
"""No stream."""


def _noting(stream: Any, note: Callable[[], None]) -> object:
    """The stream, taught to note what is written to it; something else if it is of a kind of its own."""
    if stream is None:
        return None
    if type(stream) is not TextIOWrapper or type(stream.buffer) not in _BUFFERS:
        return _OTHER
    for floor in (stream, stream.buffer):
        floor.write = _noted(floor.write, note)  # type: ignore[method-assign]
    return stream


def _noted(write: Callable[[Any], int], note: Callable[[], None]) -> Callable[[Any], int]:
    def noted(text: Any, /) -> int:
        try:
            return write(text)
        finally:
            note()

    return noted


def flush_streams() -> None:
    """The streams may be closed, deleted, or replaced by something that is no stream."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except BaseException:
            continue
