"""Waiting for something that another thread, or a later turn of the same one, brings.

A call that has to wait is written as a generator (`Steps`): it yields what it waits for and goes on when
that is resolved, or the time is up. So the same code runs on a thread that blocks (`run`), and in a
simulation that has one thread for everything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Waiter(Generic[T]):
    """One wait for one value. A bare lock: half the cost of a threading.Event."""

    __slots__ = ("_lock", "_then", "value")

    def __init__(self) -> None:
        self.value: T | None = None
        """None after the wait: given up (leadership lost, member stopping), or not there in time."""
        self._lock = threading.Lock()
        self._lock.acquire()
        self._then: Callable[[], None] | None = None

    def resolve(self, value: T | None) -> None:
        """At most once: whoever resolves a waiter has first taken it out of its table."""
        self.value = value
        self._lock.release()
        then = self._then
        if then is not None:
            then()

    def then(self, call: Callable[[], None]) -> None:
        """Instead of `wait`: have something done when it is resolved, by whoever resolves it, who may hold
        the driver's mutex. It is done now if it is resolved already; and it may be done twice, if that
        happens at this moment."""
        self._then = call
        if not self._lock.locked():
            call()

    @property
    def is_resolved(self) -> bool:
        """For whoever waits without blocking. False after `wait`, which takes it."""
        return not self._lock.locked()

    def wait(self, timeout_seconds: float) -> T | None:
        """The value, or None after the time-out."""
        self._lock.acquire(timeout=timeout_seconds)
        return self.value


class Wait(NamedTuple):
    """What a call waits for, and for how long at most."""

    waiter: Waiter[Any]
    seconds: float


Steps = Generator[Wait, None, T]
"""A call that waits. Abandoning it in the middle does no harm: what it registered is answered or given
up by the part with which it registered."""


def run(steps: Steps[T]) -> T:
    """Make the call on this thread, blocking where it waits."""
    try:
        while True:
            wait = next(steps)
            wait.waiter.wait(wait.seconds)
    except StopIteration as end:
        result: T = end.value
        return result
