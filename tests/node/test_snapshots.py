"""Snapshots that meet each other on their way. The plain case is in `test_member`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from etcray.node.envelope import SnapshotChunk, decode_snapshot_chunk_reply, encode
from etcray.node.opened import OpenMember
from etcray.node.snapshots import REFUSED
from etcray_storage.commands import Payload, encode_batch, encode_payload
from etcray_storage.types import MemberId, SnapshotMeta
from tests.node.local_cluster import WAIT_SECONDS, LocalCluster, put_batch, wait_for

SESSION = 77


def opened(cluster: LocalCluster, member: MemberId) -> OpenMember:
    found = cluster.board.members[member]._opened
    assert found is not None
    return found


def newest_snapshot(leader: OpenMember, recipient: MemberId, directory: Path) -> SnapshotChunk:
    """All of it in one piece, as the leader would send it."""
    leader.flush()
    file = leader.tables.export_snapshot(directory)
    fence = leader.replica.fence
    return SnapshotChunk(
        fence.cluster,
        fence.member,
        fence.incarnation,
        recipient,
        file.meta,
        file.sha256,
        file.size_bytes,
        0,
        file.path.read_bytes(),
    )


def test_a_newer_snapshot_does_not_take_the_place_of_one_that_was_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the simulation found: 1. The core of a lagging member accepts snapshot X; the job that installs it
    # waits. 2. A newer snapshot Y arrives whole, and takes the place of X's file. 3. The install finds no
    # file, and the member ends.
    monkeypatch.setattr("etcray.node.opened.LOG_CATCH_UP_ENTRIES", 5)
    with LocalCluster(tmp_path / "data") as cluster:
        cluster.open_session(SESSION)
        leader = cluster.leader().spec.id
        lagging = next(spec.id for spec in cluster.spec.members if spec.id != leader)
        cluster.isolate(lagging)
        expected = {b"key%d" % number: b"value" for number in range(1, 101)}
        for sequence, key in enumerate(expected, start=1):
            cluster.put(SESSION, sequence, key, b"value")
        wait_for(lambda: opened(cluster, leader).log.base_index > 20 or None, "a trimmed log")

        may_install = threading.Event()

        def hold_up() -> None:
            may_install.wait(WAIT_SECONDS)

        assert opened(cluster, lagging).maintainer.submit(hold_up)
        cluster.heal()
        installer = opened(cluster, lagging).installer
        accepted = wait_for(lambda: installer._accepted, "an accepted snapshot")
        cluster.put(SESSION, 101, b"last", b"one")
        leading = opened(cluster, cluster.leader().spec.id)
        newer = newest_snapshot(leading, lagging, tmp_path / "newer")
        assert newer.meta.index > accepted.index
        reply = cluster.board.members[lagging].receive_snapshot_chunk(encode(newer))
        assert decode_snapshot_chunk_reply(reply).next_offset == REFUSED

        may_install.set()
        assert cluster.wait_until_equal() == expected | {b"last": b"one"}


def test_nothing_is_forgotten_of_the_log_between_a_snapshots_state_and_the_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the simulation found: 1. A member has entries that are not committed, and accepts a snapshot of
    # about the same index. 2. Its state is in place, the log is not reset to it yet. 3. The flusher finds
    # that the tables hold more than the log has to keep, and tells the core, which never came that far: the
    # member ends.
    monkeypatch.setattr("etcray.node.opened.LOG_CATCH_UP_ENTRIES", 5)
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        deposed = cluster.leader().spec.id
        member = opened(cluster, deposed)
        cluster.isolate(deposed)
        for sequence in range(1, 41):
            lost = encode_batch(put_batch(SESSION, sequence, {b"lost": b"value"}))
            member.driver.propose(encode_payload(Payload(0, [lost])))
        expected = {b"key%d" % number: b"value" for number in range(1, 31)}
        for sequence, key in enumerate(expected, start=101):
            cluster.put(SESSION, sequence, key, b"value")
        leader = cluster.leader().spec.id
        wait_for(lambda: opened(cluster, leader).log.base_index > 20 or None, "a trimmed log")

        met: list[tuple[int, BaseException | None]] = []
        reset_log = member.driver.reset_log

        def flush_before_reset(meta: SnapshotMeta) -> None:
            try:
                member.flush()
                met.append((member.log.last_index, None))
            except AssertionError as error:
                met.append((member.log.last_index, error))
            reset_log(meta)

        monkeypatch.setattr(member.driver, "reset_log", flush_before_reset)
        cluster.heal()
        last, error = wait_for(lambda: met[0] if met else None, "a reset of the log")
        assert cluster.wait_until_equal() == expected
        assert error is None
        assert last > 20, "the log was reset before"
