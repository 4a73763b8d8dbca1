"""Blocks: several items of one ``map`` or ``ingest`` that travel as one call, each with an outcome of its own.

Owns how items and answers are packed, and the worker's way through a block.

What travels is a list of *entries*. A plain value, which no user code can make or break, stands for itself, and a list
for several of them. Anything else is a pair (kind, body), like a frame: its body is a pickle of its own, so whatever
happens when that is opened happens to this item alone, and the list itself can be unpickled by anybody.
"""

from __future__ import annotations

import pickle
import struct
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from time import perf_counter
from types import NoneType
from typing import Any, NamedTuple, Protocol, TypeAlias

from gpool.outcome import Outcome, returned
from gpool.workers import wire
from gpool.workers.arena import Place, Range
from gpool.workers.boards import WorkerBoard
from gpool.workers.parcels import Packed
from gpool.workers.payload import Buffer, Function, open_call, open_outcome, pack_call, pack_error, pack_value
from gpool.workers.streams import Streams

Entry = Any
"""A plain value, a list of them, or a pair of a frame's kind and its body."""
Collected: TypeAlias = "list[Entry] | array[Any]"
"""Entries; in an array, if all are numbers of one type: that is packed and opened in no time."""
Entries: TypeAlias = "Collected | range"
"""What a block's items may be: those of a range travel as one."""
Runner = Callable[[Entry, list[Any]], Entry]

_PLAIN = frozenset((int, float, bool, NoneType, complex))
_TEXT = frozenset((str, bytes))
_ALONE = _PLAIN | _TEXT
"""An entry of these is an item itself."""
_INTS = {int}
_NUMBERS = frozenset((array, range))
_LARGE = 1 << 63
_PLAIN_UP_TO = 256
"""Characters or bytes of a string that is plain."""
_SEND_SECONDS = 0.004
"""After which answers are sent though the block goes on. It costs both sides about 0.1 ms together."""
_PROTOCOL = pickle.HIGHEST_PROTOCOL
_HEAD = struct.Struct("<IIIBI")


def is_plain(value: object) -> bool:
    """True for a value that can stand for itself: it is of a type that pickles without anybody's code, and small."""
    return is_scalar(value) or (type(value) in _TEXT and len(value) <= _PLAIN_UP_TO)  # type: ignore[arg-type]


def is_scalar(value: object) -> bool:
    """True for a plain value that takes a few bytes."""
    cls = type(value)
    return -_LARGE < value < _LARGE if cls is int else cls in _PLAIN  # type: ignore[operator]


def pack_item(args: tuple[Any, ...], room: Range | None = None) -> Entry | Packed:
    """A call's arguments; ``Packed`` if they take memory beside the entry: then they travel alone.

    Raises PayloadError.
    """
    if all(map(is_plain, args)):
        return args[0] if len(args) == 1 else list(args)
    packed = pack_call(args, room)
    return packed if packed.places else (wire.CALL, packed.body)


def plain_entries(items: Sequence[Any], several: bool) -> Entries | None:
    """Entries for all these at once if they are plain; ``several`` says that each is a tuple of arguments."""
    if type(items) is range:
        return items if is_scalar(items[0]) and is_scalar(items[-1]) else None
    values = list(chain.from_iterable(items)) if several else items
    kinds = set(map(type, values))
    if kinds == _INTS:
        try:
            numbers = array("q", values)
        except OverflowError:
            return None
        return list(map(list, items)) if several else numbers
    if not kinds <= _PLAIN or int in kinds:
        return None
    return list(map(list, items)) if several else list(items)


def open_item(entry: Entry) -> Sequence[Any]:
    """A call's arguments. Raises whatever user code raises."""
    cls = type(entry)
    if cls is tuple:
        args: tuple[Any, ...] = pickle.loads(entry[1])
        return args
    return entry if cls is list else (entry,)


def weight(entry: Entry | Packed) -> int:
    """Bytes that an entry takes, roughly."""
    if type(entry) is Packed:
        return len(entry.body) + sum(place.size for place in entry.places)
    if type(entry) in _TEXT:
        return len(entry)
    return len(entry[1]) if type(entry) is tuple else 8


def pack_entries(entries: Sequence[Entry]) -> bytes:
    return pickle.dumps(entries, _PROTOCOL)


def open_entries(body: Buffer) -> Sequence[Entry]:
    """No user code runs here."""
    entries: Sequence[Entry] = pickle.loads(body)
    return entries


class Head(NamedTuple):
    """What stands before the entries of an ANSWERS frame: which items of the block they answer.

    ``failed`` of them are no values, ``parcels`` are values of which parts travelled by memory. No more answers come
    after the ``final`` ones.
    """

    first: int
    items: int
    failed: int
    final: bool
    parcels: int


class Answers(NamedTuple):
    """What an ANSWERS frame says, when it has been opened."""

    head: Head
    entries: list[Entry]


class Keeper(Protocol):
    """Where large values may go."""

    @property
    def room(self) -> Range: ...
    def sent(self, places: tuple[Place, ...]) -> None: ...


def pack_answers(first: int, answers: Sequence[Entry], *, final: bool) -> bytes:
    """The body of an ANSWERS frame."""
    pairs = [] if type(answers) is array or tuple not in set(map(type, answers)) else answers
    failed, parcels = sum(map(_failed, pairs)), sum(map(_is_parcel, pairs))
    return _HEAD.pack(first, len(answers), failed, final, parcels) + pack_entries(answers)


def head_of(body: Buffer | Answers) -> Head:
    """What an ANSWERS frame says before its entries."""
    return body.head if type(body) is Answers else Head(*_HEAD.unpack_from(body))  # type: ignore[arg-type]


