"""One fault on one pool in a process of its own: ``python probe.py FAULT POOL OUT``.

The peers' workers import this file as their main module, so without the guard it does next to nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout: gpool and benchmarks


def main(fault: str, pool: str, out: Path) -> None:
    import os

    from benchmarks.breakage.bench import GaveUp
    from benchmarks.breakage.faults import FAULTS
    from benchmarks.breakage.record import Record
    from benchmarks.breakage.subjects import Unsupported

    record = Record(out)
    try:
        FAULTS[fault].run(pool, record, out.parent)
    except Unsupported:
        record.note("no such feature")
    except GaveUp as problem:
        record.note(f"not observed: {problem}")
    record.doing("")
    os._exit(0)  # a pool that is broken may not let go of its program


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
