"""The same fault given to gpool and its peers: ``python benchmarks/faults.py [--markdown] [NAMES...]``.

Each fault meets each pool in a fresh process, with innocent tasks around it, and what was observed is printed: what
the faulty task's future got, what became of the innocent tasks, and whether the pool can be used afterwards. Nothing
is known in advance: the words are made from what was observed, and by the same code for every pool. What has not
happened when nothing has moved for five seconds is said to hang, or never to end; a measuring process that hangs as
a whole is ended, and what it was doing is printed.

Several pools are under observation at a time, as most of it is waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

    from benchmarks.breakage.fault import Fault

PROBE = Path(__file__).resolve().parent / "breakage" / "probe.py"

Cells = dict[tuple[str, str], str]
"""What was observed, by fault and pool."""


def main() -> int:
    from benchmarks.breakage.faults import FAULTS
    from benchmarks.breakage.subjects import SUBJECTS, installed

    options = arguments([*FAULTS, *SUBJECTS])
    faults = [name for name in FAULTS if name in options.names] or list(FAULTS)
    wanted = [name for name in SUBJECTS if name in options.names] or list(SUBJECTS)
    pools = [name for name in wanted if installed(name)]
    with ThreadPoolExecutor(options.jobs) as threads:
        pairs = sorted(product(faults, pools), key=lambda pair: -FAULTS[pair[0]].seconds)  # what may take long first
        observed = threads.map(lambda pair: observation(FAULTS[pair[0]], pair[1]), pairs)
        cells: Cells = dict(zip(pairs, progress(observed, len(pairs)), strict=True))
    show = markdown if options.markdown else plain
    print("\n".join(show(faults, pools, cells)))
    if skipped := [SUBJECTS[name].title for name in wanted if name not in pools]:
        print(f"\nskipped: {', '.join(skipped)} (not installed)")
    return 0


def arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Give the same faults to gpool and its peers.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", choices=[*names, []], help=f"faults, pools: {', '.join(names)}"
    )
    parser.add_argument("--markdown", action="store_true", help="print a table for a document")
    parser.add_argument("--jobs", type=int, default=4, help="how many pools are observed at a time (default: 4)")
    return parser.parse_args()


def progress(observed: Iterator[str], total: int) -> Iterator[str]:
    """One line that writes over itself, for who watches."""
    watched = sys.stderr.isatty()
    for number, each in enumerate(observed, 1):
        if watched:
            print(f"\r\033[K{number}/{total}", end="", file=sys.stderr, flush=True)
        yield each
    if watched:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


# -- observing ----------------------------------------------------------------------------------------------------


def observation(fault: Fault, pool: str) -> str:
    """Have one fault brought about for one pool, in a session that is ended afterwards; what was observed."""
    command = [sys.executable, str(PROBE), fault.name, pool]
    with TemporaryDirectory() as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, str(out)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            code: int | None = process.wait(fault.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_session(process)
        return in_words(code, out, errors)


def in_words(code: int | None, out: Path, errors: Path) -> str:
    """The phrases that the measuring process has left behind, and how it ended if not as it should."""
    left: dict[str, Any] = {"phrases": [], "doing": "starting"}
    if out.exists():
        left = json.loads(out.read_text(encoding="utf-8"))
    phrases: list[str] = left["phrases"]
    if code is None:
        phrases.append(f"hangs while {left['doing']}")
    elif code != 0:
        said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        phrases.append(f"the program ends with exit code {code} while {left['doing']}: {said[-1] if said else ''}")
    return "; ".join(phrases).replace(":;", ":")


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End whatever has been left behind, in whichever process group. Forked meanwhile: so again until none is left."""
    import psutil

    process.kill()
    process.wait()
    while left := [each for each in psutil.process_iter() if session_of(each.pid) == process.pid and is_up(each)]:
        for each in left:
            each.kill()
        psutil.wait_procs(left, timeout=1)


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def is_up(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# -- printing -----------------------------------------------------------------------------------------------------


def plain(faults: Sequence[str], pools: Sequence[str], cells: Cells) -> Iterator[str]:
    """For a terminal: a paragraph per fault."""
    from benchmarks.breakage.faults import FAULTS
    from benchmarks.breakage.subjects import SUBJECTS

    width = max(len(SUBJECTS[pool].title) for pool in pools) + 4
    for name in faults:
        yield f"{name}: {FAULTS[name].title}"
        for pool in pools:
            label = f"  {SUBJECTS[pool].title}".ljust(width)
            yield fill(cells[name, pool], 118, initial_indent=label, subsequent_indent=" " * width)
        yield ""


def markdown(faults: Sequence[str], pools: Sequence[str], cells: Cells) -> Iterator[str]:
    """For a document: one table."""
    from benchmarks.breakage.faults import FAULTS
    from benchmarks.breakage.subjects import SUBJECTS

    yield f"| fault | {' | '.join(SUBJECTS[pool].title for pool in pools)} |"
    yield "|---" * (len(pools) + 1) + "|"
    for name in faults:
        yield f"| {FAULTS[name].title} | {' | '.join(cells[name, pool] for pool in pools)} |"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout: gpool and benchmarks
    raise SystemExit(main())
