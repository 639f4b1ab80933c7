"""The same watch scripts against a real etcd and a gateway: each watcher must be told the same.

Compared per watcher: the answers about it, with their header revisions where etcd's do not depend on time,
and all its events, flattened, because how they are cut into responses depends on time."""

from __future__ import annotations

import queue
import random
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from etcray_bench.etcd import EtcdCluster
from etcray_storage.proto import rpc_pb2 as rpc
from tests.etcd_tools import etcd_program
from tests.gateway.grpc_calls import KV, unary
from tests.gateway.serving import ServingGateway
from tests.gateway.watch_calls import WatchConversation

PROGRAM = etcd_program("3.5")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="etcd 3.5 is not installed")

KEYS = [b"a", b"a1", b"a2", b"b", b"c"]
RANGES = [(b"a", b""), (b"a", b"b"), (b"b", b"\0"), (b"\0", b"\0"), (b"a1", b"c"), (b"", b""), (b"b", b"a")]
FILTERS = [[], [], [rpc.WatchCreateRequest.NOPUT], [rpc.WatchCreateRequest.NODELETE]]
SENTINEL = b"zzz"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), members=1, binary=PROGRAM) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with ServingGateway() as serving:
        yield serving.address


class Side:
    """One system under the script; keys are deleted first, and revisions counted from there."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.base = 0
        response = self.kv("DeleteRange", rpc.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        self.base = rpc.DeleteRangeResponse.FromString(response).header.revision
        self.watch = WatchConversation(address)
        self.told: dict[int, list[Any]] = {}
        self.sentinels = 0

    def kv(self, method: str, request: Any) -> bytes:
        response: bytes = unary(self.channel, KV + method)(request.SerializeToString(), timeout=10)
        return response

    def relative(self, revision: int) -> int:
        return revision - self.base if revision > 0 else revision

    def take(self, seconds: float) -> bool:
        try:
            response = self.watch.next(seconds)
        except queue.Empty:
            return False
        told = self.told.setdefault(response.watch_id, [])
        if response.created or response.canceled:
            revision = self.relative(response.header.revision) if response.created else 0
            told.append(
                (
                    response.created,
                    response.canceled,
                    revision,
                    self.relative(response.compact_revision),
                    response.cancel_reason,
                )
            )
        for event in response.events:
            self.sentinels += event.kv.key == SENTINEL and response.watch_id == 1000
            told.append(
                (
                    event.type,
                    event.kv.key,
                    event.kv.value,
                    *map(self.relative, (event.kv.mod_revision, event.kv.create_revision)),
                    event.kv.version,
                    (event.prev_kv.value, event.prev_kv.version) if event.HasField("prev_kv") else None,
                )
            )
        return True

    def create(self, request: rpc.WatchCreateRequest) -> None:
        """Wait for the answer, so that both sides create at the same revision."""
        absolute = rpc.WatchCreateRequest()
        absolute.CopyFrom(request)
        if request.start_revision > 0:
            absolute.start_revision = max(1, request.start_revision + self.base)
        before = self._created()
        self.watch.send(rpc.WatchRequest(create_request=absolute))
        while self._created() == before:
            assert self.take(10.0), "no answer to a creation"

    def cancel(self, watch_id: int) -> None:
        """Wait for the answer, if there will be one, so that both sides cancel before what follows."""
        told = self.told.get(watch_id, [])
        created = any(entry[0] is True for entry in told)
        self.watch.cancel(watch_id)
        while created and not any(entry[1] is True for entry in self.told[watch_id]):
            assert self.take(10.0), "no answer to a cancellation"

    def _created(self) -> int:
        return sum(entry[0] is True for told in self.told.values() for entry in told)

    def settle(self) -> None:
        """Until nothing has come for a while: etcd looks after watchers that are behind every 100 ms."""
        while self.take(0.4):
            pass

    def finish(self) -> dict[int, list[Any]]:
        """Everything up to now has arrived once the sentinel has, and catching up has had its time."""
        before = self.sentinels
        self.kv("Put", rpc.PutRequest(key=SENTINEL))
        while self.sentinels == before:
            assert self.take(10.0), "the sentinel did not arrive"
        self.settle()
        self.watch.__exit__(None, None, None)
        self.channel.close()
        return self.told


def script(rng: random.Random) -> list[tuple[str, Any]]:
    steps: list[tuple[str, Any]] = [("watch", rpc.WatchCreateRequest(key=SENTINEL, watch_id=1000))]
    revision = 0
    for _ in range(40):
        chance = rng.random()
        if chance < 0.4:
            key = rng.choice(KEYS)
            steps.append(("Put", rpc.PutRequest(key=key, value=b"%d" % rng.randrange(100))))
            revision += 1
        elif chance < 0.5:
            key, end = rng.choice([(b"a", b""), (b"a", b"b"), (b"b", b"")])
            steps.append(("DeleteRange", rpc.DeleteRangeRequest(key=key, range_end=end)))
        elif chance < 0.65:
            puts = [
                rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=b"txn"))
                for key in rng.sample(KEYS, 3)
            ]
            steps.append(("Txn", rpc.TxnRequest(success=puts)))
            revision += 1
        elif chance < 0.9:
            key, end = rng.choice(RANGES)
            start = rng.choice([0, 0, 1, max(1, revision - 5), revision + 3])
            steps.append(
                (
                    "watch",
                    rpc.WatchCreateRequest(
                        key=key, range_end=end, start_revision=start,
                        watch_id=rng.choice([0, 0, 0, 2, 5]), prev_kv=rng.random() < 0.5,
                        filters=rng.choice(FILTERS),
                    ),
                )
            )  # fmt: skip
        else:
            steps.append(("cancel", rng.randrange(8)))
    return steps


def run(address: str, steps: list[tuple[str, Any]], compact_at: int | None) -> dict[int, list[Any]]:
    side = Side(address)
    for number, (kind, argument) in enumerate(steps):
        if kind == "watch":
            side.create(argument)
        elif kind == "cancel":
            # What was written before has to be delivered before: then the sentinel says so.
            before = side.sentinels
            side.kv("Put", rpc.PutRequest(key=SENTINEL))
            while side.sentinels == before:
                assert side.take(10.0)
            side.settle()
            side.cancel(argument)
        else:
            side.kv(kind, argument)
        if number == compact_at:
            revision = rpc.PutResponse.FromString(side.kv("Put", rpc.PutRequest(key=b"c"))).header.revision
            side.settle()
            side.kv("Compact", rpc.CompactionRequest(revision=revision - 2, physical=True))
    return side.finish()


@pytest.mark.parametrize("seed", range(6))
def test_watchers_are_told_what_etcd_tells_them(etcd: str, gateway: str, seed: int) -> None:
    steps = script(random.Random(seed))
    compact_at = 25 if seed % 2 else None
    ours, theirs = run(gateway, steps, compact_at), run(etcd, steps, compact_at)
    assert ours.keys() == theirs.keys()
    for watch_id, told in theirs.items():
        assert ours[watch_id] == told, f"watcher {watch_id}"
