"""Sizes change while tasks run, and nothing is interrupted.

A long batch keeps every slot busy that it can get. Meanwhile slots are added, moved between a tag and the general
group, and taken away. Each line shows the targets and, as one letter per worker, what the processes do: ``B`` busy,
``i`` idle, ``s`` starting, ``d`` draining (it finishes its task, then leaves).
"""

from __future__ import annotations

import time
from collections.abc import Hashable

from gpool import GroupedPool, InsufficientSlots

LETTERS = {"busy": "B", "idle": "i", "starting": "s", "draining": "d"}


def work(number: int) -> int:
    """Take a moment, as a task does that waits for a disk or a network."""
    time.sleep(0.1)
    return number


def show(pool: GroupedPool, what: str) -> None:
    """Print the targets and the workers as they are now."""
    targets = ", ".join(f"{name(tag)} {slots}" for tag, slots in pool.get_tags().items())
    workers = "".join(sorted(LETTERS.get(str(worker.state), "-") for worker in pool.stats().workers))
    print(f"{what:44} {targets:32} {workers}")


def name(tag: Hashable) -> str:
    return "general" if tag is None else str(tag)


def main() -> None:
    finished: list[int] = []
    with GroupedPool(tags={"web": 1, "batch": 2, None: 1}, callback=finished.append) as pool:
        feed = pool.ingest(range(100), "batch", work)
        time.sleep(0.5)
        show(pool, "at the start")

        pool.adjust("batch", 4)
        show(pool, "batch grows to 4: returned at once")
        time.sleep(0.5)
        show(pool, "half a second later")

        pool.adjust("batch", 1, use_general_slots=True)
        show(pool, "3 slots of batch become general")
        time.sleep(0.5)
        show(pool, "batch goes on there, past its reserve")

        pool.adjust("web", 3, use_general_slots=True)
        show(pool, "web takes 2 of them: batch drains out")
        pool.adjust("batch", 1, wait=True)
        time.sleep(0.3)
        show(pool, "and the two workers of web are ready")

        try:
            pool.adjust("web", 50, use_general_slots=True)
        except InsufficientSlots as error:
            print(f"refused: {error}")
        show(pool, "after the refusal")

        pool.adjust("web", 0)
        pool.adjust(None, 1, wait=True)  # waits until every busy worker too many has finished and left
        show(pool, "web to 0, general to 1, waited for the drain")

        pool.adjust("batch", 5)
        show(pool, "batch grows to 5, to be done the sooner")
        feed.join()
        pool.join()
        show(pool, "at the end")
    print(f"{len(finished)} of 100 tasks finished, each once: {sorted(finished) == list(range(100))}")


main()
