"""Writers of many small and some large transactions who know what they wrote, and what that makes true."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from etcray.client import AsyncClient, Delete, DeleteResult, NotAnsweredError, Put, UnavailableError
from etcray_storage.proto.kv_pb2 import Event, KeyValue

BULK: Final = b"w/"
BULK_END: Final = b"w0"
LARGE: Final = b"large/"
LARGE_END: Final = b"large0"
LARGE_PUTS: Final = 5
LARGE_BYTES: Final = 230 * 1024
"""So that one such transaction is within the limit for requests, and its events together with their
previous pairs are beyond the size from which watchers get fragments."""

WRITERS: Final = 4
PAUSE_SECONDS: Final = 0.006
OWN_KEYS: Final = [
    [BULK + b"%d/%02d" % (writer, number) for number in range(30)] for writer in range(WRITERS)
]
SHARED_KEYS: Final = [BULK + b"shared/%d" % number for number in range(6)]
SIZES: Final = [1, 1, 2, 3, 5, 8, 20]


@dataclass(frozen=True)
class Write:
    """One operation of a transaction: a put, the deletion of a key, or that of a prefix."""

    key: bytes
    value: bytes | None
    prefix: bool = False


class Workload:
    """All of it goes on, whatever happens to the cluster, until `stop`."""

    def __init__(self, endpoint: str, seed: int) -> None:
        self.client = AsyncClient(endpoint)
        self.acknowledged: dict[int, list[Write]] = {}
        """What each revision did, if its writer knows."""
        self.attempted: set[bytes] = set()
        """Every value that may have been written."""
        self.unanswered = 0
        self._rng = random.Random(seed)
        self._done = asyncio.Event()
        self._number = 0
        self._tasks = [asyncio.create_task(self._write(keys)) for keys in OWN_KEYS]

    async def stop(self) -> None:
        self._done.set()
        await asyncio.gather(*self._tasks)

    async def write_large(self) -> None:
        """Twice over the same keys, so that there are large previous pairs; then delete them all."""
        for _ in range(2):
            await self._commit(
                [Write(LARGE + b"%d" % i, self._value(LARGE_BYTES)) for i in range(LARGE_PUTS)]
            )
        await self._commit([Write(LARGE, None, prefix=True)])

    async def _write(self, own: Sequence[bytes]) -> None:
        while not self._done.is_set():
            await self._commit(self._transaction(own))
            await asyncio.sleep(PAUSE_SECONDS)

    def _transaction(self, own: Sequence[bytes]) -> list[Write]:
        """At least one put, at the end, so that there is a revision."""
        if self._rng.random() < 0.02:
            shared = SHARED_KEYS[0].rpartition(b"/")[0]
            return [Write(shared, None, prefix=True), Write(own[0], self._value(60))]
        keys = self._rng.sample([*own, *SHARED_KEYS], self._rng.choice(SIZES))
        writes = [
            Write(key, None if self._rng.random() < 0.3 else self._value(self._rng.choice([20, 100, 400])))
            for key in keys
        ]
        writes[-1] = Write(keys[-1], self._value(60))
        return writes

    def _value(self, size_bytes: int) -> bytes:
        """Never the same."""
        self._number += 1
        value = (b"%d " % self._number).ljust(size_bytes, b".")
        self.attempted.add(value)
        return value

    async def _commit(self, writes: list[Write]) -> None:
        operations = [
            Delete(write.key, prefix=write.prefix) if write.value is None else Put(write.key, write.value)
            for write in writes
        ]
        try:
            result = await self.client.txn().then(*operations).commit()
        except (UnavailableError, NotAnsweredError):
            self.unanswered += 1
            await asyncio.sleep(0.02)
            return
        made = [r.deleted > 0 if isinstance(r, DeleteResult) else True for r in result.responses]
        if any(made):
            assert result.revision not in self.acknowledged, f"two transactions made {result.revision}"
            self.acknowledged[result.revision] = writes


def check_truth(truth: Sequence[Event], workload: Workload) -> dict[bytes, KeyValue]:
    """Whether these events are what the workload did: no revision is missing, each is what its writer
    meant if he was told of it, and each event follows from those before. Answers with the last state."""
    revisions: dict[int, list[Event]] = {}
    for event in truth:
        revisions.setdefault(event.kv.mod_revision, []).append(event)
    assert sorted(revisions) == list(range(2, max(revisions) + 1)), "a revision has no events"
    missing = workload.acknowledged.keys() - revisions.keys()
    assert not missing, f"acknowledged and not in history: {sorted(missing)[:5]} of {len(missing)}"
    values = [event.kv.value for event in truth if event.type == Event.PUT]
    assert len(values) == len(set(values)), "something was applied twice"
    assert set(values) <= workload.attempted, "nobody wrote that"
    pairs: dict[bytes, KeyValue] = {}
    for revision, events in revisions.items():
        writes = workload.acknowledged.get(revision)
        if writes is not None:
            came = [(event.kv.key, event.kv.value if event.type == Event.PUT else None) for event in events]
            assert came == _due(writes, pairs), f"revision {revision} is {came}, was written as {writes}"
        for event in events:
            _apply(event, pairs)
    return pairs


def _due(writes: list[Write], pairs: dict[bytes, KeyValue]) -> list[tuple[bytes, bytes | None]]:
    """Keys and values of the events that these writes make in this state; a deletion has no value."""
    due: list[tuple[bytes, bytes | None]] = []
    for write in writes:
        if write.value is not None:
            due.append((write.key, write.value))
        elif write.prefix:
            due += [(key, None) for key in sorted(pairs) if key.startswith(write.key)]
        elif write.key in pairs:
            due.append((write.key, None))
    return due


def _apply(event: Event, pairs: dict[bytes, KeyValue]) -> None:
    """Check the event against the state, and make the next state."""
    before = pairs.get(event.kv.key)
    assert event.HasField("prev_kv") == (before is not None), f"{event.kv}: before that, {before}"
    if before is not None:
        assert event.prev_kv == before, f"previous {event.prev_kv}, not {before}"
    if event.type == Event.DELETE:
        assert before is not None, f"{event.kv.key!r} was deleted and did not exist"
        del pairs[event.kv.key]
        return
    after = KeyValue(
        key=event.kv.key,
        value=event.kv.value,
        create_revision=before.create_revision if before else event.kv.mod_revision,
        mod_revision=event.kv.mod_revision,
        version=before.version + 1 if before else 1,
    )
    assert event.kv == after, f"got {event.kv}, follows {after}"
    pairs[event.kv.key] = after
