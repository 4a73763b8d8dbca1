"""Boards, between two processes that race."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from gpool.workers.barriers import can_fence
from gpool.workers.boards import BOARD, Begun, Board, Kept, WorkerBoard
from gpool.workers.journey import SharedLock
from gpool.workers.stacks import REGION
from tests.claimer import answer_to
from tests.programs import environment

ROUNDS = 1_500
PATIENCE = 20
"""Times as many before two that never race are given up."""
ITEMS = 60
NUMBERS = 2_000
KILLS = 30
LEASES = 16_000


class Claimer:
    """``tests.claimer`` in its process, and the board between it and the test."""

    def __init__(self, fd: int, region: int, fences: bool) -> None:
        self._lock = SharedLock()
        self.board = Board(fd, region, self._lock.lock, fences=fences)
        _, name = self._lock.__reduce__()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.claimer", str(fd), str(region), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[fd],
            env=environment(),
            text=True,
            bufsize=1,
        )
        self.heard()
        self._lock.forget_name()

    def tell(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")

    def heard(self) -> int:
        """The next number that it says."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def ask(self, what: str) -> int:
        self.tell(what)
        return self.heard()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=[True, False], ids=["fences", "locks"])
def claimer(request: pytest.FixtureRequest) -> Iterator[Callable[..., Claimer]]:
    """Makes claimers, each in a region of the same file."""
    if request.param and not can_fence():
        pytest.skip("no barriers here")
    made: list[Claimer] = []
    fd = os.memfd_create("boards")

    def make(region: int = 0) -> Claimer:
        made.append(Claimer(fd, region, request.param))
        return made[-1]

    yield make
    for each in made:
        each.end()
    os.close(fd)


MakeClaimer = Callable[..., Claimer]


def answers(first: int, stop: int) -> list[object]:
    return [answer_to(index) for index in range(first, stop)]


def limit(board: Board, lease: int) -> int | None:
    """Take back what has not begun of a block, the only lease that is out; returns how many items it keeps."""
    begun = board.revoke(lease, lease)
    return None if begun is None else max(1, begun.items)


def revoke(board: Board, last: int, spare: int) -> Begun:
    """Until it is granted: on a machine under load the worker may have lost its CPU with the lock in its hand."""
    while (begun := board.revoke(last, spare)) is None:
        pass
    return begun


def rounds(count: int, raced: Callable[[], bool]) -> Iterator[int]:
    """Numbers of so many rounds, and of more until the two have raced: on a machine under load they seldom do."""
    for number in range(PATIENCE * count):
        if number >= count and raced():
            return
        yield number
    pytest.fail("they never raced")


