"""One value for "it returned" or "it raised".

Owns nothing else: a worker makes an outcome, a future or a callback consumes it.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """What became of a task: ``error`` is None when it returned ``value``."""

    value: Any
    error: BaseException | None

    @property
    def ok(self) -> bool:
        return self.error is None


new_outcome = Outcome._make
"""Of a pair; half the price of the constructor."""


def returned(value: Any) -> Outcome:
    return new_outcome((value, None))


def raised(error: BaseException) -> Outcome:
    return Outcome(None, error)
