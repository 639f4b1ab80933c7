"""The distribution of latencies, from histograms as the load generator encodes them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Final

from etcray_bench.results.records import Sample

MICROSECONDS_MAX: Final = 3_600_000_000
DIGITS: Final = 3
NINES_MAX: Final = 5
STEPS_PER_NINE: Final = 12


def curve(samples: Iterable[Sample]) -> list[tuple[float, float]]:
    """(share, milliseconds) over all samples together, from the median on, as far as there are enough
    requests for the share to mean something. Empty if none has a histogram."""
    from hdrh.histogram import HdrHistogram

    total = HdrHistogram(1, MICROSECONDS_MAX, DIGITS)
    for sample in samples:
        if sample.histogram is not None:
            total.add(HdrHistogram.decode(base64.b64encode(sample.histogram)))
    count = total.get_total_count()
    return [
        (share, total.get_value_at_percentile(share * 100) / 1e3)
        for share in shares()
        if count * (1 - share) >= 1
    ]


def shares() -> Sequence[float]:
    """Evenly spaced on an axis of nines."""
    exponents = [step / STEPS_PER_NINE for step in range(NINES_MAX * STEPS_PER_NINE + 1)]
    return [1 - 0.5 * 10**-exponent for exponent in exponents]


def value_at(points: Sequence[tuple[float, float]], share: float) -> float:
    """The first value at or beyond the share; the last one if the curve ends before."""
    assert points, "an empty curve has no values"
    return next((value for at, value in points if at >= share - 1e-9), points[-1][1])
