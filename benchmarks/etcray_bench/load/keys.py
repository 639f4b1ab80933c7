"""Which keys and values there are, and which key comes next.

Zipfian numbers are drawn as Gray et al. do it ("Quickly generating billion-record synthetic databases",
1994), which is also what YCSB does: rank r of n has a share proportional to 1 / (r + 1) ** theta. The
ranks are then scattered over the keys by a permutation, so that popular keys are not neighbours.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import gcd
from typing import Final

from etcray_bench.load.errors import CheckFailedError
from etcray_bench.load.options import NUMBER_DIGITS_MIN, STAMP_BYTES, Load

SIZES_MAX: Final = 32
"""Different value sizes of one load."""
_GOLDEN: Final = 0.6180339887498949


class KeySpace:
    """Keys are a prefix and a number of so many digits."""

    def __init__(self, prefix: bytes, key_bytes: int | None = None) -> None:
        self.prefix = prefix
        self.digits = NUMBER_DIGITS_MIN if key_bytes is None else key_bytes - len(prefix)
        self._start = len(prefix)
        self._format = b"%b%%0%dd" % (prefix.replace(b"%", b"%%"), self.digits)

    def key(self, number: int) -> bytes:
        return self._format % number

    def number(self, key: bytes) -> int:
        """Raises CheckFailedError if nobody writes such a key."""
        digits = key[self._start :]
        if key.startswith(self.prefix) and len(digits) == self.digits and digits.isdigit():
            return int(digits)
        raise CheckFailedError(f"the key {key!r} is in the store, and nobody wrote it")

    @property
    def end(self) -> bytes:
        """Of the range of all keys."""
        return self.prefix[:-1] + bytes((self.prefix[-1] + 1,))


class Values:
    """Values are a stamp, which says whose they are, and filler, which tells when bytes are altered."""

    def __init__(self, load: Load) -> None:
        least, most = load.value_sizes
        steps = min(SIZES_MAX, most - least + 1)
        self.sizes = [least + (most - least) * step // max(1, steps - 1) for step in range(steps)]
        filler = random.Random(most).randbytes(most - STAMP_BYTES)
        self.fillers = {size: filler[: size - STAMP_BYTES] for size in self.sizes}

    def value(self, key: int, stamp: int, size: int) -> bytes:
        return stamp_text(key, stamp) + self.fillers[size]

    def stamp_of(self, key: int, value: bytes) -> int:
        """Raises CheckFailedError if nobody can have written this value to this key."""
        try:
            is_ours = int(value[:7], 16) == key and self.fillers[len(value)] == value[STAMP_BYTES:]
            if is_ours:
                return int(value[7:12], 16) << 32 | int(value[12:20], 16)
        except (ValueError, KeyError):
            pass
        raise CheckFailedError(f"key {key} holds {len(value)} bytes that nobody wrote to it: {value[:24]!r}")


def stamp_text(key: int, stamp: int) -> bytes:
    return b"%07x%05x%08x" % (key, stamp >> 32, stamp & 0xFFFFFFFF)


class Zipfian:
    """Ranks of 0 .. items - 1; the number of items may grow."""

    def __init__(self, items: int, theta: float, draw: Callable[[], float]) -> None:
        self._theta = theta
        self._draw = draw
        self._alpha = 1.0 / (1.0 - theta)
        self._zeta_two = 1.0 + 0.5**theta
        self.items = 0
        self._zeta = 0.0
        self.grow(items)

    def grow(self, items: int) -> None:
        theta = self._theta
        self._zeta += sum(1.0 / rank**theta for rank in range(self.items + 1, items + 1))
        self.items = items
        self._eta = 1.0
        if items > 2:
            self._eta = (1.0 - (2.0 / items) ** (1.0 - theta)) / (1.0 - self._zeta_two / self._zeta)

    def rank(self) -> int:
        share = self._draw()
        scaled = share * self._zeta
        if scaled < 1.0:
            return 0
        if scaled < self._zeta_two:
            return min(1, self.items - 1)
        return min(int(self.items * (self._eta * share - self._eta + 1.0) ** self._alpha), self.items - 1)


def scattered(items: int) -> Callable[[int], int]:
    """A permutation of 0 .. items - 1 that leaves no neighbours together."""
    step = max(1, round(items * _GOLDEN))
    while gcd(step, items) != 1:
        step += 1
    return lambda rank: (rank * step + items // 3) % items


def chooser(load: Load, generator: random.Random, first: int = 0, stride: int = 1) -> Callable[[], int]:
    """What gives the next key's number, out of `load.keys`. Sequential ones begin at `first`, and go on in
    steps of `stride`; `latest` is for whoever knows what was inserted, and not made here."""
    items, draw = load.keys, generator.random
    if load.key_distribution == "sequential":
        position = first - stride

        def follow() -> int:
            nonlocal position
            position = (position + stride) % items
            return position

        return follow
    if load.key_distribution == "zipfian":
        ranks, permute = Zipfian(items, load.zipfian_theta, draw), scattered(items)
        return lambda: permute(ranks.rank())
    return lambda: int(draw() * items)
