"""What a benchmark is made of, and how its numbers are gathered and shown.

Owns the nouns (metric, mark, workload), the statistics over rounds, and the printed tables. Measures nothing
itself: a workload's ``run`` does, once per contender and round, in a process of its own.

Rounds are interleaved (A B C A B C …), so a ratio is taken within each round, where both sides met the same
machine, and its median over the rounds is what is printed and held against the marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import NamedTuple

Rows = dict[str, dict[str, float]]
"""What one round of one contender gives: row → metric → value."""


@dataclass(frozen=True)
class Metric:
    """One column.

    Attributes:
        name, digits: its heading, and how many decimals are shown.
        ratio: whether a column "subject ÷ peer" stands beside it.
        plot: whether there is a picture of it.
        rising: more is better.
    """

    name: str
    digits: int = 0
    ratio: bool = True
    plot: bool = True
    rising: bool = False


@dataclass(frozen=True)
class Mark:
    """A bound on one row's metric, or on its ratio to the row ``over``, or to the best of several.

    ``why`` is the known reason for which it is missed, if it is: for the page, beside the figure.
    """

    metric: str
    of: str = "gpool"
    over: str | tuple[str, ...] | None = None
    least: float | None = None
    most: float | None = None
    why: str = ""

    def __str__(self) -> str:
        over = "the best" if isinstance(self.over, tuple) else self.over
        of = f"{self.metric} of [{self.of}]" + (f" ÷ [{over}]" if over else "")
        return f"{of} ≥ {self.least:,g}" if self.least is not None else f"{of} ≤ {self.most or 0:,g}"

    def best(self, values: Iterable[float]) -> float:
        """The hardest to compare with: where more is asked for the largest, else the smallest."""
        return max(values) if self.least is not None else min(values)

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
        needs: a package without which nobody can run it.
        together: its contenders do not disturb each other, so those of a round run at the same time.
    """

    name: str
    about: str
    contenders: tuple[str, ...]
    metrics: tuple[Metric, ...]
    run: Callable[[str, bool], Rows]
    subject: str = "gpool"
    marks: tuple[Mark, ...] = ()
    seconds: float = 180.0
    needs: str | None = None
    together: bool = False


class Spread(NamedTuple):
    """One metric of one row over the rounds."""

    median: float
    least: float
    most: float


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
        elif isinstance(mark.over, str):
            values = self.ratios(mark.of, mark.over, mark.metric)
        else:
            values = list(self._over_best(mark, mark.over))
        return median(values) if values else None

    def _over_best(self, mark: Mark, others: tuple[str, ...]) -> Iterator[float]:
        """Round by round, the ratio to whoever was the best of the others in that round."""
        for each in self.rounds:
            against = [each[row][mark.metric] for row in others if each.get(row, {}).get(mark.metric)]
            if against and mark.metric in each.get(mark.of, {}):
                yield each[mark.of][mark.metric] / mark.best(against)

    def spread(self, row: str, metric: str) -> Spread | None:
        """What is shown of a metric's values over the rounds."""
        values = self.values(row, metric)
        return Spread(median(values), min(values), max(values)) if values else None


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
    lines += _aligned(table(results))
    lines += [""] if workload.marks else []
    lines += [f"  mark {mark}: {verdict(results, mark)}" for mark in workload.marks]
    lines += [f"  failed: {each}" for each in results.failures]
    if results.skipped:
        lines.append(f"  skipped: {', '.join(results.skipped)} (not installed)")
    return "\n".join(lines) + "\n"


def table(results: Results) -> list[list[str]]:
    """A heading and a line per row, as text."""
    return [_heading(results.workload), *(_line(results, row) for row in results.rows())]


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
        spread = results.spread(row, metric.name)
        digits = metric.digits
        cells.append(f"{spread.median:,.{digits}f}" if spread else "–")
        cells.append(f"{spread.least:,.{digits}f}–{spread.most:,.{digits}f}" if spread else "–")
        if metric.ratio:
            subject = results.workload.subject
            ratios = results.ratios(subject, row, metric.name) if row != subject else []
            cells.append(f"{median(ratios):.2f}" if ratios else "")
    return cells


def verdict(results: Results, mark: Mark) -> str:
    """The figure that a mark is held against, and whether it holds."""
    value = results.judge(mark)
    if value is None:
        return "not measured"
    met, digits = mark.holds(value), 0 if abs(value) >= 1000 else 2
    while mark.holds(round(value, digits)) is not met:  # so close that it would not be seen
        digits += 1
    return f"{value:,.{digits}f} – {'met' if met else 'MISSED'}"


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    ]
