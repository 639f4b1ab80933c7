"""Latencies: counted cheaply while a load runs, then kept as an HDR histogram.

Each is a whole number of microseconds and counted in a dictionary, which costs a third of what recording
it in a histogram does, and is exact up to 65 ms. After the run the counts go into a histogram of three
significant digits, whose encoding (HdrHistogram V2, as of all its implementations) can be stored, merged
and read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Self

import msgspec
from hdrh.histogram import HdrHistogram

MICROSECONDS_MAX: Final = 3_600_000_000
DIGITS: Final = 3
EXACT_BELOW: Final = 65_536
"""Microseconds. What takes longer is counted in steps of 64, 0.1 % and less."""

Counts = dict[int, int]
"""How often each number of microseconds came."""


def bucket(seconds: float) -> int:
    """The key of `Counts`."""
    microseconds = int(seconds * 1e6)
    return microseconds if microseconds < EXACT_BELOW else microseconds & ~63


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of a number of latencies."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    histogram: str
    """HdrHistogram V2, compressed, base64; microseconds from 1 to an hour."""

    @classmethod
    def of(cls, counts: Counts) -> Self:
        histogram = _empty()
        total = 0
        for microseconds, count in counts.items():
            histogram.record_value(min(max(1, microseconds), MICROSECONDS_MAX), count)
            total += microseconds * count
        return cls._of(histogram, total / 1e3)

    @classmethod
    def merged(cls, latencies: Iterable[Latency]) -> Self:
        histogram = _empty()
        total_ms = 0.0
        for latency in latencies:
            if latency.count:
                histogram.decode_and_add(latency.histogram)
                total_ms += latency.mean_ms * latency.count
        return cls._of(histogram, total_ms)

    @classmethod
    def _of(cls, histogram: Any, total_ms: float) -> Self:
        count = int(histogram.get_total_count())
        p50, p90, p99, p999 = _at(histogram, (50.0, 90.0, 99.0, 99.9))
        return cls(
            count=count,
            mean_ms=total_ms / max(1, count),
            p50_ms=p50,
            p90_ms=p90,
            p99_ms=p99,
            p999_ms=p999,
            max_ms=histogram.get_max_value() / 1e3 if count else 0.0,
            histogram=histogram.encode().decode(),
        )

    def percentile_ms(self, percentile: float) -> float:
        """Not exceeded by so many percent."""
        return self.percentiles_ms((percentile,))[0]

    def percentiles_ms(self, percentiles: Iterable[float]) -> list[float]:
        histogram = _empty()
        if self.count:
            histogram.decode_and_add(self.histogram)
        return _at(histogram, percentiles)


def _at(histogram: Any, percentiles: Iterable[float]) -> list[float]:
    """In milliseconds, in one pass."""
    wanted = list(percentiles)
    if not histogram.get_total_count():
        return [0.0 for _ in wanted]
    found = histogram.get_percentile_to_value_dict(wanted)
    return [found[percentile] / 1e3 for percentile in wanted]


def _empty() -> Any:
    return HdrHistogram(1, MICROSECONDS_MAX, DIGITS)
