"""Writers that go on whatever happens, and remember to the microsecond when they were answered.

Each writer puts to a key of its own over a connection of its own, one put after the other. A put that
fails, or is not answered in time, is sent again at once, to the next endpoint: it is the same write, so
its outcome does not matter, and what is of interest is only when somebody was served again.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Final

from etcray.client import Client, EtcrayError
from etcray_bench.load import CheckFailedError
from etcray_bench.results.records import Slice

PUT_SECONDS_MAX: Final = 1.0
"""Then the writer tries another endpoint. A server that is merely paused for less is waited for."""
FAILURE_PAUSE_SECONDS: Final = 0.02
SLICE_SECONDS: Final = 0.05


class Writers:
    """They write while the block lasts. All times are of time.perf_counter()."""

    def __init__(self, endpoints: Sequence[str], count: int, prefix: str = "pauses/") -> None:
        self._endpoints = list(endpoints)
        self._prefix = prefix
        self._ended = threading.Event()
        self.answered: list[tuple[float, float]] = []
        """When, and after how many seconds."""
        self.failed: list[tuple[float, str]] = []
        self._last = [0] * count
        """By writer: the newest number that was acknowledged."""
        self._threads = [
            threading.Thread(target=self._write, args=(number,), name=f"writer {number}")
            for number in range(count)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        # Each writer begins with another endpoint, so that all are in use.
        places = itertools.cycle(
            self._endpoints[number % len(self._endpoints) :]
            + self._endpoints[: number % len(self._endpoints)]
        )
        clients = {place: Client(place, timeout=PUT_SECONDS_MAX) for place in self._endpoints}
        try:
            place = next(places)
            written = 0
            while not self._ended.is_set():
                begun = time.perf_counter()
                try:
                    clients[place].put(f"{self._prefix}{number}", f"{written + 1}")
                except EtcrayError as error:
                    self.failed.append((time.perf_counter(), f"{type(error).__name__}: {error}"))
                    place = next(places)
                    self._ended.wait(FAILURE_PAUSE_SECONDS)
                    continue
                written += 1
                ended = time.perf_counter()
                self._last[number] = written
                self.answered.append((ended, ended - begun))
        finally:
            for client in clients.values():
                client.close()

    def pause_after(self, at: float, until: float) -> float:
        """The longest time in which nobody was answered, in seconds: from the last answer before `at`, or a
        later one, until the next. Raises CheckFailedError if nobody ever was again."""
        times = sorted(moment for moment, _ in self.answered)
        before = [moment for moment in times if moment <= at]
        after = [moment for moment in times if at < moment <= until]
        if not after:
            raise CheckFailedError("no write was answered after the fault")
        line = [*before[-1:], *after]
        return max(second - first for first, second in itertools.pairwise(line)) if len(line) > 1 else 0.0

    def slices(self, begin: float, end: float) -> tuple[Slice, ...]:
        """The same as a line over time that begins with 0."""
        count = max(1, round((end - begin) / SLICE_SECONDS))
        requests, failures, worst = [0] * count, [0] * count, [0.0] * count
        for moment, seconds in list(self.answered):
            slot = int((moment - begin) / SLICE_SECONDS)
            if 0 <= slot < count:
                requests[slot] += 1
                worst[slot] = max(worst[slot], seconds * 1e3)
        for moment, _ in list(self.failed):
            slot = int((moment - begin) / SLICE_SECONDS)
            if 0 <= slot < count:
                failures[slot] += 1
        return tuple(
            Slice(
                at_seconds=number * SLICE_SECONDS,
                slice_seconds=SLICE_SECONDS,
                requests=requests[number],
                failures=failures[number],
                latency_ms_max=worst[number] if requests[number] else None,
            )
            for number in range(count)
        )

    def check(self) -> None:
        """Once they have ended: the store has, of each, its last acknowledged write or the one after it.
        Raises CheckFailedError."""
        with Client(self._endpoints, timeout=30.0) as client:
            for number, written in enumerate(self._last):
                pair = client.get(f"{self._prefix}{number}")
                found = int(pair.value) if pair is not None else 0
                if found not in (written, written + 1):
                    raise CheckFailedError(
                        f"writer {number} was acknowledged {written}, the store has {found}"
                    )
