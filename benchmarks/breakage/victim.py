"""A program with a pool, to be killed or interrupted: ``python victim.py ACT POOL FOLDER``.

The peers' workers import this file as their main module, so without the guard it does next to nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout: gpool and benchmarks


def keep_busy(name: str, folder: Path, *, fork: bool = False) -> None:
    """One worker holds the GIL, the other one sleeps; both have a child. With ``fork`` this program has one, too."""
    import os
    import time

    from benchmarks.breakage import tasks
    from benchmarks.breakage.subjects import SUBJECTS

    subject = SUBJECTS[name]()
    futures = [
        subject.submit(tasks.hold_gil, str(folder / "one")),
        subject.submit(tasks.stay_with_child, str(folder / "two")),
    ]
    if fork:
        while not ((folder / "one").exists() and (folder / "two").exists()):
            time.sleep(0.005)
        child = os.fork()
        if child:
            tasks.announce(str(folder / "forked"), child)
    else:
        tasks.announce(str(folder / "forked"))
    time.sleep(tasks.LONG)
    del futures


def keep_busy_and_fork(name: str, folder: Path) -> None:
    keep_busy(name, folder, fork=True)


def read_results(name: str, folder: Path) -> None:
    """What a script does: submit, read, in a ``with`` block."""
    import os

    from benchmarks.breakage import tasks
    from benchmarks.breakage.subjects import SUBJECTS

    subject = SUBJECTS[name]()
    with subject.pool:
        for value in subject.map(tasks.whoami, [0.05] * 4000):
            if not (folder / "begun").exists():
                tasks.announce(str(folder / "begun"), os.getpid(), value)


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    act, pool, place = sys.argv[1:]
    for each in (keep_busy, keep_busy_and_fork, read_results):
        if each.__name__ == act:
            each(pool, Path(place))
