"""What user code prints, in a worker: none of it is left behind when an item has ended.

Owns ``Streams``. To flush two streams after each item costs more than a small item does, so the streams note what is
written to them, at both of their floors. One that cannot note it, or was put in place of ours, is flushed every time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any


class Streams:
    """Standard output and error, as far as they note what is written to them.

    Args:
        then: called when they have been flushed.

    Attributes:
        used: something may have been written since they were flushed last.
        out, err: what they were to begin with; while they are something else, what is written there is not noted.
    """

    __slots__ = ("_then", "err", "out", "used")

    def __init__(self, then: Callable[[], object]) -> None:
        self._then = then
        self.used = True
        self.out, self.err = _noting(sys.stdout, self.note), _noting(sys.stderr, self.note)

    def note(self) -> None:
        """Something may be written."""
        self.used = True

    def flush(self) -> None:
        """Flush them, if there is need. Where this is asked for after each item, the condition is written out."""
        try:
            if not self.used and sys.stdout is self.out and sys.stderr is self.err:
                return
        except AttributeError:  # one was deleted
            pass
        self.used = False  # before, so that what other threads write meanwhile is noted
        flush_streams()
        self._then()


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
