"""Windows on the pool's memory file: stretches of it, mapped once and looked at many times.

Owns what is mapped, and the knowledge of who still looks. A *view* is a memoryview of a part of a window; when the last
thing that refers to it dies, whoever asked for it is told. Whose memory it is, and what stands there, is told in
``gpool.workers.arena``.

Who reads has a private window. What user code writes there goes to pages of its own and never reaches the file, so
nobody else sees it; those pages are dropped with the view. The others stay mapped, because mapping memory costs more
than copying it.

A process that forks shares its private pages with the child, as it shares all memory. That is not so of pages which
were never written to: these are the file's, where something else may stand next. So every view gets pages of its own
before a fork.

Where any of this can't be had (Linux before 5.14, other systems, an interpreter without ctypes) there are no windows.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from types import CodeType
from typing import Any

PAGE = mmap.PAGESIZE

_SHARED, _PRIVATE = 1, 2
_NO_RESERVE: int = getattr(mmap, "MAP_NORESERVE", 0)
_DROP, _DONT_FORK, _OWN_PAGES = 4, 10, 23  # MADV_DONTNEED, MADV_DONTFORK, MADV_POPULATE_WRITE
_ANY_NUMBER = 1 << 46
"""Of bytes: one type serves for all, and a view is a slice."""
_PUNCH = 1 | 2  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_ENTRY = 8  # bytes of /proc/self/pagemap for each page
_UNWRITTEN = bytes(top for top in range(256) if top & 0x20 or not top & 0xC0)
"""The top byte of such an entry, if the page is the file's (bit 61) or absent (neither 62 nor 63)."""


class _System:
    """The system's calls, by way of ctypes, which is imported when the first large buffer comes."""

    def __init__(self) -> None:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        address, size, offset, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int
        libc.mmap.restype = address
        libc.mmap.argtypes = [address, size, number, number, number, offset]
        libc.munmap.argtypes = [address, size]
        libc.madvise.argtypes = [address, size, number]
        libc.fallocate.argtypes = [number, number, offset, offset]
        self._libc, self._errno = libc, ctypes.get_errno
        self.bytes_at: Callable[[int], Any] = (ctypes.c_char * _ANY_NUMBER).from_address
        self.unmap: Callable[[int, int], int] = libc.munmap
        self.advise: Callable[[int, int, int], int] = libc.madvise

    def map(self, fd: int, start: int, size: int, kind: int) -> int:
        """Raises OSError."""
        address = self._libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, kind, fd, start)
        if address is None or address == (1 << 64) - 1:
            raise OSError(self._errno(), f"cannot map {size:,} bytes")
        return int(address)

    def punch(self, fd: int, start: int, size: int) -> None:
        """Give the memory of a stretch back."""
        self._libc.fallocate(fd, _PUNCH, start, size)


@cache
def system() -> _System | None:
    """The system's calls; None if it lacks any."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    try:
        made = _System()
        page = made.map(-1, 0, PAGE, _PRIVATE | mmap.MAP_ANONYMOUS)
        works = made.advise(page, PAGE, _OWN_PAGES) == 0
        made.unmap(page, PAGE)
    except (ImportError, OSError, AttributeError):
        return None
    return made if works else None


class Window:
    """A stretch of the file, mapped for as long as this object lives.

    Attributes:
        start, size: the stretch.
    """

    __slots__ = ("_pid", "_system", "address", "size", "start")

    def __init__(self, fd: int, start: int, size: int, *, private: bool) -> None:
        found = system()
        assert found is not None
        self._system, self._pid = found, 0
        self.start, self.size = start, size
        self.address = found.map(fd, start, size, _PRIVATE | _NO_RESERVE if private else _SHARED)
        self._pid = os.getpid()
        if not private:
            found.advise(self.address, size, _DONT_FORK)  # who writes is one process

    def __del__(self, exits: Callable[[], bool] = sys.is_finalizing, process: Callable[[], int] = os.getpid) -> None:
        if exits():  # modules are cleared, ours perhaps before that of a finalizer with a last look
            return
        if self._pid == process():  # a forked child's copy may not be mapped, and something else be there
            self._system.unmap(self.address, self.size)

    def bytes(self) -> memoryview:
        """All of it, to be written to."""
        return memoryview(self._system.bytes_at(self.address)).cast("B")[: self.size]

    def view(self, offset: int, length: int, told: Callable[[], None]) -> memoryview:
        """A part of it; ``told`` is called when nothing refers to that any more, from any thread, like a finalizer."""
        token = _TOKEN.replace()
        with _looking:
            looked_at = self._system.bytes_at(self.address)
            start = offset - self.start
            watch = _Watch(token, _looked_away)
            watch.window, watch.told, watch.has_own_pages = self, told, False
            watch.address, watch.size = self.address + start, -(-length // PAGE) * PAGE
            _watches[id(watch)] = watch
            looked_at.token = token
        return memoryview(looked_at).cast("B")[start : start + length]


_TOKEN = (lambda: None).__code__
"""What is looked at holds a copy of this, and nothing else does, so it dies with that.

