"""One round of one contender in a process of its own: ``python one.py WORKLOAD CONTENDER OUT [--quick]``.

The peers' workers import this file as their main module, so without the guard it does next to nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout: gpool and benchmarks

if __name__ == "__main__":
    import json

    from benchmarks.workloads import WORKLOADS

    workload, contender, out, *rest = sys.argv[1:]
    rows = WORKLOADS[workload].run(contender, "--quick" in rest)
    Path(out).write_text(json.dumps(rows), encoding="utf-8")
