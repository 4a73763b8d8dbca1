"""Functions that travel by value: their code is pickled once, what they captured each time."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from gpool.workers import payload
from gpool.workers.payload import one_call, open_call


def fresh(n: int, words: list[str]) -> Callable[[], Any]:
    return lambda: (n, words)


def packed(fn: Callable[..., Any]) -> bytes:
    body = one_call(fn, (), {})
    assert isinstance(body, bytes)
    return body


def there(fn: Callable[..., Any]) -> Callable[..., Any]:
    """What a worker makes of it."""
    return open_call(packed(fn), None).fn


def test_each_closure_has_what_it_captured_when_it_was_pickled() -> None:
    words = ["a"]
    first = packed(fresh(1, words))
    words.append("b")
    second = packed(fresh(2, words))
    assert open_call(first, None).fn() == (1, ["a"])
    assert open_call(second, None).fn() == (2, ["a", "b"])
    assert open_call(second, None).fn()[1] is not open_call(second, None).fn()[1]


def test_closures_of_one_function_share_its_code() -> None:
    assert there(fresh(1, [])).__code__ is there(fresh(2, [])).__code__


def test_code_that_is_gone_is_forgotten() -> None:
    made: dict[str, Any] = {}
    exec("def outer(n):\n    return lambda: n", made)
    before = len(payload._codes)
    assert there(made["outer"](3))() == 3
    assert len(payload._codes) == before + 1
    made.clear()
    gc.collect()
    assert len(payload._codes) == before


def test_code_made_where_other_code_was_is_not_taken_for_it() -> None:
    for number in range(50):
        made: dict[str, Any] = {}
        exec(f"def fn():\n    return {number}", made)
        assert there(made.pop("fn"))() == number


def test_code_keeps_its_file_and_its_nested_code() -> None:
    def outer() -> Callable[[], int]:
        return lambda: 1 // 0

    inner = there(outer)()
    assert inner.__code__.co_filename == __file__
    with pytest.raises(ZeroDivisionError):
        inner()
