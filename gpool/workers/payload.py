"""Pickling: calls on their way out, outcomes on their way back.

Owns what is pickled how, and is the only user of cloudpickle, which is imported when first needed. Whoever
calls knows whom to blame: everything that user code may raise comes out as ``PayloadError``.

Plain ``pickle`` is about ten times as fast as cloudpickle and gives the same bytes for anything importable. What
lives in the main module must go by value, because a worker never imports the user's main module; so plain
pickle's output is used unless it mentions ``__main__`` or a module registered for pickling by value.
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import count
from types import BuiltinFunctionType, CellType, CodeType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from gpool.outcome import Outcome, raised, returned
from gpool.workers import wire
from gpool.workers.arena import Place, Range
from gpool.workers.parcels import LARGE, Packed, Parcel, pack

if TYPE_CHECKING:
    from gpool.errors import PayloadError

Buffer = bytes | bytearray | memoryview
_PROTOCOL = pickle.HIGHEST_PROTOCOL
_shared_numbers = count(1)


class RemoteTraceback(Exception):
    """Stands as ``__cause__`` of a worker's exception; its text is the worker's traceback."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Shared:
    """A function and its fixed arguments, pickled once for many calls; workers keep it while this object lives."""

    __slots__ = ("__weakref__", "body", "number")

    def __init__(self, fn: Callable[..., Any], tail: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.number = next(_shared_numbers)
        self.body = dump_call((fn, tail, dict(kwargs)))


class Function(NamedTuple):
    """What to run, with what."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Call(NamedTuple):
    """What to send: with ``shared``, the body holds only the arguments that differ.

    With more than one item it is a block, and the body their packed entries. With places it is a parcel.
    """

    body: bytes
    shared: Shared | None = None
    items: int = 1
    places: tuple[Place, ...] = ()


def _by_value_modules() -> bool:
    # Another thread may be in the middle of importing it: then nothing has been registered yet.
    registry = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", None)
    return registry is not None and bool(registry())


def dumps(value: Any) -> bytes:
    """Pickle by the cheapest way that is right. Raises whatever user code raises."""
    try:
        body = pickle.dumps(value, _PROTOCOL)
    except Exception:
        body = b"__main__"  # a lambda, a local class, …: by value then
    if b"__main__" not in body and not _by_value_modules():
        return body
    return _dump_by_value(value, {})


def pack_value(value: Any, room: Range | None, surface: Sequence[Any]) -> Packed:
    """``dumps``, with what is large apart if there is room. Raises whatever user code raises.

    Args:
        surface: where to look for long strings.
    """
    if room is None:
        return Packed(dumps(value))
    is_long, by_value = _has_long(surface), False
    if not is_long:
        try:
            body = pickle.dumps(value, _PROTOCOL, buffer_callback=_stays)
        except _Large:
            pass
        except Exception:
            by_value = True  # a lambda, a local class, …
        else:
            by_value = b"__main__" in body or _by_value_modules()
            if not by_value:
                return _new_packed((body, ())) if len(body) < LARGE else pack((body,), (), room) or Packed(body)
    return _pack_apart(value, room, is_long, by_value)


_new_packed = Packed._make


class _Large(Exception):
    """A pickle has a buffer that should travel apart."""


def _stays(buffer: pickle.PickleBuffer) -> bool:
    if len(buffer.raw()) >= LARGE:
        raise _Large
    return True


def _pack_apart(value: Any, room: Range, is_long: bool, by_value: bool) -> Packed:
    large: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if len(raw) < LARGE:
            return True
        large.append(raw)
        return False

    pieces: list[bytes] = []
    try:
        if by_value:
            names_main = True
        elif is_long:
            pickle.Pickler(_Sink(pieces), _PROTOCOL, buffer_callback=stays).dump(value)
            names_main = _names_main(pieces)
        else:
            pieces.append(pickle.dumps(value, _PROTOCOL, buffer_callback=stays))
            names_main = b"__main__" in pieces[0]
    except Exception:
        names_main = True
    if names_main or _by_value_modules():
        large.clear()
        pieces = [_dump_by_value(value, {}, stays)]
    if not large and sum(map(len, pieces)) < LARGE:
        return Packed(b"".join(pieces))
    packed = pack(pieces, large, room)
    if packed is None:
        return Packed(b"".join(pieces) if not large else dumps(value))
    return packed


class _Sink:
    """A file that keeps what is written to it as it comes: the C pickler hands long bytes over as they are."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._keep = pieces.append

    def write(self, piece: bytes) -> None:
        self._keep(piece if type(piece) is bytes else bytes(piece))  # what can change later is copied now


_LONG = frozenset((bytes, str, bytearray))
_SERIES = frozenset((list, tuple))
_LONG_FROM = 1 << 16
"""From where on the pickler hands bytes over as they are."""
_LOOKED_AT = 8
"""Items at the beginning of a list or a tuple."""


def _has_long(surface: Sequence[Any]) -> bool:
    """Whether it is worth while to have long strings handed over as they are. No more than a glance."""
    for each in surface:
        cls = type(each)
        if cls in _LONG:
            if len(each) >= _LONG_FROM:
                return True
        elif cls in _SERIES:
            for inner in each[:_LOOKED_AT]:
                if type(inner) in _LONG and len(inner) >= _LONG_FROM:
                    return True
    return False


def _names_main(pieces: list[bytes]) -> bool:
    """Whether some piece mentions the main module. Long strings stand behind their opcode and length, and mention it
    in vain: they are only data."""
    before = b""
    for piece in pieces:
        size = len(piece)
        four, eight = (size & 0xFFFF_FFFF).to_bytes(4, "little"), size.to_bytes(8, "little")
        is_data = before.endswith((b"B" + four, b"X" + four, b"\x8e" + eight, b"\x8d" + eight, b"\x96" + eight))
        if not is_data and b"__main__" in piece:
            return True
        before = b"" if is_data else piece
    return False


def _payload_error(side: str, problem: str) -> PayloadError:
    from gpool.errors import PayloadError  # brings logging along, which a worker may never need

    return PayloadError(side, problem)


def dump_call(call: tuple[Any, ...]) -> bytes:
    """Pickle a call in the caller's thread; PayloadError says why it can't be. Ctrl-C passes."""
    return pack_call(call, None).body


def pack_call(call: tuple[Any, ...], room: Range | None) -> Packed:
    """``dump_call``, with what is large apart if there is room."""
    try:
        return pack_value(call, room, call)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _payload_error("call", "pickled") from error


def one_call(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], room: Range | None = None
) -> Call | bytes:
    """A call that stands for itself; its body if there is no more to it."""
    surface = (*args, *kwargs.values()) if kwargs else args
    by_value = False
    if room is not None and not _has_long(surface):  # what follows does it all; this is the short way for what is small
        try:
            body = _call_body(fn, args, kwargs)
            by_value = b"__main__" in body or _by_value_modules()
            if len(body) < LARGE and not by_value:
                return body
        except _Large:
            pass
        except KeyboardInterrupt:
            raise
        except BaseException:
            by_value = True  # a lambda, a local class, …
    value = fn, args, kwargs
    try:
        if by_value and room is not None:
            body, places = _pack_apart(value, room, is_long=False, by_value=True)
        else:
            body, places = pack_value(value, room, surface)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _payload_error("call", "pickled") from error
    return Call(body, None, 1, places) if places else body


