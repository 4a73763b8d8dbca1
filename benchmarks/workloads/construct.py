"""How long until a pool is of use: its import, its construction, its first result."""

from __future__ import annotations

import subprocess
import sys
from compileall import compile_dir
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.measure import Mark, Metric, Rows, Workload
from benchmarks.pools import CONTENDERS, SUBMITTERS, opened
from benchmarks.tasks import noop

ROOT = Path(__file__).resolve().parent.parent.parent


def run(contender: str, quick: bool) -> Rows:
    statement = CONTENDERS[contender].imports
    module = CONTENDERS[contender].module
    times = 1 if quick else 7
    compile_dir(ROOT / "gpool", quiet=1)  # as pip does with what it installs, the peers included
    import_module("multiprocessing.forkserver")
    exec(statement, {})  # what importing costs is measured below, in interpreters that have imported nothing yet
    first, again = first_result(contender), first_result(contender)
    whole = {"concurrent": "concurrent.futures"}.get(module, module)
    return {
        contender: {
            "first ms": 1e3 * first,
            "again ms": 1e3 * again,
            "import ms": 1e3 * import_time(f"import {whole}", times),
            "import class ms": 1e3 * import_time(statement, times),
        }
    }


def first_result(contender: str) -> float:
    began = perf_counter()
    with opened(contender) as pool:
        pool.result(pool.submit(noop))
        return perf_counter() - began


def import_time(statement: str, times: int) -> float:
    """What the statement adds to the run of an interpreter, as the median of alternating runs with and without."""
    return median(interpreter(statement) - interpreter("pass") for _ in range(times))


def interpreter(statement: str) -> float:
    began = perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, cwd=ROOT)
    return perf_counter() - began


OWN_SERVER = (
    "When stop() returns no process of the pool exists, so the fork server has ended with the last pool and the next "
    "one starts another, while PPE uses one that stays for the rest of the program. About half of the time is the "
    "start of an interpreter, which PPE's first pool has to wait for too; the rest is for what workers import."
)
SMALL_MODULES = (
    "Half of it is gpool's own: four dozen small modules and their classes. The rest is the standard library's: "
    "logging, which concurrent.futures brings along, typing, pickle. The package by itself imports none of it until it "
    "is asked for."
)

WORKLOAD = Workload(
    name="construct",
    about="construction → first result, forkserver (2 slots): first pool of the process, and again; import over a bare "
    "interpreter, of the package and of the pool class",
    contenders=SUBMITTERS,
    metrics=(
        Metric("first ms"),
        Metric("again ms"),
        Metric("import ms", 1, False),
        Metric("import class ms", 1, False),
    ),
    run=run,
    marks=(
        Mark("first ms", over="PPE", most=0.6, why=OWN_SERVER),
        Mark("again ms", over="PPE", most=0.6, why=OWN_SERVER),
        Mark("import ms", most=40),
        Mark("import class ms", most=40, why=SMALL_MODULES),
    ),
)