A weak reference to what is looked at would not do. In a cycle of garbage such references speak before the finalizers
of the cycle have run, one of which may still look. The collector knows nothing of code objects, though they can be
referred to weakly: theirs speak when they are really gone.
"""


class _Watch(weakref.ref[CodeType]):
    """Tells when nobody looks any more."""

    __slots__ = ("address", "has_own_pages", "size", "told", "window")
    window: Window
    told: Callable[[], None]
    address: int
    size: int
    has_own_pages: bool


_watches: dict[int, _Watch] = {}
_looking = threading.RLock()
"""Held while a view is made, and while the process forks. Finalizers do not take it."""


_dead: deque[_Watch] = deque()
"""Of views that nobody looks at any more, until their pages have been seen to."""
_forking = False


def _looked_away(watch: _Watch) -> None:
    """A view has died. While the process forks, that must wait: its pages may just be made its own."""
    _watches.pop(id(watch), None)
    _dead.append(watch)
    if not _forking:
        _see_to_the_dead()


def _see_to_the_dead() -> None:
    found = system()
    while _dead:
        try:
            watch = _dead.popleft()
        except IndexError:
            return  # another thread has just taken the last
        if found is not None and _was_written(watch.address, watch.size):
            found.advise(watch.address, watch.size, _DROP)
        watch.told()


def _was_written(address: int, size: int) -> bool:
    """Whether some page there is not the file's. Looking costs a tenth of dropping them all and mapping them again."""
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    except OSError:
        return True
    try:
        entries = os.pread(fd, size // PAGE * _ENTRY, address // PAGE * _ENTRY)
    except OSError:
        return True
    finally:
        os.close(fd)
    tops = entries[_ENTRY - 1 :: _ENTRY]
    return len(tops) != size // PAGE or bool(tops.translate(None, _UNWRITTEN))


def _own_pages() -> None:
    """Before a fork."""
    global _forking  # noqa: PLW0603
    _looking.acquire()
    _forking = True  # before it is listed who looks: who dies after that waits
    for watch in list(_watches.values()):
        found = system()
        if found is not None and not watch.has_own_pages:
            watch.has_own_pages = found.advise(watch.address, watch.size, _OWN_PAGES) == 0


def _has_forked() -> None:
    """In the parent."""
    global _forking  # noqa: PLW0603
    _forking = False
    _looking.release()
    _see_to_the_dead()


def _after_fork() -> None:
    """In the child: the lock is another thread's, perhaps. Nothing that was lent is to be given back from here."""
    global _forking  # noqa: PLW0603
    _forking = False
    _dead.clear()
    _looking._at_fork_reinit()  # type: ignore[attr-defined]
    for watch in list(_watches.values()):
        watch.told = _nobody


def _nobody() -> None:
    return


class Panes:
    """The windows of one reader on one file, each of which it has to map once.

    Args:
        fd: the file.
        size: of a window. A view that is larger gets a window of its own.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._windows: dict[int, Window] = {}
        self._viewed: set[int] = set()  # where somebody looks by a window for all

    def view(self, offset: int, length: int, told: Callable[[], None]) -> memoryview:
        """A part of the file as it is now; a copy where it can't be mapped. Raises OSError, MemoryError.

        Who looks at what somebody looks at already, and may have written to, gets a window of its own.
        """
        if system() is not None:
            with suppress(OSError):
                if offset in self._viewed:
                    return self._own_window(offset, length).view(offset, length, told)
                view = self._window(offset, length).view(offset, length, partial(self._looked_away, offset, told))
                self._viewed.add(offset)
                return view
        copy = memoryview(bytearray(length))
        filled = 0
        while filled < length:
            got = os.preadv(self._fd, [copy[filled:]], offset + filled)
            if not got:
                raise OSError("the pool's memory file ends too soon")
            filled += got
        told()
        return copy

    def _looked_away(self, offset: int, told: Callable[[], None]) -> None:
        self._viewed.discard(offset)
        told()

    def _own_window(self, offset: int, length: int) -> Window:
        return Window(self._fd, offset, -(-length // PAGE) * PAGE, private=True)

    def _window(self, offset: int, length: int) -> Window:
        if length > self._size:
            return self._own_window(offset, length)
        start = offset // self._size * self._size
        window = self._windows.get(start)
        if window is None:
            window = self._windows[start] = Window(self._fd, start, self._size, private=True)
        return window


# Now, not when the first large buffer comes: hooks of before a fork run in reverse order, and who starts workers holds
# a lock of its own while it forks, which has to be taken before this module's every time.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_own_pages, after_in_parent=_has_forked, after_in_child=_after_fork)
