"""The key index: what it keeps, and what compaction lets go."""

from __future__ import annotations

from etcray_storage.mvcc.key_index import UNBOUNDED, KeyIndex
from etcray_storage.mvcc.rows import RevisionRow


def found(index: KeyIndex, revision: int) -> dict[bytes, int]:
    return {record.key: main for record, main in index.mains_at(b"\0", UNBOUNDED, revision)}


def history(index: KeyIndex, key: bytes) -> list[int] | None:
    ((record, _),) = index.mains_at(key, b"", 1 << 40)
    return None if record.history is None else list(record.history)


def test_a_key_written_once_has_no_history() -> None:
    index = KeyIndex()
    index.put(b"a", b"1", 2, 0)
    assert history(index, b"a") is None
    index.put(b"a", b"2", 5, 0)
    assert history(index, b"a") == [2 << 1]


def test_a_deleted_key_is_kept_while_its_history_can_be_read() -> None:
    index = KeyIndex()
    index.put(b"a", b"1", 2, 0)
    assert index.delete(b"a", b"", 3) == [b"a"]
    assert index.get(b"a") is None
    assert index.count(b"\0", UNBOUNDED) == 0
    assert (found(index, 2), found(index, 3)) == ({b"a": 2}, {})
    index.trim(2)
    assert found(index, 2) == {b"a": 2}
    index.trim(3)
    assert found(index, 2) == {}
    assert index._records == {}
    assert list(index._dead) == []


def test_what_was_before_a_deletion_is_kept_by_a_compaction_right_before_it() -> None:
    index = KeyIndex()
    index.put(b"a", b"1", 2, 0)
    index.put(b"a", b"2", 3, 0)
    index.delete(b"a", b"", 4)
    index.trim(3)
    assert (found(index, 3), found(index, 4)) == ({b"a": 3}, {})


def test_a_key_is_not_there_between_two_of_its_lives() -> None:
    index = KeyIndex()
    index.put(b"a", b"1", 2, 0)
    index.delete(b"a", b"", 4)
    index.put(b"a", b"2", 6, 0)
    assert [found(index, revision) for revision in range(1, 8)] == [
        {},
        {b"a": 2},
        {b"a": 2},
        {},
        {},
        {b"a": 6},
        {b"a": 6},
    ]


def test_trimming_keeps_the_newest_revision_at_the_compacted_one() -> None:
    index = KeyIndex()
    for main in range(2, 8):
        index.put(b"a", b"%d" % main, main, 0)
    index.trim(4)
    assert history(index, b"a") == [4 << 1, 5 << 1, 6 << 1]
    index.trim(7)
    assert history(index, b"a") is None


def test_trimming_drops_a_tombstone_that_a_later_life_follows() -> None:
    index = KeyIndex()
    index.put(b"a", b"1", 2, 0)
    index.delete(b"a", b"", 3)
    index.put(b"a", b"2", 4, 0)
    index.put(b"a", b"3", 5, 0)
    index.trim(3)
    assert history(index, b"a") == [4 << 1]
    assert (found(index, 3), found(index, 4), found(index, 5)) == ({}, {b"a": 4}, {b"a": 5})


def test_trimming_goes_in_bounded_steps_that_reads_do_not_notice() -> None:
    index = KeyIndex()
    for main in range(2, 102):
        index.put(b"k%d" % (main % 10), b"", main, 0)
    before = found(index, 60)
    for _ in range(200):
        index.trim(60, 1)
        assert found(index, 60) == before
    assert len(index._superseded_mains) == len(index._superseded_records) == 41


def test_a_key_recreated_after_its_record_was_trimmed_is_not_trimmed_with_it() -> None:
    """1. A key is written, deleted and written again; the index remembers two supersessions.
    2. A compaction between the deletion and the second life removes the record. 3. The new record of
    the same key must survive whatever the queue still holds about the old one."""
    index = KeyIndex()
    index.put(b"a", b"1", 2, 0)
    index.put(b"a", b"2", 3, 0)
    index.delete(b"a", b"", 4)
    index.trim(4, 1)
    assert index._records == {}
    index.put(b"a", b"3", 5, 0)
    index.trim(5)
    assert found(index, 5) == {b"a": 5}
    assert list(index._live) == [b"a"]


def test_deleting_a_range_moves_exactly_its_keys() -> None:
    index = KeyIndex()
    for n in range(100):
        index.put(b"%02d" % n, b"", n + 2, 0)
    assert index.delete(b"10", b"20", 200) == [b"%02d" % n for n in range(10, 20)]
    assert index.count(b"\0", UNBOUNDED) == 90
    assert index.delete(b"10", b"20", 201) == []
    assert index.delete(b"20", b"10", 201) == []
    assert len(index.delete(b"\0", UNBOUNDED, 202)) == 90
    assert (index.count(b"\0", UNBOUNDED), len(found(index, 199)), len(found(index, 200))) == (0, 100, 90)


def test_a_limit_takes_the_first_keys() -> None:
    index = KeyIndex()
    for n in range(10):
        index.put(b"%d" % n, b"", n + 2, 0)
    assert [record.key for record in index.records(b"3", UNBOUNDED, 2)] == [b"3", b"4"]
    assert index.keys(b"3", b"6") == [b"3", b"4", b"5"]


def test_restore_from_rows_of_a_compacted_table() -> None:
    """Key a lost its first revision to a compaction; b's tombstone lost what it ended."""
    index = KeyIndex()
    index.restore([[(b"a", 4, False), (b"b", 5, True)], [(b"a", 6, False), (b"c", 7, False)]])
    for key, main in ((b"c", 7), (b"a", 6)):
        index.restore_pair(RevisionRow(main, 0, key, b"v", 4, 3, 0, False, 0, ""))
    index.restore_done()
    assert (found(index, 4), found(index, 7)) == ({b"a": 4}, {b"a": 6, b"c": 7})
    record = index.get(b"a")
    assert record is not None
    assert (record.value(), record.create_revision, record.version) == (b"v", 4, 3)
    index.trim(5)
    assert b"b" not in index._records
