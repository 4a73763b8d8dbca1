"""What is measured: one module each, and the table of all."""

from __future__ import annotations

from benchmarks.measure import Workload
from benchmarks.workloads import (
    closures,
    construct,
    feed,
    guarantee,
    latency,
    mapping,
    resize,
    scheduler,
    submit,
)

WORKLOADS: dict[str, Workload] = {
    module.WORKLOAD.name: module.WORKLOAD
    for module in (submit, latency, closures, mapping, construct, scheduler, guarantee, feed, resize)
}
