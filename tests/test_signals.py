"""Signals: Ctrl-C at every moment, and the death of the program, gentle and not."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from types import FrameType
from typing import Any

import psutil
import pytest

from gpool.interrupts import Signal, wait, wait_for
from tests import programs
from tests.conftest import METHODS
from tests.gates import Gate
from tests.programs import SECONDS, environment, left_alive, run_script, script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

_INTERRUPTED = (-signal.SIGINT, 1)
"""Exit codes after two Ctrl-C: the interpreter's is 1 if the second comes while it is about to exit."""

Command = Callable[[str], list[str]]
Program = subprocess.Popen[str]
Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts programs, which are gone with the test."""
    started: list[Program] = []

    def make(command: list[str], env: dict[str, str] | None = None) -> Program:
        started.append(programs.start(command, env))
        return started[-1]

    yield make
    for program in started:
        programs.end(program)


@pytest.fixture(params=["file", "-c"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Command:
    """Makes the command that runs a source, as a script file or by ``-c``."""
    if request.param == "-c":
        return lambda source: [sys.executable, "-c", dedent(source)]
    return lambda source: [sys.executable, str(script(tmp_path, source))]


def _line(program: Program) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def _interrupt(program: Program) -> None:
    """What a terminal does at Ctrl-C: the whole group gets the signal."""
    os.killpg(program.pid, signal.SIGINT)


def _read_traceback(program: Program) -> str:
    """Stderr up to the end of the first traceback of a KeyboardInterrupt."""
    assert program.stderr is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("KeyboardInterrupt"):
        lines.append(program.stderr.readline())
        assert lines[-1], "".join(lines)
    return "".join(lines)


def _interrupt_until_it_ends(program: Program) -> None:
    """Press Ctrl-C as people do: again and again. The interpreter itself may swallow one while it exits."""
    for _ in range(10):
        _interrupt(program)
        with suppress(subprocess.TimeoutExpired):
            program.wait(1)
            return
    pytest.fail("it did not end")


def _ends_with_one_traceback(program: subprocess.Popen[str], seen: str = "") -> None:
    _, rest = program.communicate(timeout=SECONDS)
    stderr = seen + rest
    assert stderr.count("Traceback") == 1, stderr
    assert stderr.strip().endswith("KeyboardInterrupt"), stderr
    assert program.returncode == -signal.SIGINT


# -- Ctrl-C -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_inv15_ctrl_c_in_with_stops(start: Start, command: Command, method: str) -> None:
    program = start(
        command(
            f"""
            import time, gpool
            with gpool.GroupedPool(2, mp_context={method!r}) as pool:
                futures = [pool.submit(time.sleep, 600) for _ in range(4)]
                pool.ingest(range(10**9), None, abs, callback=id)
                while pool.stats().groups[None].busy < 2:
                    pass
                print("up", flush=True)
                futures[0].result()
            """
        )
    )
    assert _line(program) == "up"
    processes = psutil.Process(program.pid).children(recursive=True)
    _interrupt(program)
    _ends_with_one_traceback(program)
    assert not left_alive(processes)


def test_inv15_ctrl_c_as_with_is_left_stops(start: Start, command: Command, gate: Gate) -> None:
    program = start(
        command(
            f"""
            import gpool
            from tests.gates import pass_gate
            with gpool.GroupedPool(1) as pool:
                futures = [pool.submit(pass_gate, {gate.path!r}) for _ in range(4)]
            """
        )
    )
    gate.arrivals(1)
    processes = psutil.Process(program.pid).children(recursive=True)
    _interrupt(program)
    _ends_with_one_traceback(program)
    assert not left_alive(processes)


def test_inv15_ctrl_c_outside_with_lets_tasks_finish(start: Start, command: Command, gate: Gate) -> None:
    program = start(
        command(
            f"""
            import gpool
            from tests.gates import pass_gate
            pool = gpool.GroupedPool(1)
            future = pool.submit(pass_gate, {gate.path!r})
            future.result()
            """
        )
    )
    gate.arrivals(1)
    _interrupt(program)
    seen = _read_traceback(program)
    gate.open()
    _ends_with_one_traceback(program, seen)


def test_inv15_ctrl_c_again_ends_the_wait_at_exit(start: Start, command: Command, gate: Gate) -> None:
    program = start(
        command(
            f"""
            import gpool
            from tests.gates import pass_gate
            pool = gpool.GroupedPool(1)
            futures = [pool.submit(pass_gate, {gate.path!r}) for _ in range(3)]
            pool.ingest(range(10**9), None, abs)
            futures[0].result()
            """
        )
    )
    gate.arrivals(1)
    processes = psutil.Process(program.pid).children(recursive=True)
    _interrupt(program)
    seen = _read_traceback(program)
    _interrupt_until_it_ends(program)
    _, rest = program.communicate()
    assert program.returncode in _INTERRUPTED
    assert "atexit callback" not in rest, seen + rest
    assert "task(s) did not finish" in rest, seen + rest
    assert not left_alive(processes)


def test_inv15_ctrl_c_again_and_again_in_with(start: Start, command: Command, gate: Gate) -> None:
    program = start(
        command(
            f"""
            import gpool
            from tests.gates import pass_gate
            with gpool.GroupedPool(2) as pool:
                pool.ingest(range(10**9), None, abs, callback=id)
                pool.submit(pass_gate, {gate.path!r}).result()
            """
        )
    )
    gate.arrivals(1)
    processes = psutil.Process(program.pid).children(recursive=True)
    _interrupt(program)
    _interrupt_until_it_ends(program)
    _, stderr = program.communicate()
    assert program.returncode in _INTERRUPTED
    assert "in thread gpool" not in stderr, "no thread of the pool's died of it"
    assert not left_alive(processes)


_SLOW_CHILDREN = """
import fcntl, os, sys
if any(name in " ".join(sys.orig_argv) for name in ("multiprocessing.spawn", "gpool.workers.server")):
    with open({path!r} + ".arrivals", "wb", buffering=0) as arrivals:
        arrivals.write(b"!")
    with open({path!r}) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_inv15_ctrl_c_reaches_no_half_made_child(start: Start, tmp_path: Path, gate: Gate, method: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(_SLOW_CHILDREN.format(path=gate.path))
    program = start(
        [
            sys.executable,
            "-c",
            f"import gpool\nwith gpool.GroupedPool(1, mp_context={method!r}) as pool: pool.submit(abs, 1).result()",
        ],
        environment(tmp_path),
    )
    gate.arrivals(1)
    _interrupt(program)
    seen = _read_traceback_soon(program, gate)
    _ends_with_one_traceback(program, seen)


def _read_traceback_soon(program: Program, gate: Gate) -> str:
    """The program may end only once its child has come up, so let that come up."""
    gate.open()
    return _read_traceback(program)


class Terminal:
    """A REPL under a pseudo-terminal."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        launch = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
            "os.execv(sys.executable, [sys.executable, '-i', '-q'])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", launch],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=environment() | {"TERM": "dumb", "PYTHON_BASIC_REPL": "1"},
        )
        os.close(theirs)
        self._text = ""

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read(self, pattern: str) -> str:
        """Read until the pattern has come; return and forget all up to its end."""
        deadline = time.monotonic() + SECONDS
        while (found := re.search(pattern, self._text)) is None:
            ready, _, _ = select.select([self._ours], [], [], deadline - time.monotonic())
            assert ready, f"waited for {pattern!r}, got {self._text!r}"
            self._text += os.read(self._ours, 1 << 16).decode()
        text, self._text = self._text[: found.end()], self._text[found.end() :]
        return text

    def ask(self, line: str, pattern: str) -> str:
        self.type(line + "\n")
        return self.read(pattern)

    def interrupt_prompt(self) -> None:
        """Ctrl-C at the prompt, once the REPL waits there: it would not notice one that came just before."""
        program = psutil.Process(self.process.pid)
        while program.status() != psutil.STATUS_SLEEPING:
            os.sched_yield()
        self.type("\x03")
        self.read("KeyboardInterrupt(.|\n)*>>> ")

    def drain(self) -> str:
        """Read what comes until the program has ended."""
        with suppress(OSError):  # the end, as pseudo-terminals tell it
            while data := os.read(self._ours, 1 << 16):
                self._text += data.decode()
        return self._text

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.mark.parametrize("method", METHODS)
def test_inv15_a_repl_survives_ctrl_c(terminal: Terminal, method: str) -> None:
    terminal.read(">>> ")
    terminal.ask("import gpool, time, sys", ">>> ")
    terminal.ask(f"pool = gpool.GroupedPool(2, mp_context={method!r})", ">>> ")
    terminal.ask("pids = {w.pid for w in pool.stats().workers if pool.submit(abs, -3).result()}", ">>> ")
    terminal.interrupt_prompt()
    terminal.ask("pool.submit(lambda: 40 + 1).result()", "\r\n41\r\n>>> ")
    terminal.ask("nap = pool.submit(time.sleep, 600); print('wait' + 'ing'); nap.result()", "\r\nwaiting\r\n")
    terminal.type("\x03")
    text = terminal.read("KeyboardInterrupt\r\n>>> ")
    assert text.count("Traceback") == 1
    terminal.ask("pool.submit(abs, -42).result()", "\r\n42\r\n>>> ")
    terminal.ask("nap.cancel(kill=True)", "\r\nTrue\r\n>>> ")
    terminal.ask("list(pool.map(abs, [-43]))", r"\r\n\[43\]\r\n>>> ")
    terminal.type("sys.exit(5)\n")
    rest = terminal.drain()
    assert terminal.process.wait(SECONDS) == 5
    assert rest.split() == ["sys.exit(5)"]


# -- the program is killed --------------------------------------------------------------------------------------

_BUSY = """
import os, re, signal, subprocess, sys, time, threading
import gpool
def child():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return os.write(1, b"up\\n")
def asleep():
    child(), time.sleep(600)
def spinning():
    child(), sum(range(10**15))
def holding():
    child(), re.match(r"(a+)+b", "a" * 64)
def stopped():
    child(), os.kill(os.getpid(), signal.SIGSTOP)
def threaded():
    [threading.Thread(target=threading.Event().wait).start() for _ in range(3)]
    child(), time.sleep(600)
def idle():
    child()
tasks = [asleep, spinning, holding, stopped, threaded, idle]
pool = gpool.GroupedPool(len(tasks), mp_context=sys.argv[1])
for task in tasks:
    pool.submit(task)
signal.pause()
"""


def _start_busy(start: Start, tmp_path: Path, method: str) -> tuple[Program, list[psutil.Process]]:
    """A program whose workers do all that could keep them from ending, and everything that descends from it."""
    program = start([sys.executable, str(script(tmp_path, _BUSY)), method])
    assert [_line(program) for _ in range(6)] == ["up"] * 6
    return program, psutil.Process(program.pid).children(recursive=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the lifeline is Linux's")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_inv14_nothing_outlives_a_program_that_is_killed(
    start: Start, tmp_path: Path, method: str, number: signal.Signals
) -> None:
    program, processes = _start_busy(start, tmp_path, method)
    assert len(processes) >= 12
    program.send_signal(number)
    assert program.wait(SECONDS) == -number
    assert not left_alive(processes)


@pytest.mark.skipif(sys.platform != "linux", reason="the lifeline is Linux's")
@pytest.mark.parametrize("method", METHODS)
def test_inv14_workers_that_start_do_not_outlive_the_program(
    start: Start, tmp_path: Path, gate: Gate, method: str
) -> None:
    source = f"""
    import gpool, signal
    from tests.gates import pass_gate
    pool = gpool.GroupedPool(2, mp_context={method!r}, initializer=pass_gate, initargs=({gate.path!r},))
    signal.pause()
    """
    program = start([sys.executable, str(script(tmp_path, source))])
    gate.arrivals(2)
    processes = psutil.Process(program.pid).children(recursive=True)
    program.kill()
    program.wait(SECONDS)
    assert not left_alive(processes)


# -- at any moment ----------------------------------------------------------------------------------------------

_SWEEP = """
import gc, os, signal, sys, threading, weakref
import gpool

class Stop(KeyboardInterrupt): pass

def at_moment(number, do, act):
    '''Call ``do()``, and ``act()`` at one moment of it: where a function of gpool's is entered, or one in C has
    returned to it. That is where the interpreter looks for signals. False if it has fewer such moments.'''
    left = number
    def profile(frame, event, arg):
        nonlocal left
        if event in ("call", "c_return") and is_ours(frame):
            if left == 0:
                left = -1
                sys.setprofile(None)
                act()
            left -= 1
    sys.setprofile(profile)
    try:
        do()
    finally:
        sys.setprofile(None)
    return left < 0

def is_ours(frame):
    '''True in gpool's code, but for that of finalizers: what is raised there nobody gets.'''
    if not frame.f_code.co_filename.startswith(os.path.dirname(gpool.__file__)):
        return False
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code.co_filename == weakref.__file__:
            return False
        frame = frame.f_back
    return True

def sweep(do, act):
    '''Do it over and over, acting a moment later each time; how often that interrupted it.'''
    number, interrupted = 0, 0
    more = True
    while more:
        try:
            more = at_moment(number, do, act)
        except (KeyboardInterrupt, Stop):
            interrupted += 1
        number += 1
    assert number > 10, number
    return interrupted

futures = []
def check(pool):
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGINT)
    assert pool.submit(abs, -7).result(15) == 7
    assert [f.result(15) for f in futures] == [1] * len(futures)
    assert pool.join(15), pool
    assert pool.pending == 0, pool
    assert pool.put(None, abs, (-8,)).result(15) == 8
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
    assert pool.join(15)
    pool.stop()
    print("fine", flush=True)
