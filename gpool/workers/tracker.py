"""The standard library's resource tracker, without waiting for its process.

Every worker is handed the pipe to the program's tracker, as any child of multiprocessing's is: what user code makes
there must outlive the worker. So the pipe is made before the first worker. The process behind it, one more interpreter
that would keep a core from the fork server's, is started when that worker is on its way. What is written to the pipe
meanwhile waits there.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from multiprocessing import resource_tracker, spawn, util
from typing import Any

from gpool.workers.owned import blocked, disown, own

_tracker: Any = resource_tracker._resource_tracker
_unread: int | None = None
"""The pipe's other end, as long as there is no process."""


def pipe() -> int:
    """The descriptor of a tracker that runs, or will when ``start`` is called."""
    global _unread
    with _tracker._lock:
        if _tracker._fd is None:
            _unread, _tracker._fd = os.pipe()
            own(_unread)
    fd: int = _tracker.getfd()
    return fd


def start() -> None:
    """Start its process, if that is still to be done."""
    global _unread  # noqa: PLW0603
    if _unread is None:
        return
    with _tracker._lock:
        interpreter = spawn.get_executable()
        command = f"from multiprocessing.resource_tracker import main; main({_unread})"
        line = [interpreter, *util._args_from_interpreter_flags(), "-c", command]  # type: ignore[attr-defined]
        with blocked(signal.SIGINT, signal.SIGTERM):  # until it ignores them
            _tracker._pid = util.spawnv_passfds(interpreter, line, [*_stderr(), _unread])  # type: ignore[arg-type]
    disown(_unread)
    _unread = None


def _stderr() -> list[int]:
    """Where it says what has leaked."""
    with suppress(Exception):
        return [sys.stderr.fileno()]
    return []


def _forget() -> None:
    """In a forked child: starting it is the parent's affair."""
    global _unread  # noqa: PLW0603
    _unread = None


os.register_at_fork(after_in_child=_forget)
