"""Tasks in virtual time: what an operating system does, in one thread, decided by a seed.

A `Task` is a greenlet that runs product code as a thread would. It gives up control only where a thread
could lose it: when it waits (`World.park`), and now and then at a call of a primitive, where `World`
draws whether to preempt it. Which of the runnable tasks goes on is drawn as well. Time stands still while
anything is runnable, and then jumps to the next event.

The hub is the greenlet that called `World.run`. Events (`after`) are run by the hub itself: they must
not block.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections.abc import Callable
from typing import Any, Final

from greenlet import getcurrent, greenlet

PREEMPTION_MEAN: Final = 400
"""Calls of primitives between two forced switches, on the average."""

PREEMPTION_SECONDS: Final = (0.0, 0.0, 0.0, 0.0005, 0.003, 0.02)
"""For how long a preempted thread is away."""

_TRACE_MASK: Final = (1 << 64) - 1


class Killed(BaseException):
    """The process of this task has ended. Thrown into the task wherever it waits."""


class Task(greenlet):
    """One thread of a process."""

    def __init__(self, world: World, process: Process, work: Callable[[], object], name: str) -> None:
        super().__init__(self._main, world.hub)
        self.process = process
        self.name = name
        self.number = world.next_number()
        self.wait_number = 0
        """Counts waits: a time-out that comes after its wait is over finds another number."""
        self.is_woken = False
        self.is_parked = False
        """It waits, and nothing has ended the wait yet."""
        self.is_done = False
        self.waiters: list[Task] = []
        """Tasks that join this one."""
        self._work = work

    def _main(self) -> None:
        try:
            self._work()
        except Killed:
            pass
        except BaseException as error:
            self.process.task_failed(self, error)
        finally:
            self.is_done = True
            self.process.ended(self)


class Process:
    """A set of tasks that end together, with clocks of their own."""

    def __init__(self, world: World, name: str, clock_rate: float = 1.0) -> None:
        self.world = world
        self.name = name
        self.clock_rate = clock_rate
        """Seconds of the process's monotonic clock in a second of the world."""
        self._clock_offset = 1000.0 * world.rng.random() - world.now * clock_rate
        self.is_dead = False
        self.is_paused = False
        self.failures: list[BaseException] = []
        """What ended it, if it ended itself."""
        self.on_end: Callable[[Process], None] = lambda process: None
        """Called by the hub, once, after the process has ended."""
        self._tasks: dict[Task, None] = {}
        self._held: list[Task] = []

    def monotonic(self) -> float:
        return self._clock_offset + self.world.now * self.clock_rate

    def spawn(self, work: Callable[[], object], name: str) -> Task:
        task = Task(self.world, self, work, name)
        if not self.is_dead:
            self._tasks[task] = None
            self.make_runnable(task)
        return task

    def make_runnable(self, task: Task) -> None:
        if self.is_paused:
            self._held.append(task)
        else:
            self.world.ready.append(task)

    def pause(self) -> None:
        """As SIGSTOP: nothing of it runs, and its clock goes on."""
        self.is_paused = True
        ready = self.world.ready
        self._held += [task for task in ready if task.process is self]
        ready[:] = [task for task in ready if task.process is not self]

    def resume(self) -> None:
        self.is_paused = False
        held, self._held = self._held, []
        self.world.ready += held

    def exit(self) -> None:
        """End from within, or from the hub. The tasks are unwound by the hub, one after the other."""
        if not self.is_dead:
            self.is_dead = True
            self.world.dying.append(self)

    def unwind(self) -> None:
        """By the hub: throw every task out of its wait."""
        for task in list(self._tasks):
            if not task.is_done:
                if task:  # it has begun
                    task.throw(Killed)
                else:
                    task.is_done = True
        self._tasks.clear()
        self._held.clear()
        self.on_end(self)

    def ended(self, task: Task) -> None:
        self._tasks.pop(task, None)
        for waiter in task.waiters:
            self.world.wake(waiter)

    def task_failed(self, task: Task, error: BaseException) -> None:
        """A thread ended with an exception: the product lets none pass without ending the process."""
        if not self.is_dead:
            self.world.fail(error)


