"""What a member makes of the combinations of log and tables that it may find at a start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from etcray.spec import Timing
from etcray_storage.errors import StorageCorruptError
from tests.node.local_cluster import LocalCluster

SESSION = 5


def stopped_member(tmp_path: Path) -> LocalCluster:
    """A single member that holds a pair, stopped."""
    cluster = LocalCluster(tmp_path, nodes=1, timing=Timing(heartbeat_ms=30, election_ms=100))
    cluster.open_session(SESSION)
    cluster.put(SESSION, 1, b"key", b"value")
    cluster.stop(cluster.spec.members[0].id)
    return cluster


def test_tables_that_are_behind_the_log_are_brought_up_to_it(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, nodes=1, timing=Timing(heartbeat_ms=30, election_ms=100))
    cluster.open_session(SESSION)
    member = cluster.spec.members[0]
    tables = Path(member.data_directory, "tables")
    opened = cluster.leader()._opened
    assert opened is not None
    opened.flusher.close()
    shutil.copytree(tables, tmp_path / "old")
    cluster.put(SESSION, 1, b"key", b"value")
    cluster.stop(member.id)
    shutil.rmtree(tables)
    shutil.copytree(tmp_path / "old", tables)
    with cluster:
        cluster.start(member.id)
        assert cluster.get(b"key") == b"value"


def test_a_lost_log_is_noticed(tmp_path: Path) -> None:
    cluster = stopped_member(tmp_path)
    member = cluster.spec.members[0]
    shutil.rmtree(Path(member.data_directory, "log"))
    with pytest.raises(StorageCorruptError, match="the log is gone"):
        cluster.start(member.id)


def test_tables_older_than_the_log_begins_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.node.member.LOG_CATCH_UP_ENTRIES", 0)
    cluster = LocalCluster(tmp_path, nodes=1, timing=Timing(heartbeat_ms=30, election_ms=100))
    cluster.open_session(SESSION)
    member = cluster.spec.members[0]
    for sequence in range(1, 20):
        cluster.put(SESSION, sequence, b"key", b"%d" % sequence)
    cluster.stop(member.id)
    shutil.rmtree(Path(member.data_directory, "tables"))
    with pytest.raises(StorageCorruptError, match="entries between them are lost"):
        cluster.start(member.id)
    # Nothing stays open or locked after a refused start.
    with pytest.raises(StorageCorruptError, match="entries between them are lost"):
        cluster.start(member.id)
