"""What a member makes of the combinations of log and tables that it may find at a start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from etcray.spec import Timing
from etcray_storage.errors import StorageCorruptError
from etcray_storage.log import Log, Record
from etcray_storage.types import NOBODY, Entry, EntryKind, HardState, Index
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


@pytest.mark.parametrize("further", [0, 50])
@pytest.mark.parametrize("knows_the_term", [True, False])
def test_tables_with_an_entry_that_the_log_does_not_have_begin_it_anew(
    tmp_path: Path, further: int, knows_the_term: bool
) -> None:
    """What a crash leaves that hits an install between the tables and the log. The log may be longer, by
    entries of an older term that were never committed; and the new leader's term may not be in it."""
    cluster = stopped_member(tmp_path)
    member = cluster.spec.members[0]
    directory = Path(member.data_directory, "log")
    shutil.copytree(directory, tmp_path / "old")
    cluster.start(member.id)
    cluster.put(SESSION, 2, b"key", b"newer")
    cluster.stop(member.id)
    newer = Log.open(directory)
    term = newer.hard_state.term
    newer.close()
    shutil.rmtree(directory)
    shutil.copytree(tmp_path / "old", directory)
    log = Log.open(directory)
    known = log.hard_state
    assert known.term < term
    indexes = range(log.last_index + 1, log.last_index + 1 + further)
    never_committed = tuple(Entry(Index(i), known.term, EntryKind.COMMANDS, b"") for i in indexes)
    stored = HardState(term, NOBODY, known.commit) if knows_the_term else known
    log.append(Record(stored, never_committed))
    log.close()
    with cluster:
        cluster.start(member.id)
        assert cluster.get(b"key") == b"newer"
        cluster.put(SESSION, 3, b"key", b"newest")
        cluster.stop(member.id)
        cluster.start(member.id)
        assert cluster.get(b"key") == b"newest"


def test_a_lost_log_is_noticed(tmp_path: Path) -> None:
    cluster = stopped_member(tmp_path)
    member = cluster.spec.members[0]
    shutil.rmtree(Path(member.data_directory, "log"))
    with pytest.raises(StorageCorruptError, match="the log is gone"):
        cluster.start(member.id)


def test_tables_older_than_the_log_begins_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.node.opened.LOG_CATCH_UP_ENTRIES", 0)
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
