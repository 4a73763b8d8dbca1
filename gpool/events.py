"""What the scheduler may be told: requests (``…Asked``) and facts (past tense).

Owns the messages into the scheduler. They carry ids, numbers and nouns of the model, never payload bytes,
so a history of them can be logged, compared and replayed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from gpool.model import Group, Task, Verdict


class SubmitAsked(NamedTuple):
    """Run these new tasks, in this order."""

    tasks: Sequence[Task]


class CancelAsked(NamedTuple):
    """Give up a task; a running one only when ``kill`` is set.

    With ``item``, only that one of a block, counted from the first that has not ended.
    """

    task: int
    kill: bool = False
    item: int | None = None


class ResizeAsked(NamedTuple):
    """Make these the slots of these tags; unknown tags are declared with the settings given, if any."""

    slots: Mapping[Hashable, int]
    settings: Mapping[Hashable, Group] = {}


class CloseAsked(NamedTuple):
    """Take no new task; end when the last has. ``now`` cancels all and kills what runs."""

    now: bool = False


class ExitBegan(NamedTuple):
    """The interpreter is exiting: from here on no worker may be startable."""


class WorkerReady(NamedTuple):
    """A worker has started and run its initializer."""

    worker: int


class WorkerExited(NamedTuple):
    """A worker's process is gone, or could not be started.

    ``begun`` is the number of the lease it had begun and not ended, if any: the one task to blame. Of a block that is
    one item, and the ``unbegun`` ones behind it had not begun.
    """

    worker: int
    begun: int | None
    unbegun: int = 0
    reason: str = ""


class Ended(NamedTuple):
    """An attempt ended by itself. ``seconds`` is how long user code ran; ``retry`` that it may be tried again."""

    worker: int
    lease: int
    verdict: Verdict
    seconds: float = 0.0
    retry: bool = False


new_ended = Ended._make
"""Of all its fields; half the price of the constructor."""


class Progressed(NamedTuple):
    """Items of a block ended by themselves, ``failed`` of them by raising; ``final``: no more of its items will.

    ``seconds`` is for how long the block has been worked on, ``each`` for how long an item of it on the average.
    """

    worker: int
    lease: int
    returned: int
    failed: int
    final: bool
    seconds: float = 0.0
    each: float = 0.0


class Recalled(NamedTuple):
    """These leases of a worker were taken back before it began them; its others can not be.

    Of the block ``parted``, which it has begun or may begin, the last ``rest`` items were taken back too. ``refused``
    says that nothing can be taken back just now.
    """

    worker: int
    leases: tuple[int, ...]
    parted: int | None = None
    rest: int = 0
    refused: bool = False


class MemorySampled(NamedTuple):
    """A worker's process tree holds ``rss`` bytes."""

    worker: int
    rss: int


class Ticked(NamedTuple):
    """Time has passed."""


Event: TypeAlias = (
    SubmitAsked
    | CancelAsked
    | ResizeAsked
    | CloseAsked
    | ExitBegan
    | WorkerReady
    | WorkerExited
    | Ended
    | Progressed
    | Recalled
    | MemorySampled
    | Ticked
)
