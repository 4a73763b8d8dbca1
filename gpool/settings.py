"""What the arguments of a pool mean: which groups there are, and what each kind of worker is started with.

Owns the rules by which a pool's own settings complete those of its groups. Starts nothing and keeps nothing.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence

from gpool.model import Group, check_count
from gpool.workers.backend import Settings

_INHERITED = (
    "memory_limit",
    "recycle_memory",
    "max_tasks_per_child",
    "start_timeout",
    "max_start_failures",
    "max_crashes",
)


def usable_cpus() -> int:
    """How many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def groups_of(limit: int | None, tags: Mapping[Hashable, int | Group] | None, defaults: Group) -> dict[Hashable, Group]:
    """Each tag's group, complete; reserved ones first, because their workers are to start first.

    Raises:
        ValueError: ``limit`` is below what the tags need.
        TypeError, ValueError: something is no size, or a setting is not what it should be.
    """
    if tags is not None and not isinstance(tags, Mapping):
        raise TypeError(f"tags must give slots by tag, not {tags!r}")
    groups = {tag: each if isinstance(each, Group) else Group(each) for tag, each in (tags or {}).items()}
    defaults.check()
    for tag, group in groups.items():
        try:
            group.check()
        except (TypeError, ValueError) as error:
            error.add_note(f"It is a setting of the group {tag!r}.")
            raise
    general = groups.pop(None, None)
    if limit is not None:
        general = (general or Group(0))._replace(slots=_left_of(limit, groups, general))
    elif general is None:
        general = Group(0 if groups else usable_cpus())
    groups[None] = general
    return {tag: completed(group, defaults) for tag, group in groups.items()}


def _left_of(limit: int, groups: Mapping[Hashable, Group], general: Group | None) -> int:
    """The general slots that a limit leaves."""
    check_count("limit", limit, least=0, optional=False)
    reserved = sum(group.slots for group in groups.values())
    needed = reserved + (general.slots if general else 0)
    if limit < needed:
        raise ValueError(f"limit is {limit}, but the tags need {needed} slots; raise it or lower them")
    return limit - reserved


def completed(group: Group, defaults: Group) -> Group:
    """A group with the pool's settings where it has none of its own."""
    changes = {name: getattr(defaults, name) for name in _INHERITED if getattr(group, name) is None}
    group = group._replace(**changes)
    if group.own_kind and group.initializer is None:
        group = group._replace(initializer=defaults.initializer, initargs=defaults.initargs)
    return group


class Kinds(dict[int, Settings]):
    """Settings by kind of worker, as the scheduler numbers them; a kind that is not here has the pool's own."""

    def __init__(self, groups: Mapping[Hashable, Group], order: Sequence[Hashable], own: Settings) -> None:
        super().__init__()
        self._own = own
        for index, tag in enumerate([None, *(tag for tag in order if tag is not None)]):
            group = groups[tag]
            if group.own_kind:
                self[index + 1] = Settings(group.initializer, group.initargs, group.env, group.nice)

    def __missing__(self, kind: int) -> Settings:
        return self._own
