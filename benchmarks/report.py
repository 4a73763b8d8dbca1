"""A run as a page: ``python benchmarks/report.py RESULTS.json > docs/performance.md``.

All figures are from the file; the words around them are here, and the reasons for missed marks with the marks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measure import Results
    from benchmarks.record import Run

TOP = """\
# Performance

gpool measured beside `concurrent.futures.ProcessPoolExecutor` (PPE), `multiprocessing.Pool` (Pool), loky, Pebble,
MPIRE and joblib, in one run. Every round of every contender is a fresh process, and rounds are interleaved, so all of
them met the same machine. What is shown are medians of the rounds, with the least and the most beside them; "gpool ÷"
is gpool's figure divided by the peer's, taken within a round. All use forkserver and two slots unless it says
otherwise, except loky and joblib, which have a start method of their own.

A *mark* is a figure that gpool is meant to reach. Those that it misses are listed like those that it meets.
This page is printed by a program from what was measured; see the end.
"""

END = """\
## Again

On a machine with nothing else to do:

```sh
.venv/bin/pip install '.[bench]'
{command}
python benchmarks/plots.py {results} docs/plots
python benchmarks/report.py {results} > docs/performance.md
```

Names of workloads after `run.py` restrict it to those. Peers that are not installed are skipped by name.
"""


def main() -> int:
    from benchmarks.record import read

    parser = argparse.ArgumentParser(description="Print a page about what benchmarks/run.py has measured.")
    parser.add_argument("results", type=Path, metavar="RESULTS.json", help="what run.py --json has written")
    options = parser.parse_args()
    run, everything = read(options.results)
    print("\n".join(page(run, everything, str(options.results))))
    return 0


def page(run: Run, everything: list[Results], file: str) -> Iterator[str]:
    yield TOP
    if run.quick:
        yield "**The sizes of this run were small: its figures show that everything runs, not how fast.**\n"
    yield f"- {run.machine}"
    yield f"- {run.date}, {run.rounds} round{'s' * (run.rounds != 1)}: `{run.command}`\n"
    yield from marks(everything)
    for results in everything:
        yield from section(results)
    yield END.format(command=run.command, results=file).rstrip()


def marks(everything: Iterable[Results]) -> Iterator[str]:
    from benchmarks.measure import verdict

    yield "## The marks\n"
    yield from markdown(
        [
            ["workload", "mark", "measured"],
            *(
                [f"[{each.workload.name}](#{each.workload.name})", str(mark), verdict(each, mark)]
                for each in everything
                for mark in each.workload.marks
            ),
        ],
        words=2,
    )
    yield ""


def section(results: Results) -> Iterator[str]:
    """One workload: what it is, its picture, its table, what was missed and why, what went wrong."""
    from benchmarks.measure import table

    workload = results.workload
    yield f"## {workload.name}\n"
    yield f"{workload.about[0].upper()}{workload.about[1:]}.\n"
    if any(metric.plot for metric in workload.metrics):
        yield f"![{workload.name}](plots/{workload.name}.svg)\n"
    yield from markdown(table(results))
    yield ""
    notes = [*missed(results), *(f"Failed: {each}." for each in results.failures)]
    if results.skipped:
        notes.append(f"Skipped, as not installed: {', '.join(results.skipped)}.")
    if notes := [f"- {note}" for note in notes]:
        yield "\n".join(notes) + "\n"


def missed(results: Results) -> Iterator[str]:
    """A line on the marks that were not reached for the same reason."""
    from benchmarks.measure import verdict

    by_reason: dict[str, list[str]] = {}
    for mark in results.workload.marks:
        value = results.judge(mark)
        if value is None or not mark.holds(value):
            by_reason.setdefault(mark.why, []).append(f"{mark}: {verdict(results, mark)}")
    for why, marks in by_reason.items():
        yield f"{'; '.join(marks)}{f'. {why}' if why else ''}"


def markdown(rows: list[list[str]], words: int = 1) -> Iterator[str]:
    """A table whose first ``words`` columns are no figures."""
    heading, *lines = rows
    yield f"| {' | '.join(heading)} |"
    yield f"|{' --- |' * words}{' ---: |' * (len(heading) - words)}"
    for line in lines:
        yield f"| {' | '.join(line)} |"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout: gpool and benchmarks
    raise SystemExit(main())
