"""A process at the other side of a board: it does with a block's items what it is told, one line at a time.

Run as a program, so that it shares nothing with the test but the memory and the lock. What it is told, and what it
says when it has done it:

    enter 3         go on to the block of lease 3, if it may                                    1 or 0
    claim 2 9       claim the items 2 to 8, as far as it may, and keep the answer to each       how many it claimed
    begin 5         claim item 5 and stay in it                                                 1 or 0
    large 5         keep an answer to item 5 that has no room                                   1 or 0
    clear           what was kept has been sent
    race 7 100      enter lease 7, say so, then claim up to 100 items                           how many it claimed
    numbers 7 100   like race, with numbers for answers, some of which are sent                how many it ran
    leases 7 100    say so, then claim the leases 7 to 99 one after the other                   how many it claimed
    hold            take the lock and stop; when it goes on, let go of it
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]
import os
import signal
import sys
from struct import unpack
from time import perf_counter

from gpool.workers.boards import BOARD, WorkerBoard
from gpool.workers.cells import MARK, MARKED
from tests.noisy import Noisy

SEND_SECONDS = 0.0001


def main(fd: int, region: int, name: str) -> None:
    lock = _multiprocessing.SemLock._rebuild(0, 1, 1, name)
    board = WorkerBoard(fd, region, lock)
    say(1)
    for line in sys.stdin:
        what, *numbers = line.split()
        _do(board, lock, what, *map(int, numbers))


def _do(board: WorkerBoard, lock: _multiprocessing.SemLock, what: str, first: int = 0, stop: int = 0) -> None:
    match what:
        case "enter":
            say(enter(board, first))
        case "claim":
            say(claim(board, first, stop))
        case "begin":
            say(board.claim_item(first))
        case "large":
            say(board.keep(first, bytes(BOARD)))
        case "marked":
            unfit = (MARKED - (1 << 64), MARKED, 1 << 63, True, None, unpack("d", MARK)[0])
            say(sum(board.open_cells(first, 2, answer) is not None for answer in unfit))
        case "clear":
            board.clear(first)
            say(1)
        case "race":
            say(enter(board, first))
            say(claim(board, 0, stop))
        case "numbers":
            say(enter(board, first))
            say(run_numbers(board, stop))
        case "leases":
            say(1)
            say(sum(board.claim(lease) for lease in range(first, stop)))
        case "hold":
            lock.acquire()
            os.kill(os.getpid(), signal.SIGSTOP)
            lock.release()
            say(1)


def enter(board: WorkerBoard, lease: int) -> bool:
    """Begin the lease and open its block, unless it was taken back."""
    claimed = board.claim(lease)
    if claimed:
        board.open_block()
    return claimed


def claim(board: WorkerBoard, first: int, stop: int) -> int:
    """Claim and answer these items, as far as it may; returns how many it claimed."""
    for index in range(first, stop):
        if not board.claim_item(index):
            return index - first
        assert board.keep(index, answer_to(index))
    return stop - first


def run_numbers(board: WorkerBoard, stop: int) -> int:
    """Run so many items that answer with their numbers, as far as it may; returns how many it ran."""
    ran = list[int]()

    def run(number: int) -> int:
        ran.append(number)
        return number

    items = enumerate(range(stop))
    for index, item in items:
        if not board.claim_item(index):
            break
        cells = board.open_cells(index, stop, run(item))
        if cells is None:
            assert board.keep(index, index)
            continue
        last, outcome = cells.run(run, items, Noisy(), perf_counter() + SEND_SECONDS)
        if outcome is not None:
            board.clear(last + 1)
    assert ran == list(range(len(ran)))
    return len(ran)


def answer_to(index: int) -> object:
    """Answers of all kinds."""
    return (index, -index / 3, None, "\ud800" * (index % 5), (7, b"body" * (index % 9)))[index % 5]


def say(number: int) -> None:
    sys.stdout.write(f"{int(number)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
