"""Random walks over the scheduler, with the invariants checked after every event.

The machine knows more than the scheduler: what processes have begun and written is read late, in bits, or never
because they die. At the end of each walk everything is answered, and every task must have ended, once.
"""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gpool.events import Ended, ExitBegan, Progressed, Recalled, WorkerExited, WorkerReady
from gpool.model import Group, GroupState, PoolState, Task, TaskState, Verdict
from tests.machine import RAISED, RETURNED, Machine, Process

TAGS: tuple[Hashable, ...] = ("a", "b", "own", None)
STEPS_TO_THE_END = 3_000

which = st.integers(0, 7)
few = st.integers(0, 3)
tags = st.sampled_from(TAGS)
seconds = st.sampled_from((0.0001, 0.0001, 0.001, 0.1))


class SchedulerWalk(RuleBasedStateMachine):
    """See the module's docstring."""

    machine: Machine

    @initialize(
        sizes=st.tuples(few, few, few, few),
        caps=st.tuples(*[st.sampled_from((None, None, 0, 1, 2))] * 3),
        recycled_after=st.sampled_from((None, None, 1, 3, 50)),
        general_first=st.booleans(),
        send_ahead=st.sampled_from((True, True, True, False)),
        general_own_kind=st.sampled_from((False, False, True)),
        up=st.sampled_from((True, True, False)),
        item_seconds=st.sampled_from((0.0, 0.000001, 0.001)),
    )
    def make(
        self,
        sizes: tuple[int, int, int, int],
        caps: tuple[int | None, int | None, int | None],
        recycled_after: int | None,
        general_first: bool,
        send_ahead: bool,
        general_own_kind: bool,
        up: bool,
        item_seconds: float,
    ) -> None:
        a, b, own, general = sizes
        groups: dict[Hashable, Group] = {
            "a": Group(a, burst=caps[0], max_tasks_per_child=recycled_after, recycle_memory=500),
            "b": Group(b, burst=caps[1], weight=3, memory_limit=1000, max_crashes=4, max_start_failures=2),
            "own": Group(own, burst=caps[2], nice=1, memory_limit=1000, start_timeout=3),
            None: Group(general, nice=2 if general_own_kind else None),
        }
        if general_first:
            groups = {None: groups.pop(None), **groups}
        self.machine = Machine(groups, ready=up, eager=False, send_ahead=send_ahead, item_seconds=item_seconds)

    # -- what users ask ---------------------------------------------------------------------------------------

    @rule(
        tag=tags,
        number=st.integers(1, 6),
        priority=st.sampled_from((0, 0, 0, 1, -1)),
        timeout=st.sampled_from((None, None, None, 0.05)),
        retries=st.sampled_from((0, 0, 1, 2)),
    )
    def submit(self, tag: Hashable, number: int, priority: int, timeout: float | None, retries: int) -> None:
        made = [self.machine.task(tag, priority=priority, timeout=timeout, retries=retries) for _ in range(number)]
        self.machine.submit_all(*made)

    @rule(
        tag=tags,
        number=st.integers(1, 3),
        size=st.sampled_from((2, 3, 9, 30)),
        priority=st.sampled_from((0, 0, 0, 1, -1)),
    )
    def submit_blocks(self, tag: Hashable, number: int, size: int, priority: int) -> None:
        self.machine.submit_all(*[self.machine.task(tag, priority=priority, size=size) for _ in range(number)])

    @precondition(lambda self: self.unfinished)
    @rule(n=st.integers(0, 40), kill=st.booleans(), place=st.sampled_from((None, 0, 1, 2, 5, -1)))
    def cancel(self, n: int, kill: bool, place: int | None) -> None:
        machine = self.machine
        task = self.unfinished[n % len(self.unfinished)]
        if machine.items.get(task.id):
            if place is None:
                self.cancel_block(task)
            else:
                self.cancel_item(task, place % len(machine.items[task.id]), kill)
            return
        if task.id in machine.items:
            return
        must = kill or (task.state is TaskState.QUEUED and task.attempt == 0)
        written, waits, lost = self.where(task)
        machine.cancel(task.name, kill=kill)
        if lost or written:
            return
        if must or (task.state is TaskState.LEASED and waits and task.attempt == 0):
            assert machine.verdict(task.name) is Verdict.CANCELLED
        elif machine.begins[task.id]:
            assert machine.verdict(task.name) is None, "plain cancel leaves what has begun"

    def cancel_block(self, task: Task) -> None:
        """Nothing of it begins any more, but the one item that a process cannot be kept from beginning."""
        machine = self.machine
        items, begun = list(machine.items[task.id]), machine.item_begins.copy()
        process = next((p for p in self.processes() if task.lease is not None and p.worker is task.lease.worker), None)
        machine.cancel_task(task)
        if process is None or not (process.ended or process.reporting):
            unbegun = [item for item in items if not (machine.item_ends[item] or begun[item])]
            assert len(unbegun) <= (process is not None), "all is cancelled but what a process may begin at any moment"

    def cancel_item(self, task: Task, place: int, kill: bool) -> None:
        """It is cancelled if it had not begun, or runs and may be killed; the others go on."""
        machine = self.machine
        item = machine.items[task.id][place]
        process = next((p for p in self.processes() if task.lease is not None and p.worker is task.lease.worker), None)
        begun, ended = machine.item_begins[item] > 0, machine.item_ends[item]
        way = None if process is None or task.lease is None else process.ways.get(task.lease)
        runs = way is not None and way.in_one and way.items[way.ended] == item
        head = task.lease is not None and task.lease is task.lease.worker.leases[0]
        first = head and way is not None and way.begun == 0 and way.items[0] == item
        counts_as_begun = first or (task.size == 1 and task.state is TaskState.RUNNING)
        machine.cancel_item(task, place, kill=kill)
        if process is not None and (process.ended or process.reporting or process.killed):
            return
        if process is None or (kill and runs) or not (begun or counts_as_begun):
            assert machine.item_ends[item] == 1, "it is cancelled"
        elif begun and not (kill and runs):
            assert machine.item_ends[item] == ended, "what has begun goes on"

    def where(self, task: Task) -> tuple[bool, bool, bool]:
        """Whether the task's result is written, whether it waits in a process, whether its process is dead."""
        for process in self.machine.processes.values():
            if task.lease is not None and process.worker is task.lease.worker:
                written = any(each.lease == task.lease.number for each in process.unread)
                return written, task.lease in process.waiting, process.ended
        return False, False, False

    @rule(tag=tags, slots=few)
    def resize(self, tag: Hashable, slots: int) -> None:
        self.machine.resize({tag: slots})

    @rule(tag=st.sampled_from(("a", "b", "own")), slots=few)
    def move_slots(self, tag: Hashable, slots: int) -> None:
        groups = self.machine.scheduler.groups
        left = groups[None].slots - (slots - groups[tag].slots)
        if left >= 0:
            self.machine.resize({tag: slots, None: left})

    # -- what workers do --------------------------------------------------------------------------------------

    def processes(self) -> list[Process]:
        return list(self.machine.processes.values())

    @property
    def unfinished(self) -> list[Task]:
        return list(self.machine.scheduler.tasks.values())

    @property
    def coming(self) -> list[Process]:
        return [each for each in self.processes() if not each.up and not each.ended]

    @property
    def at_work(self) -> list[Process]:
        return [p for p in self.processes() if p.up and not p.ended and (p.begun or p.waiting)]

    @property
    def in_blocks(self) -> list[Process]:
        return [each for each in self.at_work if each.way is not None]

    @property
    def written(self) -> list[Process]:
        return [each for each in self.processes() if each.unread]

    @precondition(lambda self: self.coming)
    @rule(n=which)
    def ready(self, n: int) -> None:
        self.machine.ready(self.coming[n % len(self.coming)].worker.id)

    @rule()
    def all_ready(self) -> None:
        for process in self.coming:
            self.machine.ready(process.worker.id)

    @rule(steps=st.integers(1, 4), seconds=seconds)
    def all_is_well(self, steps: int, seconds: float) -> None:
        """For a while, everybody does what they should."""
        for _ in range(steps):
            self.answer_all(seconds)
            self.machine.after(seconds)

    @precondition(lambda self: self.at_work)
    @rule(n=which, number=st.integers(0, 4), seconds=seconds, raises=st.booleans(), retry=st.booleans())
    def work(self, n: int, number: int, seconds: float, raises: bool, retry: bool) -> None:
        """A process begins what it has, ends so many leases; nobody reads that yet."""
        process = self.at_work[n % len(self.at_work)]
        self.begin(process)
        for _ in range(number):
            if process.way is not None:
                self.run_block(process, seconds)
                self.begin(process)
            elif process.begun is not None:
                self.machine.write(process.worker.id, RAISED if raises else RETURNED, seconds, retry=retry and raises)
                self.begin(process)

    @precondition(lambda self: self.in_blocks)
    @rule(n=which, number=st.integers(0, 9), raises=st.booleans(), stops=st.booleans())
    def work_in_a_block(self, n: int, number: int, raises: bool, stops: bool) -> None:
        """A process ends so many items of its block, and is in the next one or stops before it; it writes nothing."""
        process = self.in_blocks[n % len(self.in_blocks)]
        self.run_items(process, number, raises=raises)
        if not stops:
            self.machine.begin_item(process.worker.id)

    @precondition(lambda self: self.in_blocks)
    @rule(n=which, seconds=seconds, final=st.sampled_from((True, True, False)))
    def write_answers(self, n: int, seconds: float, final: bool) -> None:
        """A process writes what it has kept, be it nothing."""
        process = self.in_blocks[n % len(self.in_blocks)]
        self.machine.write_answers(process.worker.id, seconds, final=final)

    def run_items(self, process: Process, number: int, *, raises: bool = False) -> None:
        way, worker = process.way, process.worker.id
        assert way is not None
        for _ in range(number):
            if way.in_one or self.machine.begin_item(worker):
                self.machine.end_item(worker, raises=raises)

    def run_block(self, process: Process, seconds: float) -> None:
        """A process runs its block as far as it may, and leaves it."""
        assert process.way is not None
        self.run_items(process, len(process.way.items))
        self.machine.write_answers(process.worker.id, seconds)

    def begin(self, process: Process) -> None:
        if process.begun is None and process.waiting:
            self.machine.begin(process.worker.id)

    @precondition(lambda self: self.written)
    @rule(n=which, number=st.integers(1, 4))
    def read(self, n: int, number: int) -> None:
        process = self.written[n % len(self.written)]
        for _ in range(min(number, len(process.unread))):
            self.machine.read(process.worker.id)

    @precondition(lambda self: self.machine.processes)
    @rule(n=which, reporting=st.booleans())
    def end(self, n: int, reporting: bool) -> None:
        """A process dies, unseen as yet, or seen by the backend alone."""
        processes = self.processes()
        self.machine.end(processes[n % len(processes)].worker.id, reporting=reporting)

    @precondition(lambda self: self.machine.processes)
    @rule(n=which)
    def exited(self, n: int) -> None:
        processes = self.processes()
        self.machine.exited(processes[n % len(processes)].worker.id)

    @precondition(lambda self: self.gone_or_going)
    @rule()
    def obedient(self) -> None:
        """Whoever was asked to end, or killed, is gone."""
        for process in self.gone_or_going:
            self.machine.exited(process.worker.id)

    @property
    def gone_or_going(self) -> list[Process]:
        return [each for each in self.processes() if each.stopping or each.killed or each.ended]

    @precondition(lambda self: self.machine.processes)
    @rule(rarely=st.integers(0, 4), n=which, times=st.sampled_from((3, 12, 32)))
    def crash_loop(self, rarely: int, n: int, times: int) -> None:
        """Process after process dies, in a task or before it is up."""
        for _ in range(0 if rarely else times):
            processes = self.processes()
            if not processes:
                return
            process = processes[n % len(processes)]
            if not process.ended:
                self.begin(process)
            self.machine.exited(process.worker.id)
            if n % 2:
                self.all_ready()

    @rule(rarely=st.integers(0, 4), tag=tags, times=st.sampled_from((11, 14, 32)))
    def tasks_kill(self, rarely: int, tag: Hashable, times: int) -> None:
        """Task after task of one tag takes its worker along, until the tag is held back; more of its tasks wait."""
        for _ in range(0 if rarely else times):
            self.submit(tag, 2, 0, None, 0)
            self.all_ready()
            mine = [each for each in self.at_work if each.worker.serving is self.machine.scheduler.groups[tag]]
            if not mine:
                return
            self.begin(mine[0])
            self.machine.exited(mine[0].worker.id)

    @rule(seconds=st.sampled_from((0.0001, 0.02, 0.06, 1.0, 6.0)))
    def time_passes(self, seconds: float) -> None:
        self.machine.after(seconds)

    @precondition(lambda self: self.machine.processes)
    @rule(n=which, rss=st.sampled_from((10, 2000)))
    def sampled(self, n: int, rss: int) -> None:
        processes = self.processes()
        self.machine.sampled(processes[n % len(processes)].worker.id, rss)

    # -- late, twice, wrong -----------------------------------------------------------------------------------

    @rule(worker=st.integers(1, 12), lease=st.integers(1, 40))
    def stale(self, worker: int, lease: int) -> None:
        """Messages that quote leases which nobody holds, or workers that are not there, change nothing."""
        scheduler = self.machine.scheduler
        holder = scheduler.workers.get(worker)
        if holder is None:
            assert self.machine.tell(WorkerExited(worker, lease)) == []
            assert self.machine.tell(WorkerReady(worker)) == []
        elif self.machine.processes[worker].up:
            assert self.machine.tell(WorkerReady(worker)) == []
        if holder is None or all(held.number != lease for held in list(holder.leases)[:1]):
            dropped = scheduler.dropped
            assert self.machine.tell(Ended(worker, lease, RETURNED)) == []
            assert self.machine.tell(Progressed(worker, lease, 1, 1, bool(worker % 2))) == []
            assert scheduler.dropped == dropped + 2
        if holder is None or all(held.number != lease for held in holder.leases):
            for recalled in (Recalled(worker, (lease,)), Recalled(worker, (), lease, 2)):
                assert not [word for word in self.machine.tell(recalled) if "runs" in word]

    # -- the end ------------------------------------------------------------------------------------------------

    @rule(rarely=st.integers(0, 9), now=st.booleans())
    def close(self, rarely: int, now: bool) -> None:
        if rarely == 0:
            self.machine.close(now=now)

    @rule(rarely=st.integers(0, 9))
    def exit(self, rarely: int) -> None:
        if rarely == 0:
            self.machine.tell(ExitBegan())

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        machine = self.machine
        if machine.scheduler.state is PoolState.OPEN:
            self.run_out()
            for task in self.unfinished:
                self.check_stranded(task)
            machine.close()
        self.run_out()
        assert not self.unfinished, "a task never ends"
        assert not machine.items, "an item never ends"
        assert set(machine.item_ends.values()) <= {1}, "each item ends once"
        for process in self.processes():
            machine.exited(process.worker.id)
        assert machine.closed
        assert machine.scheduler.state is PoolState.CLOSED

    def check_stranded(self, task: Task) -> None:
        """Only what has no slot, by the size of its groups, may wait for ever."""
        groups = self.machine.scheduler.groups
        group, general = groups[task.tag], groups[None]
        assert task.state is TaskState.QUEUED, task
        assert group.state is not GroupState.BROKEN, "tasks of a broken group end"
        bursts = general.slots > 0 and group.settings.burst != 0
        assert not (group.slots > 0 and not group.general) and not bursts, f"{task} waits for ever"

    def run_out(self) -> None:
        """Everybody does what is asked of them until nothing is left to do; time passes as it must."""
        for _ in range(STEPS_TO_THE_END):
            if self.answer_all():
                continue
            if not self.unfinished or self.machine.scheduler.next_timer is None:
                return
            self.machine.until_timer()
        raise AssertionError("it goes on for ever")

    def answer_all(self, seconds: float = 0.001) -> bool:
        """Whoever has something to do does it; False if nobody had."""
        machine, busy = self.machine, False
        for process in self.processes():
            number = process.worker.id
            if number not in machine.processes:
                continue
            if process.killed or process.stopping or process.ended:
                machine.exited(number)
            elif not process.up:
                machine.ready(number)
            elif process.unread:
                machine.read(number)
            elif process.begun or process.waiting:
                self.begin(process)
                if process.way is not None:
                    self.run_block(process, seconds)
                else:
                    machine.write(number, RETURNED, seconds)
            else:
                continue
            busy = True
        return busy


# To make a failing walk short may take minutes, longer than a test may last. To have it done, replay the printed blob
# with ``phases`` left out and ``--timeout 0``.
SchedulerWalk.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=60,
    deadline=None,
    print_blob=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
TestSchedulerWalk = SchedulerWalk.TestCase