class World:
    """Virtual time, the tasks, and the one source of chance."""

    def __init__(self, seed: int, preemption_mean: int = PREEMPTION_MEAN) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.hub = getcurrent()
        self.current: Task | None = None
        self.ready: list[Task] = []
        self.dying: list[Process] = []
        self.failure: BaseException | None = None
        self.trace = 0
        """Of everything that was decided, in order: two runs of a seed have the same."""
        self.slices = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._preemption_mean = preemption_mean
        self._calls_left = preemption_mean

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def note(self, data: bytes) -> None:
        """Make something part of the trace."""
        self.trace = (self.trace * 1_000_003 ^ zlib.crc32(data)) & _TRACE_MASK

    def fail(self, error: BaseException) -> None:
        """Stop the simulation: `run` raises this."""
        if self.failure is None:
            self.failure = error

    # --- time -----------------------------------------------------------------------------------

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Have the hub call this then."""
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, callback))

    def run(self, until: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Go on until that time, or until `is_over` says so. Raises what failed."""
        ready, events, rng_random = self.ready, self._events, self.rng.random
        while True:
            while ready:
                count = len(ready)
                if count > 1:
                    position = int(rng_random() * count)
                    ready[position], ready[-1] = ready[-1], ready[position]
                self._switch_to(ready.pop())
            if self.failure is not None:
                raise self.failure
            if not events or events[0][0] > until:
                self.now = max(self.now, until)
                return
            if is_over():
                return
            self.now, _, callback = heapq.heappop(events)
            callback()
            if self.dying:
                self._bury()

    def _switch_to(self, task: Task) -> None:
        if task.is_done:
            return
        self.slices += 1
        self.trace = (self.trace * 1_000_003 ^ task.number ^ int(self.now * 1e9)) & _TRACE_MASK
        self.current = task
        task.switch()
        self.current = None
        if self.dying:
            self._bury()

    def _bury(self) -> None:
        while self.dying:
            process = self.dying.pop()
            self.ready[:] = [task for task in self.ready if task.process is not process]
            process.unwind()

    # --- waiting --------------------------------------------------------------------------------

    def park(self, timeout: float | None = None) -> bool:
        """Let the current task wait. True if it was woken, False after the time-out, which is in
        seconds of the process's clock."""
        task = self.current
        assert task is not None, "the hub cannot wait"
        if task.process.is_dead:
            raise Killed
        task.wait_number = number = task.wait_number + 1
        if timeout is not None:
            self.after(timeout / task.process.clock_rate, lambda: self._time_out(task, number))
        task.is_woken = False
        task.is_parked = True
        self.hub.switch()
        self.current = task
        if task.process.is_dead:
            raise Killed
        return task.is_woken

    def _time_out(self, task: Task, number: int) -> None:
        if task.wait_number == number and task.is_parked and not task.is_done:
            self._end_wait(task)

    @staticmethod
    def _end_wait(task: Task) -> None:
        task.is_parked = False
        task.process.make_runnable(task)

    def wake(self, task: Task) -> None:
        """End the wait of a task. To be called once for each wait. The wait may have timed out without the
        task having gone on since, as in a process that was paused: then it was woken all the same."""
        if not task.is_done and not task.process.is_dead:
            task.is_woken = True
            if task.is_parked:
                self._end_wait(task)

    def sleep(self, seconds: float) -> None:
        """In seconds of the world."""
        task = self.current
        assert task is not None, "the hub cannot wait"
        self.park(seconds * task.process.clock_rate)

    def step_aside(self) -> None:
        """Called by the primitives: perhaps another task goes on here."""
        self._calls_left -= 1
        if self._calls_left > 0:
            return
        rng = self.rng
        self._calls_left = 1 + int(rng.random() * 2 * self._preemption_mean)
        if self.current is not None and not self.current.process.is_dead:
            self.sleep(PREEMPTION_SECONDS[int(rng.random() * len(PREEMPTION_SECONDS))])

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, choices: Any) -> Any:
        return choices[int(self.rng.random() * len(choices))]
