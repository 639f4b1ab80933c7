"""Every call of the API as data: where it goes, what it sends, how its answer is read.

The two clients differ only in how they wait, so everything else about a call is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

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
