"""Everything that can happen to a worker, and what it costs: one task.

Beside a steady stream of ordinary tasks, one task dereferences a null pointer, one leaves by ``os._exit``, one hangs
in C while it holds the interpreter's lock, one is killed on request together with its child process, and one fails
twice before it succeeds. Each ends in an error that says what happened; the stream loses nothing.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import tempfile
import time
from concurrent.futures import CancelledError
from pathlib import Path

from gpool import GroupedPool, TaskTimeout, WorkerCrashed


def segfault() -> None:
    """Read from address 0, as a broken C extension does."""
    ctypes.string_at(0)


def hang_in_c() -> None:
    """Let the regex engine backtrack for years; it never releases the interpreter's lock."""
    re.match(r"(a+)+b", "a" * 64)


def start_a_child(note: Path) -> None:
    """Start a program that would run for an hour, and wait for it."""
    child = subprocess.Popen(["sleep", "3600"])
    draft = note.with_suffix(".draft")
    draft.write_text(str(child.pid))
    draft.rename(note)
    child.wait()


def third_time_lucky(tries: Path) -> str:
    """Crash at the first attempt, raise at the second, and return at the third."""
    with tries.open("a") as file:
        file.write("x")
    attempt = tries.stat().st_size
    if attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if attempt == 2:
        raise ConnectionError("the line is down")
    return f"succeeded at attempt {attempt}"


def innermost(stack: str | None) -> str:
    """Pick the line of a worker's stack that names one of our functions."""
    lines = (stack or "").splitlines()
    return next((line.strip() for line in lines if re.search(r"segfault|hang_in_c", line)), "no stack")


def runs(pid: int) -> bool:
    """Say whether a process still runs."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, GroupedPool(tags={"risky": 1, "steady": 1, None: 1}) as pool:
        risky = pool.group("risky")
        steady = pool.group("steady").map(lambda number: number * number, range(2000))

        try:
            risky.submit(segfault).result()
        except WorkerCrashed as error:
            print(f"segfault:    {error}\n             in {innermost(error.stack)}")

        try:
            risky.submit(os._exit, 3).result()
        except WorkerCrashed as error:
            print(f"os._exit:    {error} (exit code {error.exitcode})")

        try:
            risky.options(timeout=0.5).submit(hang_in_c).result()
        except TaskTimeout as error:
            print(f"timeout:     {error}\n             in {innermost(error.stack)}")

        note = Path(folder, "pid")
        future = risky.submit(start_a_child, note)
        while not note.exists():
            time.sleep(0.01)
        child = int(note.read_text())
        print(f"killing:     plain cancel() says {future.cancel()}, cancel(kill=True) says {future.cancel(kill=True)}")
        try:
            future.result()
        except CancelledError:
            print("             the task is cancelled")
        patience = time.monotonic() + 5
        while runs(child) and time.monotonic() < patience:
            time.sleep(0.01)
        print(f"             its child still runs: {runs(child)}")

        lucky = risky.options(retries=2, retry_on=(ConnectionError,)).submit(third_time_lucky, Path(folder, "tries"))
        print(f"retries:     {lucky.result()}")

        squares = list(steady)
        print(f"meanwhile:   {len(squares)} of 2000 steady tasks, all right: {squares == [n * n for n in range(2000)]}")
        group = pool.stats().groups["risky"]
        print(f"the group:   {group.state}, {group.done} done, {group.lost} lost, {group.retried} retried")


main()
