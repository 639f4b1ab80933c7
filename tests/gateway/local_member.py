"""A cluster of one member in the test's own process: a real state machine behind a `MemberChannel`."""

from __future__ import annotations

import asyncio
import threading

from etcray.node import api
from etcray.node.event_ring import NO_EVENTS, EventRing, columns_of
from etcray.node.history import read_history
from etcray.node.reconfiguration import LeaderView, objection
from etcray_storage import commands
from etcray_storage.commands import ReadKind
from etcray_storage.engine import Engine
from etcray_storage.errors import BAD_LEADER_TRANSFEREE, EtcdError
from etcray_storage.machine.machine import StateMachine
from etcray_storage.machine.members import Member
from etcray_storage.mvcc import schema
from etcray_storage.mvcc.events import EventRows, in_range, take_piece
from etcray_storage.mvcc.kv_hash import KvHash, hash_revisions
from etcray_storage.mvcc.rows import Flush, Point, RevisionRow
from etcray_storage.types import NOBODY, Entry, EntryKind, Incarnation, Index, MemberId, Term

CLUSTER_ID = 0x1234
MEMBER_ID = MemberId(0xABCD)


class RowsInMemory:
    """The tables, as a dict."""

    def __init__(self) -> None:
        self._rows: dict[Point, RevisionRow] = {}

    def stage(self, flush: Flush) -> None:
        for row in flush.rows:
            self._rows[Point(row.key, row.main)] = row

    def events(
        self, key: bytes, range_end: bytes, first: int, last: int, *, revisions_max: int, bytes_max: int
    ) -> EventRows:
        found = [
            row
            for row in self._rows.values()
            if first <= row.main <= last and in_range(row.key, key, range_end)
        ]
        return take_piece(found, last, revisions_max, bytes_max)

    def rows(self, points: list[Point]) -> list[RevisionRow]:
        return [self._rows[point] for point in points]

    def hash_kv(self, machine: StateMachine, revision: int) -> KvHash:
        """By the real tables' own code, over tables that live as long as this call."""
        engine = Engine.open(None)
        try:
            for statement in schema.CREATE_TABLES:
                engine.execute(statement)
            schema.insert_revisions(engine, sorted(self._rows.values()))
            numbers = (
                machine.applied_index,
                machine.applied_term,
                machine.revision,
                machine.compact_revision,
            )
            schema.insert_meta(engine, schema.Meta(*numbers, machine.membership))
            return hash_revisions(engine, revision)
        finally:
            engine.close()


class LocalPast:
    """What `read_history` needs of a member."""

    def __init__(self, machine: StateMachine, tables: RowsInMemory) -> None:
        self.machine = machine
        self.state = threading.Lock()
        self.tables = tables

    @property
    def applier(self) -> LocalPast:
        return self


