"""All faults, by name, in the order of the table."""

from __future__ import annotations

from benchmarks.breakage import around, in_tasks, to_workers

FAULTS = {fault.name: fault for module in (in_tasks, to_workers, around) for fault in module.FAULTS}
