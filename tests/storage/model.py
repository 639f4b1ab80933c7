"""The store as naively as possible: a list of all changes, and every question answered by replaying it.

Written from the description of the API, not from the code under test. Slow on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from etcray_storage import errors
from etcray_storage.errors import EtcdError, error_by_number
from etcray_storage.proto.kv_pb2 import KeyValue
from etcray_storage.proto.rpc_pb2 import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseStatus,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)


class Change(NamedTuple):
    main: int
    key: bytes
    value: bytes | None
    """None: deleted."""
    lease: int


def fail(error: EtcdError) -> EtcdError:
    return error_by_number(error.number)


def covers(key: bytes, range_end: bytes, name: bytes) -> bool:
    if range_end == b"":
        return name == key
    if range_end == b"\0":
        return name >= key
    return key <= name < range_end


class Model:
    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.revision = 1
        self.compacted = -1
        self.granted: dict[int, int] = {}
        """TTL of each lease, in seconds."""
        self.remaining_ms: dict[int, int] = {}
        """Where a checkpoint was made."""

    def newest(self) -> int:
        """What reads see, the open transaction included."""
        return max([self.revision, *(change.main for change in self.changes)])

    def pairs_at(self, revision: int) -> list[KeyValue]:
        """All pairs at a revision, by replaying everything up to it."""
        pairs: dict[bytes, KeyValue] = {}
        for change in self.changes:
            if change.main > revision:
                continue
            old = pairs.pop(change.key, None)
            if change.value is not None:
                pairs[change.key] = KeyValue(
                    key=change.key,
                    value=change.value,
                    lease=change.lease,
                    mod_revision=change.main,
                    create_revision=old.create_revision if old else change.main,
                    version=old.version + 1 if old else 1,
                )
        return [pairs[key] for key in sorted(pairs)]

    def pairs(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        return [kv for kv in self.pairs_at(self.newest()) if covers(key, range_end, kv.key)]

    def end(self) -> None:
        self.revision = self.newest()

    # --- commands -----------------------------------------------------------------------------
    def put(self, request: PutRequest) -> PutResponse:
        self.check_put(request)
        response = self.do_put(request)
        self.end()
        return response

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        response = self.do_delete(request)
        self.end()
        return response

    def compact(self, request: CompactionRequest) -> None:
        if request.revision <= self.compacted:
            raise fail(errors.COMPACTED)
        if request.revision > self.revision:
            raise fail(errors.FUTURE_REV)
        self.compacted = request.revision

    def check_put(self, request: PutRequest) -> None:
        if request.lease and request.lease not in self.granted:
            raise fail(errors.LEASE_NOT_FOUND)
        if (request.ignore_value or request.ignore_lease) and not self.pairs(request.key, b""):
            raise fail(errors.KEY_NOT_FOUND)

    def do_put(self, request: PutRequest) -> PutResponse:
        response = PutResponse()
        value, lease = request.value, request.lease
        for old in self.pairs(request.key, b""):
            if request.ignore_value:
                value = old.value
            if request.ignore_lease:
                lease = old.lease
            if request.prev_kv:
                response.prev_kv.CopyFrom(old)
        self.changes.append(Change(self.revision + 1, request.key, value, lease))
        return response

    def do_delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        gone = self.pairs(request.key, request.range_end)
        for kv in gone:
            self.changes.append(Change(self.revision + 1, kv.key, None, 0))
        return DeleteRangeResponse(deleted=len(gone), prev_kvs=gone if request.prev_kv else [])

    # --- leases -------------------------------------------------------------------------------
    def keys_of(self, lease: int) -> list[bytes]:
        return [kv.key for kv in self.pairs(b"\0", b"\0") if kv.lease == lease]

    def grant(self, request: LeaseGrantRequest) -> LeaseGrantResponse:
        if request.ID == 0:
            raise fail(errors.LEASE_NOT_FOUND)
        if request.TTL > 9_000_000_000:
            raise fail(errors.LEASE_TTL_TOO_LARGE)
        if request.ID in self.granted:
            raise fail(errors.LEASE_EXIST)
        self.granted[request.ID] = max(2, request.TTL)
        return LeaseGrantResponse(ID=request.ID, TTL=self.granted[request.ID])

    def revoke(self, request: LeaseRevokeRequest) -> LeaseRevokeResponse:
        if request.ID not in self.granted:
            raise fail(errors.LEASE_NOT_FOUND)
        for key in self.keys_of(request.ID):
            self.changes.append(Change(self.revision + 1, key, None, 0))
        self.end()
        del self.granted[request.ID]
        self.remaining_ms.pop(request.ID, None)
        return LeaseRevokeResponse()

    def expire(self, leases: Sequence[int]) -> None:
        for lease in leases:
            if lease in self.granted:
                self.revoke(LeaseRevokeRequest(ID=lease))

    def checkpoint(self, lease: int, remaining_ms: int) -> None:
        if lease in self.granted:
            self.remaining_ms[lease] = min(remaining_ms, self.granted[lease] * 1000)

    def time_to_live(self, request: LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse:
        if request.ID not in self.granted:
            return LeaseTimeToLiveResponse(ID=request.ID, TTL=-1)
        granted = self.granted[request.ID]
        return LeaseTimeToLiveResponse(
            ID=request.ID,
            TTL=self.remaining_ms.get(request.ID, granted * 1000) // 1000,
            grantedTTL=granted,
            keys=self.keys_of(request.ID) if request.keys else [],
        )

    def list_leases(self) -> LeaseLeasesResponse:
        return LeaseLeasesResponse(leases=[LeaseStatus(ID=lease) for lease in sorted(self.granted)])

    # --- range --------------------------------------------------------------------------------
    def range(self, request: RangeRequest) -> RangeResponse:
        if request.revision > self.newest():
            raise fail(errors.FUTURE_REV)
        if 0 < request.revision < self.compacted:
            raise fail(errors.COMPACTED)
        at = request.revision if request.revision > 0 else self.newest()
        kvs = [kv for kv in self.pairs_at(at) if covers(request.key, request.range_end, kv.key)]
        response = RangeResponse(count=len(kvs))
        if request.count_only:
            return response
        bounds = (
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
        if request.limit > 0 and request.sort_order == RangeRequest.NONE and not any(bounds):
            kvs = kvs[: request.limit + 1]
        kvs = [
            kv
            for kv in kvs
            if (not bounds[0] or kv.mod_revision >= bounds[0])
            and (not bounds[1] or kv.mod_revision <= bounds[1])
            and (not bounds[2] or kv.create_revision >= bounds[2])
            and (not bounds[3] or kv.create_revision <= bounds[3])
        ]
        name = ["key", "version", "create_revision", "mod_revision", "value"][request.sort_target]
        kvs.sort(key=lambda kv: getattr(kv, name), reverse=request.sort_order == RangeRequest.DESCEND)
        if request.limit > 0 and len(kvs) > request.limit:
            response.more = True
            kvs = kvs[: request.limit]
        for kv in kvs:
            if request.keys_only:
                kv.value = b""
                if request.sort_target != RangeRequest.VALUE:
                    kv.lease = 0
        response.kvs.extend(kvs)
        return response

    # --- transactions -------------------------------------------------------------------------
    def txn(self, request: TxnRequest) -> TxnResponse:
        for ops in (request.success, request.failure):
            check_duplicates(ops)
        self.check(request)
        response = self.execute(request)
        self.end()
        return response

    def chosen(self, request: TxnRequest) -> Sequence[RequestOp]:
        """Compares are about the state before the transaction, also when asked in its middle."""
        return request.success if all(map(self.holds, request.compare)) else request.failure

    def holds(self, compare: Compare) -> bool:
        before = self.pairs_at(self.revision)
        pairs = [kv for kv in before if covers(compare.key, compare.range_end, kv.key)]
        if not pairs and compare.target == Compare.VALUE:
            return False
        field = ["version", "create_revision", "mod_revision", "value", "lease"][compare.target]
        for kv in pairs or [KeyValue()]:
            actual, expected = getattr(kv, field), getattr(compare, field)
            if not (
                (compare.result == Compare.EQUAL and actual == expected)
                or (compare.result == Compare.NOT_EQUAL and actual != expected)
                or (compare.result == Compare.GREATER and actual > expected)
                or (compare.result == Compare.LESS and actual < expected)
            ):
                return False
        return True

    def check(self, request: TxnRequest) -> None:
        for op in self.chosen(request):
            if op.HasField("request_put"):
                self.check_put(op.request_put)
            elif op.HasField("request_range"):
                revision = op.request_range.revision
                if revision > self.revision:
                    raise fail(errors.FUTURE_REV)
                if revision != 0 and revision < self.compacted:
                    raise fail(errors.COMPACTED)
            elif op.HasField("request_txn"):
                self.check(op.request_txn)

    def execute(self, request: TxnRequest) -> TxnResponse:
        response = TxnResponse(succeeded=all(map(self.holds, request.compare)))
        for op in self.chosen(request):
            out = ResponseOp()
            if op.HasField("request_put"):
                out.response_put.CopyFrom(self.do_put(op.request_put))
                out.response_put.header.revision = self.newest()
            elif op.HasField("request_range"):
                out.response_range.CopyFrom(self.range(op.request_range))
                out.response_range.header.revision = self.newest()
            elif op.HasField("request_delete_range"):
                out.response_delete_range.CopyFrom(self.do_delete(op.request_delete_range))
                out.response_delete_range.header.revision = self.newest()
            else:
                out.response_txn.CopyFrom(self.execute(op.request_txn))
                out.response_txn.header.SetInParent()
            response.responses.append(out)
        return response


def check_duplicates(ops: Sequence[RequestOp]) -> None:
    """Whatever the compares say, no key may be changed twice, except deleted twice."""
    for run in runs(ops):
        puts = [op.request_put.key for op in run if op.HasField("request_put")]
        deletes = [op.request_delete_range for op in run if op.HasField("request_delete_range")]
        if len(puts) != len(set(puts)) or any(covers(d.key, d.range_end, k) for d in deletes for k in puts):
            raise fail(errors.DUPLICATE_KEY)


def runs(ops: Sequence[RequestOp]) -> list[list[RequestOp]]:
    """Every flat list of operations that could come to run."""
    options: list[list[list[RequestOp]]] = []
    for op in ops:
        if op.HasField("request_txn"):
            options.append(runs(op.request_txn.success) + runs(op.request_txn.failure))
        else:
            options.append([[op]])
    return [[op for part in choice for op in part] for choice in product(*options)]
