"""Following in the test's own process: real members and a real store, with direct calls in place of Ray."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from etcray.history.api import QueryReply, QueryRequest
from etcray.history.channels import Channels, MemberUnreachableError
from etcray.history.following import Following
from etcray.history.service import HistoryService
from etcray.node import api
from etcray.node.member import Member
from etcray.spec import HistorySpec
from etcray_storage.commands import Batch, CommandKind
from etcray_storage.errors import EtcdError
from etcray_storage.history.retention import Retention
from etcray_storage.history.store import HistoryStore
from etcray_storage.mvcc.schema import REVISIONS_ARROW
from etcray_storage.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from etcray_storage.types import MemberId
from tests.node.local_cluster import LocalCluster, wait_for
from tests.storage.model import Change, Model

SESSION = 7
Row = tuple[int, bytes, bytes | None, int]
"""(main, key, value or None for a deletion, lease): what the model knows of a change."""
Command = tuple[CommandKind, Any]
"""With its request."""


class DirectChannel:
    """The way to one member of a `LocalCluster`, which may be stopped or cut off."""

    def __init__(self, cluster: LocalCluster, member: MemberId) -> None:
        self._cluster = cluster
        self._member = member

    def _target(self) -> Member:
        member = self._cluster.board.members.get(self._member)
        if member is None:
            raise MemberUnreachableError("it is stopped")
        return member

    def history_rows(self, request: bytes, timeout_seconds: float) -> bytes:
        try:
            return api.encode(self._target().history_rows(request))
        except RuntimeError as error:  # closed in the middle of the call
            raise MemberUnreachableError(str(error)) from error

    def read(self, request: bytes, timeout_seconds: float) -> bytes:
        try:
            return api.encode(self._target().read(request))
        except RuntimeError as error:
            raise MemberUnreachableError(str(error)) from error


def channels_to(cluster: LocalCluster) -> Channels:
    channels = Channels()
    channels.set({member.id: DirectChannel(cluster, member.id) for member in cluster.spec.members})
    return channels


@contextmanager
def following(cluster: LocalCluster, directory: Path) -> Iterator[tuple[HistoryStore, Following]]:
    """A store that follows the cluster, until the end of the block."""
    directory.mkdir(exist_ok=True)
    store = HistoryStore.open(directory, "abc", Retention(), lambda: 0)
    failures: list[BaseException] = []
    channels = channels_to(cluster)
    thread = Following(store, channels, failures.append)
    thread.set_members(channels.members)
    thread.start()
    try:
        yield store, thread
    finally:
        thread.close()
        store.close()
    assert not failures, f"following failed: {failures}"


def catch_up(cluster: LocalCluster, thread: Following) -> int:
    """Wait until the store holds what the cluster's leader has now."""
    revision = cluster.leader().status().revision
    wait_for(lambda: thread.position >= revision or None, f"revision {revision} in the store")
    return revision


def fetch_all(member: Member, after: int, bytes_max: int = 1 << 20) -> list[Row]:
    """Everything that a member hands out behind a position, piece by piece."""
    rows: list[Row] = []
    while True:
        encoded = api.encode(api.HistoryRowsRequest(after, bytes_max, 0.0))
        reply = member.history_rows(encoded)
        assert reply.outcome is api.Outcome.ANSWERED
        rows += rows_of(reply.rows)
        assert all(after < main <= reply.through_revision for main, *_ in rows_of(reply.rows))
        after = reply.through_revision
        if after >= reply.revision:
            return rows


def rows_of(encoded: bytes) -> list[Row]:
    if not encoded:
        return []
    return model_rows(pa.Table.from_batches([pa.ipc.read_record_batch(encoded, REVISIONS_ARROW)]))


def model_rows(table: pa.Table) -> list[Row]:
    return [
        (row["main"], row["key"], None if row["tombstone"] else row["value"], row["lease"])
        for row in table.to_pylist()
    ]


