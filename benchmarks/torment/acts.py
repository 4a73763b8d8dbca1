"""What tasks do that leaves the interpreter whole: answer, raise, die, hang."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from typing import Any, NoReturn

from benchmarks.torment.orders import FOREVER, MEMORY_LIMIT, Array, Order, large_of, value_of


class Odd(BaseException):
    """An exception that no ``except Exception`` catches."""


class Picky(Exception):
    """An exception that pickle cannot rebuild: its constructor takes other arguments than it keeps."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"{number}: {reason}")


class Locked(Exception):
    """An exception that does not pickle at all."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Booby:
    """It pickles, and raises when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _spring, ()


def _spring() -> NoReturn:
    raise Odd("unpickled")


# -- answering ----------------------------------------------------------------------------------------------------


def answer(order: Order) -> object:
    return value_of(order.number)


def nap(order: Order) -> object:
    time.sleep(value_of(order.number) % 40 / 1000)
    return value_of(order.number)


def large(order: Order) -> object:
    """A result that no pipe takes at once."""
    return value_of(order.number), large_of(order.number)


def check_large(order: Order, given: object) -> None:
    """What came must be this task's; then it is spoilt, which must harm nobody."""
    if given != large_of(order.number):
        raise LookupError("this is not what was sent")
    if isinstance(given, Array):
        given.data[:] = bytes(len(given.data))


# -- raising ------------------------------------------------------------------------------------------------------


def fail(order: Order) -> NoReturn:
    raise ValueError(order.number)


def fail_odd(order: Order) -> NoReturn:
    raise Odd(order.number)


def leave(order: Order) -> NoReturn:
    sys.exit(order.number)


def interrupt(order: Order) -> NoReturn:
    raise KeyboardInterrupt


def run_dry(order: Order) -> NoReturn:
    raise StopIteration(order.number)


def fail_in_group(order: Order) -> NoReturn:
    raise ExceptionGroup("several", [ValueError(order.number), OSError()])


def fail_picky(order: Order) -> NoReturn:
    raise Picky(order.number, reason="chaos")


def fail_locked(order: Order) -> NoReturn:
    raise Locked


def return_lock(order: Order) -> object:
    return threading.Lock()


def return_booby(order: Order) -> object:
    return Booby()


def recurse(order: Order) -> object:
    return recurse(order)


# -- dying and hanging --------------------------------------------------------------------------------------------


def drop_dead(order: Order) -> NoReturn:
    os._exit(order.number % 3)


def segfault(order: Order) -> object:
    _no_core()
    return ctypes.string_at(8)


def abort(order: Order) -> NoReturn:
    _no_core()
    os.abort()


def be_alarmed(order: Order) -> object:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(FOREVER)
    return None


def kill_group(order: Order) -> object:
    os.kill(0, signal.SIGKILL)
    return None


def die_once(order: Order) -> object:
    """The first attempt dies, the second one answers."""
    with open(order.record, "rb") as record:
        begun = sum(int(line.split()[0]) == order.number for line in record)
    if begun == 1:
        os._exit(1)
    return value_of(order.number)


def hang(order: Order) -> object:
    time.sleep(FOREVER)
    return None


def hold_gil(order: Order) -> object:
    ctypes.PyDLL(None).sleep(int(FOREVER))
    return None


def freeze(order: Order) -> object:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(FOREVER)
    return None


def hang_with_child(order: Order) -> object:
    """The child has a process group of its own, so only its descent tells whose it is."""
    if os.fork() == 0:
        os.setpgid(0, 0)
        time.sleep(2.0)  # it ends by itself, in case the worker is killed by others than the pool
        os._exit(0)
    time.sleep(FOREVER)
    return None


def grow(order: Order) -> object:
    """In a group with a memory limit this is the end."""
    hoard = bytearray(2 * MEMORY_LIMIT)
    hoard[::4096] = b"." * len(hoard[::4096])
    time.sleep(FOREVER)
    return hoard


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
