"""Which operations a load is made of, in which shares.

YCSB's are those of its core package, with keys for records: A 50 % reads and 50 % updates, B 95 and 5,
C reads only, D 95 % reads of what is new and 5 % inserts, E 95 % scans of 1 to 100 keys and 5 % inserts,
F 50 % reads and 50 % read-modify-write, which is a read and a transaction here.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, Protocol

from etcray_bench.load import messages
from etcray_bench.load.errors import CheckFailedError, RequestFailedError
from etcray_bench.load.keys import KeySpace, Values, Zipfian, chooser
from etcray_bench.load.ledger import Ledger
from etcray_bench.load.messages import lease_request
from etcray_bench.load.operations import Operations, Steps, Writer
from etcray_bench.load.options import KEYS_MAX, Load
from etcray_storage.proto import rpc_pb2

SCAN_KEYS_MAX: Final = 100
YCSB_SHARES: Final[dict[str, dict[str, float]]] = {
    "ycsb-a": {"read": 0.5, "update": 0.5},
    "ycsb-b": {"read": 0.95, "update": 0.05},
    "ycsb-c": {"read": 1.0},
    "ycsb-d": {"read": 0.95, "insert": 0.05},
    "ycsb-e": {"scan": 0.95, "insert": 0.05},
    "ycsb-f": {"read": 0.5, "read-modify-write": 0.5},
}

Operation = tuple[str, Steps]
"""With the name under which it is counted."""
Make = Callable[[Writer], Steps]


class Workload(Protocol):
    """Says what a client does next."""

    operations: Operations

    def next(self, writer: Writer) -> Operation: ...


class Mix:
    """Operations in given shares, each drawn by itself."""

    def __init__(
        self,
        operations: Operations,
        shares: dict[str, float],
        makers: dict[str, Make],
        draw: Callable[[], float],
    ) -> None:
        self.operations = operations
        names = list(shares)
        self._only = (names[0], makers[names[0]]) if len(names) == 1 else None
        self._choices = [(name, makers[name]) for name in names]
        self._bounds = list(accumulate(shares.values()))[:-1]
        self._draw = draw

    def next(self, writer: Writer) -> Operation:
        name, make = self._only or self._choices[bisect(self._bounds, self._draw())]
        return name, make(writer)


class Inserts:
    """Keys behind those that were there in the beginning. Each part of a load has every n-th."""

    def __init__(self, operations: Operations, first: int, part: int, parts: int, zipfian: Zipfian) -> None:
        self._operations = operations
        self._first = first
        self._next = first + part
        self._step = parts
        self._zipfian = zipfian
        self._done: list[int] = []
        """Keys whose insertion was acknowledged, in that order."""

    def take(self) -> int:
        """A key that nobody has used."""
        key = self._next
        self._next += self._step
        if key > KEYS_MAX:
            raise ValueError(f"there is no key behind {KEYS_MAX}")
        self._operations.ledger.grow(key + 1)
        return key

    def insert(self, writer: Writer) -> Steps:
        key = self.take()
        yield from self._operations.put(writer, key)
        self._done.append(key)
        self._zipfian.grow(self._first + len(self._done))

    def latest(self) -> int:
        """A key that is there, the likelier the newer it is."""
        place = self._zipfian.items - 1 - self._zipfian.rank()
        return place if place < self._first else self._done[place - self._first]


def make_workload(load: Load, ledger: Ledger, part: int, parts: int, writers: Sequence[Writer]) -> Workload:
    """For one part of a load; the ledger knows what is in the store."""
    generator = random.Random(f"{load.seed}/{part}/{parts}")
    values = Values(load)
    space = KeySpace(load.prefix.encode(), load.key_bytes)
    operations = Operations(space, values, ledger, generator)
    if load.workload.startswith("lease"):
        return Leases(load, operations)
    if load.workload == "kubernetes":
        from etcray_bench.load.kubernetes import Kubernetes

        return Kubernetes(load, operations, generator, part, parts)
    choose = _chooser_for(load, generator, writers)
    shares, makers = _shares_and_makers(load, operations, choose, generator, part, parts)
    return Mix(operations, shares, makers, generator.random)


def _chooser_for(load: Load, generator: random.Random, writers: Sequence[Writer]) -> Callable[[Writer], int]:
    if load.key_distribution == "sequential":
        own = {writer.number: chooser(load, generator, writer.number, load.clients) for writer in writers}
        return lambda writer: own[writer.number]()
    if load.key_distribution == "latest":
        return lambda writer: 0  # Whoever inserts knows better.
    choose = chooser(load, generator)
    return lambda writer: choose()


def _shares_and_makers(
    load: Load,
    operations: Operations,
    choose: Callable[[Writer], int],
    generator: random.Random,
    part: int,
    parts: int,
) -> tuple[dict[str, float], dict[str, Make]]:
    name, read_ratio = load.workload, load.read_ratio
    if name.startswith("ycsb"):
        return YCSB_SHARES[name], _ycsb(load, operations, choose, generator, part, parts)
    makers: dict[str, Make] = {
        "put": lambda writer: operations.put(writer, choose(writer)),
        "read": lambda writer: operations.get(choose(writer)),
        "txn": lambda writer: operations.compare_put_get(writer, choose(writer)),
        "txn-read": lambda writer: operations.get_in_txn(choose(writer)),
        "txn-write": lambda writer: operations.put(writer, choose(writer), in_txn=True),
        "compare-and-put": lambda writer: operations.compare_and_put(writer, choose(writer)),
        "range": _range_maker(load, operations, choose, serializable=False),
        "serializable-range": _range_maker(load, operations, choose, serializable=True),
    }
    shares = {
        "mixed": {"read": read_ratio, "put": 1 - read_ratio},
        "txn-mixed": {"txn-read": read_ratio, "txn-write": 1 - read_ratio},
        "watch": {"put": 1.0},
    }.get(name, {name: 1.0})
    return shares, makers


def _range_maker(
    load: Load, operations: Operations, choose: Callable[[Writer], int], *, serializable: bool
) -> Make:
    count = load.keys_per_range
    if count == 1:
        return lambda writer: operations.get(choose(writer), serializable=serializable)
    page, last = operations.messages.page(0, serializable=serializable), load.keys - count

    def make(writer: Writer) -> Steps:
        return operations.neighbours(page, min(choose(writer), last), count, serializable=serializable)

    return make


def _ycsb(
    load: Load,
    operations: Operations,
    choose: Callable[[Writer], int],
    generator: random.Random,
    part: int,
    parts: int,
) -> dict[str, Make]:
    inserts = Inserts(
        operations, load.keys, part, parts, Zipfian(load.keys, load.zipfian_theta, generator.random)
    )
    if load.key_distribution == "latest":
        choose = lambda writer: inserts.latest()  # noqa: E731
    pages = [operations.messages.page(limit) for limit in range(1, SCAN_KEYS_MAX + 1)]

    def scan(writer: Writer) -> Steps:
        limit = 1 + int(generator.random() * SCAN_KEYS_MAX)
        return operations.scan(pages[limit - 1], choose(writer), limit, KEYS_MAX)

    return {
        "read": lambda writer: operations.get(choose(writer)),
        "update": lambda writer: operations.put(writer, choose(writer)),
        "insert": inserts.insert,
        "scan": scan,
        "read-modify-write": lambda writer: operations.read_modify_write(writer, choose(writer)),
    }


class Leases:
    """Grants, renewals and revocations."""

    def __init__(self, load: Load, operations: Operations) -> None:
        self.operations = operations
        self._load = load
        self._held: dict[int, int] = {}
        """By writer, the lease that it has now."""
        self._stage: dict[int, int] = {}
        operations.ledger.grow(load.clients)

    def next(self, writer: Writer) -> Operation:
        number, workload = writer.number, self._load.workload
        if workload == "lease-grant" or number not in self._held:
            return "lease-grant", self.grant(writer)
        if workload == "lease-keep-alive":
            return "lease-keep-alive", self.keep_alive(self._held[number])
        stage = self._stage[number] = (self._stage.get(number, 0) + 1) % 3
        lease = self._held[number]
        if stage == 1:
            return "put", self.operations.put(writer, number, lease=lease)
        if stage == 2:
            return "lease-keep-alive", self.keep_alive(lease)
        return "lease-revoke", self.revoke(writer, number)

    def grant(self, writer: Writer) -> Steps:
        lease = yield from self.operations.grant(self._load.lease_ttl_seconds)
        self._held[writer.number] = lease
        self._stage[writer.number] = 0

    def keep_alive(self, lease: int) -> Steps:
        answer = yield messages.LEASE_KEEP_ALIVE, lease_request(lease)
        response = rpc_pb2.LeaseKeepAliveResponse.FromString(answer)
        if lease != response.ID or response.TTL <= 0:
            raise CheckFailedError(f"lease {lease:x} was renewed, and the answer was {response.TTL} s")

    def revoke(self, writer: Writer, key: int) -> Steps:
        """And with it the key that is attached."""
        lease = self._held.pop(writer.number)
        ledger = self.operations.ledger
        try:
            answer = yield messages.LEASE_REVOKE, lease_request(lease)
        except RequestFailedError:
            ledger.uncertain_leases.add(lease)
            ledger.in_doubt(key, -1)
            raise
        ledger.revoked.add(lease)
        ledger.delete(key, rpc_pb2.LeaseRevokeResponse.FromString(answer).header.revision)
