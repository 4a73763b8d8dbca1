"""What is measured: one module each, and the table of all."""

from __future__ import annotations

from benchmarks.measure import Workload
from benchmarks.workloads import (
    arrays,
    closures,
    construct,
    feed,
    guarantee,
    idle,
    latency,
    mapping,
    queued,
    resize,
    scale,
    scheduler,
    shares,
    skew,
    submit,
)

WORKLOADS: dict[str, Workload] = {
    module.WORKLOAD.name: module.WORKLOAD
    for module in (
        submit,
        latency,
        closures,
        mapping,
        skew,
        arrays,
        construct,
        resize,
        scale,
        feed,
        queued,
        idle,
        guarantee,
        shares,
        scheduler,
    )
}
