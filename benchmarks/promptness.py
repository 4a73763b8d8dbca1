"""How soon what must happen happens: ``python benchmarks/promptness.py [--times N]``.

Prints, as median and maximum in milliseconds: how late deadlines end their tasks, asleep and in C with the GIL held;
how long ``cancel(kill=True)`` takes until another task runs in that slot; how long workers and their children live on
after the program was killed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpool import GroupedPool, TaskTimeout

TIMEOUT = 0.1
PROGRAM = """
import subprocess, sys, time
from gpool import GroupedPool
def busy():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("up", flush=True)
    sum(range(10**15))
pool = GroupedPool(2)
for _ in range(2):
    pool.submit(busy)
time.sleep(600)
"""


def backtrack() -> None:
    """Hold the GIL in C."""
    re.match(r"(a+)+b", "a" * 64)


def lateness(task: Callable[..., object], *args: object, times: int) -> list[float]:
    """Seconds by which a task's end comes after its deadline; the worker has begun before."""
    late = []
    with GroupedPool(2) as pool:
        for _ in range(times):
            pool.submit(os.getpid).result()
            began = time.perf_counter()
            error = pool.options(timeout=TIMEOUT).submit(task, *args).exception()
            late.append(time.perf_counter() - began - TIMEOUT)
            assert isinstance(error, TaskTimeout)
    return late


def reuse(times: int) -> list[float]:
    """Seconds from ``cancel(kill=True)`` of the only running task to the result of the next one."""
    taken = []
    with GroupedPool(1) as pool:
        for _ in range(times):
            pool.submit(os.getpid).result()
            running = pool.submit(time.sleep, 600)
            began = time.perf_counter()
            assert running.cancel(kill=True)
            pool.submit(os.getpid).result()
            taken.append(time.perf_counter() - began)
    return taken


def orphans(times: int) -> list[float]:
    """Seconds from the SIGKILL of a program to the end of the last process that descends from it."""
    lived = []
    for _ in range(times):
        program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
        assert program.stdout is not None
        for _ in range(2):
            program.stdout.readline()
        tree = psutil.Process(program.pid).children(recursive=True)
        began = time.perf_counter()
        program.kill()
        program.wait()
        while any(map(runs, tree)):
            time.sleep(0.0005)
        lived.append(time.perf_counter() - began)
        program.stdout.close()
    return lived


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="How soon what must happen happens.")
    parser.add_argument("--times", type=int, default=50, help="repetitions of each")
    times: int = parser.parse_args().times
    figures = {
        "a deadline, asleep": lateness(time.sleep, 600, times=times),
        "a deadline, GIL held in C": lateness(backtrack, times=times),
        "cancel(kill=True) until the slot has run another task": reuse(times),
        "the program is killed until nothing of it is left": orphans(times),
    }
    print(f"{'milliseconds':56}{'times':>8}{'median':>10}{'most':>10}")
    for name, seconds in figures.items():
        print(f"{name:56}{times:8}{1e3 * median(seconds):10.1f}{1e3 * max(seconds):10.1f}")


if __name__ == "__main__":
    main()
