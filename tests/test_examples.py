"""Every file in ``examples/`` runs as a reader would run it, and prints what it promises.

A new example is picked up by itself: it must end well and say nothing on standard error. What it must print goes
into a function below that is named after the file.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import gpool

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ARGUMENTS = {
    "endless_feed": ["--seconds", "1.2"],
    "index_sources": ["--limit", "80", "--processors", "2"],
    "mandelbrot": ["--width", "160", "--out", "picture.png"],
}
PATIENCE = 100  # seconds after which an example counts as hung


def run(example: Path, folder: Path) -> str:
    """Run an example in a folder of its own and return what it printed."""
    home = str(Path(gpool.__file__).parents[1])
    path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [sys.executable, str(example), *ARGUMENTS.get(example.stem, [])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    return ended.stdout


def found(pattern: str, output: str) -> re.Match[str]:
    """Return the match of a pattern that must be somewhere in the output."""
    match = re.search(pattern, output, re.MULTILINE)
    assert match, f"no {pattern!r} in:\n{output}"
    return match


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_keeps_its_promises(example: Path, tmp_path: Path) -> None:
    output = run(example, tmp_path)
    assert output.strip()
    check = CHECKS.get(example.stem)
    if check:
        check(output, tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_explains_itself_and_needs_no_guard(example: Path) -> None:
    tree = ast.parse(example.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert ast.unparse(tree.body[-1]) == "main()"
    assert "__name__" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_every_check_belongs_to_an_example() -> None:
    stems = {path.stem for path in EXAMPLES}
    assert stems
    assert set(CHECKS) | set(ARGUMENTS) <= stems


def check_index_sources(output: str, folder: Path) -> None:
    found(r"^slots: webserver: 1, processors: 2, general: 2$", output)
    found(r"of 80 files: processors set to 1, now webserver: 1, processors: 1, general: 3$", output)
    found(r"of 80 files: webserver set to 2, now webserver: 2, processors: 1, general: 2$", output)
    found(r"of 80 files: processors set to 2, now webserver: 2, processors: 2, general: 1$", output)
    found(r"a worker died of SIGSEGV; the others carry on$", output)
    found(r"^done: 80 of 80 files in ", output)
    slots, tasks, failed, burst = found(
        r"^processors +(\d+) +(\d+) +(\d+) +(\d+) +[\d.]+ +[\d.]+ +[\d.]+$", output
    ).groups()
    assert (slots, int(failed) >= 1, 1 <= int(burst) <= 3) == ("2", True, True)
    assert int(tasks) > 80, "the files, and the queries that were asked here for comparison"
    assert int(found(r"^webserver +2 +(\d+) +0 +\d+ +[\d.]+ +[\d.]+ +[\d.]+$", output)[1]) > 0
    assert int(found(r"^  the same, asked of processors +(\d+) +[\d.]+", output)[1]) > 0
    assert int(found(r"^what failed: (\d+)$", output)[1]) == int(failed)
    found(r"^  WorkerCrashed: .*SIGSEGV", output)
    totals = found(r"^found: ([\d,]+) functions and ([\d,]+) classes in ([\d,]+) lines$", output)
    assert all(number(total) > 50 for total in totals.groups())
    assert len(re.findall(r"^ +[\d,]+ lines  \w+  \(\S+\.py:\d+\)$", output, re.MULTILINE)) == 5
    assert len(re.findall(r"^ +[\d,]+ ways   \w+  \(\S+\.py:\d+\)$", output, re.MULTILINE)) == 5


def check_webserver_and_jobs(output: str, folder: Path) -> None:
    found(r"^30 requests by 3 visitors", output)
    found(r"^ +one queue +own tag +reserved$", output)
    for label in ("p50", "p90", "p99"):
        found(rf"^{label}(?: +[\d.]+ ms){{3}}$", output)
    number = r" +(\d+\.\d)"
    assert all(float(rate) > 0 for rate in found(rf"^jobs a second{number * 3}$", output).groups()[:2])


def check_resize_live(output: str, folder: Path) -> None:
    found(r"^at the start +web 1, batch 2, general 1 +", output)
    found(r"^batch grows to 4: returned at once +web 1, batch 4, general 1 +", output)
    found(r"^3 slots of batch become general +web 1, batch 1, general 4 +", output)
    found(r"^web takes 2 of them: batch drains out +web 3, batch 1, general 2 +", output)
    found(r"^refused: 47 slot\(s\) were to move out of the general group, which has 2;", output)
    found(r"^after the refusal +web 3, batch 1, general 2 +", output)
    drained = found(r"^web to 0, general to 1, waited for the drain +web 0, batch 1, general 1 +(\w+)$", output)
    assert len(drained[1]) == 2
    found(r"^at the end +web 0, batch 5, general 1 +", output)
    found(r"^100 of 100 tasks finished, each once: True$", output)


def check_iterate_results(output: str, folder: Path) -> None:
    results = found(r"^11 results as they finished: (.*)$", output)[1].split()
    squares = {n: n * n for n in (*range(8, 13), 14, 15)}
    fast = {f"fast:{square}" for square in squares.values()}
    assert set(results) == fast | {"slow:0", "slow:1", "slow:4", "put:10000"}
    found(r"^failures, not yielded: thirteen brings bad luck$", output)
    found(r"^map: +0\.5 0\.01 0\.02 0\.03$", output)
    unordered = found(r"^map_unordered: (.*)$", output)[1].split()
    assert sorted(unordered) == ["0.01", "0.02", "0.03", "0.5"]
    found(r"^ten squares of an endless input: 0 1 4 9 16 25 36 49 64 81$", output)
    found(r"^drawn ahead of the reader no more than 20: True$", output)
    assert sorted(found(r"^as_completed: +(.*)$", output)[1].split()) == ["0.1", "0.2", "0.3"]


def check_callbacks(output: str, folder: Path) -> None:
    found(r"^error handler: FileNotFoundError: there is no page 'missing'$", output)
    found(r"^words: \{'about': 60, 'home': 60, 'news': 60\}$", output)
    found(r"^callbacks ran on 1 thread, not the main one: True$", output)
    found(r"^5 tasks had ended after ", output)
    found(r"^pool's callback: 6$", output)
    found(r"^own callback: 15$", output)
    assert "pool's callback: 15" not in output
    found(r"^logged on 'gpool': ", output)
    found(r"^FileNotFoundError: there is no page 'missing'$", output)


def check_closures(output: str, folder: Path) -> None:
    assert output.count("this line stands at the top of the file") == 1
    found(r"^a lambda that sees a local: +1000 1001 1002 1003 1004$", output)
    found(r"^functions made by a function: +4 256 18446744073709551616$", output)
    found(r"^functions made of functions: +-49$", output)
    found(r"^a partial: +42$", output)
    found(r"^a method of the main program: +Point\(x=11, y=22\)$", output)
    found(r"^a class of the main program: +True$", output)
    found(r"^a lambda that returns a lambda: +42$", output)
    found(r"^a local function, recursive: +2432902008176640000$", output)
    found(r"^captured at the first submit: +\['apple', 'pear'\]$", output)
    found(r"^captured at the second submit: +\['apple', 'plum', 'fig'\]$", output)
    found(r"^the program's own, untouched: +\['apple', 'plum'\]$", output)
    found(r"^a lock: +PayloadError: .*pickle", output)
    found(r"^and the pool goes on: +here I am$", output)


def check_endless_feed(output: str, folder: Path) -> None:
    assert len(re.findall(r"^ +[\d.]+ s: +[\d,]+ results, +[\d,]+ under way, +[\d.]+ MiB$", output, re.MULTILINE)) == 6
    found(r"^the feed was alive: True, and is now: False; pending: 0$", output)
    assert number(found(r"^([\d,]+) results, \d+ steps on average$", output)[1]) > 100
    found(r"^memory grew by -?[\d.]+ MiB$", output)


def check_crash_and_carry_on(output: str, folder: Path) -> None:
    found(r"^segfault: .*SIGSEGV.*\n +in .*segfault", output)
    found(r"^os\._exit: .*\(exit code 3\)$", output)
    found(r"^timeout: .*0\.5.*\n +in .*hang_in_c", output)
    found(r"^killing: +plain cancel\(\) says False, cancel\(kill=True\) says True$", output)
    found(r"^ +the task is cancelled$", output)
    found(r"^ +its child still runs: False$", output)
    found(r"^retries: +succeeded at attempt 3$", output)
    found(r"^meanwhile: +2000 of 2000 steady tasks, all right: True$", output)
    found(r"^the group: +sound, 1 done, \d+ lost, 2 retried$", output)


def check_mandelbrot(output: str, folder: Path) -> None:
    found(r"^160 × 120 pixels in [\d.]+ s, [\d,]+ bytes in picture\.png$", output)
    picture = (folder / "picture.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    header, pixels, ended = b"", b"", False
    position = 8
    while position < len(picture):
        length = int.from_bytes(picture[position : position + 4], "big")
        kind, data = picture[position + 4 : position + 8], picture[position + 8 : position + 8 + length]
        assert zlib.crc32(kind + data) == int.from_bytes(picture[position + 8 + length : position + 12 + length], "big")
        header, pixels, ended = (
            header + data if kind == b"IHDR" else header,
            pixels + data if kind == b"IDAT" else pixels,
            kind == b"IEND",
        )
        position += length + 12
    assert ended
    assert header == bytes([0, 0, 0, 160, 0, 0, 0, 120, 8, 2, 0, 0, 0])
    plain = zlib.decompress(pixels)
    assert len(plain) == 120 * (1 + 160 * 3)
    middle = plain[60 * 481 : 61 * 481]
    assert middle[0] == 0
    assert middle[1 + 3 * 115 : 4 + 3 * 115] == b"\0\0\0", "the middle of the set is black"
    assert middle[1:4] != b"\0\0\0", "what is far outside is not"
    assert all(plain[y * 481 : (y + 1) * 481] != middle for y in range(50)), "every row is a row of its own"


def check_asyncio_service(output: str, folder: Path) -> None:
    found(r"^gather: 50 answers, from 168 to 5133 primes$", output)
    found(r"^as they arrive: (?=.*\b6057\b)(?=.*\b430\b)(?=.*\b2262\b)", output)
    found(r"^the pool's timeout: .*0\.3", output)
    found(r"^asyncio's timeout: gave up, and so did the process$", output)
    found(r"^the slot is free again: yes$", output)
    assert int(found(r"^the loop came round (\d+) times, every \d+ ms$", output)[1]) > 10


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}
