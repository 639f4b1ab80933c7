"""`StateMachine`: entries in, answers and rows out.

Rules for this file: no clock, no randomness, nothing that depends on the process. Two machines that
apply the same entries hold the same state, give the same answers and hand out the same flushes.

Whatever a client can put into a command ends as an answer. An exception that leaves `apply` is a
programmer's error or a damaged log, and the process has to stop: the other members would run into
the same one, so skipping the entry would be worse than stopping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError

from etcray_storage import errors
from etcray_storage.commands import (
    INTERNAL_SESSION,
    RECONFIGURATIONS,
    Answer,
    Batch,
    BatchAnswer,
    CommandKind,
    LeaseCheckpoint,
    LeaseExpiry,
    ReadKind,
    decode_batch,
    decode_lease_checkpoint,
    decode_lease_expiry,
    decode_member_add,
    decode_member_promote,
    decode_member_publish,
    decode_member_remove,
    decode_member_update,
    decode_payload,
    decode_space_report,
)
from etcray_storage.errors import EtcdError, error_by_number
from etcray_storage.limits import REQUEST_BYTES_MAX
from etcray_storage.machine import alarms, clock, leases, members, sessions, state_hash, validate
from etcray_storage.machine.alarms import Alarms
from etcray_storage.machine.clock import Clock
from etcray_storage.machine.leases import Leases
from etcray_storage.machine.members import Member, Members
from etcray_storage.machine.operations import check_put_applies, execute_delete_range, execute_put
from etcray_storage.machine.sessions import Sessions, refusal
from etcray_storage.machine.state_hash import StateHash
from etcray_storage.machine.txn import execute_txn
from etcray_storage.mvcc.range import execute_range
from etcray_storage.mvcc.rows import Change, Flush, Point, RevisionRow, StateItem, ValueReader
from etcray_storage.mvcc.store import Store
from etcray_storage.proto.rpc_pb2 import (
    AlarmRequest,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    MemberListRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from etcray_storage.types import Entry, EntryKind, Index, MemberId, Membership, Term
from etcray_storage.wire import plain_put

_PUT: Final = int(CommandKind.PUT)
_SESSION_MAX = (1 << 64) - 1
_TXN_OPS_UNLIMITED = REQUEST_BYTES_MAX
"""An operation takes at least a byte. The gateway's limit is not checked again: it may be set
differently on every gateway, and members must not disagree about it."""

_Handler = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]
"""Decodes a request; executes it and gives the response's body."""


