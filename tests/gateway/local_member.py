"""A cluster of one member in the test's own process: a real state machine behind a `MemberChannel`."""

from __future__ import annotations

import asyncio

from etcray.node import api
from etcray_storage import commands
from etcray_storage.commands import ReadKind
from etcray_storage.machine.machine import StateMachine
from etcray_storage.machine.members import Member
from etcray_storage.mvcc.rows import Point, RevisionRow
from etcray_storage.types import NOBODY, Entry, EntryKind, Incarnation, Index, MemberId, Membership, Term

CLUSTER_ID = 0x1234
MEMBER_ID = MemberId(0xABCD)


class RowsInMemory:
    """The tables, as a dict."""

    def __init__(self) -> None:
        self._rows: dict[Point, RevisionRow] = {}

    def add(self, rows: list[RevisionRow]) -> None:
        for row in rows:
            self._rows[Point(row.key, row.main)] = row

    def rows(self, points: list[Point]) -> list[RevisionRow]:
        return [self._rows[point] for point in points]


class LocalMember:
    """Leads its cluster of one in term 7. Set `silent` and it answers nothing, `leaderless` and it
    knows no leader, `busy` and it takes nothing."""

    def __init__(self) -> None:
        self._tables = RowsInMemory()
        self.machine = StateMachine(self._tables, [Member(MEMBER_ID, "solo", ("http://127.0.0.1:2380",), ())])
        self.term = Term(7)
        self.silent = False
        self.leaderless = False
        self.busy = False
        self.proposals: list[bytes] = []
        """Every batch that arrived."""

    @property
    def leader(self) -> MemberId:
        return NOBODY if self.leaderless else MEMBER_ID

    def apply(self, batch: bytes) -> commands.BatchAnswer:
        index = Index(self.machine.applied_index + 1)
        payload = commands.encode_payload(commands.Payload(index, [batch]))
        (answer,) = self.machine.apply(Entry(index, self.term, EntryKind.COMMANDS, payload))
        flush = self.machine.take_flush()
        if flush is not None:
            self._tables.add(flush.rows)
        return answer

    async def propose(self, batch: bytes) -> bytes:
        await self._arrive()
        self.proposals.append(batch)
        if outcome := self._refusal():
            return api.encode(api.ProposeReply(outcome, self.leader, self.term, MEMBER_ID, None))
        answer = self.apply(batch)
        return api.encode(api.ProposeReply(api.Outcome.ANSWERED, self.leader, self.term, MEMBER_ID, answer))

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
                membership=Membership((MEMBER_ID,), ()),
                incarnation=Incarnation(1),
                process_id=1,
                ray_node="",
                data_directory="",
                size_bytes=8192,
                size_in_use_bytes=4096,
                ready=True,
            )
        )

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        if self.silent:
            await asyncio.get_running_loop().create_future()

    def _refusal(self) -> api.Outcome | None:
        if self.leaderless:
            return api.Outcome.NOT_LEADER
        return api.Outcome.BUSY if self.busy else None
