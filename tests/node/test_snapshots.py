"""Snapshots that meet each other on their way. The plain case is in `test_member`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from etcray.node.envelope import SnapshotChunk, decode_snapshot_chunk_reply, encode
from etcray.node.opened import OpenMember
from etcray.node.snapshots import REFUSED
from etcray_storage.types import MemberId
from tests.node.local_cluster import WAIT_SECONDS, LocalCluster, wait_for

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