class StateMachine:
    """The replicated state: keys, leases, sessions, alarms, members.

    Not thread-safe: the caller holds one lock around every method, reads included. Only the properties
    that say so may be looked at without it.
    """

    def __init__(self, reader: ValueReader, founders: Sequence[Member]) -> None:
        self.applied_index = Index(0)
        self.applied_term = Term(0)
        self._flushed_index = Index(0)
        self._store = Store(reader)
        self.leases = Leases(self._store)
        """To be looked at from outside, never changed."""
        self._sessions = Sessions()
        self._alarms = Alarms()
        self._members = Members(founders)
        self._clock = Clock()
        self._state_hash = StateHash()
        self._may_reconfigure = False
        """The entry under way may change the membership, and has not done so yet."""
        self._commands: dict[int, _Handler] = {
            CommandKind.PUT: (PutRequest.FromString, self._put),
            CommandKind.DELETE_RANGE: (DeleteRangeRequest.FromString, self._delete_range),
            CommandKind.TXN: (TxnRequest.FromString, self._txn),
            CommandKind.COMPACT: (CompactionRequest.FromString, self._compact),
            CommandKind.ALARM: (AlarmRequest.FromString, self._alarms.apply),
            CommandKind.LEASE_GRANT: (LeaseGrantRequest.FromString, self._grant),
            CommandKind.LEASE_REVOKE: (LeaseRevokeRequest.FromString, self._revoke),
            CommandKind.LEASE_EXPIRE: (decode_lease_expiry, self._expire),
            CommandKind.LEASE_CHECKPOINT: (decode_lease_checkpoint, self._checkpoint),
            CommandKind.MEMBER_ADD: (decode_member_add, self._members.add),
            CommandKind.MEMBER_PROMOTE: (decode_member_promote, self._members.promote),
            CommandKind.MEMBER_REMOVE: (decode_member_remove, self._members.remove),
            CommandKind.MEMBER_UPDATE: (decode_member_update, self._members.update),
            CommandKind.MEMBER_PUBLISH: (decode_member_publish, self._members.publish),
            CommandKind.SPACE: (decode_space_report, self._alarms.report_space),
        }
        self._reads: dict[int, _Handler] = {
            ReadKind.RANGE: (RangeRequest.FromString, self._range),
            ReadKind.TXN: (TxnRequest.FromString, self._read_only_txn),
            ReadKind.MEMBER_LIST: (MemberListRequest.FromString, self._list_members),
            ReadKind.ALARMS: (AlarmRequest.FromString, self._alarms.get),
            ReadKind.LEASE_TIME_TO_LIVE: (LeaseTimeToLiveRequest.FromString, self.leases.time_to_live),
            ReadKind.LEASE_LEASES: (LeaseLeasesRequest.FromString, self.leases.list_all),
        }

    @property
    def revision(self) -> int:
        """The store's current main revision; 1 in a fresh store."""
        return self._store.revision

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be read; -1 if the store never was compacted."""
        return self._store.compact_revision

    @property
    def membership(self) -> Membership:
        """Who votes, as of the last applied entry. May be looked at without the lock."""
        return self._members.membership

    @property
    def members(self) -> tuple[Member, ...]:
        """Ordered by id. May be looked at without the lock."""
        return self._members.all

    @property
    def removed_ids(self) -> frozenset[MemberId]:
        """Ids that may never be used again. May be looked at without the lock."""
        return self._members.removed

    def is_removed(self, member: MemberId) -> bool:
        """Whether this id was a member once, and can never be again. Needs no lock."""
        return member in self._members.removed

    @property
    def alarms(self) -> tuple[tuple[MemberId, int], ...]:
        """Member and `AlarmType` of each raised alarm, sorted. May be looked at without the lock."""
        return self._alarms.all

    @property
    def low_on_space(self) -> frozenset[MemberId]:
        """Whose NOSPACE alarm a `SpaceReport` has raised. May be looked at without the lock."""
        return self._alarms.by_report

    @property
    def state_hash(self) -> int:
        """64 bits over everything that was applied; see `state_hash`. 0 says nothing."""
        return self._state_hash.value

    def remembers(self, session: int, sequence: int) -> bool:
        """Whether this batch was applied already, or must not be applied any more: a leader that would
        refuse it by its own view must not do so then, but propose it, to get the remembered answer."""
        return self._sessions.remembers(session, sequence)

    # --- the log ------------------------------------------------------------------------------
    def apply(self, entry: Entry) -> list[BatchAnswer]:
        """Apply the next entry. One answer for each batch in it, in order; a batch that cannot be
        decoded gets an answer without session, sequence and commands, and changes nothing."""
        assert entry.index == self.applied_index + 1, f"entry {entry.index} after {self.applied_index}"
        assert entry.term >= self.applied_term, f"term {entry.term} after {self.applied_term}"
        self.applied_index = entry.index
        self.applied_term = entry.term
        self._may_reconfigure = entry.kind == EntryKind.MEMBERSHIP
        self._store.changes = []
        parts = (self.leases, self._alarms, self._members)
        for part in parts:
            part.effects = []
        self._store.trim()
        answers: list[BatchAnswer] = []
        if entry.data:
            payload = decode_payload(entry.data)
            self._clock.advance(payload.time_ms)
            answers = [self._apply_batch(data, place) for place, data in enumerate(payload.batches)]
        self._state_hash.advance(
            entry,
            self._clock.time_ms,
            self.revision,
            self.compact_revision,
            answers,
            self._store.changes,
            [effect for part in parts for effect in part.effects],
        )
        return answers

    def _apply_batch(self, data: bytes, place: int) -> BatchAnswer:
        batch = _decode_batch(data)
        if batch is None:
            return BatchAnswer(0, 0, [], [], [])
        if batch.session == INTERNAL_SESSION:
            return self._apply_commands(batch)
        if batch.sequence == 0:
            self._sessions.open_session(batch.session, self.applied_index, place)
            return refusal(batch.session, 0, len(batch.requests), self.revision)
        verdict = self._sessions.admit(
            batch.session, batch.sequence, batch.acknowledged, self.applied_index, place
        )
        if verdict is False:
            return refusal(batch.session, batch.sequence, len(batch.requests), self.revision)
        if verdict is not True:
            return verdict
        answer = self._apply_commands(batch)
        self._sessions.remember(answer)
        return answer

    def _apply_commands(self, batch: Batch) -> BatchAnswer:
        revisions: list[int] = []
        numbers: list[int] = []
        bodies: list[bytes] = []
        store, commands, alarms, time_ms = self._store, self._commands, self._alarms, self._clock.time_ms
        for kind, data in zip(batch.kinds, batch.requests, strict=True):
            plain = plain_put(data) if kind == _PUT else None
            if plain is not None and not alarms.no_space and not alarms.corrupt:
                store.put_alone(*plain, time_ms)
                number, body = 0, b""  # and there is nothing more to say: as `_put` would answer
            elif kind in RECONFIGURATIONS:
                number, body = self._reconfigure(kind, data)
            else:
                number, body = _execute(commands, kind, data)
            revisions.append(store.revision)
            numbers.append(number)
            bodies.append(body)
        return BatchAnswer(batch.session, batch.sequence, revisions, numbers, bodies)

    def _reconfigure(self, kind: int, data: bytes) -> tuple[int, bytes]:
        """Consensus was not told of a change that comes in any other way: it is refused."""
        if not self._may_reconfigure:
            return errors.MALFORMED_REQUEST.number, b""
        self._may_reconfigure = False
        return _execute(self._commands, kind, data)

    # --- reads --------------------------------------------------------------------------------
    def read(self, kind: ReadKind, request: bytes, reader: ValueReader | None = None) -> Answer:
        """Answer from what is applied now; changes nothing. A transaction that could write is
        refused as malformed. A list of members has no revision, as in etcd.

        `reader`, if given, stands in for the machine's own: what it raises comes out of here, and
        the same read may then be tried again."""
        own = self._store.reader
        self._store.reader = reader or own
        try:
            number, body = _execute(self._reads, kind, request)
        finally:
            self._store.reader = own
        return Answer(0 if kind == ReadKind.MEMBER_LIST else self.revision, number, body)

    # --- watching -----------------------------------------------------------------------------
    @property
    def changes(self) -> list[Change]:
        """What the last applied entry changed, in order of (main, sub). The list is not touched again."""
        return self._store.changes

    def previous_points(self, points: Sequence[Point]) -> list[Point | None]:
        """For changes named by (key, main): the row that each of them replaced, as of the revision
        before; None for a creation, and where compaction has taken that revision."""
        return [self._store.previous_point(point) for point in points]

    def find_difference(self, rows: Sequence[RevisionRow]) -> RevisionRow | None:
        """The first of these rows of the tables that is not what the machine knows; 3 us a row."""
        agrees, compact_revision = self._store.index.agrees, self.compact_revision
        return next((row for row in rows if not agrees(row, compact_revision)), None)

    # --- the tables ---------------------------------------------------------------------------
    def take_flush(self) -> Flush | None:
        """Everything that changed since the last call; None if nothing was applied since. From here
        on the reader must find the rows."""
        if self.applied_index == self._flushed_index:
            return None
        self._flushed_index = self.applied_index
        return Flush(
            self.applied_index,
            self.applied_term,
            self.revision,
            self.compact_revision,
            self._store.take_rows(),
            self._alarms.take_items()
            + self.leases.take_items()
            + self._sessions.take_items()
            + self._clock.take_items()
            + self._members.take_items()
            + self._state_hash.take_items(),
            self.membership,
        )

    def restore(
        self,
        applied_index: Index,
        applied_term: Term,
        revision: int,
        compact_revision: int,
        history: Iterable[Sequence[tuple[bytes, int, bool]]],
        current: Iterable[Sequence[RevisionRow]],
        items: Iterable[StateItem],
    ) -> None:
        """Fill a fresh machine with what the tables hold.

        `history`: batches of (key, main, tombstone) of all revisions, ordered by main. `current`:
        batches of each key's newest row unless that is a tombstone, in any order. `items`: the
        newest of each (part, key).
        """
        assert self.applied_index == 0, f"restore into a machine that applied {self.applied_index}"
        self._store.restore(revision, compact_revision, history, current)
        of_part: dict[str, list[StateItem]] = {}
        for item in items:
            of_part.setdefault(item.part, []).append(item)
        for item in of_part.pop(alarms.PART, []):
            self._alarms.restore(item)
        for item in of_part.pop(clock.PART, []):
            self._clock.restore(item)
        self._sessions.restore(of_part.pop(sessions.PART, []))
        self.leases.restore(of_part.pop(leases.PART, []))
        self._members.restore(of_part.pop(members.PART, []))
        if applied_index:
            self._state_hash.restore(next(iter(of_part.pop(state_hash.PART, [])), None))
        assert not of_part, f"state items of unknown parts: {', '.join(sorted(of_part))}"
        self.applied_index = self._flushed_index = applied_index
        self.applied_term = applied_term

    # --- handlers -----------------------------------------------------------------------------
    def _put(self, request: PutRequest) -> bytes:
        self._refuse_write(needs_space=True)
        validate.check_put(request)
        check_put_applies(self._store, self.leases, request)
        self._store.begin(self._clock.time_ms)
        body = execute_put(self._store, request)
        self._store.end()
        return body

    def _delete_range(self, request: DeleteRangeRequest) -> bytes:
        self._refuse_write(needs_space=False)
        validate.check_delete_range(request)
        self._store.begin(self._clock.time_ms)
        body = execute_delete_range(self._store, request)
        self._store.end()
        return body

    def _txn(self, request: TxnRequest) -> bytes:
        validate.check_txn(request, _TXN_OPS_UNLIMITED)
        self._refuse_write(needs_space=validate.has_put(request))
        self._store.begin(self._clock.time_ms)
        body = execute_txn(self._store, self.leases, request)
        self._store.end()
        return body

    def _compact(self, request: CompactionRequest) -> bytes:
        self._refuse_write(needs_space=False)
        self._store.compact(request.revision)
        return b""

    def _grant(self, request: LeaseGrantRequest) -> bytes:
        self._refuse_write(needs_space=True)
        return self.leases.grant(request, self.applied_index)

    def _revoke(self, request: LeaseRevokeRequest) -> bytes:
        self._refuse_write(needs_space=False)
        self.leases.revoke(request.ID, self._clock.time_ms)
        return b""

    def _expire(self, command: LeaseExpiry) -> bytes:
        self._refuse_write(needs_space=False)
        self.leases.expire(command, self._clock.time_ms)
        return b""

    def _checkpoint(self, command: LeaseCheckpoint) -> bytes:
        self.leases.checkpoint(command)
        return b""

    def _refuse_write(self, needs_space: bool) -> None:
        if self._alarms.corrupt:
            raise error_by_number(errors.CORRUPT.number)
        if needs_space and self._alarms.no_space:
            raise error_by_number(errors.NO_SPACE.number)

    def _range(self, request: RangeRequest) -> bytes:
        validate.check_range(request)
        return execute_range(self._store, request)

    def _read_only_txn(self, request: TxnRequest) -> bytes:
        validate.check_txn(request, _TXN_OPS_UNLIMITED)
        if not validate.is_read_only_txn(request):
            raise error_by_number(errors.MALFORMED_REQUEST.number)
        return execute_txn(self._store, self.leases, request)

    def _list_members(self, _request: MemberListRequest) -> bytes:
        return self._members.list_body


def _decode_batch(data: bytes) -> Batch | None:
    """A batch came over the network: None if it is not one."""
    try:
        batch = decode_batch(data)
    except msgspec.DecodeError:
        return None
    if len(batch.kinds) != len(batch.requests):
        return None
    if not 0 <= batch.session <= _SESSION_MAX or batch.sequence < 0:
        return None
    return batch


def _execute(handlers: dict[int, _Handler], kind: int, data: bytes) -> tuple[int, bytes]:
    """The number of the error, or 0, and the response's body."""
    handler = handlers.get(kind)
    if handler is None:
        return errors.MALFORMED_REQUEST.number, b""
    decode, execute = handler
    try:
        request = decode(data)
    except (DecodeError, msgspec.DecodeError):
        return errors.MALFORMED_REQUEST.number, b""
    try:
        return 0, execute(request)
    except EtcdError as refused:
        number = refused.number
    assert number > 0, f"an error without a number came from command or read kind {kind}"
    return number, b""
