"""Measure gpool and its peers side by side: ``python benchmarks/run.py [--json FILE] [--rounds N] [NAMES...]``.

Every round of every contender is a fresh process, so nobody inherits another's heap, threads or warm caches,
and one that crashes or hangs is reported while the others go on.

What ``--json`` wrote, ``report.py`` makes a page of, and ``plots.py`` (or ``--plots`` here) pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measure import Results, Rows, Workload

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A contender gave no result; the text says why."""


def main() -> int:
    from benchmarks.measure import report
    from benchmarks.record import Run, write
    from benchmarks.workloads import WORKLOADS

    options = arguments(list(WORKLOADS))
    rounds = options.rounds or (1 if options.quick else 5)
    if options.plots and not find_spec("matplotlib"):
        raise SystemExit("--plots needs matplotlib, which is not installed: pip install '.[bench]'")
    began = monotonic()
    run = Run(machine(), command(), datetime.now(UTC).date().isoformat(), rounds, options.quick)
    print(run.machine, flush=True)
    print(
        f"rounds: {rounds}, {'quick' if options.quick else 'full'}; medians, ratios taken within a round\n", flush=True
    )
    everything: list[Results] = []
    for name in options.names or WORKLOADS:
        everything.append(measured(WORKLOADS[name], rounds, options.quick))
        print(report(everything[-1]), flush=True)
        if options.json:  # after each workload, for a run is long
            write(options.json, run, everything)
    print(f"all in {monotonic() - began:.0f} s")
    if options.plots:
        from benchmarks.plots import draw

        draw(everything, options.plots / "plots")
    return 0


def arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure gpool and its peers side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*names, []], help=f"any of: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="rounds of each workload (default: 5, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single value here")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the results into FOLDER/plots")
    return parser.parse_args()


def measured(workload: Workload, rounds: int, quick: bool) -> Results:
    """All rounds of a workload, interleaved."""
    from benchmarks.measure import Results
    from benchmarks.pools import installed

    if workload.needs and not find_spec(workload.needs):
        return Results(workload, skipped=[workload.needs])
    results = Results(workload, skipped=[each for each in workload.contenders if not installed(each)])
    present = [each for each in workload.contenders if each not in results.skipped]
    with ThreadPoolExecutor(len(present) if workload.together else 1) as threads:
        for number in range(1, rounds + 1):

            def attempt(contender: str, number: int = number) -> Rows | Failed:
                progress(f"{workload.name} {number}/{rounds} {contender}")
                try:
                    return one_round(workload, contender, quick)
                except Failed as failure:
                    return failure

            rows: Rows = {}
            for contender, outcome in zip(present, threads.map(attempt, present), strict=True):
                if isinstance(outcome, Failed):
                    results.failures.append(f"{contender}, round {number}: {outcome}")
                else:
                    rows.update(outcome)
            results.rounds.append(rows)
    progress("")
    return results


def progress(text: str) -> None:
    """One line that writes over itself, for who watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def one_round(workload: Workload, contender: str, quick: bool) -> Rows:
    """Run it in a fresh process, in a session of its own, so that a hung one can be ended with its children."""
    with TemporaryDirectory() as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        line = [sys.executable, str(HERE / "one.py"), workload.name, contender, str(out)]
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                line + ["--quick"] * quick,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                code = process.wait(workload.seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                end_session(process)
        if code == 0:
            rows: Rows = json.loads(out.read_text(encoding="utf-8"))
            return rows
        said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        what = f"hung for {workload.seconds:g} s" if code is None else f"exit code {code}"
        raise Failed(f"{what}; {said[-1]}" if said else what)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Whatever the contender left behind would disturb those after it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def machine() -> str:
    cpu = next((line.split(":")[1].strip() for line in cpuinfo() if line.startswith("model name")), platform.machine())
    return (
        f"{cpu}, {len(os.sched_getaffinity(0))} cores; {platform.system()} {platform.release()}; "
        f"{platform.python_implementation()} {platform.python_version()}; {', '.join(versions())}; "
        f"load {os.getloadavg()[0]:.2f}"
    )


def cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def versions() -> list[str]:
    import gpool

    found = [f"gpool {gpool.__version__}"]
    for name in ("cloudpickle", "psutil", "loky", "pebble", "mpire", "joblib"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """This run's command line, as somebody in the repository's folder would type it."""
    return shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]])


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))  # the checkout: gpool and benchmarks
    raise SystemExit(main())
