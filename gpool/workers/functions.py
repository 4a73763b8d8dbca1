"""Functions that go by value: what those of one code have in common is pickled once.

Owns how such functions are taken apart and put together again. A program that submits lambdas makes them afresh from
the same code, again and again. All that the interpreter made of the source is the same in each, and never changes: that
is their *pattern*. What they captured, their defaults and annotations, are pickled each time. A function of which more
is its own, or that looks at what its module holds, is left to cloudpickle; of that, the code alone is pickled once.
"""

from __future__ import annotations

import builtins
import pickle
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from opcode import opmap
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, TypeVar

Reduced = tuple[Any, ...]
_Kept = TypeVar("_Kept")

_BUILTINS = vars(builtins)
_READ_GLOBALS = frozenset(opmap[name] for name in ("LOAD_GLOBAL", "LOAD_NAME"))
_OTHER_GLOBALS = frozenset(number for name, number in opmap.items() if "GLOBAL" in name) - _READ_GLOBALS
_OF_ITS_MODULE = ("__package__", "__name__", "__path__", "__file__")
"""What a function's globals hold in any case, for its relative imports; as cloudpickle has it."""


class _Pattern(NamedTuple):
    """Attributes: its pickle; the id of the globals; what all those functions say of themselves; builtins they use."""

    body: bytes
    namespace: int
    words: tuple[str | None, ...]
    names: frozenset[str]


class Reducer:
    """Takes functions and code apart, for one kind of pickler.

    Args:
        code: how that reduces code.
        dump: pickles by value.
    """

    def __init__(self, code: Callable[[CodeType], Reduced], dump: Callable[[Any], bytes]) -> None:
        self._code = code
        self._dump = dump
        self._codes: dict[int, tuple[bytes, weakref.ref[CodeType]]] = {}
        self._patterns: dict[int, tuple[_Pattern | None, weakref.ref[CodeType]]] = {}

    def reduce_code(self, code: CodeType) -> Reduced:
        return code_of, (_once(self._codes, code, lambda: self._dump(self._parts(code))),)

    def reduce_function(self, fn: FunctionType) -> Reduced | None:
        """None if it is cloudpickle's business."""
        pattern = _once(self._patterns, fn.__code__, lambda: self._pattern(fn))
        if pattern is None or not _follows(fn, pattern):
            return None
        try:
            captured = [cell.cell_contents for cell in fn.__closure__ or ()]
        except ValueError:  # nothing is in it yet
            return None
        if any(isinstance(value, ModuleType) for value in captured):
            return None  # who uses it may need its submodules to be imported
        own = captured, fn.__defaults__, fn.__kwdefaults__, fn.__annotations__ or None
        return made, (pattern.body,), own, None, None, fill

    def _pattern(self, fn: FunctionType) -> _Pattern | None:
        """None if it looks at its globals."""
        code = fn.__code__
        names: set[str] = set()
        for each in _nested(code):
            used = frozenset(each.co_code[::2])
            if used & _OTHER_GLOBALS:
                return None
            if used & _READ_GLOBALS:
                names.update(each.co_names)
        if not names <= _BUILTINS.keys():
            return None
        namespace = {name: fn.__globals__[name] for name in _OF_ITS_MODULE if name in fn.__globals__}
        body = self._dump((self._parts(code), namespace))
        return _Pattern(body, id(fn.__globals__), _words(_bare(code, namespace)), frozenset(names))

    def _parts(self, code: CodeType) -> Reduced:
        """With its file's name: some releases of cloudpickle drop it, and with it every traceback's source lines."""
        make, parts = self._code(code)
        return code.co_filename, make, parts


def _once(known: dict[int, tuple[_Kept, weakref.ref[CodeType]]], code: CodeType, make: Callable[[], _Kept]) -> _Kept:
    """What is made of a code, which never changes: by its id, and as long as it lives."""
    key = id(code)
    entry = known.get(key)
    if entry is None:
        entry = known[key] = make(), weakref.ref(code, lambda _: known.pop(key, None))
    return entry[0]


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _follows(fn: FunctionType, pattern: _Pattern) -> bool:
    """True if nothing else is its own but what it captured, its defaults and annotations."""
    return (
        id(fn.__globals__) == pattern.namespace
        and _words(fn) == pattern.words
        and not fn.__dict__
        and getattr(fn, "__annotate__", None) is None  # what it would take to evaluate its annotations
        and not getattr(fn, "__type_params__", None)
        and (not pattern.names or fn.__globals__.keys().isdisjoint(pattern.names))
    )


def _words(fn: FunctionType) -> tuple[str | None, ...]:
    return fn.__name__, fn.__qualname__, fn.__doc__, fn.__module__


def _bare(code: CodeType, namespace: dict[str, Any]) -> FunctionType:
    """A function that has nothing of its own."""
    return FunctionType(code, namespace, closure=tuple(CellType() for _ in code.co_freevars) or None)


# In the worker.


def code_of(body: bytes) -> CodeType:
    return _open_code(body)


def made(body: bytes) -> FunctionType:
    """A function of that pattern; its globals are its own."""
    code, namespace = _open_pattern(body)
    return _bare(code, namespace.copy())


def fill(fn: FunctionType, own: tuple[Any, ...]) -> None:
    """Give a function what is its own. It may hold itself."""
    captured, fn.__defaults__, fn.__kwdefaults__, annotations = own
    if annotations is not None:
        fn.__annotations__ = annotations
    for cell, value in zip(fn.__closure__ or (), captured, strict=True):
        cell.cell_contents = value


@lru_cache(maxsize=256)
def _open_code(body: bytes) -> CodeType:
    return _put_together(*pickle.loads(body))


@lru_cache(maxsize=256)
def _open_pattern(body: bytes) -> tuple[CodeType, dict[str, Any]]:
    parts, namespace = pickle.loads(body)
    return _put_together(*parts), {**namespace, "__builtins__": _BUILTINS}


def _put_together(filename: str, make: Callable[..., CodeType], parts: tuple[Any, ...]) -> CodeType:
    return make(*parts).replace(co_filename=filename)
