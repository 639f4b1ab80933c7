"""Every call of the API as data: where it goes, what it sends, how its answer is read.

The two clients differ only in how they wait, so everything else about a call is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from etcray.client import results
from etcray.client.requests import (
    DeleteOptions,
    PutOptions,
    RangeOptions,
    delete_request,
    put_request,
    range_request,
)
from etcray.client.values import Data
from etcray_storage.proto import rpc_pb2

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    method: str
    """The gRPC path."""
    request: bytes
    read_answer: Callable[[bytes], Result]
    writes: bool
    """True if sending it twice could change the store twice."""


def put(key: Data, value: Data, options: PutOptions) -> Call[results.PutResult]:
    return Call(
        "/etcdserverpb.KV/Put",
        put_request(key, value, options).SerializeToString(),
        lambda answer: results.put_result(rpc_pb2.PutResponse.FromString(answer)),
        writes=True,
    )


def range(key: Data, range_end: Data | None, options: RangeOptions) -> Call[results.RangeResult]:
    return Call(
        "/etcdserverpb.KV/Range",
        range_request(key, range_end, options).SerializeToString(),
        lambda answer: results.range_result(rpc_pb2.RangeResponse.FromString(answer)),
        writes=False,
    )


def delete(key: Data, range_end: Data | None, options: DeleteOptions) -> Call[results.DeleteResult]:
    return Call(
        "/etcdserverpb.KV/DeleteRange",
        delete_request(key, range_end, options).SerializeToString(),
        lambda answer: results.delete_result(rpc_pb2.DeleteRangeResponse.FromString(answer)),
        writes=True,
    )


def txn(request: rpc_pb2.TxnRequest) -> Call[results.TxnResult]:
    return Call(
        "/etcdserverpb.KV/Txn",
        request.SerializeToString(),
        lambda answer: results.txn_result(rpc_pb2.TxnResponse.FromString(answer)),
        writes=not _only_reads(request),
    )


def _only_reads(request: rpc_pb2.TxnRequest) -> bool:
    """As the server sees it: a nested transaction counts as a write, whatever is in it."""
    return all(
        operation.HasField("request_range")
        for branch in (request.success, request.failure)
        for operation in branch
    )


def compact(revision: int, physical: bool) -> Call[results.CompactResult]:
    return Call(
        "/etcdserverpb.KV/Compact",
        rpc_pb2.CompactionRequest(revision=revision, physical=physical).SerializeToString(),
        lambda answer: results.compact_result(rpc_pb2.CompactionResponse.FromString(answer)),
        writes=True,
    )


def grant_lease(ttl: int, lease_id: int) -> Call[results.LeaseResult]:
    """Not a write if the server chooses the id: a second lease that nobody knows of expires by itself."""
    return Call(
        "/etcdserverpb.Lease/LeaseGrant",
        rpc_pb2.LeaseGrantRequest(TTL=ttl, ID=lease_id).SerializeToString(),
        lambda answer: results.lease_result(rpc_pb2.LeaseGrantResponse.FromString(answer)),
        writes=lease_id != 0,
    )


def revoke_lease(lease_id: int) -> Call[int]:
    """Answers with the store's revision. Sent again without an answer, so a lease that is not found may
    have been revoked by the first attempt."""
    return Call(
        "/etcdserverpb.Lease/LeaseRevoke",
        rpc_pb2.LeaseRevokeRequest(ID=lease_id).SerializeToString(),
        lambda answer: rpc_pb2.LeaseRevokeResponse.FromString(answer).header.revision,
        writes=False,
    )


KEEP_ALIVE_METHOD: Final = "/etcdserverpb.Lease/LeaseKeepAlive"


def keep_alive(lease_id: int) -> Call[int]:
    """Answers with the TTL, 0 if there is no such lease. A stream with one message in each direction is,
    on the wire, what a plain call is."""
    return Call(
        KEEP_ALIVE_METHOD,
        keep_alive_message(lease_id),
        lambda answer: keep_alive_answer(answer)[1],
        writes=False,
    )


def keep_alive_message(lease_id: int) -> bytes:
    return rpc_pb2.LeaseKeepAliveRequest(ID=lease_id).SerializeToString()


def keep_alive_answer(answer: bytes) -> tuple[int, int]:
    """Lease id and TTL."""
    message = rpc_pb2.LeaseKeepAliveResponse.FromString(answer)
    return message.ID, message.TTL


def time_to_live(lease_id: int, keys: bool) -> Call[results.TimeToLiveResult]:
    return Call(
        "/etcdserverpb.Lease/LeaseTimeToLive",
        rpc_pb2.LeaseTimeToLiveRequest(ID=lease_id, keys=keys).SerializeToString(),
        lambda answer: results.time_to_live_result(rpc_pb2.LeaseTimeToLiveResponse.FromString(answer)),
        writes=False,
    )


def leases() -> Call[tuple[int, ...]]:
    return Call(
        "/etcdserverpb.Lease/LeaseLeases",
        rpc_pb2.LeaseLeasesRequest().SerializeToString(),
        lambda answer: tuple(lease.ID for lease in rpc_pb2.LeaseLeasesResponse.FromString(answer).leases),
        writes=False,
    )


def members() -> Call[tuple[results.Member, ...]]:
    return Call(
        "/etcdserverpb.Cluster/MemberList",
        rpc_pb2.MemberListRequest(linearizable=True).SerializeToString(),
        lambda answer: results.members(rpc_pb2.MemberListResponse.FromString(answer)),
        writes=False,
    )


def status() -> Call[results.StatusResult]:
    return Call(
        "/etcdserverpb.Maintenance/Status",
        rpc_pb2.StatusRequest().SerializeToString(),
        lambda answer: results.status_result(rpc_pb2.StatusResponse.FromString(answer)),
        writes=False,
    )


def first(found: results.RangeResult) -> results.KeyValue | None:
    """The answer to the read of one key."""
    return found.kvs[0] if found.kvs else None
