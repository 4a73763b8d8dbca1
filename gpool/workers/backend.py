"""The port between the supervisor and whatever runs the workers.

Owns the protocol and the reports that come through it. A backend has no policy: it starts, feeds and ends what
it is told to, and reports what it sees. The supervisor is its only caller, and all calls but ``wait``, ``wake``,
``stack`` and ``sample`` come from whoever holds the supervisor's turn, one at a time.

Promises of a backend:

- Every ``start`` is in the end answered by exactly one ``Exited``, before it by at most one ``Ready``.
- Every call sent is answered by at most one frame, in the order of sending, before that ``Exited``.
- What a worker wrote before it died is reported before its ``Exited``.
- ``Exited.begun`` is the one lease that was begun and not answered, if there was one.
- ``recall`` returns leases, and items of one begun block, that have not begun and never will.
- A block's items begin and end in order. Its answers come in one frame or several, the last of which says so.
- No call blocks, ``wait`` and ``stack`` excepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from gpool.workers.arena import Range
from gpool.workers.payload import Buffer, Call
from gpool.workers.wire import Frame


class Settings(NamedTuple):
    """What a worker of one kind is started with."""

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    env: Mapping[str, str] | None = None
    nice: int | None = None


class Ready(NamedTuple):
    """The worker is up and its initializer has run."""

    worker: int
    pid: int | None


class Replied(NamedTuple):
    """The worker answered leases, in this order: frames of kind VALUE, ERROR, UNREADABLE, UNSENDABLE or ANSWERS."""

    worker: int
    frames: Sequence[Frame]


class Logged(NamedTuple):
    """A log record was made in the worker; the body is for ``gpool.workers.logs``."""

    worker: int
    body: Buffer


class Exited(NamedTuple):
    """The worker is gone, its descriptors are closed, its process is reaped; or it never started.

    ``unbegun`` is how many items of the block ``begun`` it had not begun.
    """

    worker: int
    begun: int | None
    pid: int | None
    exitcode: int | None
    reason: str
    stack: str | None = None
    unbegun: int = 0


class Taken(NamedTuple):
    """What ``recall`` took back: whole leases, and the last ``rest`` items of the block ``parted``, which has begun.

    ``refused`` says that nothing can be taken back just now, so that it should be tried again.
    """

    leases: tuple[int, ...] = ()
    parted: int | None = None
    rest: int = 0
    refused: bool = False


Report: TypeAlias = Ready | Replied | Logged | Exited


class Loan(Protocol):
    """A worker's reports, lent to a thread: while it is out, that thread waits for them, and ``wait`` need not."""

    @property
    def is_over(self) -> bool:
        """It was taken back: there is nothing more to wait for."""

    def wait(self, timeout: float | None) -> bool:
        """Block until there is something to read, or ``wake`` was called; False if ``timeout`` seconds passed."""

    def wake(self) -> None:
        """End a ``wait``, now or the next one."""

    def read(self) -> list[Report]:
        """What the worker has reported."""

    def end(self) -> None:
        """Give it back. Whoever has borrowed does that in any case."""


class Sample(NamedTuple):
    """A worker's health at one moment. ``rss`` is in bytes, of the worker and its children, without shared memory."""

    rss: int
    cpu_percent: float
    status: str


class Backend(Protocol):
    """See the module's docstring."""

    can_kill: bool
    """Whether ``kill`` ends a worker that does not answer."""
    can_recall: bool
    """Whether ``recall`` works; if not, nothing is sent ahead."""
    has_blocks: bool
    """Whether calls of several items can be sent."""
    room: Range | None
    """Where what is large may be left for workers, before it is sent; None: it travels with the rest."""
    has_health: bool
    """Whether ``sample`` has anything to say."""

    def start(self, worker: int, settings: Settings) -> None:
        """Begin to start a worker."""

    def send(self, worker: int, calls: Sequence[tuple[int, Call]]) -> None:
        """Send calls, each with the number of its lease."""

    def recall(self, worker: int, keep: int) -> Taken:
        """Take back all leases the worker has not begun, except ``keep``, and what it has not begun of its block.

        Of ``keep``, if that is a block and has not begun, one item stays.
        """

    def forget(self, shared: int) -> None:
        """Let every worker drop a shared function."""

    def stop(self, worker: int) -> None:
        """Ask a worker to end when it has read this."""

    def kill(self, worker: int, *, stack: bool) -> None:
        """End a worker and its process tree now; with ``stack``, let it write its Python stack first if it can."""

    def stack(self, worker: int, patience: float) -> str | None:
        """A worker's Python stack as it is now; None if it gives none within ``patience`` seconds. From any thread."""

    def wait(self, timeout: float | None) -> None:
        """Block until there may be something to report, ``wake`` was called, or ``timeout`` seconds passed."""

    def poll(self) -> list[Report]:
        """What has happened, in order."""

    def lend(self, worker: int) -> Loan | None:
        """Lend the reports of a worker that has one lease; None if they are not to be had. It is over with the next."""

    def flush(self) -> None:
        """Let workers have what the calls above have for them; before this, none of it need arrive. From any thread."""

    def wake(self) -> None:
        """End a ``wait``, now or the next one. From any thread, also from a signal handler or a finalizer."""

    def sample(self) -> Mapping[int, Sample]:
        """The latest samples by worker."""

    def pids(self) -> Mapping[int, int]:
        """The process ids of the workers that have one."""

    def close(self) -> None:
        """Let go of everything. Workers that are left, as after a failure, are killed."""