def _call_body(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """A small call's pickle. A function that its module has under its name is pickled once, the rest goes behind it."""
    if type(fn) in _NAMED and not kwargs:
        module = sys.modules.get(fn.__module__)
        if module is not None and getattr(module, "__dict__", _NOTHING).get(fn.__qualname__) is fn:
            return (
                _name(fn.__module__, fn.__qualname__)
                + pickle.dumps(args, _PROTOCOL, buffer_callback=_stays)[:-1]
                + _NO_KWARGS
            )
    return pickle.dumps((fn, args, kwargs), _PROTOCOL, buffer_callback=_stays)


_NAMED = frozenset((FunctionType, BuiltinFunctionType))
_NOTHING: Mapping[str, Any] = {}
_NO_KWARGS = pickle.EMPTY_DICT + pickle.TUPLE3 + pickle.STOP


@lru_cache(maxsize=256)
def _name(module: str, name: str) -> bytes:
    """What a module has under a name, pickled without its end and without a memo: that is for what comes behind."""
    return pickle.PROTO + bytes((_PROTOCOL,)) + _text(module) + _text(name) + pickle.STACK_GLOBAL


def _text(text: str) -> bytes:
    data = text.encode()
    return pickle.BINUNICODE + len(data).to_bytes(4, "little") + data


def open_function(body: Buffer) -> Function:
    """In the worker: a shared function. Raises whatever user code raises."""
    fn, tail, kwargs = pickle.loads(body)
    return Function(fn, tail, kwargs)


def open_call(body: Buffer, shared: Function | None, buffers: Sequence[memoryview] = ()) -> Function:
    """In the worker: what to run. Raises whatever user code raises."""
    if shared is None:
        fn, args, kwargs = pickle.loads(body, buffers=buffers)
        return Function(fn, args, kwargs)
    return Function(shared.fn, (*pickle.loads(body, buffers=buffers), *shared.args), shared.kwargs)


def dump_error(error: BaseException, held: list[Any] | None = None) -> bytes:
    """Pickle an exception with its traceback's text so that the other side can rebuild it.

    An exception whose constructor takes other arguments than it keeps does not survive pickle's own way; it is
    taken apart here and put together without its constructor. Raises if its parts do not pickle either.
    """
    text = "".join(traceback.format_exception(error))
    try:
        body = dumps((error, text))
        copy = pickle.loads(body)
    except Exception:
        body = dumps((_Parts(type(error), error.args, dict(vars(error))), text))
        copy = pickle.loads(body)
    if held is not None:
        held.append(copy)
    return body


def pack_error(error: BaseException, held: list[Any] | None = None) -> tuple[int, bytes]:
    """An ERROR frame's kind and body, or UNSENDABLE's when the exception does not pickle."""
    try:
        return wire.ERROR, dump_error(error, held)
    except BaseException as problem:
        try:
            return wire.UNSENDABLE, dump_error(problem)
        except BaseException:
            return wire.UNSENDABLE, dump_error(describe(problem))


def load_error(body: Buffer) -> BaseException:
    """Rebuild an exception of ``dump_error``; its cause is the worker's traceback."""
    error, text = pickle.loads(body)
    if isinstance(error, _Parts):
        error = error.assemble()
    if not isinstance(error, BaseException):
        raise TypeError(f"not an exception: {error!r}")
    error.__cause__ = RemoteTraceback(text)
    return error


def open_outcome(kind: int, body: Buffer | Parcel) -> Outcome:
    """The outcome in a worker's frame; what its unpickling raises becomes the outcome, but for Ctrl-C."""
    if kind == wire.TOO_LARGE:
        return raised(_caused(_payload_error("result", "received"), MemoryError("there is no room for it")))
    try:
        if type(body) is Parcel:
            return returned(pickle.loads(body.pickle, buffers=body.buffers))
        if kind == wire.VALUE:
            return returned(pickle.loads(body))  # type: ignore[arg-type]
        error = load_error(body)  # type: ignore[arg-type]
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # Ctrl-C; no other thread ever gets that
        return raised(_caused(_payload_error("result", "unpickled"), problem))
    if kind == wire.ERROR:
        return raised(error)
    blamed = _payload_error("call", "unpickled") if kind == wire.UNREADABLE else _payload_error("result", "pickled")
    return raised(_caused(blamed, error))


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


class _Parts(NamedTuple):
    cls: type[BaseException]
    args: tuple[Any, ...]
    state: dict[str, Any]

    def assemble(self) -> BaseException:
        error = self.cls.__new__(self.cls)
        error.args = self.args
        vars(error).update(self.state)
        return error


def describe(error: BaseException) -> BaseException:
    """A stand-in for an exception that cannot be pickled: same words, known type."""
    try:
        words = "".join(traceback.format_exception_only(error)).strip()
    except BaseException:
        words = type(error).__name__
    return pickle.PicklingError(words)


class Sealed:
    """Something that travels with a new process and is unpickled only when asked for.

    It may hold multiprocessing queues, locks and connections: those pickle only while a process is being
    spawned, which is when ``__reduce__`` is called. ``reducers`` are those of multiprocessing.
    """

    def __init__(self, value: Any, reducers: Mapping[type, Callable[[Any], Any]] | None = None) -> None:
        self._value = value
        self._reducers = reducers or {}

    def open(self) -> Any:
        return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        return _Unopened, (dump_with(self._value, self._reducers),)


class _Unopened:
    """A ``Sealed`` on the other side."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def open(self) -> Any:
        return pickle.loads(self._body)


def dump_with(value: Any, reducers: Mapping[type, Callable[[Any], Any]]) -> bytes:
    """Pickle by value where needed, with further reducers besides."""
    return _dump_by_value(value, reducers)


def _dump_by_value(
    value: Any,
    reducers: Mapping[type, Callable[[Any], Any]],
    stays: Callable[[pickle.PickleBuffer], bool] | None = None,
) -> bytes:
    file = io.BytesIO()
    _by_value_pickler()(file, reducers, stays).dump(value)
    return file.getvalue()


def preload() -> None:
    """Import cloudpickle now: a process forked while another thread imports it could never do so itself."""
    _by_value_pickler()


@cache
def _by_value_pickler() -> Any:
    """cloudpickle's pickler, taught to pickle once what functions have in common, and to take further reducers."""
    import cloudpickle

    from gpool.workers import functions

    usual: Any = cloudpickle.Pickler.dispatch_table
    reducer = functions.Reducer(usual[CodeType], lambda value: _dump_by_value(value, {}))
    reduce_function, override = reducer.reduce_function, cloudpickle.Pickler.reducer_override
    tools = {module.__name__: vars(module) for module in (functions, cloudpickle.cloudpickle)}

    class Reducers(dict[type, Callable[[Any], Any]]):
        """Those before the usual ones, to which more may be added at any time."""

        def __missing__(self, kind: type) -> Any:
            return usual[kind]

    own = {CodeType: reducer.reduce_code, CellType: usual[CellType]}  # what a closure is made of is found at once
    common = Reducers(own)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(
            self,
            file: io.BytesIO,
            reducers: Mapping[type, Callable[[Any], Any]],
            stays: Callable[[pickle.PickleBuffer], bool] | None,
        ) -> None:
            # read by the constructor
            self.dispatch_table = Reducers({**reducers, **own}) if reducers else common
            super().__init__(file, _PROTOCOL, stays)

        def reducer_override(self, value: Any) -> Any:
            kind = type(value)
            if kind is FunctionType:
                if tools.get(value.__module__, _NOTHING).get(value.__name__) is value:
                    return NotImplemented  # of what functions are rebuilt with, a global
                if "<locals>" in value.__qualname__ or value.__module__ == "__main__":
                    return reduce_function(value, self) or override(self, value)
            elif kind in own:
                return NotImplemented  # it is found below
            return override(self, value)

    return Pickler
