"""An open loop's clock: when operations are meant to begin, and being woken then.

The schedule knows nothing of the store. An operation's latency runs from the moment at which it was meant
to begin, whether or not a slow store, or a client that was still busy, kept it from doing so: that is the
correction for coordinated omission.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import struct
from collections.abc import Callable
from typing import Final

from etcray_bench.load.options import Arrivals

_CLOCK_MONOTONIC: Final = 1
_ABSOLUTE: Final = 1


class Schedule:
    """Moments, one after the other: at even distances, or as independent clients would come (Poisson)."""

    def __init__(self, rate: float, arrivals: Arrivals, start: float, draw: Callable[[float], float]) -> None:
        self._rate = rate
        self._start = start
        self._is_fixed = arrivals == "fixed"
        self._draw = draw
        self._number = 0
        self.next = start if self._is_fixed else start + draw(rate)
        """When the next operation is meant to begin."""

    def step(self) -> None:
        if self._is_fixed:
            # Not summed up, so that no rounding adds up.
            self._number += 1
            self.next = self._start + self._number / self._rate
        else:
            self.next += self._draw(self._rate)


def schedule_for(rate: float, arrivals: Arrivals, start: float, generator: random.Random) -> Schedule:
    return Schedule(rate, arrivals, start, generator.expovariate)


class Alarm:
    """Calls a function of the loop at a moment of perf_counter, within some ten microseconds.

    A loop's own timers come up to a millisecond late, which is more than some stores need to answer.
    This one is a timerfd of Linux, which Python has from 3.13 on only.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._library = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._library.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "no timer for an open loop")
        loop.add_reader(self._descriptor, self._ring)

    def set(self, moment: float) -> None:
        """Once; in the place of what was set before. A moment that has passed rings at once."""
        seconds = int(moment)
        nanoseconds = max(1, int((moment - seconds) * 1e9))
        self._library.timerfd_settime(
            self._descriptor, _ABSOLUTE, struct.pack("qqqq", 0, 0, seconds, nanoseconds), None
        )

    def _ring(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return  # It was set anew meanwhile.
        self._call()

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
