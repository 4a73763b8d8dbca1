"""A web server and background jobs in one pool: what a reserved slot is worth.

A real HTTP server on the loopback interface answers requests that need a few milliseconds of CPU time. At the same
time background jobs flood the pool and never leave it a free slot. The same visitors come three times:

- **one queue**: requests and jobs go to the same group, as in an ordinary pool, so a request queues behind jobs;
- **own tag**: requests have a tag of their own but no reserve: the general slots are shared fairly, so a request
  waits for one job to end;
- **reserved**: the tag has one slot that no job can take, so a request waits for nobody.

All three pools have three worker processes. The latencies are what the visitors measure, connection included. Visitors
who are served sooner come again sooner, so they leave the jobs less of the cores.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from gpool import GroupedPool

VISITORS = 3
VISITS = 10
BACKLOG = 12  # jobs that wait or run at any moment

# How each run is set up: the pool's slots, and the tags of requests and of jobs.
Setting = tuple[dict[Hashable, int], Hashable, Hashable]
SETTINGS: dict[str, Setting] = {
    "one queue": ({None: 3}, None, None),
    "own tag": ({"web": 0, "jobs": 0, None: 3}, "web", "jobs"),
    "reserved": ({"web": 1, "jobs": 0, None: 2}, "web", "jobs"),
}


def render(path: str) -> str:
    """Answer a request: a few milliseconds of work."""
    words = [str(n) for n in range(2, 3000) if all(n % d for d in range(2, int(n**0.5) + 1))]
    return f"{path}: {len(words)} primes\n"


def job() -> str:
    """Do one background job: tens of milliseconds of work."""
    return hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 200_000).hex()


@contextmanager
def serving(web: Executor) -> Iterator[int]:
    """Run an HTTP server whose requests are answered in a group of the pool; give its port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                body = web.submit(render, self.path).result().encode()
            except CancelledError:  # the pool has been stopped, as by Ctrl-C
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        try:
            thread.start()
            yield server.server_address[1]
        finally:
            if thread.is_alive():
                server.shutdown()
                thread.join()


@contextmanager
def flooded(jobs: Executor) -> Iterator[list[str]]:
    """Keep a backlog of jobs in a group of the pool; give the list of what they returned."""
    done: list[str] = []
    enough = Event()

    def keep_up() -> None:
        backlog: set[Future[str]] = set()
        while not enough.is_set():
            backlog |= {jobs.submit(job) for _ in range(BACKLOG - len(backlog))}
            ended, backlog = wait(backlog, return_when=FIRST_COMPLETED)
            done.extend(future.result() for future in ended)
        for future in backlog:
            future.cancel()

    thread = Thread(target=keep_up)
    thread.start()
    try:
        yield done
    finally:
        enough.set()
        thread.join()


def visit(port: int) -> float:
    """Request one page and say how long it took."""
    began = time.monotonic()
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/primes")
    response = connection.getresponse()
    assert response.status == 200
    assert b"primes" in response.read()
    connection.close()
    return time.monotonic() - began


def run(tags: dict[Hashable, int], web: Hashable, jobs: Hashable) -> tuple[list[float], float]:
    """Let the visitors come while jobs flood the pool; return their latencies and how many jobs got done a second."""
    with GroupedPool(tags=tags) as pool, serving(pool.group(web)) as port:
        visit(port)  # the first visit of a pool waits for its workers to start; nobody should measure that
        with flooded(pool.group(jobs)) as done, ThreadPoolExecutor(VISITORS) as visitors:
            began = time.monotonic()
            latencies = list(visitors.map(visit, [port] * VISITORS * VISITS))
            rate = len(done) / (time.monotonic() - began)
        return latencies, rate


def milliseconds(latencies: list[float], percent: int) -> str:
    ranked = sorted(latencies)
    return f"{ranked[min(len(ranked) - 1, len(ranked) * percent // 100)] * 1000:.1f} ms"


def main() -> None:
    results = {name: run(*setting) for name, setting in SETTINGS.items()}
    print(f"{VISITORS * VISITS} requests by {VISITORS} visitors, while {BACKLOG} jobs wait or run at any moment\n")
    print(f"{'':14}" + "".join(f"{name:>14}" for name in results))
    for label, percent in (("p50", 50), ("p90", 90), ("p99", 99)):
        cells = [milliseconds(latencies, percent) for latencies, _ in results.values()]
        print(f"{label:14}" + "".join(f"{cell:>14}" for cell in cells))
    print(f"{'jobs a second':14}" + "".join(f"{rate:>14.1f}" for _, rate in results.values()))


main()
