"""Memory barriers that one process has all others make.

Owns ``membarrier(2)``. Two processes that each write one word and then read the other's need a barrier between the two,
else both may miss what the other wrote. Python gives none that is cheap. So who acts rarely makes the barrier for both:
when ``fence`` has returned, whatever a process that has *joined* wrote before some moment during the call is visible
here, and after that moment it sees whatever was written here before the call. Those who have joined pay nothing.

Where the system has no such call (Linux before 4.16, others, a filter on system calls), or the interpreter no ctypes,
both say so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache

_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283}
"""Of the system call, which the C library does not name."""
_QUERY, _FENCE, _JOIN = 0, 1 << 1, 1 << 2  # MEMBARRIER_CMD_..., (REGISTER_)GLOBAL_EXPEDITED


def join() -> bool:
    """From now on this process takes part in others' fences; a process that it forks does too. False if it can't."""
    return _call(_JOIN) == 0


def fence() -> bool:
    """False if there is none."""
    return _call(_FENCE) == 0


@cache
def can_fence() -> bool:
    """Whether ``fence`` works, and ``join`` in processes like this one."""
    known = _call(_QUERY)
    return known > 0 and known & _FENCE > 0 and known & _JOIN > 0 and fence()


def _call(command: int) -> int:
    call = _system()
    return -1 if call is None else call(command)


@cache
def _system() -> Callable[[int], int] | None:
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    number = _NUMBERS.get(os.uname().machine)
    if number is None:
        return None
    try:
        import ctypes

        syscall = ctypes.CDLL(None).syscall
    except (ImportError, OSError, AttributeError):
        return None
    syscall.restype = ctypes.c_long
    syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long]
    return lambda command: int(syscall(number, command, 0, 0))