class LocalMember:
    """Leads its cluster of one in term 7. Set `silent` and it answers nothing, `leaderless` and it
    knows no leader, `busy` and it takes nothing."""

    def __init__(self) -> None:
        self._tables = RowsInMemory()
        self.machine = StateMachine(self._tables, [Member(MEMBER_ID, "solo", ("http://127.0.0.1:2380",), ())])
        self.events = EventRing(self.machine.revision, self.machine.compact_revision)
        self.past = LocalPast(self.machine, self._tables)
        self.term = Term(7)
        self.silent = False
        self.leaderless = False
        self.busy = False
        self.proposals: list[bytes] = []
        """Every batch that arrived."""
        self.renewals: list[list[int]] = []
        """The leases of every keep-alive that arrived."""
        self.defragmented = 0
        self.matched: dict[MemberId, Index] = {}
        """How much of the log each other member is to be believed to hold."""

    @property
    def leader(self) -> MemberId:
        return NOBODY if self.leaderless else MEMBER_ID

    def apply(self, batch: bytes, kind: EntryKind = EntryKind.COMMANDS) -> commands.BatchAnswer:
        index = Index(self.machine.applied_index + 1)
        payload = commands.encode_payload(commands.Payload(index, [batch]))
        (answer,) = self.machine.apply(Entry(index, self.term, kind, payload))
        self.events.append(self.machine.changes, self.machine.revision, self.machine.compact_revision)
        flush = self.machine.take_flush()
        if flush is not None:
            self._tables.stage(flush)
        return answer

    async def propose(self, batch: bytes) -> bytes:
        await self._arrive()
        self.proposals.append(batch)
        if outcome := self._refusal():
            return api.encode(api.ProposeReply(outcome, self.leader, self.term, MEMBER_ID, None))
        answer = self._reconfigure(batch) or self.apply(batch)
        return api.encode(api.ProposeReply(api.Outcome.ANSWERED, self.leader, self.term, MEMBER_ID, answer))

    def _reconfigure(self, encoded: bytes) -> commands.BatchAnswer | None:
        """As a real leader: a change of members is alone, and its rules are asked before."""
        batch = commands.decode_batch(encoded)
        if not commands.is_reconfiguration(batch):
            return None
        assert len(batch.requests) == 1, f"a change of members among {len(batch.requests)} commands"
        view = LeaderView(
            leader=MEMBER_ID,
            members=self.machine.members,
            last_index=self.machine.applied_index,
            match_index=self.matched,
            connected=frozenset(member.id for member in self.machine.members if member.is_started),
        )
        refused = objection(batch.kinds[0], batch.requests[0], view)
        if refused is None:
            return self.apply(encoded, EntryKind.MEMBERSHIP)
        return commands.BatchAnswer(
            batch.session, batch.sequence, [self.machine.revision], [refused.number], [b""]
        )

    async def read(self, request: bytes) -> bytes:
        await self._arrive()
        read = api.decode_read_request(request)
        if read.linearizable and (outcome := self._refusal()):
            return api.encode(api.ReadReply(outcome, self.leader, self.term, MEMBER_ID, [], [], []))
        answers = [
            self.machine.read(ReadKind(kind), data)
            for kind, data in zip(read.kinds, read.requests, strict=True)
        ]
        return api.encode(
            api.ReadReply(
                api.Outcome.ANSWERED,
                self.leader,
                self.term,
                MEMBER_ID,
                [answer.revision for answer in answers],
                [answer.error for answer in answers],
                [answer.body for answer in answers],
            )
        )

    async def keep_alive(self, request: bytes) -> bytes:
        """Nothing ends here by itself, so there is nothing to renew: only `expire` ends leases."""
        await self._arrive()
        leases = api.decode_keep_alive_request(request).leases
        self.renewals.append(leases)
        outcome = self._refusal() or api.Outcome.ANSWERED
        known = (
            [self.machine.leases.get(lease) for lease in leases] if outcome is api.Outcome.ANSWERED else []
        )
        return api.encode(
            api.KeepAliveReply(
                outcome,
                self.leader,
                self.term,
                MEMBER_ID,
                self.machine.revision,
                [0 if lease is None else lease.ttl_seconds for lease in known],
            )
        )

    def expire(self, *leases: int) -> None:
        """End these leases, as the leader of a real cluster does when their time is over."""
        expiry = commands.LeaseExpiry(list(leases), self.machine.applied_index)
        kinds = bytes([commands.CommandKind.LEASE_EXPIRE])
        batch = commands.Batch(
            commands.INTERNAL_SESSION, 0, 0, kinds, [commands.encode_lease_command(expiry)]
        )
        self.apply(commands.encode_batch(batch))

    async def watch(self, poll: bytes) -> bytes:
        await self._arrive()
        asked = api.decode_watch_poll(poll)
        deadline = asyncio.get_running_loop().time() + asked.wait_seconds
        while not self.leaderless:
            found = self.events.wait_for(asked.after_revision, asked.bytes_max, 0.0)
            assert found is not None, f"asked for what follows {asked.after_revision}"
            if found.changes or found.missed or asyncio.get_running_loop().time() >= deadline:
                columns = columns_of(found.changes, asked.with_previous)
                return api.encode(
                    api.WatchEvents(
                        api.Outcome.ANSWERED,
                        MEMBER_ID,
                        self.term,
                        found.revision,
                        found.compact_revision,
                        found.missed,
                        *columns,
                    )
                )
            await asyncio.sleep(0.002)
        return api.encode(
            api.WatchEvents(api.Outcome.NOT_LEADER, MEMBER_ID, self.term, 0, -1, False, *NO_EVENTS)
        )

    async def history(self, request: bytes) -> bytes:
        await self._arrive()
        found = read_history(self.past, api.decode_history_request(request))
        assert found is not None, "the only member lags behind"
        return api.encode(
            api.HistoryReply(
                api.Outcome.ANSWERED,
                MEMBER_ID,
                self.term,
                found.compact_revision,
                found.through,
                *found.columns,
            )
        )

    async def status(self) -> bytes:
        await self._arrive()
        applied = self.machine.applied_index
        return api.encode(
            api.MemberStatus(
                member=MEMBER_ID,
                name="solo",
                role="candidate" if self.leaderless else "leader",
                term=self.term,
                leader=self.leader,
                last_index=applied,
                commit_index=applied,
                applied_index=applied,
                revision=self.machine.revision,
                compact_revision=self.machine.compact_revision,
                membership=self.machine.membership,
                alarms=self.machine.alarms,
                state_hash=self.machine.state_hash,
                incarnation=Incarnation(1),
                process_id=1,
                ray_node="",
                data_directory="",
                size_bytes=8192,
                size_in_use_bytes=4096,
                ready=True,
            )
        )

    async def transfer_leadership(self, request: bytes) -> bytes:
        await self._arrive()
        target = api.decode_transfer_request(request).target
        outcome = self._refusal() or api.Outcome.ANSWERED
        error = 0 if target == MEMBER_ID else BAD_LEADER_TRANSFEREE.number
        return api.encode(api.TransferReply(outcome, self.leader, self.term, MEMBER_ID, error))

    async def hash_kv(self, request: bytes) -> bytes:
        await self._arrive()
        asked = api.decode_hash_kv_request(request).revision
        revision, outcome = self.machine.revision, api.Outcome.ANSWERED
        try:
            found = self._tables.hash_kv(self.machine, asked)
        except EtcdError as e:
            return api.encode(api.HashKVReply(outcome, MEMBER_ID, self.term, revision, 0, 0, 0, e.number))
        return api.encode(
            api.HashKVReply(
                outcome, MEMBER_ID, self.term, revision, found.compact_revision, found.hash, found.revision, 0
            )
        )

    async def defragment(self) -> bytes:
        await self._arrive()
        self.defragmented += 1
        outcome = api.Outcome.ANSWERED
        return api.encode(api.DefragmentReply(outcome, MEMBER_ID, self.term, self.machine.revision))

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        if self.silent:
            await asyncio.get_running_loop().create_future()

    def _refusal(self) -> api.Outcome | None:
        if self.leaderless:
            return api.Outcome.NOT_LEADER
        return api.Outcome.BUSY if self.busy else None
