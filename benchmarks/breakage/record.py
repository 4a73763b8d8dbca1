"""What was observed, in words.

Owns the record of one fault on one pool, and how an outcome is put into words. Each observation is on disk before
the next one is waited for, so that a measuring process that hangs has said how far it got. Knows no pool and no
fault, so nothing here can favour one.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

_HOW_IT_DIED = re.compile(r"\bSIG[A-Z]{3,}\b|\bEXIT\(\d+\)")


class Outcome(NamedTuple):
    """What a future holds. ``ended`` is False if it holds nothing yet."""

    ended: bool
    value: Any = None
    error: BaseException | None = None

    def __str__(self) -> str:
        if not self.ended:
            return "never ends"
        return "returns" if self.error is None else in_words(self.error)


class Record:
    """Phrases, in the order in which they were observed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._phrases: list[str] = []
        self._doing = "starting"

    def doing(self, what: str) -> None:
        """What is under way, should it hang."""
        self._doing = what
        self._write()

    def note(self, phrase: str) -> None:
        if phrase:
            self._phrases.append(phrase)
            self._write()

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"phrases": self._phrases, "doing": self._doing}), encoding="utf-8")
        os.rename(new, self._path)


def in_words(error: BaseException) -> str:
    """The exception's type and the facts that it carries, whichever pool it is of."""
    facts = [fact for fact in (_death(error), _payload(error)) if fact]
    return ", ".join([type(error).__name__, *facts])


def _death(error: BaseException) -> str:
    """How the worker died, from the error's attributes or else from its text."""
    name, code = getattr(error, "signal", None), getattr(error, "exitcode", None)
    if name is not None or code is not None:
        return str(name or f"exit code {code}")
    found = _HOW_IT_DIED.search(str(error))
    return found.group() if found else ""


def _payload(error: BaseException) -> str:
    """Which of call and result did not pickle, and what pickle said."""
    side, cause = getattr(error, "side", None), error.__cause__
    return f"{side}, from {type(cause).__name__}" if side and cause else ""


def others_in_words(outcomes: Iterable[Outcome], wanted: Iterable[int], whom: str = "others") -> str:
    """What became of tasks that did nothing wrong, given the values that they should have returned."""
    pairs = list(zip(outcomes, wanted, strict=True))
    total = len(pairs)
    errors = Counter(type(each.error).__name__ for each, _ in pairs if each.error is not None)
    unfinished = sum(not each.ended for each, _ in pairs)
    wrong = sum(each.ended and each.error is None and each.value != value for each, value in pairs)
    phrases = [_part(errors.total(), total, whom, f"lost ({', '.join(errors)})")] if errors else []
    phrases += [_part(unfinished, total, whom, "never end")] if unfinished else []
    phrases += [_part(wrong, total, whom, "wrong")] if wrong else []
    return ", ".join(phrases) or f"all {total} {whom} done"


def _part(count: int, total: int, whom: str, what: str) -> str:
    return f"{'all' if count == total else f'{count} of'} {total} {whom} {what}"