def answers_in(body: Buffer | Answers) -> Sequence[Entry]:
    """The entries of an ANSWERS frame. No user code runs here."""
    return body.entries if type(body) is Answers else open_entries(memoryview(body)[_HEAD.size :])  # type: ignore[arg-type]


def open_parcels(body: Buffer, open_one: Callable[[Buffer], tuple[int, Any]]) -> Answers:
    """With what each parcel's body opens to, a kind and a body, in place of it."""
    head = head_of(body)
    entries = [open_one(entry[1]) if _is_parcel(entry) else entry for entry in answers_in(body)]
    return Answers(head._replace(failed=sum(map(_failed, entries))), entries)


def outcome_of(answer: Entry) -> Outcome:
    """User code may run here."""
    return open_outcome(*answer) if type(answer) is tuple else returned(answer)


def _failed(answer: Entry) -> bool:
    return type(answer) is tuple and answer[0] != wire.VALUE and answer[0] != wire.PARCEL


def _is_parcel(answer: Entry) -> bool:
    return type(answer) is tuple and answer[0] == wire.PARCEL


def runner(shared: Callable[[], Function] | None, keeper: Keeper | None = None) -> Runner:
    """What answers one item after the other with a shared function; without one, each is a whole call.

    Nothing that user code raises gets out; what is to outlive an answer is added to ``held``.
    """
    if shared is None:
        return partial(_run_call, keeper)
    try:
        fn, tail, kwargs = shared()
    except BaseException as error:
        refusal = wire.UNREADABLE, pack_error(error)[1]
        return lambda entry, held: refusal

    def run(entry: Entry, held: list[Any]) -> Entry:
        args: Sequence[Any] = (entry,)
        if type(entry) not in _ALONE:
            try:
                args = open_item(entry)
            except BaseException as error:
                return _unreadable(error, held)
            held.append(args)
        try:
            value = fn(*args, *tail, **kwargs)
        except BaseException as error:
            return _raised(error, held)
        return value if type(value) in _PLAIN else _pack_value(value, held, keeper)

    return run


def _run_call(keeper: Keeper | None, entry: Entry, held: list[Any]) -> Entry:
    try:
        call = open_call(entry, None)
    except BaseException as error:
        return _unreadable(error, held)
    held.append(call)
    try:
        value = call.fn(*call.args, **call.kwargs)
    except BaseException as error:
        return _raised(error, held)
    return value if type(value) in _PLAIN else _pack_value(value, held, keeper)


def _pack_outcome(outcome: Outcome, held: list[Any], keeper: Keeper | None) -> Entry:
    value, error = outcome
    if error is not None:
        return _raised(error, held)
    return value if type(value) in _PLAIN else _pack_value(value, held, keeper)


def _unreadable(error: BaseException, held: list[Any]) -> Entry:
    held.append(error)
    return wire.UNREADABLE, pack_error(error)[1]


def _raised(error: BaseException, held: list[Any]) -> Entry:
    held.append(error)
    return pack_error(error, held)


def _pack_value(value: Any, held: list[Any], keeper: Keeper | None) -> Entry:
    if is_plain(value):
        return value
    held.append(value)
    try:
        body, places = pack_value(value, None if keeper is None else keeper.room, (value,))
        if keeper is None or not places:
            return wire.VALUE, body
        keeper.sent(places)
        return wire.PARCEL, body
    except BaseException as error:
        held.append(error)
        return wire.UNSENDABLE, pack_error(error)[1]


def run_block(
    entries: Sequence[Entry],
    shared: Callable[[], Function] | None,
    board: WorkerBoard,
    streams: Streams,
    send: Callable[[bytes, float], object],
    keeper: Keeper | None = None,
) -> None:
    """Run the items, as far as the board lets it, and send the answers.

    An answer is kept on the board, or sent, before the next item is claimed, and what the item held is let go in
    between: so a destructor that crashes costs no answer and no other item.
    """
    begun = sent = perf_counter()
    first = 0
    answers: Collected = []
    held: list[Any] = []
    run: Runner | None = None
    claim, keep = board.claim_item, board.keep
    quick = shared is not None and (type(entries) in _NUMBERS or _ALONE.issuperset(map(type, entries)))
    items = enumerate(list(entries))
    for index, entry in items:
        if not claim(index):
            break
        if run is None:  # not before the first item is claimed: who opens the function is to blame for it
            run = runner(shared, keeper)
        answer = run(entry, held)
        streams.flush()
        if quick and shared and not answers and not held and (cells := board.open_cells(index, len(entries), answer)):
            index, outcome = cells.run(_caller(shared()), items, streams, sent + _SEND_SECONDS)  # noqa: PLW2901
            if outcome is None:
                answers = cells.kept(index + 1)
                continue
            answer, kept = _pack_outcome(outcome, held, keeper), False
            streams.flush()
            answers = _with(cells.kept(index), answer)
            quick = type(answers) is array  # else the next number might be followed by another such answer
            del outcome
        else:
            kept = keep(index, answer)
            answers.append(answer)
        now = perf_counter()
        if not kept or now - sent > _SEND_SECONDS:
            send(pack_answers(first, answers, final=False), now - begun)
            board.clear(index + 1)
            first, answers, sent = index + 1, [], now
        if held:
            del entry, answer
            held.clear()
    send(pack_answers(first, answers, final=True), perf_counter() - begun)


def _caller(function: Function) -> Callable[[Entry], Any]:
    """The function, to be called with an entry alone."""
    fn, tail, kwargs = function
    return (lambda entry: fn(entry, *tail, **kwargs)) if tail or kwargs else fn


def _with(numbers: array[Any], answer: Entry) -> Collected:
    """One answer more."""
    if type(answer) is type(numbers[0]):
        with suppress(OverflowError):
            numbers.append(answer)
            return numbers
    return [*numbers, answer]
