"""What the parts of a put cost by themselves: no cluster, no consensus, one part again and again.

    python -m etcray_bench.parts PART PUTS SECONDS DIRECTORY

It prints {"latency_us": median, "cpu_us": of all processes, per operation}. Each run is a process of its own,
so the CPU time that it has used is that of the part.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from etcray_storage import commands
from etcray_storage.log.log import Log
from etcray_storage.log.record import Record
from etcray_storage.machine.machine import StateMachine
from etcray_storage.machine.members import Member
from etcray_storage.mvcc.tables import Tables
from etcray_storage.proto.rpc_pb2 import PutRequest
from etcray_storage.types import Entry, EntryKind, HardState, Index, MemberId, Term

WARM_UP_SECONDS: Final = 0.5
VALUE_BYTES: Final = 256
FLUSHED_ENTRIES: Final = 64
MEMBER_ID: Final = MemberId(1)


class Part(NamedTuple):
    """Something that can be done again and again."""

    once: Callable[[], object]
    cpu_seconds_elsewhere: Callable[[], float] = lambda: 0.0
    """Of the other processes that take part, so far."""


def requests_of(puts: int) -> list[bytes]:
    return [
        PutRequest(key=b"bench/%08d" % number, value=os.urandom(VALUE_BYTES)).SerializeToString()
        for number in range(puts)
    ]


def encoded_batch(sequence: int, requests: list[bytes]) -> bytes:
    """As a gateway sends it. The session begins with sequence 0."""
    kinds = bytes([commands.CommandKind.PUT]) * len(requests)
    return commands.encode_batch(commands.Batch(1, sequence, max(0, sequence - 1), kinds, requests))


def entry_of(index: int, requests: list[bytes]) -> Entry:
    """As a leader makes it."""
    payload = commands.encode_payload(commands.Payload(index, [encoded_batch(index - 1, requests)]))
    return Entry(Index(index), Term(1), EntryKind.COMMANDS, payload)


def sync(puts: int, directory: Path) -> Part:
    """Append 4 KiB to a file, and sync it."""
    file = os.open(directory / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    page = os.urandom(4096)

    def once() -> None:
        os.write(file, page)
        os.fsync(file)

    return Part(once)


def append(puts: int, directory: Path) -> Part:
    """One entry with a batch of puts to a member's log, durable when it returns."""
    log = Log.open(directory / "log")
    requests = requests_of(puts)

    def once() -> None:
        entry = entry_of(log.last_index + 1, requests)
        log.append(Record(HardState(Term(1), MEMBER_ID, Index(0)), (entry,)))

    return Part(once)


def apply(puts: int, directory: Path) -> Part:
    """One entry with a batch of puts to the state in memory; its rows to the tables with those of others."""
    tables = Tables.open(directory / "tables")
    machine = StateMachine(tables, [Member(MEMBER_ID, "solo", (), ())])
    machine.apply(entry_of(1, []))
    requests = requests_of(puts)

    def once() -> None:
        index = machine.applied_index + 1
        machine.apply(entry_of(index, requests))
        if index % FLUSHED_ENTRIES == 0:
            flush = machine.take_flush()
            assert flush is not None, f"entry {index} changed nothing"
            tables.stage(flush)
            tables.write()

    return Part(once)


def ray_call(puts: int, directory: Path) -> Part:
    """One actor is called with a batch of puts, and answers."""
    import ray

    follower = _actor(_Follower)
    batch = encoded_batch(1, requests_of(puts))
    return Part(lambda: ray.get(follower.take.remote(batch)), lambda: _used(follower))


def ray_path(puts: int, directory: Path) -> Part:
    """The way of a put, and nothing else: an actor is called with a batch, calls two others with it, and
    answers when the first of them has answered."""
    import ray

    followers = [_actor(_Follower), _actor(_Follower)]
    leader = _actor(_Leader, followers)
    batch = encoded_batch(1, requests_of(puts))
    return Part(lambda: ray.get(leader.take.remote(batch)), lambda: _used(leader, *followers))


class _Follower:
    """Runs in an actor."""

    def take(self, batch: bytes) -> bytes:
        return b"acknowledged"

    def used(self) -> float:
        return time.process_time()


class _Leader(_Follower):
    """Runs in an actor."""

    def __init__(self, followers: list[Any]) -> None:
        self._followers = followers

    def take(self, batch: bytes) -> bytes:
        import ray

        calls = [follower.take.remote(batch) for follower in self._followers]
        ready, _ = ray.wait(calls, num_returns=1)
        found: bytes = ray.get(ready[0])
        return found


def _actor(kind: type[_Follower], *arguments: object) -> Any:
    import ray

    remote: Any = ray.remote(kind)
    return remote.options(num_cpus=0).remote(*arguments)


def _used(*actors: Any) -> float:
    import ray

    used: list[float] = ray.get([actor.used.remote() for actor in actors])
    return sum(used)


PARTS: Final[dict[str, Callable[[int, Path], Part]]] = {
    "sync": sync,
    "log append": append,
    "apply": apply,
    "Ray call": ray_call,
    "Ray path": ray_path,
}


def measure(part: Part, seconds: float) -> dict[str, float]:
    until = time.perf_counter() + WARM_UP_SECONDS
    while time.perf_counter() < until:
        part.once()
    cpu_before = time.process_time() + part.cpu_seconds_elsewhere()
    durations = []
    begun = time.perf_counter()
    while begun < until + seconds:
        part.once()
        ended = time.perf_counter()
        durations.append(ended - begun)
        begun = ended
    cpu = time.process_time() + part.cpu_seconds_elsewhere() - cpu_before
    return {"latency_us": median(durations) * 1e6, "cpu_us": cpu / len(durations) * 1e6}


def main() -> None:
    name, puts, seconds, directory = sys.argv[1:]
    if not name.startswith("Ray"):
        found = measure(PARTS[name](int(puts), Path(directory)), float(seconds))
    else:
        import ray

        os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"})
        # Ray's socket paths must be short.
        with tempfile.TemporaryDirectory(
            prefix="etcray-lab-", dir="/tmp", ignore_cleanup_errors=True
        ) as short:
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                num_cpus=2,
                object_store_memory=200 * 2**20,
                _temp_dir=short,
            )
            found = measure(PARTS[name](int(puts), Path(directory)), float(seconds))
            ray.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
