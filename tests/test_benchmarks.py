"""Every workload's smallest form runs, and what it gives can be written, read and printed. No figure is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measure import Mark, Metric, Results, Rows, Workload, report
from benchmarks.record import Run, read, write
from benchmarks.report import page
from benchmarks.run import measured
from benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_smallest_form_gives_what_is_announced(workload: Workload) -> None:
    if workload.needs:
        pytest.importorskip(workload.needs)
    rows = workload.run(workload.contenders[0], True)
    assert rows
    for figures in rows.values():
        assert figures.keys() <= {metric.name for metric in workload.metrics}


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_marks_speak_of_metrics_there_are(workload: Workload) -> None:
    names = {metric.name for metric in workload.metrics}
    assert {mark.metric for mark in workload.marks} <= names


def test_workload_without_what_it_needs_is_skipped_by_name() -> None:
    workload = Workload("any", "anything", ("gpool",), (Metric("s"),), lambda _, __: {}, needs="no_such")
    results = measured(workload, 1, quick=True)
    assert "skipped: no_such (not installed)" in report(results)
    assert "not installed: no_such" in "\n".join(page(Run("", "", "", 1, quick=True), [results], ""))


def with_rounds(*rounds: Rows) -> Results:
    return Results(Workload("any", "", (), (Metric("s"), Metric("x/s")), lambda _, __: {}), list(rounds))


def test_best_of_several_is_chosen_within_each_round() -> None:
    results = with_rounds(
        {"gpool": {"s": 1.0}, "a": {"s": 2.0}, "b": {"s": 4.0}},
        {"gpool": {"s": 1.0}, "a": {"s": 9.0}, "b": {"s": 2.0}},
        {"gpool": {"s": 5.0}, "a": {"s": 1.0}},
    )
    assert results.judge(Mark("s", over=("a", "b"), most=1)) == 0.5
    assert results.judge(Mark("s", over=("a", "b"), least=1)) == 0.25
    assert results.judge(Mark("s", over=("c",), most=1)) is None


def test_page_is_made_of_what_was_written(tmp_path: Path) -> None:
    workload = WORKLOADS["submit"]
    rounds: list[Rows] = [{"gpool": {"tasks/s": speed}, "PPE": {"tasks/s": 4321.0}} for speed in (1.0, 12345.0, 2e9)]
    run = Run("a machine", "a command", "2000-01-01", 3, quick=False)
    path = tmp_path / "results.json"
    write(path, run, [Results(workload, rounds, ["loky, round 1: exit code 1"], ["pebble"])])
    again, everything = read(path)
    assert again == run
    text = "\n".join(page(again, everything, path.name))
    for piece in ("a machine", "a command", "12,345", "2.86 – MISSED", "loky, round 1", "not installed: pebble"):
        assert piece in text


def test_the_page_in_the_docs_is_what_its_figures_give() -> None:
    docs = Path(__file__).parent.parent / "docs"
    assert "\n".join(page(*read(docs / "performance.json"), "docs/performance.json")) + "\n" == (
        docs / "performance.md"
    ).read_text(encoding="utf-8")
