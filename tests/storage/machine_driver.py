"""Drives a StateMachine in tests: makes entries, keeps flushed rows in a dict, restores from them."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

from etcray_storage.commands import (
    INTERNAL_SESSION,
    RECONFIGURATIONS,
    Batch,
    BatchAnswer,
    CommandKind,
    LeaseCheckpoint,
    LeaseExpiry,
    MemberAdd,
    MemberPromote,
    MemberPublish,
    MemberRemove,
    MemberUpdate,
    Payload,
    ReadKind,
    SpaceReport,
    encode_batch,
    encode_lease_command,
    encode_member_command,
    encode_payload,
)
from etcray_storage.machine.machine import StateMachine
from etcray_storage.machine.members import Member
from etcray_storage.mvcc.rows import Flush, Point, RevisionRow, StateItem
from etcray_storage.proto.rpc_pb2 import (
    AlarmRequest,
    AlarmResponse,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from etcray_storage.types import Entry, EntryKind, Index, MemberId, Term

MEMBERS = (
    Member(MemberId(11), "one", ("http://one:2380",), ("http://one:2379", "http://one:9")),
    Member(MemberId(12), "two", (), (), is_learner=True),
)
SESSION = 77

_KINDS: dict[type[Message], tuple[CommandKind, type[Message]]] = {
    PutRequest: (CommandKind.PUT, PutResponse),
    DeleteRangeRequest: (CommandKind.DELETE_RANGE, DeleteRangeResponse),
    TxnRequest: (CommandKind.TXN, TxnResponse),
    CompactionRequest: (CommandKind.COMPACT, CompactionResponse),
    AlarmRequest: (CommandKind.ALARM, AlarmResponse),
    LeaseGrantRequest: (CommandKind.LEASE_GRANT, LeaseGrantResponse),
    LeaseRevokeRequest: (CommandKind.LEASE_REVOKE, LeaseRevokeResponse),
}
MemberCommand = MemberAdd | MemberPromote | MemberRemove | MemberUpdate | MemberPublish | SpaceReport
MEMBER_KINDS: dict[type[MemberCommand], CommandKind] = {
    MemberAdd: CommandKind.MEMBER_ADD,
    MemberPromote: CommandKind.MEMBER_PROMOTE,
    MemberRemove: CommandKind.MEMBER_REMOVE,
    MemberUpdate: CommandKind.MEMBER_UPDATE,
    MemberPublish: CommandKind.MEMBER_PUBLISH,
    SpaceReport: CommandKind.SPACE,
}
ResponseT = TypeVar("ResponseT", bound=Message)


class MemoryTables:
    """What the tables on disk do, with dicts."""

    def __init__(self) -> None:
        self.by_point: dict[Point, RevisionRow] = {}
        self.items: dict[tuple[str, bytes], StateItem] = {}
        self.last: Flush | None = None
        self.calls: list[list[Point]] = []

    def rows(self, points: list[Point]) -> list[RevisionRow]:
        self.calls.append(points)
        return [self.by_point[point] for point in points]

    def store(self, flush: Flush | None) -> None:
        if flush is None:
            return
        assert [(r.main, r.sub) for r in flush.rows] == sorted((r.main, r.sub) for r in flush.rows)
        for row in flush.rows:
            point = Point(row.key, row.main)
            assert point not in self.by_point
            self.by_point[point] = row
        for item in flush.items:
            self.items[item.part, item.key] = item
        self.last = flush

    def compact(self) -> None:
        """Remove the rows that the flushed compact revision makes unreadable."""
        if self.last is None:
            return
        compact = self.last.compact_revision
        newest: dict[bytes, int] = {}
        for key, main in self.by_point:
            if main <= compact:
                newest[key] = max(main, newest.get(key, 0))
        for point, row in list(self.by_point.items()):
            if point.main <= compact and (newest[point.key] != point.main or row.tombstone):
                del self.by_point[point]

    def restore(self) -> StateMachine:
        """A new machine from what is stored."""
        machine = StateMachine(self, MEMBERS)
        if self.last is None:
            return machine
        rows = sorted(self.by_point.values())
        newest = {row.key: row for row in rows}
        current = [row for row in newest.values() if not row.tombstone]
        history = [(row.key, row.main, row.tombstone) for row in rows]
        machine.restore(
            self.last.applied_index,
            self.last.applied_term,
            self.last.revision,
            self.last.compact_revision,
            [history[:3], history[3:]],
            [current[::-1]],
            [item for item in self.items.values() if item.value is not None],
        )
        return machine


class MachineDriver:
    """A machine with one open session, one command an entry."""

    def __init__(self) -> None:
        self.tables = MemoryTables()
        self.machine = StateMachine(self.tables, MEMBERS)
        self.sequence = 0
        self.time_ms = 1_000
        self.apply_batches(Batch(SESSION, 0, 0, b"", []))

    @property
    def revision(self) -> int:
        return self.machine.revision

    def apply_batches(self, *batches: Batch) -> list[BatchAnswer]:
        return self.apply_raw([encode_batch(batch) for batch in batches])

    def apply_raw(
        self, batches: list[bytes], entry_kind: EntryKind = EntryKind.COMMANDS
    ) -> list[BatchAnswer]:
        self.time_ms += 5
        data = encode_payload(Payload(self.time_ms, batches))
        index = Index(self.machine.applied_index + 1)
        return self.machine.apply(Entry(index, Term(3), entry_kind, data))

    def apply_command(
        self, kind: int, request: bytes, entry_kind: EntryKind = EntryKind.COMMANDS
    ) -> BatchAnswer:
        self.sequence += 1
        batch = Batch(SESSION, self.sequence, self.sequence - 1, bytes([kind]), [request])
        (answer,) = self.apply_raw([encode_batch(batch)], entry_kind)
        assert (answer.session, answer.sequence) == (SESSION, self.sequence)
        return answer

    def answer(self, request: Message) -> tuple[int, bytes]:
        """The error's number and the body."""
        kind, _ = _KINDS[type(request)]
        answer = self.apply_command(kind, request.SerializeToString())
        assert answer.revisions == [self.machine.revision]
        return answer.errors[0], answer.bodies[0]

    def run(self, request: Message, response: type[ResponseT]) -> ResponseT:
        """The response to a command that must succeed."""
        error, body = self.answer(request)
        assert error == 0, f"error {error}"
        return response.FromString(body)

    def error(self, request: Message) -> int:
        """The number of the error of a command that must fail, and change nothing."""
        before = self.machine.revision
        error, body = self.answer(request)
        assert error > 0
        assert body == b""
        assert self.machine.revision == before
        return error

    def put(self, key: bytes, value: bytes = b"", **options: bool | int) -> PutResponse:
        return self.run(PutRequest(key=key, value=value, **options), PutResponse)  # type: ignore[arg-type]

    def delete(self, key: bytes, range_end: bytes = b"", prev_kv: bool = False) -> DeleteRangeResponse:
        request = DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv)
        return self.run(request, DeleteRangeResponse)

    def txn(self, request: TxnRequest) -> TxnResponse:
        return self.run(request, TxnResponse)

    def grant(self, lease: int, ttl_seconds: int = 60) -> LeaseGrantResponse:
        return self.run(LeaseGrantRequest(ID=lease, TTL=ttl_seconds), LeaseGrantResponse)

    def revoke(self, lease: int) -> None:
        self.run(LeaseRevokeRequest(ID=lease), LeaseRevokeResponse)

    def time_to_live(self, lease: int) -> LeaseTimeToLiveResponse:
        request = LeaseTimeToLiveRequest(ID=lease, keys=True)
        answer = self.machine.read(ReadKind.LEASE_TIME_TO_LIVE, request.SerializeToString())
        assert answer.error == 0, f"error {answer.error}"
        return LeaseTimeToLiveResponse.FromString(answer.body)

    def lease_ids(self) -> list[int]:
        answer = self.machine.read(ReadKind.LEASE_LEASES, LeaseLeasesRequest().SerializeToString())
        assert answer.error == 0, f"error {answer.error}"
        return [lease.ID for lease in LeaseLeasesResponse.FromString(answer.body).leases]

    def decide(self, command: LeaseExpiry | LeaseCheckpoint) -> int:
        """Apply what a leader decided; the number of the error."""
        expires = isinstance(command, LeaseExpiry)
        kind = CommandKind.LEASE_EXPIRE if expires else CommandKind.LEASE_CHECKPOINT
        batch = Batch(INTERNAL_SESSION, 5, 0, bytes([kind]), [encode_lease_command(command)])
        (answer,) = self.apply_batches(batch)
        assert answer.bodies == [b""]
        return answer.errors[0]

    def change(self, command: MemberCommand) -> tuple[int, bytes]:
        """Apply a command about members or space, in an entry of the right kind; the error's number and
        the body."""
        kind = MEMBER_KINDS[type(command)]
        entry_kind = EntryKind.MEMBERSHIP if kind in RECONFIGURATIONS else EntryKind.COMMANDS
        answer = self.apply_command(kind, encode_member_command(command), entry_kind)
        return answer.errors[0], answer.bodies[0]

    def expire(self, *leases: int) -> int:
        return self.decide(LeaseExpiry(list(leases), self.machine.applied_index))

    def compact(self, revision: int) -> None:
        self.run(CompactionRequest(revision=revision), CompactionResponse)

    def read(self, request: RangeRequest) -> RangeResponse:
        answer = self.machine.read(ReadKind.RANGE, request.SerializeToString())
        assert answer.error == 0, f"error {answer.error}"
        assert answer.revision == self.machine.revision
        return RangeResponse.FromString(answer.body)

    def read_error(self, request: RangeRequest) -> int:
        answer = self.machine.read(ReadKind.RANGE, request.SerializeToString())
        assert answer.body == b""
        return answer.error

    def flush(self) -> Flush | None:
        flush = self.machine.take_flush()
        self.tables.store(flush)
        return flush

    def restart(self) -> None:
        """Flush, then go on with a machine restored from the tables."""
        self.flush()
        self.machine = self.tables.restore()
