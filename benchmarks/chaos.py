"""A soak: ``python benchmarks/chaos.py [--seconds N] [--seed S]``.

In rounds of a few seconds, each with a pool of its own, it submits, maps, feeds, resizes, cancels and lets tasks run
into their timeouts at random, kills and stops random workers, fills their memory, and corrupts what user code can
corrupt. It keeps its own books, and at the end of each round they must agree with what the pool said: every task
ended once and as it may have ended, with the right value, begun no more often than its retries allow, and nothing is
left of the pool.

It prints one line per round and one for all. What does not agree is printed with the seed and the history of the task
concerned, and the exit code is 1; so does a round that hangs. The choices come from one random number generator, so a
seed repeats them, though not what the system's scheduler makes of them.

It may kill and stop only workers of its own pools, and may not depend on time but for giving up on what hangs.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import threading
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.torment.books import Audit
    from benchmarks.torment.round import Round

ROUND_SECONDS = 5.0
HANG_SECONDS = 90.0
"""Beyond its own time a round that is not over has hung."""
REPORTS = 10
"""Histories printed at most."""


def main() -> int:
    from benchmarks.torment.books import Audit
    from benchmarks.torment.leaks import adopt_orphans

    options = arguments()
    adopt_orphans()
    random, total, until = Random(options.seed), Audit(), monotonic() + options.seconds
    while total.clean and (left := until - monotonic()) > 0.5:
        total.add(one_round(random, min(left, ROUND_SECONDS), options))
    return conclude(total, options.seed)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Torment gpool and count what becomes of its tasks.")
    parser.add_argument("--seconds", type=float, default=30.0, help="for how long, about")
    parser.add_argument("--seed", type=int, default=None, help="of all choices (default: the clock's)")
    parser.add_argument("--only", nargs="*", metavar="KIND", help="kinds of tasks, to narrow a failure down")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(4), "little")
    return options


def one_round(random: Random, seconds: float, options: argparse.Namespace) -> Audit:
    from benchmarks.torment.round import Round

    with TemporaryDirectory() as folder:
        began = monotonic()
        torment = Round(random, Path(folder), options.only)
        watchdog = threading.Timer(seconds + HANG_SECONDS, give_up, (torment, options.seed))
        watchdog.daemon = True
        watchdog.start()
        faulthandler.dump_traceback_later(seconds + 2 * HANG_SECONDS, exit=True)  # if no thread can run any more
        try:
            audit = torment.run(seconds)
        finally:
            faulthandler.cancel_dump_traceback_later()
            watchdog.cancel()
            watchdog.join()
    print(f"{torment}, {monotonic() - began:.1f} s: {audit}", flush=True)
    return audit


def give_up(torment: Round, seed: int) -> None:
    """The round hangs: say what is known, and end everything."""
    from benchmarks.torment.books import history
    from benchmarks.torment.leaks import kill_all

    books = torment.books
    begun, open_ones = books.begun(), [account for account in books.tasks() if not account.ends]
    print(f"chaos: seed {seed}: hung while {torment.doing} ({torment}), {len(open_ones)} tasks without an end")
    for account in open_ones[:REPORTS]:
        print(history(books, account, begun[account.number]))
    sys.stdout.flush()
    faulthandler.dump_traceback(all_threads=True)
    speaker = threading.Thread(target=lambda: print(torment.state_of_pool(), flush=True), daemon=True)
    speaker.start()
    speaker.join(10)  # a pool that hangs may not answer
    kill_all()
    os._exit(1)


def conclude(total: Audit, seed: int) -> int:
    for report in total.reports[:REPORTS]:
        print(f"chaos: seed {seed}: {report}")
    print(f"chaos: seed {seed}: {'clean' if total.clean else 'FAILED'}: {total}", flush=True)
    return 0 if total.clean else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout: gpool and benchmarks
    raise SystemExit(main())
