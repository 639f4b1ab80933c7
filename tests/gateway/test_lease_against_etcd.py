"""Lease requests beside a real etcd: one seeded history for both, and every answer compared.

Few ids and few keys, so that they collide. What differs by nature is left out: the ids in headers, and
seconds that passed in between (granted TTLs are long, and remaining ones are compared roughly).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.message import Message

from etcray_bench.etcd import EtcdCluster, find_etcd
from etcray_storage.proto import rpc_pb2 as rpc
from tests.gateway.serving import ServingGateway

REQUESTS: Final = int(os.environ.get("ETCRAY_LEASE_REQUESTS", "1500"))
PASSED_SECONDS_MAX: Final = 300
LEASES: Final = (1, 2, 3, -4, 1 << 62)
KEYS: Final = (b"a", b"b", b"c")
TTLS: Final = (-1 << 63, -1, 0, 1, 9_000_000_000, 9_000_000_001, (1 << 63) - 1)
RESULTS: Final[tuple[rpc.Compare.CompareResult, ...]] = (
    rpc.Compare.EQUAL,
    rpc.Compare.GREATER,
    rpc.Compare.LESS,
    rpc.Compare.NOT_EQUAL,
)
LONG_TTLS: Final = (10_000, 20_000)

Exchange = tuple[str, Message, type[Message]]


@pytest.fixture
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    with (
        EtcdCluster(tmp_path_factory.mktemp("etcd"), members=1, binary=find_etcd("3.5")) as cluster,
        ServingGateway() as serving,
        grpc.insecure_channel(cluster.endpoints[0]) as theirs,
        grpc.insecure_channel(serving.address) as ours,
    ):
        yield theirs, ours


def request(rng: random.Random) -> Exchange:
    lease, key = rng.choice(LEASES), rng.choice(KEYS)
    choice = rng.randrange(12)
    if choice < 3:
        # A short lease would end on one side a moment before the other, so odd TTLs are refused ones.
        odd = rng.random() < 0.2
        ttl = rng.choice([t for t in TTLS if t > 9_000_000_000]) if odd else rng.choice(LONG_TTLS)
        return "Lease/LeaseGrant", rpc.LeaseGrantRequest(TTL=ttl, ID=lease), rpc.LeaseGrantResponse
    if choice == 3:
        return "Lease/LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease), rpc.LeaseRevokeResponse
    if choice == 4:
        keys = rng.random() < 0.7
        question = rpc.LeaseTimeToLiveRequest(ID=lease, keys=keys)
        return "Lease/LeaseTimeToLive", question, rpc.LeaseTimeToLiveResponse
    if choice == 5:
        return "Lease/LeaseLeases", rpc.LeaseLeasesRequest(), rpc.LeaseLeasesResponse
    if choice == 6:
        return "Lease/LeaseKeepAlive", rpc.LeaseKeepAliveRequest(ID=lease), rpc.LeaseKeepAliveResponse
    if choice == 7:
        delete = rpc.DeleteRangeRequest(key=key, range_end=rng.choice((b"", b"\0")), prev_kv=True)
        return "KV/DeleteRange", delete, rpc.DeleteRangeResponse
    if choice == 8:
        return "KV/Range", rpc.RangeRequest(key=b"\0", range_end=b"\0"), rpc.RangeResponse
    if choice == 9:
        return "KV/Txn", txn(rng, lease, key), rpc.TxnResponse
    return "KV/Put", put(rng, lease, key), rpc.PutResponse


def put(rng: random.Random, lease: int, key: bytes) -> rpc.PutRequest:
    return rpc.PutRequest(
        key=key,
        value=b"%d" % rng.randrange(9),
        lease=rng.choice((0, lease, lease)),
        ignore_lease=rng.random() < 0.15,
        prev_kv=rng.random() < 0.5,
    )


def txn(rng: random.Random, lease: int, key: bytes) -> rpc.TxnRequest:
    compare = rpc.Compare(key=key, target=rpc.Compare.LEASE, result=rng.choice(RESULTS), lease=lease)
    branches = []
    for _ in range(2):
        keys = rng.sample(KEYS, rng.randrange(3))
        branches.append([rpc.RequestOp(request_put=put(rng, rng.choice(LEASES), one)) for one in keys])
    return rpc.TxnRequest(compare=[compare], success=branches[0], failure=branches[1])


def outcome(channel: Any, exchange: Exchange) -> tuple[Any, str, Message]:
    """Code, message and response; without what differs by nature."""
    path, message, response_type = exchange
    response = response_type()
    try:
        method = channel.unary_stream(f"/etcdserverpb.{path}", None, None)
        for data in method(message.SerializeToString(), timeout=10):
            response = response_type.FromString(data)
    except grpc.RpcError as error:
        return error.code(), error.details() or "", response
    header = getattr(response, "header")  # noqa: B009
    header.cluster_id = header.member_id = header.raft_term = 0
    if isinstance(response, rpc.LeaseTimeToLiveResponse):
        response.keys.sort()  # etcd lists them as its hash table has them
    if isinstance(response, rpc.LeaseTimeToLiveResponse) and response.TTL > 0:
        assert 0 <= response.grantedTTL - response.TTL < PASSED_SECONDS_MAX
        response.TTL = response.grantedTTL
    if isinstance(response, rpc.LeaseLeasesResponse):
        listed = sorted(lease.ID for lease in response.leases)
        del response.leases[:]
        response.leases.extend(rpc.LeaseStatus(ID=lease) for lease in listed)
    return grpc.StatusCode.OK, "", response


@pytest.mark.parametrize("seed", [1, 2])
def test_one_history_of_leases_gives_the_same_answers(both: tuple[Any, Any], seed: int) -> None:
    rng = random.Random(seed)
    theirs, ours = both
    for number in range(REQUESTS):
        exchange = request(rng)
        expected, actual = outcome(theirs, exchange), outcome(ours, exchange)
        assert actual == expected, f"seed {seed}, request {number}: {exchange[0]} {exchange[1]}"


def test_odd_lives_are_raised_or_refused_alike(both: tuple[Any, Any]) -> None:
    for number, ttl in enumerate(TTLS):
        grant = rpc.LeaseGrantRequest(TTL=ttl, ID=100 + number)
        exchange = ("Lease/LeaseGrant", grant, rpc.LeaseGrantResponse)
        assert outcome(both[1], exchange) == outcome(both[0], exchange), f"TTL {ttl}"
