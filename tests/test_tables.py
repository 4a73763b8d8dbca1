"""The tables of legal moves: those in the documentation are those in the code, and every move happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpool.events import ExitBegan
from gpool.ledger import IllegalMove
from gpool.limits import MAX_START_FAILURES, STOP_SECONDS
from gpool.model import (
    GROUP_MOVES,
    POOL_MOVES,
    TASK_MOVES,
    WORKER_MOVES,
    Group,
    GroupState,
    Moves,
    PoolState,
    State,
    TaskState,
    WorkerState,
)
from tests.machine import RAISED, Machine

DOCUMENT = Path(__file__).parent.parent / "docs" / "architecture.md"
TABLES: dict[str, Moves] = {"task": TASK_MOVES, "worker": WORKER_MOVES, "group": GROUP_MOVES, "pool": POOL_MOVES}
Move = tuple[State, State]


def documented(noun: str) -> dict[str, tuple[str, ...]]:
    """The table after ``<!-- moves:noun -->``."""
    found = re.search(
        rf"<!-- moves:{noun} -->\s*\| from \| to \|\n\|[ -]+\|[ -]+\|\n((?:\|.*\|\n)+)", DOCUMENT.read_text()
    )
    assert found, f"{DOCUMENT} has no table of the moves of a {noun}"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    return {state: tuple(after.split(", ")) if after != "-" else () for state, after in rows}


@pytest.mark.parametrize("noun", TABLES)
def test_the_documented_moves_are_the_legal_ones(noun: str) -> None:
    coded = {state.name: tuple(each.name for each in after) for state, after in TABLES[noun].items()}
    assert {state: set(after) for state, after in documented(noun).items()} == {s: set(a) for s, a in coded.items()}


@pytest.mark.parametrize(
    ("noun", "states"), [("task", TaskState), ("worker", WorkerState), ("group", GroupState), ("pool", PoolState)]
)
def test_every_state_has_its_row_and_can_be_reached(noun: str, states: type[State]) -> None:
    table = TABLES[noun]
    assert set(table) == set(states)
    reached = {next(iter(states))}
    for _ in states:
        reached |= {after for state in reached for after in table[state]}
    assert reached == set(states)


def moves_of(machine: Machine) -> set[Move]:
    return {(each.old, each.new) for each in machine.scheduler.transitions}


def tasks_and_busy_workers() -> Machine:
    """Leased, begun, taken back, tried again, cancelled in every state."""
    machine = Machine({"a": Group(1, max_tasks_per_child=20), None: 0})
    machine.submit("a")
    machine.ended("a1", seconds=0.0001)
    machine.submit_many("a", 6, retries=1)
    machine.cancel("a4")
    machine.ended("a2", seconds=0.0001)
    machine.submit("a", priority=1)
    machine.ended("a3", RAISED, seconds=0.0001, retry=True)
    machine.cancel("a3", kill=True)
    machine.exited(1)
    machine.all_ready()
    machine.ended(*machine.running, RAISED, retry=True)
    machine.after(1)
    return machine


def unbegun() -> Machine:
    """A worker dies before it has begun what it holds, which then is cancelled."""
    machine = Machine({"a": 1, None: 0}, eager=False)
    machine.submit("a")
    machine.exited(1)
    machine.cancel("a1")
    return machine


def workers() -> Machine:
    """Workers are killed, asked to stop, and die in every state."""
    machine = Machine({"a": 6, "b": Group(1, start_timeout=1), None: 0})
    machine.submit_many("a", 4, timeout=1)
    machine.resize({"a": 5})
    machine.resize({"a": 3})
    machine.after(1)
    machine.resize({"a": 9, "b": 2})
    machine.resize({"a": 8})
    machine.after(1)
    machine.exited(max(machine.starting))
    machine.after(STOP_SECONDS)
    for worker in list(machine.processes):
        machine.exited(worker)
    machine.close(now=True)
    return machine


def workers_that_drain() -> Machine:
    """Draining workers end, die, are killed."""
    machine = Machine({"a": 3, None: 0})
    machine.submit_many("a", 3)
    machine.resize({"a": 0})
    machine.ended("a1")
    machine.exited(machine.runner("a2").worker.id)
    machine.cancel("a3", kill=True)
    for worker in list(machine.processes):
        machine.exited(worker)
    return machine


def idle_workers() -> Machine:
    """Idle workers stop, die, are killed."""
    machine = Machine({"a": 3, None: 0})
    machine.resize({"a": 2})
    machine.exited(1)
    machine.close(now=True)
    return machine


def a_group_that_recovers() -> Machine:
    """It backs off, recovers, backs off again, breaks."""
    machine = Machine({"a": 1, None: 0}, ready=False)
    machine.exited(1)
    machine.exited(2)
    machine.until_timer()
    machine.all_ready()
    machine.resize({"a": 0})
    machine.resize({"a": 1})
    for _ in range(MAX_START_FAILURES):
        while not machine.starting:
            machine.until_timer()
        machine.exited(max(machine.starting))
    return machine


def a_group_that_breaks_at_once() -> Machine:
    """And is given another chance."""
    machine = Machine({"a": Group(1, max_start_failures=1), None: 0}, ready=False)
    machine.exited(1)
    machine.resize({"a": 1})
    return machine


def a_group_that_shrinks_while_it_starts() -> Machine:
    machine = Machine({"a": 2, None: 0}, ready=False)
    machine.resize({"a": 1})
    return machine


def the_end() -> Machine:
    machine = Machine({"a": 1, None: 0})
    machine.tell(ExitBegan())
    machine.exited(1)
    return machine


SCENARIOS = (
    tasks_and_busy_workers,
    unbegun,
    workers,
    workers_that_drain,
    idle_workers,
    a_group_that_recovers,
    a_group_that_breaks_at_once,
    a_group_that_shrinks_while_it_starts,
    the_end,
)


@pytest.mark.parametrize("noun", TABLES)
def test_every_legal_move_happens(noun: str) -> None:
    """A move that nothing makes does not belong into the table."""
    made: set[Move] = set()
    for scenario in SCENARIOS:
        made |= moves_of(scenario())
    legal = {(state, after) for state, afters in TABLES[noun].items() for after in afters}
    assert legal - made == set()


def test_a_move_that_is_not_in_the_table_is_refused() -> None:
    machine = Machine({"a": 1})
    worker = machine.scheduler.workers[1]
    with pytest.raises(IllegalMove, match="idle → starting"):
        machine.scheduler.move(worker, WorkerState.STARTING)
    assert worker.state is WorkerState.IDLE
