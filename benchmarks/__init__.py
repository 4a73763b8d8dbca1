"""gpool measured side by side with its peers: ``python benchmarks/run.py``. See docs/performance.md."""
