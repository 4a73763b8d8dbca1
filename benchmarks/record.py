"""A run as a file: every value of every round, with medians and spreads for machines and the machine they are from.

What is read back are the values; tables, ratios and verdicts are made of them anew, by the same code as in a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import Mark, Results


@dataclass(frozen=True)
class Run:
    """Where, when and how something was measured.

    Attributes:
        machine: processor, system, versions, and the load before the first round.
        command: as typed in the repository's folder.
        date: of the beginning, ISO.
        rounds: of each workload.
        quick: True if the sizes were small, so that the figures mean nothing.
    """

    machine: str
    command: str
    date: str
    rounds: int
    quick: bool


def write(path: Path, run: Run, everything: Iterable[Results]) -> None:
    whole = {**asdict(run), "workloads": {each.workload.name: _as_json(each) for each in everything}}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[Run, list[Results]]:
    """The run, and its results in the order in which they are listed now."""
    from benchmarks.workloads import WORKLOADS

    whole = json.loads(path.read_text(encoding="utf-8"))
    found = whole.pop("workloads")
    return Run(**whole), [
        Results(workload, found[name]["rounds"], found[name]["failures"], found[name]["skipped"])
        for name, workload in WORKLOADS.items()
        if name in found
    ]


def _as_json(results: Results) -> dict[str, object]:
    return {
        "about": results.workload.about,
        "medians": {row: _spreads(results, row) for row in results.rows()},
        "marks": {str(mark): _judged(results, mark) for mark in results.workload.marks},
        "failures": results.failures,
        "skipped": results.skipped,
        "rounds": results.rounds,
    }


def _spreads(results: Results, row: str) -> dict[str, dict[str, float]]:
    """Median, least and most of each metric that a row has."""
    found = {metric.name: results.spread(row, metric.name) for metric in results.workload.metrics}
    return {name: spread._asdict() for name, spread in found.items() if spread}


def _judged(results: Results, mark: Mark) -> dict[str, object]:
    value = results.judge(mark)
    return {"value": value, "met": None if value is None else mark.holds(value)}
