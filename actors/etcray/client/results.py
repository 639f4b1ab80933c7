"""What calls answer: plain frozen values, made from the response messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from etcray_storage.proto import kv_pb2, rpc_pb2


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as of one revision."""

    key: bytes
    value: bytes
    create_revision: int
    """The revision that created the key, most recently."""
    mod_revision: int
    """The revision of this value."""
    version: int
    """How often the key was written since it was created, this write included."""
    lease: int
    """0 for none."""

    @property
    def text(self) -> str:
        """The value as UTF-8. Raises UnicodeDecodeError if it is not."""
        return self.value.decode()

    @property
    def key_text(self) -> str:
        """The key as UTF-8. Raises UnicodeDecodeError if it is not."""
        return self.key.decode()


@dataclass(frozen=True, slots=True)
class PutResult:
    revision: int
    """The revision that this put made."""
    prev_kv: KeyValue | None
    """What it replaced, if that was asked for and there was anything."""


@dataclass(frozen=True, slots=True)
class RangeResult:
    """The pairs of a range; iterating it gives them, `len` counts the ones that are here."""

    kvs: tuple[KeyValue, ...]
    count: int
    """All keys of the range, whatever limit and filters left out."""
    more: bool
    """True if the limit left pairs out."""
    revision: int
    """The store's revision when it answered, not the one asked for."""

    def __iter__(self) -> Iterator[KeyValue]:
        return iter(self.kvs)

    def __len__(self) -> int:
        return len(self.kvs)


@dataclass(frozen=True, slots=True)
class DeleteResult:
    deleted: int
    """Number of keys; if 0, the revision did not move."""
    prev_kvs: tuple[KeyValue, ...]
    """The deleted pairs in key order, if they were asked for."""
    revision: int


@dataclass(frozen=True, slots=True)
class TxnResult:
    succeeded: bool
    """True if all conditions held, so that `then` was done; False: `otherwise` was."""
    responses: tuple[OperationResult, ...]
    """One result per operation of the branch that was done, in order."""
    revision: int


OperationResult = PutResult | RangeResult | DeleteResult | TxnResult


@dataclass(frozen=True, slots=True)
class CompactResult:
    revision: int
    """The store's current revision."""


@dataclass(frozen=True, slots=True)
class LeaseResult:
    id: int
    ttl: int
    """Seconds that the server granted; it raises what is too short."""


@dataclass(frozen=True, slots=True)
class TimeToLiveResult:
    id: int
    ttl: int
    """Whole seconds that are left; -1 if there is no such lease."""
    granted_ttl: int
    keys: tuple[bytes, ...]
    """The keys that vanish with the lease, if they were asked for."""


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    name: str
    """Empty until the member has started for the first time."""
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


@dataclass(frozen=True, slots=True)
class StatusResult:
    """The state of the member that answered."""

    member_id: int
    cluster_id: int
    version: str
    leader: int
    """Member id, 0 if this member knows none."""
    revision: int
    raft_term: int
    raft_index: int
    """The last committed entry that the member knows of."""
    raft_applied_index: int
    db_size: int
    """Bytes allocated on disk."""
    db_size_in_use: int
    is_learner: bool
    errors: tuple[str, ...]


def key_value(message: kv_pb2.KeyValue) -> KeyValue:
    return KeyValue(
        message.key,
        message.value,
        message.create_revision,
        message.mod_revision,
        message.version,
        message.lease,
    )


def put_result(message: rpc_pb2.PutResponse) -> PutResult:
    previous = key_value(message.prev_kv) if message.HasField("prev_kv") else None
    return PutResult(message.header.revision, previous)


def range_result(message: rpc_pb2.RangeResponse) -> RangeResult:
    kvs = tuple(key_value(kv) for kv in message.kvs)
    return RangeResult(kvs, message.count, message.more, message.header.revision)


def delete_result(message: rpc_pb2.DeleteRangeResponse) -> DeleteResult:
    previous = tuple(key_value(kv) for kv in message.prev_kvs)
    return DeleteResult(message.deleted, previous, message.header.revision)


def txn_result(message: rpc_pb2.TxnResponse) -> TxnResult:
    responses = tuple(operation_result(response) for response in message.responses)
    return TxnResult(message.succeeded, responses, message.header.revision)


def operation_result(message: rpc_pb2.ResponseOp) -> OperationResult:
    match message.WhichOneof("response"):
        case "response_put":
            return put_result(message.response_put)
        case "response_range":
            return range_result(message.response_range)
        case "response_delete_range":
            return delete_result(message.response_delete_range)
        case "response_txn":
            return txn_result(message.response_txn)
        case unknown:
            raise ValueError(f"a transaction was answered with {unknown!r}, which this client does not know")


def compact_result(message: rpc_pb2.CompactionResponse) -> CompactResult:
    return CompactResult(message.header.revision)


def lease_result(message: rpc_pb2.LeaseGrantResponse) -> LeaseResult:
    return LeaseResult(message.ID, message.TTL)


def time_to_live_result(message: rpc_pb2.LeaseTimeToLiveResponse) -> TimeToLiveResult:
    return TimeToLiveResult(message.ID, message.TTL, message.grantedTTL, tuple(message.keys))


def members(message: rpc_pb2.MemberListResponse) -> tuple[Member, ...]:
    return tuple(
        Member(
            member.ID,
            member.name,
            tuple(member.peerURLs),
            tuple(member.clientURLs),
            member.isLearner,
        )
        for member in message.members
    )


def status_result(message: rpc_pb2.StatusResponse) -> StatusResult:
    return StatusResult(
        member_id=message.header.member_id,
        cluster_id=message.header.cluster_id,
        version=message.version,
        leader=message.leader,
        revision=message.header.revision,
        raft_term=message.raftTerm,
        raft_index=message.raftIndex,
        raft_applied_index=message.raftAppliedIndex,
        db_size=message.dbSize,
        db_size_in_use=message.dbSizeInUse,
        is_learner=message.isLearner,
        errors=tuple(message.errors),
    )
