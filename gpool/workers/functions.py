"""Functions that go by value: what those of one code have in common is pickled once.

Owns how such functions are taken apart and put together again. A program that submits lambdas makes them afresh from
the same code, again and again. That is the same in each, and never changes, so it is pickled once. What they captured,
their defaults and annotations, and what they know of their module, are pickled each time. A function of which more is
its own, or that looks at what its module holds, is left to cloudpickle, but for its code.
"""

from __future__ import annotations

import builtins
import pickle
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from opcode import opmap
from types import CellType, CodeType, EllipsisType, FunctionType, ModuleType, NoneType
from typing import Any, NamedTuple, Protocol

Reduced = tuple[Any, ...]

_BUILTINS = vars(builtins)
_READ_GLOBALS = frozenset(opmap[name] for name in ("LOAD_GLOBAL", "LOAD_NAME"))
_OTHER_GLOBALS = frozenset(number for name, number in opmap.items() if "GLOBAL" in name) - _READ_GLOBALS
_OF_ITS_MODULE = ("__package__", "__name__", "__path__", "__file__")
"""What a function's globals hold in any case, for its relative imports; as cloudpickle has it."""
_CONSTANTS = frozenset((NoneType, bool, int, float, complex, str, bytes, EllipsisType, slice))
_LARGEST = 1 << 14
"""Bytes of a pickled code that workers keep. Of most it is a tenth of that."""
_KEPT = 256


class _Known(NamedTuple):
    """What is known of a code, as long as it lives.

    Attributes:
        body: its pickle, None if it is to be pickled each time: it holds what can change, or is large.
        names: the builtins it uses; None if it looks for anything else among its globals.
        doc: what its functions say of themselves.
    """

    body: bytes | None
    names: frozenset[str] | None
    doc: str | None


class Pickler(Protocol):
    """Of cloudpickle's."""

    @property
    def globals_ref(self) -> dict[int, dict[str, Any]]:
        """By the id of their globals, what functions of one pickle have for globals on the other side."""


class Reducer:
    """Takes functions and code apart.

    Args:
        code: how cloudpickle reduces code.
        dump: pickles by value.
    """

    def __init__(self, code: Callable[[CodeType], Reduced], dump: Callable[[Any], bytes]) -> None:
        self._code = code
        self._dump = dump
        self._known: dict[int, tuple[_Known, weakref.ref[CodeType]]] = {}

    def reduce_code(self, code: CodeType) -> Reduced:
        body = self._look_at(code).body
        return (_put_together, self._parts(code)) if body is None else (code_of, (body,))

    def reduce_function(self, fn: FunctionType, pickler: Pickler) -> Reduced | None:
        """None if it is cloudpickle's business."""
        body, names, doc = self._look_at(fn.__code__)
        if body is None or names is None or not _is_bare(fn, names, doc):
            return None
        try:
            captured = [cell.cell_contents for cell in fn.__closure__ or ()]
        except ValueError:  # nothing is in it yet
            return None
        if any(isinstance(value, ModuleType) for value in captured):
            return None  # who uses it may need its submodules to be imported
        own = captured, fn.__defaults__, fn.__kwdefaults__, fn.__annotations__ or None
        return made, (body, _globals_of(fn, pickler)), own, None, None, fill

    def _look_at(self, code: CodeType) -> _Known:
        key = id(code)
        entry = self._known.get(key)
        if entry is None:
            known = self._known
            entry = known[key] = self._learn(code), weakref.ref(code, lambda _: known.pop(key, None))
        return entry[0]

    def _learn(self, code: CodeType) -> _Known:
        body = self._dump(self._parts(code)) if _is_constant(code) else b""
        return _Known(body if 0 < len(body) <= _LARGEST else None, _builtins_used(code), _bare(code, {}).__doc__)

    def _parts(self, code: CodeType) -> Reduced:
        """With its file's name: some releases of cloudpickle drop it, and with it every traceback's source lines."""
        make, parts = self._code(code)
        return code.co_filename, make, parts


def _globals_of(fn: FunctionType, pickler: Pickler) -> dict[str, Any]:
    """What is to be its globals: functions of one pickle that share theirs go on to do so."""
    shared = pickler.globals_ref.setdefault(id(fn.__globals__), {})
    if not shared:
        shared.update((name, fn.__globals__[name]) for name in _OF_ITS_MODULE if name in fn.__globals__)
    return shared


def _is_constant(value: object) -> bool:
    """True for what a compiler puts into code: it never changes."""
    kind = type(value)
    if kind is CodeType:
        return all(map(_is_constant, value.co_consts))  # type: ignore[attr-defined]
    if kind is tuple or kind is frozenset:
        return all(map(_is_constant, value))  # type: ignore[call-overload]
    return kind in _CONSTANTS


def _builtins_used(code: CodeType) -> frozenset[str] | None:
    """None if it looks for anything else."""
    names: set[str] = set()
    for each in _nested(code):
        used = frozenset(each.co_code[::2])
        if used & _OTHER_GLOBALS:
            return None
        if used & _READ_GLOBALS:
            names.update(each.co_names)
    return frozenset(names) if names <= _BUILTINS.keys() else None


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _is_bare(fn: FunctionType, names: frozenset[str], doc: str | None) -> bool:
    """True if nothing is its own but what it captured, its defaults and annotations, and these are builtins for it."""
    code, space = fn.__code__, fn.__globals__
    return (
        fn.__name__ is code.co_name
        and fn.__qualname__ is code.co_qualname
        and fn.__doc__ is doc
        and fn.__module__ is space.get("__name__")
        and not fn.__dict__
        and getattr(fn, "__annotate__", None) is None  # what it would take to evaluate its annotations
        and not getattr(fn, "__type_params__", None)
        and (not names or space.keys().isdisjoint(names))
    )


def _bare(code: CodeType, space: dict[str, Any]) -> FunctionType:
    """A function that has nothing of its own."""
    return FunctionType(code, space, closure=tuple(CellType() for _ in code.co_freevars) or None)


# In the worker.


def code_of(body: bytes) -> CodeType:
    return _open_code(body)


def made(body: bytes, space: dict[str, Any]) -> FunctionType:
    """A function of this code with these globals."""
    space["__builtins__"] = _BUILTINS
    return _bare(_open_code(body), space)


def fill(fn: FunctionType, own: tuple[Any, ...]) -> None:
    """Give a function what is its own. It may hold itself."""
    captured, fn.__defaults__, fn.__kwdefaults__, annotations = own
    if annotations is not None:
        fn.__annotations__ = annotations
    for cell, value in zip(fn.__closure__ or (), captured, strict=True):
        cell.cell_contents = value


@lru_cache(maxsize=_KEPT)
def _open_code(body: bytes) -> CodeType:
    return _put_together(*pickle.loads(body))


def _put_together(filename: str, make: Callable[..., CodeType], parts: tuple[Any, ...]) -> CodeType:
    return make(*parts).replace(co_filename=filename)
