"""What a benchmark is made of, and how its numbers are gathered and shown.

Owns the nouns (metric, mark, workload), the statistics over rounds, and the printed tables. Measures nothing
itself: a workload's ``run`` does, once per contender and round, in a process of its own.

Rounds are interleaved (A B C A B C …), so a ratio is taken within each round, where both sides met the same
machine, and its median over the rounds is what is printed and held against the marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median

Rows = dict[str, dict[str, float]]
"""What one round of one contender gives: row → metric → value."""


@dataclass(frozen=True)
class Metric:
    """One column. ``ratio`` asks for a column "subject ÷ peer" beside it."""

    name: str
    digits: int = 0
    ratio: bool = True


@dataclass(frozen=True)
class Mark:
    """A bound on one row's metric, or on its ratio to the row ``over``."""

    metric: str
    of: str = "gpool"
    over: str | None = None
    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        of = f"{self.metric} of [{self.of}]" + (f" ÷ [{self.over}]" if self.over else "")
        return f"{of} ≥ {self.least:,g}" if self.least is not None else f"{of} ≤ {self.most or 0:,g}"

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


@dataclass(frozen=True)
class Workload:
    """One benchmark.

    Attributes:
        name: what the command line calls it.
        about: one line above its table.
        contenders: who runs it, in the order of a round; those not installed are skipped.
        metrics: the columns.
        run: one round of one contender; ``quick`` asks for a short one.
        subject: the row that the others are compared with.
        marks: what is to be reached.
        seconds: after which a round of one contender counts as hung.
    """

    name: str
    about: str
    contenders: tuple[str, ...]
    metrics: tuple[Metric, ...]
    run: Callable[[str, bool], Rows]
    subject: str = "gpool"
    marks: tuple[Mark, ...] = ()
    seconds: float = 180.0


@dataclass
class Results:
    """All rounds of one workload."""

    workload: Workload
    rounds: list[Rows] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def rows(self) -> list[str]:
        """The rows' names, in the order in which they first came."""
        return list(dict.fromkeys(row for each in self.rounds for row in each))

    def values(self, row: str, metric: str) -> list[float]:
        return [each[row][metric] for each in self.rounds if metric in each.get(row, {})]

    def ratios(self, row: str, over: str, metric: str) -> list[float]:
        """Round by round, where both have a value."""
        both = [each for each in self.rounds if metric in each.get(row, {}) and metric in each.get(over, {})]
        return [each[row][metric] / each[over][metric] for each in both if each[over][metric]]

    def judge(self, mark: Mark) -> float | None:
        """The number that a mark is held against, or None when nothing was measured."""
        if mark.over is None:
            values = self.values(mark.of, mark.metric)
        else:
            values = self.ratios(mark.of, mark.over, mark.metric)
        return median(values) if values else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` % of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def micros(seconds: Iterable[float]) -> dict[str, float]:
    """The two percentiles that describe a delay, in µs."""
    values = [1e6 * each for each in seconds]
    return {"p50 µs": percentile(values, 50), "p99 µs": percentile(values, 99)}


def report(results: Results) -> str:
    """One workload's table, its marks, and what went wrong."""
    workload = results.workload
    lines = [f"{workload.name}: {workload.about}", ""]
    lines += _aligned([_heading(workload), *(_line(results, row) for row in results.rows())])
    lines += [""] if workload.marks else []
    lines += [_verdict(results, mark) for mark in workload.marks]
    lines += [f"  failed: {each}" for each in results.failures]
    if results.skipped:
        lines.append(f"  skipped: {', '.join(results.skipped)} (not installed)")
    return "\n".join(lines) + "\n"


def _heading(workload: Workload) -> list[str]:
    cells = [""]
    for metric in workload.metrics:
        cells += [metric.name, "min–max"]
        if metric.ratio:
            cells.append(f"{workload.subject} ÷")
    return cells


def _line(results: Results, row: str) -> list[str]:
    cells = [row]
    for metric in results.workload.metrics:
        values = results.values(row, metric.name)
        digits = metric.digits
        cells.append(f"{median(values):,.{digits}f}" if values else "–")
        cells.append(f"{min(values):,.{digits}f}–{max(values):,.{digits}f}" if values else "–")
        if metric.ratio:
            subject = results.workload.subject
            ratios = results.ratios(subject, row, metric.name) if row != subject else []
            cells.append(f"{median(ratios):.2f}" if ratios else "")
    return cells


def _verdict(results: Results, mark: Mark) -> str:
    value = results.judge(mark)
    if value is None:
        return f"  mark {mark}: not measured"
    return f"  mark {mark}: {value:,.2f} – {'met' if mark.holds(value) else 'MISSED'}"


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    ]
