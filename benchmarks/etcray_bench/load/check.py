"""Compares the store with the ledger, after a run: every key, its value, its revision, its number of
writes; and the leases. A store that lost, altered or invented anything makes the run a failed one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from etcray.client import Client
from etcray.client.results import KeyValue
from etcray_bench.load.errors import CheckFailedError
from etcray_bench.load.keys import KeySpace, Values
from etcray_bench.load.ledger import NOTHING, Ledger

PAGE_KEYS: Final = 1000
CHECK_SECONDS_MAX: Final = 30.0
"""For one request."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared, and found to be as it must be."""

    keys: int = 0
    """All that are in the store, and all that should be."""
    puts: int = 0
    """Acknowledged, and counted by the store in its keys' versions."""
    events: int = 0
    """Delivered to watchers, each once and in order."""
    leases: int = 0
    """Granted or revoked, and there or not accordingly."""
    unknown_outcomes: int = 0
    """Writes without an answer: either outcome was accepted."""


def pages(client: Client, start: bytes, end: bytes, page_keys: int) -> Iterator[Sequence[KeyValue]]:
    """All pairs of the range, as of one revision."""
    revision = 0
    while True:
        page = client.range(start, end, limit=page_keys, revision=revision)
        revision = revision or page.revision
        yield page.kvs
        if not page.more:
            return
        start = page.kvs[-1].key + b"\0"


def check_keys(client: Client, space: KeySpace, values: Values, ledger: Ledger) -> Checked:
    """Raises CheckFailedError at the first difference."""
    # Large values come in small pages: an answer is limited to a few MiB by most clients.
    page_keys = max(1, min(PAGE_KEYS, 2**20 // values.sizes[-1]))
    found = bytearray(len(ledger.revisions))
    puts = 0
    for page in pages(client, space.prefix, space.end, page_keys):
        for pair in page:
            key = space.number(pair.key)
            if key >= len(found):
                raise CheckFailedError(f"the key {pair.key!r} is in the store, and nobody wrote it")
            check_pair(ledger, key, pair, values.stamp_of(key, pair.value))
            found[key] = 1
            puts += ledger.puts[key]
    for key, stamp in enumerate(ledger.stamps):
        if stamp != NOTHING and not found[key] and NOTHING not in ledger.unknown.get(key, ()):
            raise CheckFailedError(
                f"{space.key(key)!r} was written at revision {ledger.revisions[key]}, and is not there"
            )
    unknown = sum(len(stamps) for stamps in ledger.unknown.values())
    return Checked(keys=sum(found), puts=puts, unknown_outcomes=unknown)


def check_pair(ledger: Ledger, key: int, pair: KeyValue, stamp: int) -> None:
    known, unknown = ledger.revisions[key], ledger.unknown.get(key, [])
    is_known = (pair.mod_revision, stamp) == (known, ledger.stamps[key])
    if not is_known and not (pair.mod_revision > known and stamp in unknown):
        raise CheckFailedError(
            f"{pair.key!r} was last written at revision {known} by {ledger.stamps[key]:x}, the store has"
            f" revision {pair.mod_revision} by {stamp:x}"
        )
    least, most = ledger.puts[key], ledger.puts[key] + len(unknown)
    if key not in ledger.deleted and not least <= pair.version <= most:
        raise CheckFailedError(
            f"{pair.key!r} was written {least} times (and {len(unknown)} times perhaps), the store counts"
            f" {pair.version}"
        )


def check_leases(client: Client, ledger: Ledger) -> int:
    """Those that were granted live, those that were revoked do not. Returns how many were compared."""
    there = set(client.leases())
    certain = ledger.leases - ledger.revoked - ledger.uncertain_leases
    if missing := certain - there:
        raise CheckFailedError(f"{len(missing)} of {len(certain)} leases were granted, and are not there")
    revoked = ledger.revoked - ledger.uncertain_leases
    if left := revoked & there:
        raise CheckFailedError(f"{len(left)} of {len(revoked)} leases were revoked, and are still there")
    return len(certain) + len(revoked)
