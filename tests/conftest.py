"""What every test is held to: it leaves no child process, thread or descriptor behind."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Hashable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpool import FakeBackend, Group, GroupedPool
from tests.gates import Gate
from tests.stage import Stage

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script's background jobs ignore it, and so would programs
    signal.signal(signal.SIGINT, signal.default_int_handler)

METHODS = ("forkserver", "spawn", "fork")


def _children() -> set[int]:
    tracker = getattr(resource_tracker._resource_tracker, "_pid", None)
    return {p.pid for p in psutil.Process().children(recursive=True) if p.pid != tracker}


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="session", autouse=True)
def _started_once() -> None:
    """The standard library's resource tracker is started before anything is counted."""
    resource_tracker.ensure_running()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    gc.collect()
    children, threads, descriptors = _children(), set(threading.enumerate()), _descriptors()
    yield
    gc.collect()
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
    assert not set(threading.enumerate()) - threads, "a thread was left"
    assert not _children() - children, "a process was left"
    assert _descriptors() <= descriptors, "a descriptor was left"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate that tasks wait at, closed at first."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open()


@pytest.fixture(params=("fake", *METHODS))
def make_pool(request: pytest.FixtureRequest) -> Iterator[Callable[..., GroupedPool]]:
    """Makes pools over the fake backend and over processes with every start method; stops them afterwards."""
    made: list[GroupedPool] = []

    def make(*args: object, **kwargs: object) -> GroupedPool:
        if request.param == "fake":
            kwargs["backend"] = FakeBackend()
        else:
            kwargs["mp_context"] = request.param
        pool = GroupedPool(*args, **kwargs)  # type: ignore[arg-type]
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.stop()


@pytest.fixture
def local_pool() -> Iterator[Callable[..., GroupedPool]]:
    """Makes pools over processes with the default start method; stops them afterwards."""
    made: list[GroupedPool] = []

    def make(*args: object, **kwargs: object) -> GroupedPool:
        pool = GroupedPool(*args, **kwargs)  # type: ignore[arg-type]
        made.append(pool)
        return pool

    yield make
    for pool in made:
        pool.stop()


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    """Makes stages with their workers up; ends them afterwards."""
    made: list[Stage] = []

    def make(slots: dict[Hashable, int | Group], **more: Any) -> Stage:
        made.append(Stage(slots, **more))
        made[-1].ready()
        return made[-1]

    yield make
    for each in made:
        each.end()
