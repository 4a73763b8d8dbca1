"""What the soak's tasks do to their worker, and how each may end.

A task may do whatever user code can: crash, hang, leave threads and children behind, close and scribble on
descriptors, replace and delete what the interpreter lives on. It may not lay a mine: whatever it does strikes before
it returns, or strikes nobody, since otherwise no pool could tell whose fault the next task's end is. It may not
touch a process that is neither its worker nor its own child.

Before anything else each one writes its number and its worker's pid to the round's record of begun attempts, in one
write to a file opened with O_APPEND, so that the record is exact whatever happens next.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.torment import acts, corruption
from benchmarks.torment.orders import CRASHED, FAILED, SUCCEEDED, TIMED_OUT, Order

initialized_for = ""
"""The tag whose initializer has run in this worker."""


class Kind(NamedTuple):
    """What a task does, and how it may end by itself. It may crash too where the soak killed its worker.

    Attributes:
        act: what it does; its value is what the task returns.
        end: how it ends when it is left alone.
        also: another end it may have.
        error: the name of the exception it ends with.
        timeout: seconds it is given.
        share: how often it is chosen.
    """

    act: Callable[[Order], object]
    end: str = SUCCEEDED
    error: str = ""
    timeout: float | None = None
    share: int = 1
    also: str = ""


def initialize(tag: str) -> None:
    """The initializer of the group that has one."""
    global initialized_for  # noqa: PLW0603 - what an initializer is for
    initialized_for = tag


def perform(order: Order, extra: object = None) -> tuple[int, object]:
    """Every task: note the begin, do what the kind says, return the number and its value."""
    note_begun(order)
    if order.needs and order.needs != initialized_for:
        raise LookupError(f"the initializer of {order.needs!r} has not run in this worker")
    if order.kind == "large call":
        acts.check_large(order, extra)
    return order.number, KINDS[order.kind].act(order)


def note_begun(order: Order) -> None:
    record = os.open(order.record, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(record, b"%d %d\n" % (order.number, os.getpid()))
    finally:
        os.close(record)


KINDS: dict[str, Kind] = {
    "answer": Kind(acts.answer, share=40),
    "nap": Kind(acts.nap, share=40),
    "large": Kind(acts.large, share=4),
    "large call": Kind(acts.answer, share=4),
    "fail": Kind(acts.fail, FAILED, "ValueError", share=3),
    "fail odd": Kind(acts.fail_odd, FAILED, "Odd"),
    "leave": Kind(acts.leave, FAILED, "SystemExit"),
    "interrupt": Kind(acts.interrupt, FAILED, "KeyboardInterrupt"),
    "run dry": Kind(acts.run_dry, FAILED, "StopIteration"),
    "fail in group": Kind(acts.fail_in_group, FAILED, "ExceptionGroup"),
    "fail picky": Kind(acts.fail_picky, FAILED, "Picky"),
    "fail locked": Kind(acts.fail_locked, FAILED, "PayloadError"),
    "return lock": Kind(acts.return_lock, FAILED, "PayloadError"),
    "return booby": Kind(acts.return_booby, FAILED, "PayloadError"),
    "read booby": Kind(acts.answer, FAILED, "PayloadError"),
    "recurse": Kind(acts.recurse, FAILED, "RecursionError"),
    "drop dead": Kind(acts.drop_dead, CRASHED),
    "segfault": Kind(acts.segfault, CRASHED),
    "abort": Kind(acts.abort, CRASHED),
    "be alarmed": Kind(acts.be_alarmed, CRASHED),
    "kill group": Kind(acts.kill_group, CRASHED),
    "die once": Kind(acts.die_once, CRASHED, share=3, also=SUCCEEDED),
    "hang": Kind(acts.hang, TIMED_OUT, "TaskTimeout", timeout=0.2),
    "hold gil": Kind(acts.hold_gil, TIMED_OUT, "TaskTimeout", timeout=0.2),
    "freeze": Kind(acts.freeze, TIMED_OUT, "TaskTimeout", timeout=0.2),
    "hang with child": Kind(acts.hang_with_child, TIMED_OUT, "TaskTimeout", timeout=0.2),
    "grow": Kind(acts.grow, CRASHED),
    "close all": Kind(corruption.close_all, CRASHED, also=SUCCEEDED),  # if its answer is kept in a block
    "close standard": Kind(corruption.close_standard),
    "scribble": Kind(corruption.scribble, CRASHED, also=SUCCEEDED),
    "replace streams": Kind(corruption.replace_streams),
    "delete streams": Kind(corruption.delete_streams),
    "delete modules": Kind(corruption.delete_modules),
    "change surroundings": Kind(corruption.change_surroundings),
    "mess with signals": Kind(corruption.mess_with_signals),
    "fork and return": Kind(corruption.fork_and_return),
    "fork and raise": Kind(corruption.fork_and_raise),
    "leave orphan": Kind(corruption.leave_orphan),
    "leave thread": Kind(corruption.leave_thread),
}
