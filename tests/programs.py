"""Programs of their own for tests: what happens at exit or by a signal needs a process that can end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from time import monotonic

import psutil

SECONDS = 20
"""After which a program that should have ended is taken for hung."""


def run_script(folder: Path, source: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run ``source`` as a script file to its end; a hang fails the test."""
    return subprocess.run(
        [sys.executable, str(script(folder, source)), *args],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment(folder),
    )


def script(folder: Path, source: str) -> Path:
    """``source`` as a file."""
    file = folder / "program.py"
    file.write_text(dedent(source))
    return file


def environment(*folders: Path) -> dict[str, str]:
    """The environment in which a program finds what the tests find, and first of all what is in ``folders``."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, folders), *filter(None, sys.path)])}


def start(command: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a program in a session of its own, so that it can be sent what a terminal would send."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment() if env is None else env,
    )


def end(program: subprocess.Popen[str]) -> None:
    """Kill a program and all of its session, whatever the test has made of it."""
    for process in psutil.process_iter():
        with suppress(OSError):
            if os.getsid(process.pid) == program.pid:
                os.kill(process.pid, signal.SIGKILL)
    program.communicate()


def left_alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Wait until the processes are gone, or zombies that nobody has reaped yet; those that are not."""
    deadline = monotonic() + SECONDS
    return [each for each in processes if not _ends_by(each, deadline)]


def _ends_by(process: psutil.Process, deadline: float) -> bool:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return not process.is_running() or bool(poller.poll(max(0.0, deadline - monotonic()) * 1000))
    finally:
        os.close(descriptor)
