"""The history says of every revision what the etcd API said: 100,000 of them, over leader changes and
compactions, with transactions, deletions and leases. All in this process, but for the queries' workers."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any, NamedTuple

from etcray.history.service import HistoryService
from etcray.node.api import Outcome, ReadReply, ReadRequest, encode
from etcray_storage.commands import Batch, CommandKind, ReadKind
from etcray_storage.errors import COMPACTED
from etcray_storage.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from tests.history.local_history import rows_from, serving_history
from tests.node.local_cluster import LocalCluster, wait_for

REVISIONS = 100_000
COMMANDS_PER_BATCH = 500
LEADERS = 4
"""A new one after each quarter."""
KEYS = 300
LEASES = 20
SESSION = 9
PAIR_COLUMNS = "key, value, mod_revision, create_revision, version, lease"

Pair = tuple[Any, ...]
"""As PAIR_COLUMNS."""


class Seen(NamedTuple):
    """A moment between two batches."""

    time_ms: int
    revision: int


class Writer:
    """Sends random commands in batches, and notes when the cluster was where."""

    def __init__(self, cluster: LocalCluster, seed: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self._sequence = 0
        self.moments: list[Seen] = []
        cluster.open_session(SESSION)

    def write(self, revisions: int) -> None:
        """About so many more."""
        until = self.revision() + revisions
        while self.revision() < until:
            self.send([self._draw() for _ in range(COMMANDS_PER_BATCH)])
            time.sleep(0.002)
            self.moments.append(Seen(time.time_ns() // 1_000_000, self.revision()))
            time.sleep(0.002)  # the next batch has a later millisecond

    def revision(self) -> int:
        return self._cluster.leader().status().revision

    def send(self, commands: list[tuple[CommandKind, Any]]) -> None:
        self._sequence += 1
        kinds = bytes(kind for kind, _ in commands)
        requests = [request.SerializeToString() for _, request in commands]
        self._cluster.propose(Batch(SESSION, self._sequence, self._sequence - 1, kinds, requests))

    def _draw(self) -> tuple[CommandKind, Any]:
        draw = self._random.random()
        if draw < 0.7:
            return CommandKind.PUT, self._put()
        if draw < 0.8:
            return CommandKind.DELETE_RANGE, DeleteRangeRequest(key=self._key())
        if draw < 0.98:
            operations = [RequestOp(request_put=put) for put in self._different_puts(3)]
            gone = b"/lone/%d" % self._random.randrange(9)
            operations.append(RequestOp(request_delete_range=DeleteRangeRequest(key=gone)))
            return CommandKind.TXN, TxnRequest(success=operations)
        lease = self._random.randrange(1, LEASES)
        if draw < 0.995:
            return CommandKind.LEASE_GRANT, LeaseGrantRequest(ID=lease, TTL=6_000)
        return CommandKind.LEASE_REVOKE, LeaseRevokeRequest(ID=lease)

    def _key(self) -> bytes:
        return b"/k/%03d" % self._random.randrange(KEYS)

    def _put(self) -> PutRequest:
        """Some name a lease that is not there, and are refused."""
        lease = self._random.choice((0, 0, 0, 0, 0, 0, 0, self._random.randrange(1, LEASES)))
        return PutRequest(key=self._key(), value=self._random.randbytes(8), lease=lease)

    def _different_puts(self, count: int) -> list[PutRequest]:
        puts = {put.key: put for put in (self._put() for _ in range(count))}
        lone = PutRequest(key=b"/lone/%d" % self._random.randrange(10, 19), value=b"x")
        return [*puts.values(), lone]


def read(cluster: LocalCluster, revision: int) -> ReadReply:
    request = RangeRequest(key=b"\0", range_end=b"\0", revision=revision).SerializeToString()

    def attempt() -> ReadReply | None:
        try:
            reply = cluster.leader().read(encode(ReadRequest(True, bytes([ReadKind.RANGE]), [request])))
        except RuntimeError:
            return None
        return reply if reply.outcome is Outcome.ANSWERED else None

    return wait_for(attempt, f"the range at revision {revision}")


def answer_of_the_api(cluster: LocalCluster, revision: int) -> list[Pair]:
    reply = read(cluster, revision)
    assert reply.errors == [0], f"the API at {revision}: error {reply.errors}"
    return [
        (pair.key, pair.value, pair.mod_revision, pair.create_revision, pair.version, pair.lease)
        for pair in RangeResponse.FromString(reply.bodies[0]).kvs
    ]


def answer_of_the_history(service: HistoryService, table: str, *parameters: Any) -> list[Pair]:
    sql = f"SELECT {PAIR_COLUMNS} FROM {table} ORDER BY key"
    return rows_from(service, sql, parameters=list(parameters))


def followed(service: HistoryService, revision: int) -> None:
    wait_for(lambda: service.status().revision >= revision or None, f"revision {revision} in the history")


def test_the_history_agrees_with_the_api_and_the_clock_at_any_revision(tmp_path: Path) -> None:
    chosen = random.Random(3)
    with (
        LocalCluster(tmp_path / "members", nodes=3) as cluster,
        serving_history(cluster, tmp_path / "history") as service,
    ):
        writer = Writer(cluster, 4)
        said: dict[int, list[Pair]] = {}
        terms = set()
        for _ in range(LEADERS):
            begun = writer.revision()
            writer.write(REVISIONS // LEADERS + 1)
            said |= {
                revision: answer_of_the_api(cluster, revision)
                for revision in chosen.sample(range(begun + 1, writer.revision() + 1), 8)
            }
            compacted = begun + (writer.revision() - begun) // 2
            followed(service, compacted)
            writer.send([(CommandKind.COMPACT, CompactionRequest(revision=compacted))])
            assert read(cluster, compacted - 1).errors == [COMPACTED.number]
            leader = cluster.leader()
            terms.add(leader.status().term)
            cluster.stop(leader.spec.id)
            cluster.start(leader.spec.id)
        newest = writer.revision()
        assert (newest > REVISIONS, len(terms)) == (True, LEADERS)
        followed(service, newest)
        for revision, pairs in said.items():
            assert answer_of_the_history(service, "kv_at(?)", revision) == pairs, f"at revision {revision}"
        assert answer_of_the_history(service, "kv") == answer_of_the_api(cluster, newest)
        every_revision_is_there(service, newest)
        times_never_go_back(service)
        states_as_of_a_time_are_those_of_its_revision(service, chosen.sample(writer.moments, 12))


def every_revision_is_there(service: HistoryService, newest: int) -> None:
    counted = "SELECT count(DISTINCT mod_revision), min(mod_revision), max(mod_revision) FROM history"
    assert rows_from(service, counted) == [(newest - 1, 2, newest)]
    kinds = dict(rows_from(service, "SELECT op, count(*) FROM history GROUP BY op"))
    assert kinds["delete"] > REVISIONS // 50
    leased = "SELECT count(*) FROM history WHERE lease <> 0 AND sub_revision > 0"
    assert rows_from(service, leased)[0][0] > REVISIONS // 500


def times_never_go_back(service: HistoryService) -> None:
    backwards = """SELECT count(*) FROM (SELECT committed_at, lag(committed_at)
        OVER (ORDER BY mod_revision, sub_revision) AS before FROM history) WHERE committed_at < before"""
    assert rows_from(service, backwards) == [(0,)]


def states_as_of_a_time_are_those_of_its_revision(service: HistoryService, moments: list[Seen]) -> None:
    for moment in moments:
        at_time = answer_of_the_history(
            service, "kv_as_of(make_timestamptz(?::BIGINT))", moment.time_ms * 1000
        )
        assert at_time == answer_of_the_history(service, "kv_at(?)", moment.revision), moment
