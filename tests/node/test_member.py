"""Three real members: replication, failover, recovery, snapshots, without Ray."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from etcray.node.api import Outcome, ProposeReply, ReadReply, ReadRequest, decode_read_reply, encode
from etcray.spec import Timing
from etcray_storage import limits
from etcray_storage.commands import ReadKind, encode_batch
from etcray_storage.proto.rpc_pb2 import RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse
from etcray_storage.types import MemberId
from tests.node.local_cluster import LocalCluster, put_batch, range_request, wait_for

SESSION = 77


def test_a_put_is_answered_and_read_back_on_every_member(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        reply = cluster.put(SESSION, 1, b"key", b"value")
        assert reply.answer is not None
        assert (reply.answer.revisions, reply.answer.errors) == ([2], [0])
        assert cluster.get(b"key") == b"value"
        assert cluster.wait_until_equal() == {b"key": b"value"}


def test_a_single_member_serves_alone(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1) as cluster:
        cluster.open_session(SESSION)
        cluster.put(SESSION, 1, b"key", b"value")
        assert cluster.get(b"key") == b"value"


def test_a_batch_that_arrives_twice_is_applied_once(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        batch = put_batch(SESSION, 1, {b"a": b"1", b"b": b"2"})
        first, second = cluster.propose(batch), cluster.propose(batch)
        assert first.answer == second.answer
        assert first.answer is not None
        assert first.answer.revisions == [2, 3]
        assert cluster.leader().status().revision == 3


def test_followers_refuse_proposals_and_name_the_leader(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)

        def ask_followers() -> tuple[MemberId, list[ProposeReply | ReadReply]] | None:
            leader = cluster.leader()
            term = leader.status().term
            cluster.wait_until_equal()  # so every follower has heard the leader
            replies: list[ProposeReply | ReadReply] = []
            for member in cluster.board.members.values():
                if member is not leader:
                    replies.append(member.propose(encode_batch(put_batch(SESSION, 1, {b"k": b"v"}))))
                    replies.append(member.read(range_request(b"k", linearizable=True)))
            is_same = cluster.leader() is leader and leader.status().term == term
            return (leader.spec.id, replies) if is_same else None

        leader_id, replies = wait_for(ask_followers, "a leader that stays while the followers are asked")
        assert [(reply.outcome, reply.leader) for reply in replies] == [(Outcome.NOT_LEADER, leader_id)] * 4


def test_everything_is_there_after_all_members_were_stopped(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        expected = {}
        for sequence in range(1, 51):
            key, value = b"key%d" % (sequence % 10), b"value%d" % sequence
            cluster.put(SESSION, sequence, key, value)
            expected[key] = value
        revision = cluster.leader().status().revision
        for member in list(cluster.board.members):
            cluster.stop(member)
        for spec in cluster.spec.members:
            cluster.start(spec.id)
        cluster.leader()
        assert cluster.wait_until_equal() == expected
        assert cluster.leader().status().revision == revision
        # The remembered answers survive as well: a retry over the restart changes nothing.
        cluster.put(SESSION, 50, b"key0", b"value50")
        assert cluster.leader().status().revision == revision


def test_writers_over_leader_changes_lose_nothing_and_apply_nothing_twice(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        done = threading.Event()
        answered: list[int] = []

        def write() -> None:
            sequence = 0
            while not done.is_set():
                sequence += 1
                batch = put_batch(SESSION, sequence, {b"n": b"%d" % sequence}, acknowledged=sequence - 1)
                reply = cluster.propose(batch)
                assert reply.answer is not None
                answered.extend(reply.answer.revisions)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(4):
                leader = cluster.leader().spec.id
                cluster.isolate(leader)
                enough = len(answered) + 20
                while len(answered) < enough:
                    assert writer.is_alive()
                    time.sleep(0.01)
                cluster.heal()
        finally:
            done.set()
            writer.join()
        # One put each, in order: a write that was applied twice would leave a hole.
        assert answered == list(range(2, 2 + len(answered)))
        assert cluster.wait_until_equal() == {b"n": b"%d" % len(answered)}


def test_a_deposed_leader_answers_no_linearizable_read(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        cluster.put(SESSION, 1, b"key", b"old")
        deposed = cluster.leader()
        cluster.isolate(deposed.spec.id)
        cluster.put(SESSION, 2, b"key", b"new")
        reply = deposed.read(range_request(b"key", linearizable=True))
        assert reply.outcome is Outcome.NOT_LEADER
        cluster.heal()
        assert cluster.get(b"key") == b"new"


def test_a_lost_reply_is_made_up_for(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        leader = cluster.leader().spec.id
        others = [spec.id for spec in cluster.spec.members if spec.id != leader]
        cluster.isolate(others[0])
        cluster.board.deaf = {(leader, others[1])}
        threading.Timer(0.3, cluster.heal).start()
        cluster.put(SESSION, 1, b"key", b"value")
        assert cluster.wait_until_equal() == {b"key": b"value"}


@pytest.mark.parametrize("stop_first", [False, True], ids=["cut off", "stopped"])
def test_a_member_that_lags_behind_the_log_is_brought_back_by_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_first: bool
) -> None:
    monkeypatch.setattr("etcray.node.opened.LOG_CATCH_UP_ENTRIES", 5)
    monkeypatch.setattr("etcray.node.snapshots.SNAPSHOT_CHUNK_BYTES", 1000)
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        leader = cluster.leader()
        lagging = next(spec.id for spec in cluster.spec.members if spec.id != leader.spec.id)
        if stop_first:
            cluster.stop(lagging)
        else:
            cluster.isolate(lagging)
        expected = {}
        for sequence in range(1, 101):
            key, value = b"key%d" % sequence, b"value%d" % sequence
            cluster.put(SESSION, sequence, key, value)
            expected[key] = value

        def trimmed() -> bool | None:
            opened = cluster.leader()._opened
            assert opened is not None
            return opened.log.base_index > 20 or None

        wait_for(trimmed, "a trimmed log")
        if stop_first:
            cluster.start(lagging)
        else:
            cluster.heal()
        cluster.put(SESSION, 101, b"last", b"one")
        expected[b"last"] = b"one"
        assert cluster.wait_until_equal() == expected
        cluster.stop(lagging)
        cluster.start(lagging)
        assert cluster.wait_until_equal() == expected


def test_a_request_of_the_largest_size_is_replicated(tmp_path: Path) -> None:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        value = bytes(range(256)) * (limits.REQUEST_BYTES_MAX // 256)
        cluster.put(SESSION, 1, b"large", value)
        assert cluster.wait_until_equal() == {b"large": value}


def test_a_transaction_reads_several_old_revisions_at_once(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1) as cluster:
        cluster.open_session(SESSION)
        for sequence in range(1, 6):
            cluster.put(SESSION, sequence, b"a", b"a%d" % sequence)
        opened = cluster.leader()._opened
        assert opened is not None
        opened.flush()
        ranges = [
            RequestOp(request_range=RangeRequest(key=b"a", revision=revision)) for revision in (2, 3, 4, 5)
        ]
        txn = TxnRequest(success=ranges).SerializeToString()
        one = RangeRequest(key=b"a", revision=3).SerializeToString()
        kinds = bytes([ReadKind.RANGE, ReadKind.TXN, ReadKind.RANGE])
        reply = decode_read_reply(
            encode(cluster.leader().read(encode(ReadRequest(True, kinds, [one, txn, one]))))
        )
        assert reply.errors == [0, 0, 0]
        assert RangeResponse.FromString(reply.bodies[0]).kvs[0].value == b"a2"
        values = [
            response.response_range.kvs[0].value
            for response in TxnResponse.FromString(reply.bodies[1]).responses
        ]
        assert values == [b"a1", b"a2", b"a3", b"a4"]
        assert reply.bodies[2] == reply.bodies[0]


def test_members_that_are_told_of_the_leaders_death_do_not_wait_for_the_timeout(tmp_path: Path) -> None:
    patient = Timing(heartbeat_ms=50, election_ms=300_000)
    with LocalCluster(tmp_path, timing=patient) as cluster:
        first = cluster.spec.members[0].id
        cluster.campaign(first)  # the first election cannot wait for the time-out either
        cluster.open_session(SESSION)
        died = cluster.leader().spec.id
        assert died == first
        cluster.isolate(died)
        for member in cluster.board.members.values():
            member.member_died(died)
        assert cluster.put(SESSION, 1, b"key", b"value").member != died
