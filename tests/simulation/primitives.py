"""Stand-ins for `threading`, `queue`, `time`, `os`, `sys` and `traceback`, which run in virtual time.

Each has only what the product uses, so something new there fails loudly. They find the world through
`the`: one simulation runs at a time in a process.
"""

from __future__ import annotations

import queue as real_queue
import sys as real_sys
import threading as real_threading
import time as real_time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.scheduler import Killed, Process, Task, World


class _The:
    """The running simulation."""

    world: World

    @property
    def task(self) -> Task:
        task = self.world.current
        assert task is not None, "only a task can do this"
        return task

    @property
    def process(self) -> Process:
        return self.task.process


the: Final = _The()


class Lock:
    """Handed over to a waiter that is drawn: there is no fairness to rely on."""

    __slots__ = ("_is_held", "_waiters")

    def __init__(self) -> None:
        self._is_held = False
        self._waiters: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        world = the.world
        world.step_aside()
        if not self._is_held:
            self._is_held = True
            return True
        if not blocking:
            return False
        task = the.task
        self._waiters.append(task)
        if world.park(timeout if timeout >= 0 else None):
            return True
        self._waiters.remove(task)
        return False

    def release(self) -> None:
        assert self._is_held, "release of a lock that nobody holds"
        if self._waiters:
            world = the.world
            task = self._waiters.pop(int(world.rng.random() * len(self._waiters)))
            world.wake(task)
        else:
            self._is_held = False

    def locked(self) -> bool:
        return self._is_held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class RLock:
    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: Task | None = None
        self._depth = 0

    def __enter__(self) -> bool:
        if self._owner is not the.world.current:
            self._lock.acquire()
            self._owner = the.task
        self._depth += 1
        return True

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._lock.release()


class Condition:
    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = lock if lock is not None else Lock()
        self._waiters: list[Task] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        task = the.task
        self._waiters.append(task)
        self._lock.release()
        try:
            is_woken = the.world.park(timeout)
            if not is_woken:
                self._waiters.remove(task)
        except Killed:
            self._lock._is_held = True  # as the caller's `with` believes
            raise
        self._lock.acquire()
        return is_woken

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        deadline = None if timeout is None else the.process.monotonic() + timeout
        while not predicate():
            remaining = None if deadline is None else deadline - the.process.monotonic()
            if remaining is not None and remaining <= 0:
                return False
            self.wait(remaining)
        return True

    def notify(self, count: int = 1) -> None:
        for _ in range(min(count, len(self._waiters))):
            the.world.wake(self._waiters.pop(0))

    def notify_all(self) -> None:
        self.notify(len(self._waiters))


class Event:
    def __init__(self) -> None:
        self._is_set = False
        self._waiters: list[Task] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        waiters, self._waiters = self._waiters, []
        for task in waiters:
            the.world.wake(task)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        the.world.step_aside()
        if not self._is_set:
            task = the.task
            self._waiters.append(task)
            if not the.world.park(timeout):
                self._waiters.remove(task)
        return self._is_set


class Semaphore:
    def __init__(self, value: int = 1) -> None:
        self._value = value
        self._waiters: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        the.world.step_aside()
        if self._value > 0:
            self._value -= 1
            return True
        if not blocking:
            return False
        task = the.task
        self._waiters.append(task)
        if the.world.park(timeout):
            return True
        self._waiters.remove(task)
        return False

    def release(self) -> None:
        if self._waiters:
            the.world.wake(self._waiters.pop(0))
        else:
            self._value += 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Thread:
    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] = lambda: None,
        name: str = "thread",
        args: tuple[Any, ...] = (),
        daemon: bool = False,
    ) -> None:
        self.name = name
        self._work = lambda: target(*args)
        self._task: Task | None = None

    def start(self) -> None:
        assert self._task is None, f"{self.name} is started twice"
        self._task = the.process.spawn(self._work, self.name)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.is_done

    def join(self, timeout: float | None = None) -> None:
        assert self._task is not None, f"{self.name} was not started"
        if not self._task.is_done:
            current = the.task
            self._task.waiters.append(current)
            if not the.world.park(timeout):
                self._task.waiters.remove(current)


class SimpleQueue:
    """Also stands for `Queue`, which has a bound."""

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._items: deque[Any] = deque()
        self._waiters: list[Task] = []

    def put(self, item: Any) -> None:
        the.world.step_aside()
        self._items.append(item)
        if self._waiters:
            the.world.wake(self._waiters.pop(0))

    def put_nowait(self, item: Any) -> None:
        if 0 < self._maxsize <= len(self._items):
            raise real_queue.Full
        self.put(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        the.world.step_aside()
        while not self._items:
            task = the.task
            self._waiters.append(task)
            if not the.world.park(timeout):
                self._waiters.remove(task)
                if not self._items:
                    raise real_queue.Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise real_queue.Empty
        return self._items.popleft()

    def qsize(self) -> int:
        return len(self._items)

    def empty(self) -> bool:
        return not self._items


class Threading:
    """Instead of the module `threading`."""

    Lock = Lock
    RLock = RLock
    Condition = Condition
    Event = Event
    Semaphore = Semaphore
    BoundedSemaphore = Semaphore
    Thread = Thread

    @staticmethod
    def current_thread() -> Task:
        return the.task


class Queues:
    """Instead of the module `queue`."""

    Queue = SimpleQueue
    SimpleQueue = SimpleQueue
    Empty = real_queue.Empty
    Full = real_queue.Full


class Time:
    """Instead of the module `time`."""

    @staticmethod
    def monotonic() -> float:
        return the.process.monotonic()

    @staticmethod
    def time_ns() -> int:
        return int(the.process.wall_seconds() * 1e9)  # type: ignore[attr-defined]

    @staticmethod
    def time() -> float:
        return the.process.wall_seconds()  # type: ignore[attr-defined, no-any-return]

    @staticmethod
    def sleep(seconds: float) -> None:
        the.world.park(seconds)


class Os:
    """Instead of the module `os`."""

    @staticmethod
    def urandom(count: int) -> bytes:
        return the.world.rng.randbytes(count)

    @staticmethod
    def getpid() -> int:
        return 1

    @staticmethod
    def _exit(_code: int) -> None:
        the.process.exit()
        raise Killed


class Sys:
    """Instead of the module `sys`."""

    class stderr:
        @staticmethod
        def write(_text: str) -> None: ...
        @staticmethod
        def flush() -> None: ...

    @staticmethod
    def setswitchinterval(_seconds: float) -> None: ...


class Traceback:
    """Instead of the module `traceback`: what a member formats is what ended its process."""

    @staticmethod
    def format_exception(error: BaseException) -> list[str]:
        process = the.process
        if not isinstance(error, Killed) and not process.is_dead:
            process.failures.append(error)
        return [repr(error)]


MODULES: Final[dict[object, object]] = {
    real_threading: Threading,
    real_queue: Queues,
    real_time: Time,
    real_sys: Sys,
}
"""Of which modules these are stand-ins; `os` and `traceback` are added by `substitution`."""
