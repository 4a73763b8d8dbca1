"""Blocks: how items and answers are packed, and the worker's way through them."""

from __future__ import annotations

import enum
import math
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import pytest

from gpool import PayloadError
from gpool.workers import wire
from gpool.workers.blocks import (
    Entry,
    Head,
    answers_in,
    head_of,
    is_plain,
    open_entries,
    open_item,
    outcome_of,
    pack_answers,
    pack_entries,
    pack_item,
    plain_entries,
    run_block,
    runner,
)
from gpool.workers.payload import Function
from tests.bombs import RAISES, Bomb, go_off
from tests.noisy import Noisy


class Number(int):
    pass


class Word(str):
    pass


class Raw(bytes):
    pass


class Pair(NamedTuple):
    first: int
    second: int


class Color(enum.IntEnum):
    RED = 1


NOT_PLAIN: tuple[object, ...] = (
    Number(3),
    Word("w"),
    Raw(b"r"),
    Color.RED,
    Pair(1, 2),
    (),
    (1,),
    (wire.VALUE, b"it looks like an entry"),
    [],
    [1, 2],
    {1: 2},
    {3},
    "long" * 100,
    b"long" * 100,
    1 << 63,
    -(1 << 100),
    1 << 100_000,
    ValueError("x"),
    int,
    abs,
    range(3),
)
PLAIN: tuple[object, ...] = (
    *(0, -1, (1 << 63) - 1, True, False, None, 1.5, math.inf, -0.0, 3j),
    *("", "text", "\ud800\udfff", "\0", "x" * 256, b"", b"\0\xff", b"x" * 256),
)


def arrive(args: tuple[Any, ...]) -> Sequence[Any]:
    """Arguments after their journey."""
    (entry,) = open_entries(pack_entries([pack_item(args)]))
    return open_item(entry)


