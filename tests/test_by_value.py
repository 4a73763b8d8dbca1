"""Functions that travel by value: what those of one code have in common is pickled once, what they captured each time.

What arrives is compared with what cloudpickle alone makes of the same function.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import pickle
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import cloudpickle
import pytest

from gpool.workers import functions
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
    exec("def outer(n):\n    return lambda: n\ndef other():\n    return lambda: made", made)
    codes = []
    for name in ("outer", "other"):  # of which one is ours, the other looks at its globals
        fn = made[name](3) if name == "outer" else made[name]()
        there(fn)
        codes.append(weakref.ref(fn.__code__))
        del fn
    made.clear()
    gc.collect()
    assert [code() for code in codes] == [None, None]


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


# -- as cloudpickle has it -------------------------------------------------------------------------------------------

answer = 42


def _named() -> Callable[..., Any]:
    def fn() -> int:
        return 1

    fn.__name__ = "another"
    return fn


def _in_another_place() -> Callable[..., Any]:
    def fn() -> int:
        return 1

    fn.__qualname__ = "nowhere.<locals>.fn"
    return fn


def _in_another_module() -> Callable[..., Any]:
    def fn() -> int:
        return 1

    fn.__module__ = "somewhere"
    return fn


def _explained() -> Callable[..., Any]:
    def fn() -> int:
        """As it was compiled."""
        return 1

    return fn


def _explained_later() -> Callable[..., Any]:
    fn = _explained()
    fn.__doc__ = "As somebody put it."
    return fn


def _with_attributes() -> Callable[..., Any]:
    def fn() -> int:
        return 1

    fn.mark = "x"  # type: ignore[attr-defined]
    return fn


def _wrapping() -> Callable[..., Any]:
    @functools.wraps(fresh)
    def fn() -> int:
        return 1

    return fn


def _annotated() -> Callable[..., Any]:
    def fn(n: int = 1) -> int:
        return n

    fn.__annotations__ = {"n": int}
    return fn


def _with_nested_code() -> Callable[..., Any]:
    def fn() -> Any:
        class Inner:
            value = sorted(n * 2 for n in [3, 2])

        return [Inner.value, [n for n in range(3)], len(list(map(lambda n: n, "four")))]  # noqa: C416, C417

    return fn


def _recursive() -> Callable[..., Any]:
    def fn(n: int = 5) -> int:
        return n * fn(n - 1) if n else 1

    return fn


def _holding_a_list_with_itself() -> Callable[..., Any]:
    known: list[Any] = []

    def fn() -> bool:
        return known[0].__closure__[0].cell_contents is known

    known.append(fn)
    return fn


def _with_an_empty_cell() -> Callable[..., Any]:
    def fn() -> bool:
        try:
            return later
        except NameError:
            return False

    if not fn():
        return fn
    later = True
    return fn


def _generator() -> Callable[..., Any]:
    def fn(n: int = 3) -> Iterator[int]:
        yield from range(n)

    return lambda: list(fn())


def _coroutine() -> Callable[..., Any]:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def fn() -> list[int]:
        return [n async for n in numbers()]

    run = asyncio.run
    return lambda: run(fn())


_MADE: dict[str, Callable[[], Callable[..., Any]]] = {
    "captures": lambda: fresh(1, ["a"]),
    "captures nothing": lambda: lambda: 7,
    "defaults": lambda: lambda n=[1], *, m=2: (n, m),
    "keywords alone": lambda: lambda *, m=2: m,
    "builtins": lambda: lambda: len(repr(max([1, 2]))),
    "a global": lambda: lambda: answer,
    "a global function": lambda: lambda: fresh(1, [])(),
    "an import": lambda: lambda: __import__("json").dumps([1]),
    "another name": _named,
    "another place": _in_another_place,
    "another module": _in_another_module,
    "words": _explained,
    "other words": _explained_later,
    "attributes": _with_attributes,
    "wraps": _wrapping,
    "annotations": _annotated,
    "nested code": _with_nested_code,
    "recursive": _recursive,
    "holds itself": _holding_a_list_with_itself,
    "an empty cell": _with_an_empty_cell,
    "generator": _generator,
    "coroutine": _coroutine,
}


def of(fn: Callable[..., Any]) -> dict[str, Any]:
    """What a function is."""
    return {
        "name": fn.__name__,
        "place": fn.__qualname__,
        "module": fn.__module__,
        "words": fn.__doc__,
        "annotations": fn.__annotations__,
        "attributes": fn.__dict__.keys(),
        "defaults": fn.__defaults__,  # type: ignore[attr-defined]
        "keywords": fn.__kwdefaults__,  # type: ignore[attr-defined]
        "captured": len(fn.__closure__ or ()),  # type: ignore[attr-defined]
        "file": fn.__code__.co_filename,
        "globals": fn.__globals__.keys(),  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("make", _MADE.values(), ids=_MADE)
def test_a_function_is_there_what_cloudpickle_alone_makes_of_it(make: Callable[[], Callable[..., Any]]) -> None:
    for _ in range(2):  # its code is looked at, then known
        fn, usual = there(make()), pickle.loads(cloudpickle.dumps(make()))
        usual.__code__ = usual.__code__.replace(co_filename=__file__)  # some releases drop it
        assert of(fn) == of(usual)
        assert fn() == usual() == make()()


@pytest.mark.parametrize(
    "name", ["captures", "captures nothing", "defaults", "builtins", "words", "recursive", "annotations"]
)
def test_those_that_have_little_of_their_own_are_made_of_code_that_is_kept(name: str) -> None:
    assert functions.__name__.encode() + b"\x94\x8c\x04made" in packed(_MADE[name]())


def test_a_builtin_that_its_module_hides_is_what_the_module_has() -> None:
    made: dict[str, Any] = {"__name__": __name__}
    exec("def outer():\n    return lambda: len([1])", made)
    assert there(made["outer"]())() == 1
    made["len"] = lambda _: "hidden"
    assert there(made["outer"]())() == "hidden"
    del made["len"]
    assert there(made["outer"]())() == 1


def test_two_calls_share_no_globals() -> None:
    made: dict[str, Any] = {"__name__": __name__}
    exec("def outer():\n    return lambda: globals()", made)
    first, second = there(made["outer"]()), there(made["outer"]())
    first()["mark"] = 1
    assert "mark" not in second()
    exec("def outer():\n    def fn():\n        global mark\n        mark = 1\n    return fn, lambda: mark", made)
    write, read = open_call(packed(functools.partial(print, *made["outer"]())), None).fn.args  # type: ignore[attr-defined]
    write()
    assert read() == 1, "those of one call do"


def test_those_of_one_call_share_globals_whoever_pickles_them() -> None:
    """One looks at nothing there by its code; ``eval``, type hints and ``globals`` do all the same."""
    made: dict[str, Any] = {"__name__": "somewhere"}
    exec("def evaluate(words):\n    return eval(words)\nanswer = 42\ndef look():\n    return answer", made)
    evaluate, look = open_call(packed(functools.partial(print, made["evaluate"], made["look"])), None).fn.args  # type: ignore[attr-defined]
    assert look() == evaluate("answer") == 42
    assert evaluate("__name__") == "somewhere"


def test_what_it_knows_of_its_module_is_what_that_was_when_it_was_pickled() -> None:
    made: dict[str, Any] = {"__name__": "somewhere", "__package__": "one", "__path__": ["there"]}
    exec("def outer():\n    return lambda: globals()", made)
    first = there(made["outer"]())()
    made["__package__"] = "two"
    second = there(made["outer"]())()
    assert (first["__package__"], second["__package__"]) == ("one", "two")
    second["__path__"].append("here")
    assert there(made["outer"]())()["__path__"] == ["there"]
    del made["__package__"]
    assert "__package__" not in there(made["outer"]())()


def test_code_that_holds_what_can_change_is_pickled_each_time() -> None:
    class Seen(list[int]):
        def __hash__(self) -> int:  # type: ignore[override]
            return 1

    def fn() -> list[int]:
        known: Any = "seen"
        known.append(1)
        return list(known)

    seen = Seen()
    constants = tuple(seen if each == "seen" else each for each in fn.__code__.co_consts)
    fn.__code__ = fn.__code__.replace(co_consts=constants)
    assert (there(fn)(), there(fn)()) == ([1], [1])
    seen.append(7)
    assert there(fn)() == [7, 1]


def test_a_worker_keeps_no_code_that_is_large() -> None:
    large: Callable[[], str] = eval(f"lambda: {'x' * 100_000!r}")
    kept = functions._open_code.cache_info().misses
    assert there(large)() == large()
    assert there(large).__code__ is not there(large).__code__
    assert functions._open_code.cache_info().misses == kept


def test_a_function_and_its_code_remain_each_others() -> None:
    fn = fresh(1, [])
    call: Any = open_call(packed(functools.partial(fn, fn.__code__)), None).fn  # type: ignore[call-arg]
    assert call.func.__code__ is call.args[0]


def test_words_that_are_none_are_not_looked_into() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

    def fn() -> int:
        return 1

    fn.__doc__ = Odd()  # type: ignore[assignment]
    assert there(fn)() == 1


def test_what_only_looks_like_a_tool_of_cloudpickle_goes_by_value() -> None:
    @functools.wraps(cloudpickle.dumps)
    def measured(value: object) -> int:
        return 3

    assert there(measured)("abc") == 3


def test_of_a_package_that_was_captured_the_modules_it_uses_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    import xml.sax

    package = xml
    body = packed(lambda: package.sax.ContentHandler.__name__)
    monkeypatch.delitem(sys.modules, "xml.sax")
    monkeypatch.delattr(xml, "sax")
    assert open_call(body, None).fn() == "ContentHandler"
