"""Many changes of many keys, the same for the same numbers, for questions about the past."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from etcray.client import Client, Put

PREFIXES: Final = 10
NEEDLE: Final = "needle"
NEEDLE_SHARE: Final = 0.001
PER_TRANSACTION: Final = 128
TIMEOUT_SECONDS: Final = 600.0
LOADED_KEY: Final = "loaded/changes"


@dataclass(frozen=True, slots=True)
class Changes:
    """First every key once, then some far more often than others."""

    count: int
    """Changes of a key; those of one transaction share a revision of the store."""

    @property
    def keys(self) -> int:
        return max(PER_TRANSACTION, self.count // 10)

    def key(self, number: int) -> str:
        return f"/service-{number % PREFIXES}/instance-{number // PREFIXES:06}"

    def transactions(self) -> Iterator[list[tuple[str, str]]]:
        """Each changes a key at most once."""
        rng = random.Random(self.count)
        written = 0
        while written < self.count:
            size = min(PER_TRANSACTION, self.count - written)
            numbers: dict[int, None] = {}
            while len(numbers) < size:
                first = written + len(numbers)
                numbers[first if first < self.keys else int(self.keys * rng.random() ** 4)] = None
            yield [(self.key(number), _value(rng)) for number in numbers]
            written += size

    @property
    def purpose(self) -> str:
        """Of a cluster that holds them."""
        return f"{self.count} changes"

    def load(self, client: Client) -> int:
        """Write all of it, unless the store has it already; returns the revision at the end."""
        there = client.get(LOADED_KEY)
        if there is not None:
            assert there.text == str(self.count), f"{there.text} changes are there, not {self.count}"
            return there.mod_revision - 1
        revision = 0
        for transaction in self.transactions():
            puts = [Put(key, value) for key, value in transaction]
            revision = client.txn().then(*puts).commit().revision
        client.put(LOADED_KEY, str(self.count))
        return revision


def _value(rng: random.Random) -> str:
    word = NEEDLE if rng.random() < NEEDLE_SHARE else "hay"
    state = rng.choice(("up", "down", "unknown"))
    return f'{{"state": "{state}", "note": "{word} {rng.randbytes(24).hex()}"}}'
