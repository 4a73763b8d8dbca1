"""Log records made in workers, handled in the program.

Owns both ends of that way: in the worker, a handler at the root of ``logging``; in the program, the hand-over to
whatever handlers are there. A record keeps its logger's name, level, time, process and thread; its message and its
traceback arrive as text, since arguments and tracebacks may not pickle.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable

from gpool.workers.payload import Buffer

_PLAIN = (str, int, float, bool, bytes, type(None))


def lowest_level() -> int:
    """The level below which no logger of the program wants to hear of anything, as it is now."""
    known = logging.Logger.manager.loggerDict.values()
    set_levels = [each.level for each in known if isinstance(each, logging.Logger) and each.level]
    return min([logging.getLogger().level, *set_levels])


def forward(level: int, send: Callable[[bytes], None]) -> None:
    """In the worker: from here on, send every record of at least this level. Handlers inherited by a fork go."""
    for each in logging.Logger.manager.loggerDict.values():
        if isinstance(each, logging.Logger):
            each.handlers.clear()
            each.propagate = True
    root = logging.getLogger()
    root.handlers[:] = [_Sender(send)]
    root.setLevel(level)


def receive(body: Buffer) -> None:
    """In the program: give a record to the handlers it would have met here."""
    record = logging.makeLogRecord(pickle.loads(body))
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


class _Sender(logging.Handler):
    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(pickle.dumps(_plain(record)))
        except Exception:
            self.handleError(record)


def _plain(record: logging.LogRecord) -> dict[str, object]:
    """What of a record is sure to pickle, and means the same elsewhere."""
    parts: dict[str, object] = {name: value for name, value in vars(record).items() if isinstance(value, _PLAIN)}
    parts |= {"msg": record.getMessage(), "args": None, "exc_info": None}
    if record.exc_info and not record.exc_text:
        parts["exc_text"] = logging.Formatter().formatException(record.exc_info)
    return parts