def test_inv05_each_lease_is_claimed_or_taken_back_and_never_both(claimer: MakeClaimer) -> None:
    """The program revokes all but one, at any moment, while the worker claims one after the other."""
    at = claimer()
    chance = random.Random(5)
    begun_of: set[int] = set()
    for number in rounds(ROUNDS // 5, lambda: any(0 < each < LEASES for each in begun_of)):
        first = 1 + number * LEASES
        at.ask(f"leases {first} {first + LEASES}")
        for _ in range(chance.randrange(30_000)):
            pass
        spare = first + chance.randrange(LEASES)
        begun = revoke(at.board, first + LEASES - 1, spare)
        before = max(0, begun.lease - first + 1)
        assert at.heard() == before + (spare > begun.lease), f"{begun} of {first} on, {spare} spared"
        begun_of.add(before)


def test_inv05_what_is_sent_after_a_revocation_may_begin(claimer: MakeClaimer) -> None:
    at = claimer()
    assert at.ask("enter 1") == 1
    assert at.board.revoke(4, 1) == Begun(1, 0)
    assert [at.ask(f"enter {lease}") for lease in (2, 3, 4, 5)] == [0, 0, 0, 1]
    assert at.board.begun().lease == 5


class Race(NamedTuple):
    """How many items the worker might begin when it was limited, what it had answered then, and the same again."""

    before: int
    kept: Kept | None
    after: int


def raced(at: Claimer, chance: random.Random, what: str, lease: int, longest: int) -> Race:
    """Limit the worker at any moment of its way through a block, also before it has entered it."""
    at.tell(what)
    entered = chance.random() < 0.9 and at.heard()
    for _ in range(chance.randrange(longest)):
        pass
    before = max(1, revoke(at.board, lease, lease).items)
    kept = at.board.kept(lease)
    after = max(1, revoke(at.board, lease, lease).items)
    if not entered:
        at.heard()
    begun = at.heard()
    assert after <= before, "what was taken back stays taken back"
    assert begun == after, f"{begun} items have begun, all from number {after} on were taken back"
    assert at.board.begun() == Begun(lease, begun, begun)
    return Race(before, kept, after)


def test_inv05_each_item_is_claimed_or_taken_back_and_never_both(claimer: MakeClaimer) -> None:
    """The program limits at any moment of the worker's way through the block, also before it has entered it."""
    at = claimer()
    chance = random.Random(5)
    limits: set[int] = set()
    for lease in rounds(ROUNDS, lambda: any(1 < each < ITEMS for each in limits)):
        race = raced(at, chance, f"race {lease + 1} {ITEMS}", lease + 1, 2_000)
        assert at.board.kept(lease + 1) == Kept(0, answers(0, race.after))
        limits.add(race.after)


def test_inv05_each_item_that_answers_with_a_number_is_begun_or_taken_back_and_never_both(claimer: MakeClaimer) -> None:
    """The way through cells, on which items are claimed by the answers before theirs."""
    at = claimer()
    chance = random.Random(5)
    limits: set[int] = set()
    for lease in rounds(ROUNDS, lambda: any(1 < each < NUMBERS for each in limits)):
        before, kept, after = raced(at, chance, f"numbers {lease + 1} {NUMBERS}", lease + 1, 10_000)
        for each in (kept, at.board.kept(lease + 1)):
            assert each is None or list(each.answers) == list(range(each.first, each.first + len(each.answers)))
        assert kept is None or kept.first + len(kept.answers) in (before, before - 1)
        limits.add(after)


def test_inv10_who_is_killed_among_numbers_has_begun_the_item_behind_the_last_answer(claimer: MakeClaimer) -> None:
    chance = random.Random(5)
    for lease in range(1, KILLS + 1):
        at = claimer(lease)
        at.tell(f"numbers {lease} {NUMBERS}")
        assert at.heard()
        for _ in range(chance.randrange(10_000)):
            pass
        limited = chance.random() < 0.5 and limit(at.board, lease)
        at.process.kill()
        at.process.wait()
        begun, kept = at.board.begun(), at.board.left(lease)
        assert kept is not None
        assert list(kept.answers) == list(range(kept.first, begun.ended))
        assert begun.ended <= begun.items <= begun.ended + 1
        assert not limited or begun.items <= limited


def test_inv12_a_number_that_is_not_for_cells_is_refused(claimer: MakeClaimer) -> None:
    at = claimer()
    at.ask("enter 7")
    assert at.ask("begin 0") == 1
    assert at.ask("marked 0") == 0
    assert at.board.begun() == Begun(7, 1, 0)


def test_inv05_a_limit_holds_for_its_own_block_alone(claimer: MakeClaimer) -> None:
    at = claimer()
    at.ask("enter 1")
    assert at.ask("claim 0 3") == 3
    assert limit(at.board, 1) == 3
    assert at.ask("claim 3 9") == 0
    at.ask("enter 2")
    assert at.ask("claim 0 9") == 9
    assert limit(at.board, 3) == 1, "a block that was not entered keeps one item"
    at.ask("enter 3")
    assert at.ask("claim 0 9") == 1
    assert limit(at.board, 3) == 1


def test_inv12_answers_that_were_kept_survive_a_kill(claimer: MakeClaimer) -> None:
    at = claimer()
    at.ask("enter 7")
    assert at.ask("claim 0 12") == 12
    assert at.ask("begin 12") == 1
    at.process.kill()
    at.process.wait()
    assert at.board.left(7) == Kept(0, answers(0, 12))
    assert at.board.begun() == Begun(7, 13, 12), "it died in item 12"
    assert at.board.left(6) is None


def test_inv12_only_what_was_not_sent_is_kept(claimer: MakeClaimer) -> None:
    at = claimer()
    at.ask("enter 7")
    at.ask("claim 0 4")
    at.ask("clear 4")
    assert at.board.kept(7) == Kept(4, [])
    at.ask("claim 4 6")
    assert at.board.kept(7) == Kept(4, answers(4, 6))
    assert at.board.begun() == Begun(7, 6, 6)


def test_inv12_an_answer_without_room_is_refused_and_harms_none_that_is_kept(claimer: MakeClaimer) -> None:
    at = claimer()
    at.ask("enter 7")
    at.ask("claim 0 4")
    assert at.ask("begin 4") == 1
    assert at.ask("large 4") == 0
    assert at.board.kept(7) == Kept(0, answers(0, 4))
    assert at.board.begun() == Begun(7, 5, 4), "as long as it was not sent"
    at.ask("clear 5")
    assert at.board.begun() == Begun(7, 5, 5)
    at.ask("claim 5 9")
    assert at.board.kept(7) == Kept(5, answers(5, 9))


def test_inv17_who_holds_the_lock_and_was_stopped_is_not_waited_for(claimer: MakeClaimer) -> None:
    at = claimer()
    at.ask("enter 1")
    at.ask("claim 0 3")
    at.tell("hold")
    os.waitpid(at.process.pid, os.WUNTRACED)
    assert limit(at.board, 1) is None
    assert at.board.kept(1) is None
    at.process.send_signal(signal.SIGCONT)
    at.heard()
    assert limit(at.board, 1) == 3
    assert at.board.kept(1) == Kept(0, answers(0, 3))


def test_inv10_who_dies_with_the_lock_leaves_what_it_kept(claimer: MakeClaimer) -> None:
    at = claimer()
    at.ask("enter 1")
    at.ask("claim 0 3")
    at.tell("hold")
    os.waitpid(at.process.pid, os.WUNTRACED)
    at.process.kill()
    at.process.wait()
    assert at.board.left(1) == Kept(0, answers(0, 3))
    assert at.board.begun() == Begun(1, 3, 3), "it died between two items"


def test_regions_do_not_touch_each_other_and_begin_empty(claimer: MakeClaimer) -> None:
    first, second = claimer(0), claimer(1)
    first.ask("enter 1")
    second.ask("enter 1")
    assert (first.ask("claim 0 5"), second.ask("claim 0 3")) == (5, 3)
    assert first.board.kept(1) == Kept(0, answers(0, 5))
    assert limit(second.board, 1) == 3
    assert first.ask("claim 5 9") == 4
    again = claimer(1)
    assert again.board.left(1) is None
    again.ask("enter 1")
    assert again.ask("claim 0 9") == 9, "the limit of who had the region before is gone"


def test_a_board_keeps_clear_of_the_stacks() -> None:
    assert BOARD * 2 <= REGION


def test_inv12_answers_are_read_in_the_form_in_which_they_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker turns to cells, for which it takes no lock, in the middle of the program's look."""
    if not can_fence():
        pytest.skip("no barriers here")
    fd = os.memfd_create("boards")
    lock = SharedLock()
    board = Board(fd, 0, lock.lock)
    worker = WorkerBoard(fd, 0, lock.lock)
    worker.claim(1)
    worker.open_block()
    worker.claim_item(0)
    done = Board._done

    def late(self: Board, code: int) -> int:
        assert worker.open_cells(0, 10, 11_854)
        return done(self, code)

    with monkeypatch.context() as patch:
        patch.setattr(Board, "_done", late)
        assert board.kept(1) == Kept(0, [])
    kept = board.kept(1)
    assert kept is not None and (kept.first, list(kept.answers)) == (0, [11_854])
    lock.forget_name()
    os.close(fd)
