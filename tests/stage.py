"""A supervisor without its thread: a test does what its thread would."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from gpool import FakeBackend, FakeClock, Group
from gpool.events import ResizeAsked
from gpool.futures import Future
from gpool.limits import SHORTEST
from gpool.model import Options
from gpool.supervisor import Supervisor
from gpool.workers.backend import Settings
from gpool.workers.payload import one_call


class Stage:
    """See the module's docstring."""

    def __init__(self, slots: dict[Hashable, int | Group], backend: FakeBackend | None = None, **more: Any) -> None:
        self.backend = backend or FakeBackend(auto=False)
        self.clock = FakeClock()
        self.supervisor = Supervisor(self.backend, clock=self.clock, settings=lambda kind: Settings(), **more)
        groups = {tag: each if isinstance(each, Group) else Group(each) for tag, each in slots.items()}
        self.supervisor.ask(ResizeAsked({tag: group.slots for tag, group in groups.items()}, groups))
        for group in self.supervisor.scheduler.groups.values():
            group.item_seconds = SHORTEST  # so that blocks go as they are

    def ready(self) -> None:
        for worker in self.backend.sent.keys() - self.backend._up:
            self.backend.ready(worker)
        self.step()

    def step(self) -> None:
        self.supervisor.step(0)

    def submit(self, tag: Hashable, fn: Callable[..., Any], *args: Any, **more: Any) -> Future[Any]:
        options = {name: more.pop(name) for name in Options._fields if name in more}
        return self.supervisor.submit(tag, one_call(fn, args, {}), Options(**options), fn.__name__, **more)

    def end(self) -> None:
        self.supervisor.close(now=True)
        self.step()
        self.supervisor.deliverer.end()
        self.supervisor.notifier.end()


MakeStage = Callable[..., Stage]
