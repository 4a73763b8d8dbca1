"""The architecture: imports go down only, the pure floors stay pure, and a child imports little."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "gpool"
FLOORS = {
    "errors": 0,
    "model": 0,
    "outcome": 0,
    "limits": 0,
    "events": 1,
    "actions": 1,
    "backlog": 2,
    "groups": 2,
    "fairness": 2,
    "timers": 2,
    "ledger": 2,
    "ahead": 2,
    "placement": 2,
    "workforce": 2,
    "scheduler": 2,
    "invariants": 2,
    "workers.wire": 2,
    "workers.stacks": 3,
    "workers.windows": 3,
    "workers.arena": 3,
    "workers.parcels": 3,
    "workers.returns": 4,
    "workers.outgoing": 4,
    "workers.logs": 3,
    "workers.payload": 3,
    "workers.functions": 3,
    "workers.blocks": 3,
    "workers.barriers": 3,
    "workers.cells": 3,
    "workers.boards": 3,
    "workers.streams": 3,
    "workers.main": 3,
    "workers.journey": 3,
    "workers.server": 3,
    "workers.owned": 3,
    "workers.loans": 4,
    "workers.tracker": 4,
    "workers.backend": 3,
    "snapshot": 3,
    "delivery": 3,
    "interrupts": 3,
    "workers.health": 4,
    "workers.process": 4,
    "workers.forking": 4,
    "workers.local": 4,
    "workers.fake": 4,
    "futures": 5,
    "batches": 5,
    "lifetime": 5,
    "turn": 5,
    "fetching": 5,
    "verdicts": 5,
    "performer": 5,
    "supervisor": 5,
    "feeds": 6,
    "results": 6,
    "settings": 6,
    "deliveries": 6,
    "blocks": 5,
    "views": 6,
    "pool": 6,
}
IMPURE = {"time", "threading", "os", "random", "multiprocessing", "psutil", "asyncio", "socket", "selectors"}
ONLY = {
    "multiprocessing": {"workers.process", "workers.forking", "workers.journey", "workers.tracker"},
    "psutil": {"workers.health"},
    "cloudpickle": {"workers.payload"},
}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py") if path.name != "__init__.py"
)


def _imports(module: str) -> set[str]:
    """Modules imported at run time, those for type checking only left out."""
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    for name in _imports(module):
        other = name.removeprefix("gpool.")
        if name.startswith("gpool.") and other in FLOORS:
            assert FLOORS[other] <= FLOORS[module], f"{module} imports {other}, which is above it"


@pytest.mark.parametrize("module", [name for name in MODULES if FLOORS[name] <= 2])
def test_pure_floors_stay_pure(module: str) -> None:
    assert not {name.partition(".")[0] for name in _imports(module)} & IMPURE


@pytest.mark.parametrize(("library", "owners"), ONLY.items())
def test_who_uses_each_library(library: str, owners: set[str]) -> None:
    users = {module for module in MODULES if library in {n.partition(".")[0] for n in _imports(module)}}
    assert users == owners


def test_supervisor_imports_no_host() -> None:
    assert not {name for name in _imports("supervisor") if FLOORS.get(name.removeprefix("gpool."), 0) == 4}


HEAVY = (
    "psutil",
    "asyncio",
    "ctypes",
    "numpy",
    "cloudpickle",
    "logging",
    "concurrent.futures",
    "dataclasses",
    "gpool.pool",
)
BUDGETS = {
    "gpool.workers.main": (*HEAVY, "selectors", "multiprocessing"),
    "gpool.workers.server": (*HEAVY, "tempfile", "multiprocessing.connection", "multiprocessing.forkserver"),
}


@pytest.mark.parametrize(("module", "beyond"), BUDGETS.items())
def test_child_import_budget(module: str, beyond: tuple[str, ...]) -> None:
    """What the first worker has to wait for."""
    code = f"import {module}, sys; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(out.stdout.split())
    assert module in loaded
    for heavy in beyond:
        assert heavy not in loaded, f"a worker imports {heavy}"
