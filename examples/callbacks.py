"""Callbacks: what they are told, in which thread they run, and what they may do.

Callbacks and error handlers run one after another on one thread of the pool. So they need no locks among each other,
and a slow one delays no task. They may call any method of the pool: here the callback of a first step starts the
second one, and the results of that go to a callback of their own.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from functools import partial

from gpool import GroupedPool


def fetch(page: str) -> str:
    """Pretend to fetch a page."""
    if page == "missing":
        raise FileNotFoundError(f"there is no page {page!r}")
    return f"text of {page} " * 20


def count_words(page: str, text: str) -> tuple[str, int]:
    return page, len(text.split())


def two_steps(pool: GroupedPool) -> None:
    """Chain two steps: each page is fetched in one group, then counted in another."""
    counted: dict[str, int] = {}
    threads: set[str] = set()

    def take_count(result: tuple[str, int]) -> None:
        threads.add(threading.current_thread().name)
        page, words = result
        counted[page] = words

    def take_text(page: str, text: str) -> None:
        threads.add(threading.current_thread().name)
        pool.put("count", count_words, (page, text), callback=take_count)

    for page in ("home", "news", "missing", "about"):
        pool.put("fetch", fetch, (page,), callback=partial(take_text, page))
    pool.join()  # waits for the second steps too
    print("words:", dict(sorted(counted.items())))
    print(f"callbacks ran on {len(threads)} thread, not the main one: {threading.main_thread().name not in threads}")


def slow_callback(pool: GroupedPool) -> None:
    """Show that a callback which takes its time holds up no task."""
    began = time.monotonic()
    ended: list[float] = []
    seen: list[float] = []

    def take_slowly(moment: float) -> None:
        ended.append(moment)
        time.sleep(0.1)
        seen.append(time.monotonic())

    pool.ingest(range(5), "count", lambda _: time.monotonic(), callback=take_slowly)
    pool.join()
    print(f"5 tasks had ended after {ended[-1] - began:.2f} s, their slow callbacks after {seen[-1] - began:.2f} s")


def main() -> None:
    logging.basicConfig(stream=sys.stdout, format="logged on %(name)r: %(message)s", level=logging.ERROR)
    tags = {"fetch": 1, "count": 1}
    with GroupedPool(
        tags=tags, on_error=lambda error: print(f"error handler: {type(error).__name__}: {error}")
    ) as pool:
        two_steps(pool)
        slow_callback(pool)

        # The pool's own callbacks can be replaced at any time; those of a single task come first.
        pool.callback(lambda value: print("pool's callback:", value))
        pool.put("count", sum, ([1, 2, 3],))
        pool.put("count", sum, ([4, 5, 6],), callback=lambda value: print("own callback:", value))
        pool.join()

    # Without any error handler a failure is logged, with its traceback: it never vanishes.
    with GroupedPool(tags={"fetch": 1}) as pool:
        pool.put("fetch", fetch, ("missing",))
        pool.join()


main()