class Workload:
    """Random commands, to a cluster and to the naive model alike."""

    def __init__(self, cluster: LocalCluster, seed: int) -> None:
        self.model = Model()
        self.cluster = cluster
        self._random = random.Random(seed)
        self._sequence = 0
        cluster.open_session(SESSION)

    @property
    def changes(self) -> list[Row]:
        return [expected(change) for change in self.model.changes]

    def run(self, count: int, *, compacts: bool = False) -> None:
        """So many commands, a few in each batch."""
        while count > 0:
            size = min(count, self._random.randrange(1, 9))
            self._send([self._draw(compacts) for _ in range(size)])
            count -= size

    def compact(self, revision: int) -> None:
        self._send([(CommandKind.COMPACT, CompactionRequest(revision=revision))])

    def _key(self) -> bytes:
        return b"/k/%02d" % self._random.randrange(30)

    def _draw(self, compacts: bool) -> Command:
        draw = self._random.random()
        if draw < 0.55:
            return CommandKind.PUT, self._put(self._key())
        if draw < 0.75:
            return CommandKind.DELETE_RANGE, self._delete()
        if draw < 0.9:
            keys = self._random.sample(range(30), 3)
            operations = [RequestOp(request_put=self._put(b"/k/%02d" % number)) for number in keys[:2]]
            deletion = DeleteRangeRequest(key=b"/k/%02d" % keys[2])
            operations.append(RequestOp(request_delete_range=deletion))
            return CommandKind.TXN, TxnRequest(success=operations)
        if draw < 0.94:
            return CommandKind.LEASE_GRANT, LeaseGrantRequest(ID=self._random.randrange(1, 5), TTL=600)
        if draw < 0.97 or not compacts:
            return CommandKind.LEASE_REVOKE, LeaseRevokeRequest(ID=self._random.randrange(1, 5))
        return CommandKind.COMPACT, CompactionRequest(
            revision=self._random.randrange(self.model.revision + 1)
        )

    def _compaction(self) -> CompactionRequest:
        return CompactionRequest(revision=self._random.randrange(self.model.revision + 1))

    def _put(self, key: bytes) -> PutRequest:
        lease = self._random.choice([0, 0, 0, *self.model.granted])
        return PutRequest(key=key, value=self._random.randbytes(self._random.randrange(40)), lease=lease)

    def _delete(self) -> DeleteRangeRequest:
        if self._random.random() < 0.8:
            return DeleteRangeRequest(key=self._key())
        return DeleteRangeRequest(key=b"/k/1", range_end=b"/k/2")

    def _send(self, commands: list[Command]) -> None:
        """Whatever the model refuses has to be refused with the same error."""
        self._sequence += 1
        kinds = bytes(kind for kind, _ in commands)
        requests = [request.SerializeToString() for _, request in commands]
        reply = self.cluster.propose(Batch(SESSION, self._sequence, self._sequence - 1, kinds, requests))
        assert reply.answer is not None
        assert reply.answer.errors == [self._apply(kind, request) for kind, request in commands]

    def _apply(self, kind: CommandKind, request: Any) -> int:
        handlers: dict[CommandKind, Callable[[Any], object]] = {
            CommandKind.PUT: self.model.put,
            CommandKind.DELETE_RANGE: self.model.delete_range,
            CommandKind.TXN: self.model.txn,
            CommandKind.LEASE_GRANT: self.model.grant,
            CommandKind.LEASE_REVOKE: self.model.revoke,
            CommandKind.COMPACT: self.model.compact,
        }
        try:
            handlers[kind](request)
        except EtcdError as error:
            return error.number
        return 0


def expected(change: Change) -> Row:
    return change.main, change.key, change.value, 0 if change.value is None else change.lease


@contextmanager
def serving_history(cluster: LocalCluster, directory: Path) -> Iterator[HistoryService]:
    """The whole history but for Ray: store, follower, and a pool of workers."""
    spec = msgspec.structs.replace(cluster.spec, history=HistorySpec(directory=str(directory)))
    service = HistoryService(spec)
    service.open()
    try:
        service.set_channels(
            {member.id: DirectChannel(cluster, member.id) for member in cluster.spec.members}
        )
        yield service
    finally:
        service.close()


def ask_sql(service: HistoryService, sql: str, **fields: Any) -> QueryReply:
    return service.query(QueryRequest(query_id=uuid.uuid4().hex, sql=sql, **fields))


def rows_from(service: HistoryService, sql: str, **fields: Any) -> list[tuple[Any, ...]]:
    """The answer's rows; it has to be one."""
    reply = ask_sql(service, sql, **fields)
    assert not reply.error_code, f"{reply.error_code}: {reply.error_message}"
    table = pa.ipc.open_stream(reply.arrow).read_all()
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
