"""The noun: one fault, and how it is brought about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.breakage.record import Record

Run = Callable[[str, Record, Path], None]
"""Brings the fault about for the named pool, notes what is observed, may use the folder."""


@dataclass(frozen=True)
class Fault:
    """Attributes: the command line's name; the table's; how; seconds after which its process is ended."""

    name: str
    title: str
    run: Run
    seconds: float = 40.0
