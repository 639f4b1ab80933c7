"""What a log holds, across appends, conflicts, segments, compaction, reset and reopening."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest

from etcray_storage import limits
from etcray_storage.engine import Engine, sync_directory
from etcray_storage.errors import DataDirectoryError, StorageFatalError
from etcray_storage.log import CompactedError, Log, Record
from etcray_storage.log import log as log_module
from etcray_storage.log.record import Checksum, Sequence
from etcray_storage.log.segment import Segment
from etcray_storage.log.tip import TipFile
from etcray_storage.types import Entry, EntryKind, HardState, Index, MemberId, Term

from .log_workload import ALL, all_entries, entry, fill, record, segment_files, small


def test_new_log_is_empty_and_knows_that_it_is_new(tmp_path: Path) -> None:
    log = Log.open(tmp_path / "log")
    assert log.is_new
    assert (log.base_index, log.base_term, log.first_index, log.last_index) == (0, 0, 1, 0)
    assert log.hard_state == HardState()
    assert log.term(Index(0)) == 0
    log.close()
    again = Log.open(tmp_path / "log")
    assert not again.is_new
    again.close()


def test_hard_state_without_entries_survives_reopening(tmp_path: Path) -> None:
    log = Log.open(tmp_path / "log")
    vote = HardState(Term(4), MemberId(1 << 63), Index(0))
    log.append(Record(vote, ()))
    log.close()
    again = Log.open(tmp_path / "log")
    assert again.hard_state == vote
    assert again.last_index == 0
    again.close()


def test_a_log_that_is_not_synced_survives_the_end_of_its_process(tmp_path: Path) -> None:
    """The rows are with the operating system when an append returns; only the disk is not waited for."""
    directory = tmp_path / "log"
    program = (
        "import os, signal, sys; from pathlib import Path;"
        "from etcray_storage.log import Log; from tests.storage.log_workload import fill;"
        "log = Log.open(Path(sys.argv[1]), is_synced=False); fill(log, 20);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(directory)], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    again = Log.open(directory)
    assert again.last_index == 20
    again.close()


def test_kind_of_an_entry_survives_reopening(tmp_path: Path) -> None:
    """A change of membership that came back as a mere command would leave members with other voters."""
    log = small(tmp_path / "log")
    kinds = [EntryKind.COMMANDS, EntryKind.MEMBERSHIP, EntryKind.COMMANDS]
    entries = tuple(Entry(Index(n + 1), Term(1), kind, b"x") for n, kind in enumerate(kinds))
    log.append(Record(HardState(Term(1)), entries))
    assert all_entries(log) == list(entries)
    log.close()
    again = small(tmp_path / "log")
    found = all_entries(again)
    assert [one.kind for one in found] == kinds
    assert all(isinstance(one.kind, EntryKind) for one in found)
    again.close()


def test_conflicting_suffix_is_replaced(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    log.append(record(1, count=5, term=1))
    log.append(record(3, count=1, term=2))
    expected = [entry(1), entry(2), entry(3, 2)]
    assert all_entries(log) == expected
    assert [log.term(Index(index)) for index in range(4)] == [0, 1, 1, 2]
    log.close()
    again = small(tmp_path / "log")
    assert all_entries(again) == expected
    again.close()


def test_conflict_reaches_back_over_segments_that_are_then_removed(tmp_path: Path) -> None:
    """The oldest segment that is left begins after entries that its own rows replaced."""
    log = small(tmp_path / "log")
    fill(log, 8)
    log.append(record(3, count=2, term=2))
    fill(log, 0)
    log.compact(Index(2))
    assert len(segment_files(tmp_path / "log")) == 1
    log.close()
    again = small(tmp_path / "log")
    assert (again.base_index, again.base_term) == (2, 1)
    assert all_entries(again) == [entry(3, 2), entry(4, 2)]
    again.close()


def test_entries_stop_at_the_limit_but_give_at_least_one(tmp_path: Path) -> None:
    for cache_bytes in (0, limits.LOG_CACHE_BYTES):
        log = Log.open(tmp_path / f"log-{cache_bytes}", segment_rows=4, cache_bytes=cache_bytes)
        fill(log, 12, data=b"x" * 100)
        log.append(record(13, count=6, data=b"y" * 100))
        assert [e.index for e in log.entries(Index(2), Index(18), 0)] == [2]
        assert [e.index for e in log.entries(Index(2), Index(18), 399)] == [2, 3, 4]
        assert [e.index for e in log.entries(Index(2), Index(18), 400)] == [2, 3, 4, 5]
        assert [e.index for e in log.entries(Index(14), Index(16), ALL)] == [14, 15, 16]
        log.close()


def test_the_newest_entries_that_fit_a_number_of_bytes_are_known(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    assert log.first_within(1_000) == 1
    fill(log, 10, data=b"x" * 1_000)
    assert log.first_within(ALL) == 1
    assert log.first_within(3_500) == 8
    assert log.first_within(10) == 11
    log.compact(Index(5))
    assert log.first_within(ALL) == 6
    log.close()


def test_compaction_removes_files_and_keeps_the_hard_state(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    log.append(Record(HardState(Term(9), MemberId(3), Index(0)), ()))
    for index in range(1, 20):
        log.append(Record(log.hard_state, (entry(index, 9),)))
    before = len(segment_files(tmp_path / "log"))
    log.compact(Index(17))
    assert len(segment_files(tmp_path / "log")) < before
    log.compact(Index(5))  # below the base: nothing to do
    for _ in range(2):
        assert (log.base_index, log.base_term, log.first_index) == (17, 9, 18)
        assert log.hard_state == HardState(Term(9), MemberId(3), Index(0))
        assert [e.index for e in all_entries(log)] == [18, 19]
        with pytest.raises(CompactedError):
            log.entries(Index(17), Index(18), ALL)
        with pytest.raises(CompactedError):
            log.term(Index(16))
        log.close()
        log = small(tmp_path / "log")
    log.close()


def test_compaction_of_everything_leaves_a_log_to_append_to(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    fill(log, 9)
    log.compact(Index(9))
    assert log.last_index == 9
    log.append(record(10, term=2))
    log.close()
    again = small(tmp_path / "log")
    assert all_entries(again) == [entry(10, 2)]
    assert again.term(Index(9)) == 1
    again.close()


def test_reset_forgets_all_and_goes_on_after_the_snapshot(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    fill(log, 9)
    state = HardState(Term(5), MemberId(2), Index(100))
    log.reset(Index(100), Term(5), state)
    for _ in range(2):
        assert (log.base_index, log.base_term, log.last_index) == (100, 5, 100)
        assert log.hard_state == state
        assert len(segment_files(tmp_path / "log")) == 1
        log.close()
        log = small(tmp_path / "log")
    log.append(record(101, term=5, commit=100))
    assert all_entries(log) == [entry(101, 5)]
    log.close()


def test_maintenance_prepares_the_next_segment_and_checkpoints_closed_ones(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    log = small(directory)
    fill(log, 2)
    assert len(segment_files(directory)) == 1
    log.maintain()
    assert len(segment_files(directory)) == 2
    fill(log, 8)
    assert len(list(directory.glob("*.wal"))) == len(log_segments := segment_files(directory))
    log.maintain()
    assert len(list(directory.glob("*.wal"))) == 1
    assert len(segment_files(directory)) >= len(log_segments)
    assert [e.index for e in all_entries(log)] == list(range(1, 11))
    log.close()
    again = small(directory)
    assert [e.index for e in all_entries(again)] == list(range(1, 11))
    again.close()


def test_reads_from_other_threads_agree_while_the_log_grows_and_is_compacted(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    fill(log, 10)
    stop = threading.Event()
    failures: list[BaseException] = []
    reads = [0]

    def read() -> None:
        while not stop.is_set():
            first, last = log.first_index, log.last_index
            try:
                got = log.entries(first, last, ALL)
            except CompactedError:
                continue
            except BaseException as e:
                failures.append(e)
                return
            reads[0] += 1
            if [e.index for e in got] != list(range(first, first + len(got))) or not got:
                failures.append(AssertionError(f"{first}..{last}: {got}"))

    def maintain() -> None:
        while not stop.wait(0.001):
            try:
                log.maintain()
                log.compact(Index(max(log.last_index - 6, log.base_index)))
            except BaseException as e:
                failures.append(e)
                return

    threads = [
        threading.Thread(target=read),
        threading.Thread(target=read),
        threading.Thread(target=maintain),
    ]
    for thread in threads:
        thread.start()
    fill(log, 150)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert reads[0]
    log.close()


def test_tip_of_a_newer_format_is_told_apart_from_damage(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    fill(log, 2)
    log.close()
    fields = (2, 99, 3, 0, 2, 1, 0, 0, 1)
    slot = struct.pack(">9QQ", *fields, zlib.crc32(struct.pack(">9Q", *fields)))
    (tmp_path / "log" / "tip").write_bytes(slot.ljust(8192, b"\0"))
    with pytest.raises(DataDirectoryError, match="has format 2, this version reads 1"):
        small(tmp_path / "log")


def test_programmer_errors_are_asserted(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    log.append(record(1, count=3, term=2, commit=1))
    with pytest.raises(AssertionError, match="begins at 5"):
        log.append(record(5, term=2, commit=1))
    with pytest.raises(AssertionError, match="term goes back from 2 to 1"):
        log.append(record(4, term=1, commit=1))
    with pytest.raises(AssertionError, match="commit goes back from 1 to 0"):
        log.append(record(4, term=2))
    with pytest.raises(AssertionError, match="beyond the last, 3"):
        log.term(Index(4))
    with pytest.raises(AssertionError, match="beyond the last, 3"):
        log.entries(Index(1), Index(4), ALL)
    log.compact(Index(2))
    with pytest.raises(AssertionError, match="begins at 2"):
        log.append(record(2, term=2, commit=1))
    log.append(record(3, term=2, commit=1))
    log.close()


def test_a_failed_write_ends_the_log(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    fill(log, 2)
    log._engine.execute("DETACH log_1")  # the next INSERT fails in a way that nobody planned for
    with pytest.raises(StorageFatalError):
        log.append(record(3))
    for call in (
        lambda: log.append(record(3)),
        lambda: log.compact(Index(1)),
        lambda: log.term(Index(1)),
        lambda: log.entries(Index(1), Index(1), ALL),
        lambda: log.reset(Index(5), Term(1), log.hard_state),
        log.maintain,
    ):
        with pytest.raises(StorageFatalError, match="start the member again"):
            call()
    log.close()
    again = small(tmp_path / "log")
    assert all_entries(again) == [entry(1), entry(2)]
    again.close()


def test_torn_write_of_the_tip_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "tip"
    tip = TipFile.create(path)
    for sequence in (1, 2):
        tip.advance(Sequence(sequence), Checksum(5), Index(sequence), Term(1))
    tip.close()
    newest = path.read_bytes()
    tip = TipFile.open(path)
    tip.advance(Sequence(3), Checksum(5), Index(3), Term(1))
    tip.close()
    whole = path.read_bytes()
    changed = [at for at in range(len(whole)) if whole[at] != newest[at]]
    for cut in range(changed[0], changed[-1] + 1):
        path.write_bytes(whole[:cut] + newest[cut:])
        tip = TipFile.open(path)
        assert tip.tip.sequence in (2, 3)
        tip.close()


def test_tip_is_durable_before_segments_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a power loss brings back a tip that misses them."""
    calls: list[str] = []
    drop, sync = Segment.drop, os.fdatasync

    def noted_drop(self: Segment, engine: Engine) -> None:
        calls.append("removed")
        drop(self, engine)

    def noted_sync(descriptor: int) -> None:
        calls.append("synced")
        sync(descriptor)

    log = small(tmp_path / "log")
    fill(log, 9)
    monkeypatch.setattr(Segment, "drop", noted_drop)
    monkeypatch.setattr(os, "fdatasync", noted_sync)
    log.compact(Index(8))
    log.close()
    assert calls[:2] == ["synced", "removed"]


def test_name_of_a_segments_wal_is_durable_before_its_first_row_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = small(tmp_path / "log")
    fill(log, 3)
    log.maintain()  # the next segment is ready: its own name is durable already
    synced: list[Path] = []

    def noted_sync(path: Path) -> None:
        assert list(path.glob("log-*2.duckdb.wal")), "synced before the WAL was there"
        synced.append(path)
        sync_directory(path)

    monkeypatch.setattr(log_module, "sync_directory", noted_sync)
    fill(log, 1)
    assert synced == [tmp_path / "log"]
    log.close()
