"""The results as pictures: ``python benchmarks/plots.py RESULTS.json FOLDER [--format svg|png]``.

One file per workload; in it one panel per metric; in that a bar per row, from the median of the rounds, with a line
from the least to the most. Where the rows lie far apart the scale is logarithmic. Ink is a middle grey on no
background, so the same picture can be read on a light page and on a dark one; gpool has the only colour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.measure import Metric, Results, Spread

INK, FAINT, OURS, THEIRS = "#7a7a7a", "#7a7a7a40", "#35a597", "#b4b4b4"
FAR_APART = 20
"""Medians whose quotient is larger share no linear scale."""
INCHES_WIDE, INCHES_PER_BAR, INCHES_PER_PANEL = 8.0, 0.24, 0.75
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gpool",  # the same results give the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}


def main() -> int:
    from benchmarks.record import read

    parser = argparse.ArgumentParser(description="Draw what benchmarks/run.py has measured.")
    parser.add_argument("results", type=Path, metavar="RESULTS.json", help="what run.py --json has written")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to")
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    options = parser.parse_args()
    draw(read(options.results)[1], options.folder, options.format)
    return 0


def draw(everything: Iterable[Results], folder: Path, suffix: str = "svg") -> None:
    """A picture of each workload into the folder."""
    import matplotlib as mpl

    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    for results in everything:
        if panels := drawable(results):
            with mpl.rc_context(STYLE):  # type: ignore[arg-type]
                picture(results, panels, folder / f"{results.workload.name}.{suffix}")


def drawable(results: Results) -> list[tuple[Metric, dict[str, Spread]]]:
    """The metrics to be drawn, each with the rows that have it."""
    found = []
    for metric in results.workload.metrics:
        spreads = {row: spread for row in results.rows() if (spread := results.spread(row, metric.name))}
        if metric.plot and spreads:
            found.append((metric, spreads))
    return found


def picture(results: Results, panels: list[tuple[Metric, dict[str, Spread]]], path: Path) -> None:
    from matplotlib.figure import Figure

    heights = [INCHES_PER_PANEL + INCHES_PER_BAR * len(spreads) for _, spreads in panels]
    figure = Figure(figsize=(INCHES_WIDE, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (metric, spreads) in zip(axes, panels, strict=True):
        panel(axis, results.workload.name, metric, spreads)
    stamp = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, transparent=True, dpi=150, metadata=stamp)


def panel(axis: Any, name: str, metric: Metric, spreads: dict[str, Spread]) -> None:
    rows = list(spreads)
    medians = [spreads[row].median for row in rows]
    colours = [OURS if ours(row) else THEIRS for row in rows]
    axis.barh(rows, medians, color=colours, height=0.62)
    for place, row in enumerate(rows):
        each = spreads[row]
        axis.plot([each.least, each.most], [place, place], color=INK, linewidth=1, marker="|", markersize=5)
        text = f"{each.median:,.{metric.digits}f}"
        axis.annotate(text, (max(each.most, 0), place), (6, 0), textcoords="offset points", va="center", fontsize=8)
    lowest = min(each.least for each in spreads.values())
    highest = max(each.most for each in spreads.values())
    logarithmic = min(medians) > 0 and lowest > 0 and max(medians) / min(medians) > FAR_APART
    if logarithmic:
        axis.set_xscale("log")
        axis.set_xlim(lowest / 2, highest * (highest / lowest) ** 0.15)  # room for the figures
    else:
        axis.set_xlim(min(0.0, lowest), highest * 1.15 or 1.0)
    axis.invert_yaxis()
    axis.grid(axis="x", color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    scale = ", logarithmic" if logarithmic else ""
    axis.set_title(
        f"{name}: {metric.name} ({'more' if metric.rising else 'less'} is better{scale})", loc="left", fontsize=9
    )


def ours(row: str) -> bool:
    """False for peers and for what is measured beside them as a floor."""
    from benchmarks.pools import PEERS

    return row.split(",", maxsplit=1)[0] not in PEERS and not row.startswith(("bare ", "cloudpickle"))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout: gpool and benchmarks
    raise SystemExit(main())
