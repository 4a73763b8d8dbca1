"""Functions that travel by name: the name is pickled once, and nothing else that travels is the worse for it."""

from __future__ import annotations

import gc
import math
import os
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from gpool.workers import windows
from gpool.workers.arena import Range
from gpool.workers.payload import Call, Function, one_call, open_call
from tests import gates

pytestmark = pytest.mark.skipif(windows.system() is None, reason="large buffers travel by the stream here")


@pytest.fixture
def room() -> Iterator[Range]:
    """For what is large; it is the short way of what is small that is meant here, and nobody takes that without."""
    fd = os.memfd_create("test")
    yield Range(fd, 0)
    os.close(fd)


def there(room: Range, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Function:
    """What a worker makes of a small call."""
    body = one_call(fn, args, kwargs, room)
    assert isinstance(body, bytes)
    return open_call(body, None)


@pytest.mark.parametrize("fn", [gates.pass_gate, len, math.sqrt, pickle.dumps])
def test_the_worker_finds_it_under_its_name(room: Range, fn: Callable[..., Any]) -> None:
    for _ in range(2):
        assert there(room, fn, 1, "a") == (fn, (1, "a"), {})
    assert there(room, fn, 1, key=2) == (fn, (1,), {"key": 2})


def test_arguments_are_to_each_other_what_they_were(room: Range) -> None:
    words = ["a", "b"]
    for _ in range(2):
        first, second, inner, fn = there(room, gates.pass_gate, words, words, [words, "a"], gates.pass_gate).args
        assert first is second is inner[0]
        assert first == words
        assert fn is gates.pass_gate


def test_nobody_keeps_it(room: Range) -> None:
    def passing(words: list[str]) -> list[str]:
        return words

    passing.__module__, passing.__qualname__ = gates.__name__, "passing"
    vars(gates)["passing"] = passing
    assert there(room, passing, ["a"]).fn is passing
    del vars(gates)["passing"]
    gone = weakref.ref(passing)
    del passing
    gc.collect()
    assert gone() is None


def test_what_its_module_has_no_more_goes_by_value(room: Range, monkeypatch: pytest.MonkeyPatch) -> None:
    original = gates.pass_gate
    assert there(room, original).fn is original
    monkeypatch.setattr(gates, "pass_gate", len)
    assert there(room, original).fn not in (original, len)
    assert there(room, original).fn.__code__ == original.__code__


def test_a_module_may_be_sent_by_value_at_any_time(room: Range) -> None:
    assert there(room, gates.pass_gate).fn is gates.pass_gate
    cloudpickle.register_pickle_by_value(gates)
    try:
        assert there(room, gates.pass_gate).fn is not gates.pass_gate
    finally:
        cloudpickle.unregister_pickle_by_value(gates)
    assert there(room, gates.pass_gate).fn is gates.pass_gate


def test_what_only_looks_like_a_name_is_none(room: Range) -> None:
    def local() -> str:
        return "local"

    local.__qualname__ = "pass_gate"
    local.__module__ = "tests.gates"
    assert there(room, local).fn() == "local"
    local.__module__ = "no.such.module"
    assert there(room, local).fn() == "local"
    assert there(room, [3, 1, 2].index, 1).fn(1) == 1


def test_large_arguments_travel_apart_all_the_same(room: Range) -> None:
    call = one_call(gates.pass_gate, (bytes(1 << 22),), {}, room)
    assert isinstance(call, Call)
    assert call.places
