"""What tasks do to their worker behind its back: to its descriptors, streams, modules, signals, children, threads."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

from benchmarks.torment.acts import Odd
from benchmarks.torment.orders import FOREVER, Order, value_of


class _Mute:
    """What a task may leave in place of sys.stdout."""

    def write(self, text: str) -> NoReturn:
        raise Odd(text)

    def flush(self) -> NoReturn:
        raise Odd("flush")


def close_all(order: Order) -> object:
    """The worker can no longer answer."""
    os.closerange(0, 256)
    return value_of(order.number)


def close_standard(order: Order) -> object:
    for fd in range(3):
        with suppress(OSError):
            os.close(fd)
    return value_of(order.number)


def scribble(order: Order) -> object:
    """Bytes that mean nothing, into every socket there is, as a library with a stale descriptor does."""
    for fd in range(3, 256):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, bytes((order.number * 7 + i) % 256 | 0x80 for i in range(order.number % 90 + 1)))
    return value_of(order.number)


def replace_streams(order: Order) -> object:
    sys.stdout = sys.stderr = _Mute()
    return value_of(order.number)


def delete_streams(order: Order) -> object:
    vars(sys).pop("stdout", None)
    vars(sys).pop("stderr", None)
    return value_of(order.number)


def delete_modules(order: Order) -> object:
    for name in ("pickle", "traceback", "select", "signal", "struct", "io", "gpool", "gpool.errors", "cloudpickle"):
        sys.modules.pop(name, None)
    return value_of(order.number)


def change_surroundings(order: Order) -> object:
    folder = f"{order.record}.{order.number}.{os.getpid()}"
    os.mkdir(folder)
    os.chdir(folder)
    os.rmdir(folder)  # the worker now stands in a directory that is gone
    os.environ.clear()
    os.umask(0o077)
    return value_of(order.number)


def mess_with_signals(order: Order) -> object:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return value_of(order.number)


def fork_and_return(order: Order) -> object:
    """Two processes come back from this call."""
    os.fork()
    return value_of(order.number)


def fork_and_raise(order: Order) -> object:
    if os.fork() == 0:
        sys.exit(3)
    return value_of(order.number)


def leave_orphan(order: Order) -> object:
    """A grandchild stays behind in the worker's group, with copies of all its descriptors."""
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            time.sleep(FOREVER)
        os._exit(0)
    with suppress(ChildProcessError):  # some task before this one may have had children reaped by the system
        os.waitpid(child, 0)
    return value_of(order.number)


def leave_thread(order: Order) -> object:
    """A thread stays behind that the interpreter waits for at its end."""
    sys.stderr = sys.__stderr__  # without it, no thread can be made
    threading.Thread(target=time.sleep, args=(FOREVER,)).start()
    return value_of(order.number)
