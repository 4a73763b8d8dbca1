"""The main demonstration: index the source of Python's own standard library, and stay responsive meanwhile.

One pool, three kinds of slots:

- ``processors`` parses every ``.py`` file of the running Python: a flood that wants every core it can get, and
  takes more than its reserve by bursting into the general slots;
- ``webserver`` has one slot of its own, for small queries that a person waits for;
- the general slots belong to whoever needs them.

While the flood runs, queries keep arriving at a steady pace. Now and then the same query is also asked of the
``processors`` group, to show what it would have waited without a reserve. In the middle slots are moved between the
groups, live, and one parser is made to die of a segmentation fault. At the end: who waited how long, what failed
and why, and what there is to know about the standard library.

    python index_sources.py
    python index_sources.py --limit 200 --processors 4

A waiting time runs from the moment a task was handed to the pool to the first statement of the task in its worker.
Both ends are read from ``time.monotonic()``, which on Linux is one clock for all processes.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import signal
import sys
import sysconfig
import time
import warnings
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future
from heapq import nlargest
from pathlib import Path
from typing import NamedTuple

from gpool import GroupedPool, WorkerCrashed

STDLIB = Path(sysconfig.get_path("stdlib"))
QUERY_EVERY = 0.025  # seconds between two queries
COMPARE_EVERY = 4  # every so many queries, ask the crowded group too

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.comprehension, ast.match_case)

QUESTIONS = (
    ("json/decoder.py", "JSONDecoder"),
    ("argparse.py", "ArgumentParser"),
    ("socketserver.py", "ThreadingMixIn"),
    ("concurrent/futures/_base.py", "as_completed"),
    ("pathlib.py", "PurePath"),
    ("typing.py", "no_such_name"),
)


# ---- what runs in the workers: plain functions, sent from this very file without any guard ----


class Function(NamedTuple):
    """One function of the index."""

    where: str
    name: str
    lines: int
    complexity: int


class Report(NamedTuple):
    """What a worker found in one file."""

    waited: float
    lines: int
    functions: int
    classes: int
    longest: list[Function]
    knottiest: list[Function]


class Item(NamedTuple):
    """One file to parse, stamped when the pool drew it from the feed."""

    path: Path
    drawn_at: float
    doomed: bool


def index_file(item: Item) -> Report:
    """Parse one file and count what is in it."""
    waited = time.monotonic() - item.drawn_at
    if item.doomed:
        os.kill(os.getpid(), signal.SIGSEGV)  # as a broken C extension would
    source = item.path.read_bytes()
    tree = ast.parse(source, filename=str(item.path))
    functions, classes = measure(tree, str(item.path.relative_to(STDLIB)))
    return Report(
        waited=waited,
        lines=source.count(b"\n"),
        functions=len(functions),
        classes=classes,
        longest=nlargest(5, functions, key=lambda function: function.lines),
        knottiest=nlargest(5, functions, key=lambda function: function.complexity),
    )


def measure(tree: ast.Module, module: str) -> tuple[list[Function], int]:
    """Return every function of a module and the number of its classes."""
    owners: list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, list[int]]] = []
    classes = 0
    todo: list[tuple[ast.AST, list[int]]] = [(tree, [0])]
    while todo:
        node, paths = todo.pop()
        if isinstance(node, FUNCTIONS):
            paths = [1]  # one way through it, plus one for each branch found below
            owners.append((node, paths))
        elif isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, BRANCHES):
            paths[0] += 1
        elif isinstance(node, ast.BoolOp):
            paths[0] += len(node.values) - 1
        todo.extend((child, paths) for child in ast.iter_child_nodes(node))
    functions = [
        Function(f"{module}:{node.lineno}", node.name, (node.end_lineno or node.lineno) - node.lineno + 1, paths[0])
        for node, paths in owners
    ]
    return functions, classes


class Answer(NamedTuple):
    """What a query found, and how long it had to wait before it could begin."""

    waited: float
    line: int | None


def look_up(module: str, name: str, asked_at: float) -> Answer:
    """Say in which line a module defines a name."""
    waited = time.monotonic() - asked_at
    path = STDLIB / module
    source = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(rf"^\s*(?:class|def) {name}\b", source, re.MULTILINE)
    return Answer(waited, source.count("\n", 0, found.start()) + 1 if found else None)


# ---- what runs in the program ----


class Index:
    """Collects the reports. Its methods are the pool's callbacks: they run one at a time, on the pool's own thread."""

    def __init__(self, pool: GroupedPool, files: int, processors: int) -> None:
        self.pool = pool
        self.files = files
        self.reports: list[Report] = []
        self.failures: list[BaseException] = []
        self.peak_burst: dict[Hashable, int] = {}
        self.plan = {
            files // 4: ("processors", 1),  # its other slots become general: whoever needs them may have them
            files // 2: ("webserver", 2),
            files * 3 // 4: ("processors", processors),  # and back
        }

    @property
    def finished(self) -> int:
        return len(self.reports) + len(self.failures)

    def take_report(self, report: Report) -> None:
        self.reports.append(report)
        self.step()

    def take_failure(self, error: BaseException) -> None:
        self.failures.append(error)
        if isinstance(error, WorkerCrashed):
            print(f"{self.finished:5} of {self.files} files: a worker died of {error.signal}; the others carry on")
        self.step()

    def step(self) -> None:
        """Note how far each group is past its reserve, and resize when the plan says so."""
        for tag, group in self.pool.stats().groups.items():
            self.peak_burst[tag] = max(self.peak_burst.get(tag, 0), group.burst)
        if self.finished in self.plan:
            tag, slots = self.plan.pop(self.finished)
            self.pool.adjust(tag, slots, use_general_slots=True)
            print(f"{self.finished:5} of {self.files} files: {tag} set to {slots}, now {named(self.pool.get_tags())}")


class Clerk:
    """Asks queries, and remembers what was asked of whom."""

    def __init__(self, pool: GroupedPool) -> None:
        self.pool = pool
        self.asked: dict[Hashable, list[Future[Answer]]] = {"webserver": [], "processors": []}

    def ask(self) -> None:
        number = len(self.asked["webserver"])
        self.send("webserver", number)
        if number % COMPARE_EVERY == 0:
            self.send("processors", number)

    def send(self, tag: str, number: int) -> None:
        module, name = QUESTIONS[number % len(QUESTIONS)]
        self.asked[tag].append(self.pool.group(tag).submit(look_up, module, name, time.monotonic()))

    def waits(self, tag: str) -> list[float]:
        return [future.result().waited for future in self.asked[tag]]


def sources(limit: int | None) -> list[Path]:
    """List the standard library's files; with a limit, so many of them, evenly spread."""
    files = sorted(path for path in STDLIB.rglob("*.py") if "site-packages" not in path.parts)
    if limit is None or limit >= len(files):
        return files
    return [files[number * len(files) // limit] for number in range(limit)]


def drawn(files: Sequence[Path], victim: Path) -> Iterator[Item]:
    """Stamp each file at the moment the pool draws it: the pool takes from here only as slots free up."""
    for path in files:
        yield Item(path, time.monotonic(), doomed=path == victim)


def named(tags: dict[Hashable, int]) -> str:
    return ", ".join(f"{name_of(tag)}: {slots}" for tag, slots in tags.items())


def name_of(tag: Hashable) -> str:
    return "general" if tag is None else str(tag)


def percentile(values: Sequence[float], percent: int) -> str:
    """Return a percentile in milliseconds, ready to print."""
    if not values:
        return "-"
    ranked = sorted(values)
    return f"{ranked[min(len(ranked) - 1, len(ranked) * percent // 100)] * 1000:.1f}"


def print_row(*cells: object) -> None:
    first, *others = cells
    print(f"{first!s:<34}" + "".join(f"{cell!s:>10}" for cell in others))


def waits_of(values: Sequence[float]) -> list[str]:
    return [percentile(values, percent) for percent in (50, 90, 99)]


def print_groups(pool: GroupedPool, index: Index, clerk: Clerk) -> None:
    stats = pool.stats()
    compared = clerk.waits("processors")
    waits = {
        "webserver": clerk.waits("webserver"),
        "processors": [report.waited for report in index.reports],
    }
    print_row("", "", "", "", "peak", "waited,", "in ms", "")
    print_row("group", "slots", "tasks", "failed", "burst", "p50", "p90", "p99")
    for tag, group in stats.groups.items():
        tasks = group.done + group.failed + group.lost
        row = (name_of(tag), group.slots, tasks, group.failed + group.lost, index.peak_burst.get(tag, 0))
        print_row(*row, *waits_of(waits.get(str(tag), [])))
    print_row("  queries asked of webserver", "", len(waits["webserver"]), "", "", *waits_of(waits["webserver"]))
    print_row("  the same, asked of processors", "", len(compared), "", "", *waits_of(compared))


def print_failures(failures: Sequence[BaseException]) -> None:
    print(f"what failed: {len(failures)}")
    for error in failures:
        print(f"  {type(error).__name__}: {explain(error)}")


def explain(error: BaseException) -> str:
    if isinstance(error, WorkerCrashed):
        return f"{error} (worker {error.pid})"
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(STDLIB):
        return f"{Path(error.filename).relative_to(STDLIB)}: {error.msg}"
    return str(error)


def print_findings(reports: Sequence[Report]) -> None:
    functions = sum(report.functions for report in reports)
    classes = sum(report.classes for report in reports)
    lines = sum(report.lines for report in reports)
    print(f"found: {functions:,} functions and {classes:,} classes in {lines:,} lines")
    longest = nlargest(5, (f for report in reports for f in report.longest), key=lambda function: function.lines)
    knottiest = nlargest(5, (f for report in reports for f in report.knottiest), key=lambda f: f.complexity)
    print("the longest functions:")
    for function in longest:
        print(f"  {function.lines:6,} lines  {function.name}  ({function.where})")
    print("the functions with the most ways through them:")
    for function in knottiest:
        print(f"  {function.complexity:6,} ways   {function.name}  ({function.where})")


def main() -> None:
    parser = argparse.ArgumentParser(description="Index the standard library in a pool of worker processes.")
    parser.add_argument("--limit", type=int, help="parse only so many files")
    parser.add_argument("--processors", type=int, default=2, help="slots reserved for parsing (default 2)")
    chosen = parser.parse_args()

    files = sources(chosen.limit)
    victim = files[len(files) // 3]
    tags = {"webserver": 1, "processors": chosen.processors, None: 2}
    print(f"Python {sys.version.split()[0]}: {len(files)} files under {STDLIB}")
    print(f"slots: {named(tags)}")

    # Old sources hold escapes that the compiler would grumble about on standard error.
    began = time.monotonic()
    with GroupedPool(tags=tags, initializer=lambda: warnings.simplefilter("ignore")) as pool:
        index = Index(pool, len(files), chosen.processors)
        clerk = Clerk(pool)
        feed = pool.ingest(
            drawn(files, victim), "processors", index_file, callback=index.take_report, error=index.take_failure
        )
        while feed.is_alive():
            clerk.ask()
            time.sleep(QUERY_EVERY)
        pool.join()
        took = time.monotonic() - began

        print(f"done: {index.finished} of {len(files)} files in {took:.1f} s, {index.finished / took:.0f} files/s\n")
        print_groups(pool, index, clerk)
    print()
    print_failures(index.failures)
    print()
    print_findings(index.reports)


main()