"""

_CALLS = {
    "submit": "futures.append(pool.submit(abs, -1))",
    "put": "futures.append(pool.put(None, abs, (-1,)))",
    "group": "futures.append(pool.group('a').submit(abs, -1))",
    "map": "assert list(pool.map(abs, [-1])) == [1]",
    "cancel": "pool.submit(abs, -1).cancel()",
    "stats": "pool.stats()",
}


@pytest.mark.parametrize("call", _CALLS)
def test_inv19_ctrl_c_at_every_moment(tmp_path: Path, call: str) -> None:
    done = run_script(
        tmp_path,
        f"""{_SWEEP}
pool = gpool.GroupedPool(tags={{"a": 1, None: 1}}, callback=id)
def do():
    {_CALLS[call]}
do()
assert sweep(do, lambda: signal.raise_signal(signal.SIGINT)) > 10
check(pool)
""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


_OTHERS = ("SIGALRM", "SIGCHLD", "SIGPROF", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGVTALRM", "SIGXCPU")


@pytest.mark.parametrize("name", _OTHERS)
@pytest.mark.parametrize("call", ["submit", "put"])
def test_inv19_handlers_of_other_signals_may_raise(tmp_path: Path, call: str, name: str) -> None:
    done = run_script(
        tmp_path,
        f"""{_SWEEP}
def handler(*_):
    raise Stop
signal.signal(signal.{name}, handler)
pool = gpool.GroupedPool(tags={{"a": 1, None: 1}}, callback=id)
def do():
    {_CALLS[call]}
do()
assert sweep(do, lambda: signal.raise_signal(signal.{name})) > 10
assert signal.getsignal(signal.{name}) is handler
signal.signal(signal.{name}, signal.SIG_DFL)
check(pool)
""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize("call", ["submit", "put"])
def test_inv19_a_storm_of_ctrl_c(tmp_path: Path, call: str) -> None:
    done = run_script(
        tmp_path,
        f"""{_SWEEP}
import random
pool = gpool.GroupedPool(tags={{"a": 1, None: 1}}, callback=id)
rounds, calm = threading.Semaphore(0), threading.Event()
def storm():
    chance = random.Random(1)
    for _ in range(300):
        rounds.acquire()
        for _ in range(chance.randrange(20_000)):
            pass
        os.kill(os.getpid(), signal.SIGINT)
    calm.set()
hits = 0
threading.Thread(target=storm, daemon=True).start()
while not calm.is_set():
    try:
        rounds.release()
        while True:
            {_CALLS[call]}
            if calm.is_set():
                break
    except KeyboardInterrupt:
        hits += 1
try:
    threading.Event().wait(0.1)  # one may be under way
except KeyboardInterrupt:
    hits += 1
assert hits > 100, hits
check(pool)
""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize("call", ["submit", "put", "cancel", "stats"])
def test_inv19_signal_handlers_may_submit(tmp_path: Path, call: str) -> None:
    done = run_script(
        tmp_path,
        f"""{_SWEEP}
pool = gpool.GroupedPool(tags={{"a": 1, None: 1}}, callback=id)
signal.signal(signal.SIGUSR1, lambda *_: futures.append(pool.submit(abs, -1)))
def do():
    {_CALLS[call]}
do()
sweep(do, lambda: signal.raise_signal(signal.SIGUSR1))
check(pool)
""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize("call", ["submit", "put", "cancel", "map"])
def test_inv19_finalizers_may_submit(tmp_path: Path, call: str) -> None:
    done = run_script(
        tmp_path,
        f"""{_SWEEP}
pool = gpool.GroupedPool(tags={{"a": 1, None: 1}}, callback=id)
class Cycle:
    def __init__(self): self.me = self
    def __del__(self): futures.append(pool.submit(abs, -1))
def act():
    Cycle()
    gc.collect(0)
def do():
    {_CALLS[call]}
do()
sweep(do, act)
check(pool)
""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_inv19_finalizers_may_submit_and_drop_iterators_in_every_thread(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        f"""{_SWEEP}
pool = gpool.GroupedPool(tags={{"a": 1, None: 1}})
class Cycle:
    def __init__(self, *kept): self.me, self.kept = self, kept
    def __del__(self): futures.append(pool.submit(abs, -1))
for n in range(20):  # with readers about, settling and delivering nudges feeds
    gc.set_threshold(1, 5, 5)
    pool.ingest(range(20), None, lambda x: x)
    for n in range(50):
        Cycle(pool.map(abs, range(3)) if n % 10 == 0 else None, iter(pool))
        {_CALLS["submit"]}
    gc.set_threshold(700, 10, 10)
    list(pool)
gc.collect()  # the last of them submits before the pool is closed
check(pool)
""",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize(("timeout", "asked"), [(None, [0.05, None]), (1.05, [0.05, 1.0]), (0.01, [0.01])])
def test_inv15_the_main_thread_looks_at_the_signals_again_soon_after_it_has_begun_to_wait(
    timeout: float | None, asked: list[float | None]
) -> None:
    """One that came just before it fell asleep has woken nobody."""

    def never(seconds: float | None) -> bool:
        waits.append(seconds)
        return False

    waits: list[float | None] = []
    assert not wait(never, timeout)
    assert waits == pytest.approx(asked) if None not in asked else waits == asked
    waits.clear()
    other = threading.Thread(target=wait, args=(never, timeout))
    other.start()
    other.join()
    assert waits == [timeout]


def test_inv19_a_signal_may_be_set_in_the_midst_of_being_set() -> None:
    """As a finalizer does; ``threading.Event`` would wait for itself."""
    told = Signal()

    def in_between(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code is not Signal.set.__code__:
            return None
        told.set()
        return in_between

    assert not told.wait(0.001)
    before = sys.gettrace()
    sys.settrace(in_between)
    try:
        told.set()
    finally:
        sys.settrace(before)
    assert told.is_set() and told.wait(0.001) and told.wait()
    told.clear()
    assert not told.is_set() and not told.wait(0.001)


def test_a_signal_wakes_all_who_wait_for_it() -> None:
    told = Signal()
    threads = [threading.Thread(target=told.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    told.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


class Struck(threading.Condition):
    """A signal comes in the midst of one of its functions, whose own lock is held just then."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self._moment = moment

    def _strike(self, moment: str) -> None:
        if moment == self._moment:
            self._moment = ""
            signal.raise_signal(signal.SIGUSR1)

    def __enter__(self) -> bool:
        entered = super().__enter__()
        self._strike("entered")
        return entered

    def __exit__(self, *args: Any) -> None:
        self._strike("leaves")
        super().__exit__(*args)

    def wait(self, timeout: float | None = None) -> bool:
        self._strike("waits")
        return super().wait(timeout)


class Strike(Exception):
    """What the signal's handler raises."""


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("moment", ["entered", "waits", "leaves"])
def test_inv19_no_signal_leaves_a_condition_locked(moment: str, raises: bool) -> None:
    condition = Struck(moment)
    came = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        if raises:
            raise Strike

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        if raises:
            with pytest.raises(Strike) as caught:
                wait_for(condition, lambda: came, 30)
            assert caught.value.__context__ is None
        else:
            assert wait_for(condition, lambda: came, 30)
    finally:
        signal.signal(signal.SIGUSR1, before)
    free: list[bool] = []
    thread = threading.Thread(target=lambda: free.append(condition.acquire(blocking=False)))
    thread.start()
    thread.join()
    assert free == [True]
