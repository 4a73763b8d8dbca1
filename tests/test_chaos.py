"""A short soak is part of the tests: what users' code can corrupt, and who is killed, costs the tasks concerned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).resolve().parent.parent / "benchmarks" / "chaos.py"


@pytest.mark.timeout(240)
def test_ten_seconds_of_chaos_are_clean() -> None:
    command = [sys.executable, str(CHAOS), "--seconds", "10", "--seed", "1"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    summary = run.stdout.strip().rpartition("\n")[2]
    assert run.returncode == 0, run.stdout + run.stderr
    assert summary.startswith("chaos: seed 1: clean: submitted ")
    assert summary.endswith("lost 0, settled twice 0, run twice without permission 0, ended wrongly 0, leaked 0")