def same(one: object, other: object) -> bool:
    """Equal, and of the same type; -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float | Exception):
        return repr(one) == repr(other)
    return one == other


def test_an_argument_arrives_as_what_it_was() -> None:
    for value in PLAIN + NOT_PLAIN:
        (copy,) = arrive((value,))
        assert same(copy, value)


def test_nan_arrives() -> None:
    (copy,) = arrive((math.nan,))
    assert math.isnan(copy)


def test_several_arguments_arrive_as_what_they_were() -> None:
    every: list[tuple[Any, ...]] = [(), (1, 2), (None, None), ((), []), ([1], (2,)), ("a", Word("b"), b"c", 1.0)]
    for args in every:
        copies = tuple(arrive(args))
        assert len(copies) == len(args)
        assert all(map(same, copies, args))


def test_plain_is_what_no_code_can_change() -> None:
    assert all(map(is_plain, PLAIN))
    assert not any(map(is_plain, NOT_PLAIN))


def test_many_at_once_are_packed_as_one_by_one() -> None:
    for value in PLAIN + NOT_PLAIN:
        for items, several in (([1, value], False), ([(1, value)], True)):
            entries = plain_entries(items, several)
            if entries is None:
                continue
            assert is_plain(value), f"{value!r} would travel as it is"
            *_, last = open_entries(pack_entries(entries))
            assert same(open_item(last)[-1], value)


def test_plain_numbers_need_no_packing_one_by_one() -> None:
    for items in ([1, 2, 3], [0.5, math.inf], [None, True], [-(1 << 62)]):
        entries = plain_entries(items, False)
        assert entries is not None
        assert list(map(repr, entries)) == list(map(repr, items))
    assert plain_entries([(1, 2), (3, 4)], True) == [[1, 2], [3, 4]]


def test_a_range_travels_as_one() -> None:
    for items in (range(3), range(9, 0, -2), range(-(1 << 62), 1 << 62, 1 << 60)):
        entries = plain_entries(items, False)
        assert type(entries) is range
        assert list(open_entries(pack_entries(entries))) == list(items)
    assert plain_entries(range((1 << 63) - 3, 1 << 63), False) is not None
    for items in (range((1 << 63) - 3, (1 << 63) + 3), range(1 << 70, 0, -(1 << 69))):
        assert plain_entries(items, False) is None


def test_inv10_what_cannot_be_pickled_is_refused_alone() -> None:
    with pytest.raises(PayloadError) as refused:
        pack_item((Bomb("raise", "pickling", 0, in_parent=False),))
    assert isinstance(refused.value.__cause__, ValueError)


# -- a worker's way -----------------------------------------------------------------------------------------------


class Paper:
    """A board that lets the worker go so far, has room for so many answers, and is nothing but a list."""

    def __init__(self, limit: int = sys.maxsize, room: int = sys.maxsize) -> None:
        self.limit, self.room = limit, room
        self.claimed: list[int] = []
        self.kept: list[Entry] = []
        self.sent: list[tuple[Head, list[Entry]]] = []

    def claim_item(self, index: int) -> bool:
        if index >= self.limit:
            return False
        self.claimed.append(index)
        return True

    def keep(self, index: int, answer: Entry) -> bool:
        assert self.claimed[-1] == index
        if len(self.kept) >= self.room:
            return False
        self.kept.append(answer)
        return True

    def clear(self, ended: int) -> None:
        assert self.claimed[-1] + 1 == ended
        self.kept.clear()

    def open_cells(self, first: int, size: int, answer: Entry) -> None:
        """It has none."""

    def send(self, body: bytes, seconds: float) -> None:
        assert seconds >= 0
        self.sent.append((head_of(body), answers_in(body)))

    @property
    def heads(self) -> list[tuple[int, int, int, bool]]:
        return [(head.first, head.items, head.failed, bool(head.final)) for head, _ in self.sent]

    @property
    def answers(self) -> list[Entry]:
        return [answer for _, answers in self.sent for answer in answers]


def run(paper: Paper, fn: Callable[..., Any], items: Sequence[Any], between: Callable[[], object] = int) -> None:
    entries = open_entries(pack_entries([pack_item((item,)) for item in items]))
    run_block(entries, lambda: Function(fn, (), {}), paper, Noisy(between), paper.send)  # type: ignore[arg-type]


def is_in_order(paper: Paper) -> bool:
    """Each frame goes on where the one before it ended, and the last one alone is final."""
    ends = [first + items for first, items, _, _ in paper.heads]
    firsts = [first for first, _, _, _ in paper.heads]
    return firsts == [0, *ends[:-1]] and [final for *_, final in paper.heads] == [False] * (len(ends) - 1) + [True]


def test_all_items_are_answered_in_order() -> None:
    paper = Paper()
    run(paper, abs, range(0, -9, -1))
    assert paper.claimed == list(range(9))
    assert paper.answers == list(range(9))
    assert is_in_order(paper)


def test_inv05_what_was_taken_back_is_not_begun() -> None:
    paper, ran = Paper(limit=3), list[int]()
    run(paper, ran.append, range(9))
    assert ran == [0, 1, 2]
    assert paper.answers == [None] * 3
    assert is_in_order(paper)


def test_inv12_an_answer_without_room_is_sent_before_the_next_item_begins() -> None:
    paper = Paper(room=0)
    run(paper, lambda n: len(paper.sent) == n, range(5))
    assert paper.answers == [True] * 5
    assert is_in_order(paper)


def test_inv10_each_answer_is_kept_before_the_next_item_begins() -> None:
    paper = Paper()
    run(paper, lambda n: len(paper.kept) + sum(head.items for head, _ in paper.sent) == n, range(200))
    assert paper.answers == [True] * 200


def test_what_user_code_left_to_do_is_done_after_each_item() -> None:
    paper, order = Paper(), list[object]()
    run(paper, order.append, range(3), lambda: order.append("between"))
    assert order == [0, "between", 1, "between", 2, "between"]


def test_inv10_an_item_that_raises_harms_itself_alone() -> None:
    for how in RAISES:
        _raises(how)


def _raises(how: str) -> None:
    paper = Paper()
    run(paper, lambda n: go_off(how) if n == 2 else n, range(5))
    failed = [outcome_of(answer).error for answer in paper.answers]
    assert [error is None for error in failed] == [True, True, False, True, True]
    assert isinstance(failed[2], RAISES[how])
    assert sum(head.failed for head, _ in paper.sent) == 1
    assert is_in_order(paper)


def test_inv10_an_item_that_cannot_be_unpickled_harms_itself_alone() -> None:
    for how in RAISES:
        _cannot_be_unpickled(how)


def _cannot_be_unpickled(how: str) -> None:
    paper = Paper()
    run(paper, str, [0, Bomb(how, "unpickling", -1, in_parent=False), 2])
    values = [outcome_of(answer) for answer in paper.answers]
    assert [values[0].value, values[2].value] == ["0", "2"]
    error = values[1].error
    assert isinstance(error, PayloadError)
    assert error.side == "call"


def test_inv10_a_result_that_cannot_be_pickled_harms_itself_alone() -> None:
    paper = Paper()
    run(paper, lambda n: (each for each in ()) if n == 1 else [n], range(3))
    values = [outcome_of(answer) for answer in paper.answers]
    assert [values[0].value, values[2].value] == [[0], [2]]
    error = values[1].error
    assert isinstance(error, PayloadError)
    assert error.side == "result"


def test_inv10_a_function_that_cannot_be_opened_fails_every_item() -> None:
    paper = Paper()

    def shared() -> Function:
        raise ValueError("not here")

    run_block([1, 2, 3], shared, paper, Noisy(), paper.send)  # type: ignore[arg-type]
    errors = [outcome_of(answer).error for answer in paper.answers]
    assert len(errors) == 3
    assert all(isinstance(error, PayloadError) and error.side == "call" for error in errors)
    assert len({id(error) for error in errors}) == 3


class Held:
    """Notes when it is let go of."""

    gone: ClassVar[list[int]] = []

    def __init__(self, n: int) -> None:
        self.n = n

    def __reduce__(self) -> Any:
        return Held, (self.n,)

    def __del__(self) -> None:
        self.gone.append(self.n)


def fail(held: Held) -> None:
    raise ValueError(held)


def test_inv10_what_an_item_held_is_let_go_after_its_answer_was_kept_and_before_the_next_begins() -> None:
    for fn in (lambda held: None, lambda held: held, lambda held: Held(held.n), lambda held: [held.n], fail):
        entries = [pack_item((Held(n),)) for n in range(4)]
        Held.gone.clear()
        paper, at_claim = Paper(), list[list[int]]()
        claim, keep = paper.claim_item, paper.keep

        def note_claim(index: int, claim: Any = claim, at_claim: Any = at_claim) -> bool:
            at_claim.append(sorted(set(Held.gone)))
            return bool(claim(index))

        def note_keep(index: int, answer: Entry, keep: Any = keep) -> bool:
            assert index not in Held.gone, "a destructor that crashes would cost the answer"
            return bool(keep(index, answer))

        paper.claim_item, paper.keep = note_claim, note_keep  # type: ignore[method-assign]
        run_block(entries, lambda fn=fn: Function(fn, (), {}), paper, Noisy(), paper.send)  # type: ignore[arg-type,misc]
        assert at_claim == [list(range(n)) for n in range(4)], "a destructor that crashes would cost the next item"


def test_plain_answers_are_values_and_what_looks_like_an_entry_is_not_taken_for_one() -> None:
    paper = Paper()
    results = [*PLAIN, *NOT_PLAIN[:14], (wire.ERROR, b"no error"), (wire.UNSENDABLE, pickle.dumps(1))]
    run(paper, lambda n: results[n], range(len(results)))
    values = [outcome_of(answer).value for answer in paper.answers]
    assert all(map(same, values, results))
    assert sum(head.failed for head, _ in paper.sent) == 0


def test_a_head_says_what_comes() -> None:
    odd = [(wire.VALUE, b"x"), (wire.PARCEL, b"p"), (wire.ERROR, b"y"), (wire.UNREADABLE, b"z"), (wire.UNSENDABLE, b"")]
    answers: list[Entry] = [1, *odd]
    body = pack_answers(1 << 31, answers, final=True)
    assert head_of(body) == (1 << 31, 6, 3, True, 1)
    assert answers_in(body) == answers
    assert head_of(pack_answers(3, [], final=False)) == (3, 0, 0, False, 0)


def test_a_runner_tells_apart_a_list_of_arguments_and_an_argument_that_is_a_list() -> None:
    answer = runner(lambda: Function(lambda *args: repr(args), ("tail",), {}))
    packed = [pack_item(([1, 2],)), pack_item((1, 2)), pack_item(((),)), pack_item((None,))]
    said = [answer(entry, []) for entry in open_entries(pack_entries(packed))]
    assert said == ["([1, 2], 'tail')", "(1, 2, 'tail')", "((), 'tail')", "(None, 'tail')"]
