"""The background check finds what changed on the disk behind everybody's back."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from etcray_storage.commands import Batch
from etcray_storage.errors import StorageCorruptError
from etcray_storage.limits import VERIFY_STEP_BYTES, VERIFY_STEP_ROWS
from etcray_storage.log import Log, Record, verification
from etcray_storage.log.verification import Verifier as LogVerifier
from etcray_storage.machine.machine import StateMachine
from etcray_storage.mvcc import verification as tables_verification
from etcray_storage.mvcc.rows import RevisionRow
from etcray_storage.mvcc.tables import Tables
from etcray_storage.mvcc.verification import Verifier as TablesVerifier
from etcray_storage.types import Entry, EntryKind, HardState, Index, MemberId, Term
from tests.storage.machine_driver import MEMBERS, SESSION, MachineDriver
from tests.storage.tables_model import delete, flush, put, puts


def nothing_differs(_rows: Sequence[RevisionRow]) -> RevisionRow | None:
    return None


def run_pass(verifier: TablesVerifier | LogVerifier) -> None:
    while not verifier.step():
        pass


def flip_a_bit(path: Path, offset: int) -> None:
    file = os.open(path, os.O_RDWR)
    (byte,) = os.pread(file, 1, offset)
    os.pwrite(file, bytes([byte ^ 0x10]), offset)
    os.close(file)


def large_offsets(path: Path) -> list[int]:
    """One byte in each of DuckDB's blocks of 256 KiB, behind the headers, where data is."""
    return [block + 4_096 for block in range(3 * 4_096, path.stat().st_size - 8_192, 262_144)]


# --- the tables ---------------------------------------------------------------------------------


def test_sound_tables_pass_again_and_again_with_all_their_rows_seen(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    tables.stage(puts(1, 2, 3 * VERIFY_STEP_ROWS))
    tables.write()
    seen: list[int] = []

    def look(rows: Sequence[RevisionRow]) -> RevisionRow | None:
        seen.extend(row.main for row in rows)
        return None

    verifier = tables.verifier(look)
    for first in (2, 2):
        steps = [verifier.step()]
        while not steps[-1]:
            steps.append(verifier.step())
        assert len(steps) >= 3
        assert seen == list(range(first, 3 * VERIFY_STEP_ROWS + 2))
        seen.clear()
        tables.maintain(force=True)
    tables.close()
    assert not verifier.step()


def test_transaction_larger_than_a_fetch_is_seen_whole(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    rows = [put(2, b"k%04d" % n, sub=n) for n in range(VERIFY_STEP_ROWS + 500)]
    tables.stage(flush(1, [*rows, delete(3, b"k0001")]))
    tables.write()
    seen: list[tuple[int, int]] = []

    def look(found: Sequence[RevisionRow]) -> RevisionRow | None:
        seen.extend((row.main, row.sub) for row in found)
        return None

    verifier = tables.verifier(look)
    run_pass(verifier)
    assert seen == [(2, n) for n in range(VERIFY_STEP_ROWS + 500)] + [(3, 0)]
    tables.close()


def test_bit_that_flips_under_running_tables_is_found_although_memory_has_the_block(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    tables.stage(flush(1, [put(2 + n, b"k%d" % n, os.urandom(300)) for n in range(20_000)]))
    tables.write()
    tables.maintain(force=True)
    verifier = tables.verifier(nothing_differs)
    run_pass(verifier)
    path = tmp_path / "mvcc-00000002.duckdb"
    for offset in large_offsets(path):
        flip_a_bit(path, offset)
    before = sum(len(batch) for batch in tables.load_history())
    assert before == 20_000, "answered from memory: only a check that reads the disk can know"
    with pytest.raises(StorageCorruptError, match="checksum"):
        run_pass(verifier)


def test_check_waits_for_a_long_read_to_end(tmp_path: Path) -> None:
    """It would take that read's memory away."""
    tables = Tables.open(tmp_path)
    verifier = tables.verifier(nothing_differs)
    with tables.reading():
        assert not verifier.step()
    assert verifier.step()
    tables.close()


def test_rows_that_no_machine_makes_are_found(tmp_path: Path) -> None:
    for number, row in enumerate(
        (
            put(2, b"a")._replace(version=0),
            put(2, b"a")._replace(create_revision=3),
            delete(2, b"a")._replace(lease=5),
            delete(2, b"a")._replace(value=b"left"),
        )
    ):
        tables = Tables.open(tmp_path / str(number))
        tables.stage(flush(1, [row]))
        tables.write()
        with pytest.raises(StorageCorruptError, match=r"revision 2\.0 cannot be"):
            tables.verifier(nothing_differs).step()
        tables.close()


def test_rows_out_of_order_are_found(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    tables.stage(flush(1, [put(2, b"a", sub=1), put(2, b"b", sub=0)]))
    tables.write()
    with pytest.raises(StorageCorruptError, match=r"revision 2\.0 stands behind 2\.1"):
        tables.verifier(nothing_differs).step()
    tables.close()


def machine_on(tables: Tables) -> MachineDriver:
    driver = MachineDriver()
    driver.machine = StateMachine(tables, MEMBERS)
    driver.apply_batches(Batch(SESSION, 0, 0, b"", []))
    return driver


def write(tables: Tables, driver: MachineDriver) -> None:
    made = driver.machine.take_flush()
    assert made is not None
    tables.stage(made)
    tables.write()


def test_rows_agree_with_the_memory_that_made_them_through_deletions_and_compactions(tmp_path: Path) -> None:
    tables = Tables.open(tmp_path)
    driver = machine_on(tables)
    for number in range(200):
        driver.put(b"k%d" % (number % 9), b"%d" % number)
        if number % 4 == 0:
            driver.delete(b"k%d" % (number % 5), b"k%d" % (number % 7))
        if number % 30 == 0:
            write(tables, driver)
        if number % 50 == 49:
            driver.compact(driver.revision - 20)
    for force in (False, True):
        write(tables, driver)
        tables.maintain(force=force)
        assert tables.verifier(driver.machine.find_difference).step() is False
        assert tables.verifier(driver.machine.find_difference).step() is False
        driver.put(b"not written yet", b"")
    tables.close()


@pytest.mark.parametrize("damage", ["value", "missing", "more", "undead"])
def test_memory_and_disk_that_differ_are_found(tmp_path: Path, damage: str) -> None:
    tables = Tables.open(tmp_path)
    driver = machine_on(tables)
    driver.put(b"a", b"1")
    driver.put(b"b", b"1")
    driver.delete(b"b")
    driver.put(b"a", b"2")
    made = driver.machine.take_flush()
    assert made is not None
    rows = list(made.rows)
    if damage == "value":
        rows[3] = rows[3]._replace(value=b"3")
    elif damage == "missing":
        driver.machine._store.index._records.pop(b"b")
    elif damage == "more":
        rows[2] = rows[2]._replace(key=b"c")
    else:
        rows[2] = put(rows[2].main, b"b")
    tables.stage(made._replace(rows=rows))
    tables.write()
    with pytest.raises(StorageCorruptError, match="is not what memory holds"):
        tables.verifier(driver.machine.find_difference).step()
    tables.close()


@pytest.mark.parametrize("seed", range(4))
def test_sound_tables_are_never_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever is written, compacted and rewritten between two steps."""
    monkeypatch.setattr(tables_verification, "VERIFY_STEP_ROWS", 7)
    monkeypatch.setattr(tables_verification, "_BATCH_ROWS", 3)
    choices = random.Random(seed)
    tables = Tables.open(tmp_path)
    driver = machine_on(tables)
    verifier = tables.verifier(driver.machine.find_difference)
    passes = 0
    for _ in range(300):
        key = b"k%d" % choices.randrange(20)
        if choices.random() < 0.8:
            driver.put(key, os.urandom(3))
        else:
            driver.delete(key, b"k9")
        if choices.random() < 0.1:
            driver.compact(choices.randint(driver.machine.compact_revision + 1, driver.revision))
        if choices.random() < 0.3:
            write(tables, driver)
            tables.maintain(force=choices.random() < 0.2)
        passes += verifier.step()
    assert passes > 5, "no pass came to an end"
    tables.close()


# --- the log ------------------------------------------------------------------------------------


def append(log: Log, count: int, size: int = 300) -> None:
    for _ in range(count):
        entry = Entry(Index(log.last_index + 1), Term(1), EntryKind.COMMANDS, os.urandom(size))
        log.append(Record(HardState(Term(1), MemberId(1), Index(0)), (entry,)))
    log.maintain()


def test_sound_log_passes_while_it_grows_and_is_compacted(tmp_path: Path) -> None:
    log = Log.open(tmp_path / "log", segment_rows=50)
    verifier = log.verifier()
    for _ in range(4):
        append(log, 120)
        while not verifier.step():
            append(log, 1)
        log.compact(Index(log.last_index - 60))
    log.reset(Index(log.last_index + 10), Term(2), HardState(Term(2), MemberId(1), Index(0)))
    assert verifier.step()
    log.close()
    assert not verifier.step()


@pytest.mark.parametrize("kept", [20, 16, 7, 1])
def test_segments_that_go_while_a_pass_is_under_way_are_passed_over(tmp_path: Path, kept: int) -> None:
    """Only those that were checked, the one that is half checked with them, or some more."""
    log = Log.open(tmp_path / "log", segment_rows=5)
    append(log, 30, size=VERIFY_STEP_BYTES // 6)
    verifier = log.verifier()
    assert not verifier.step()
    log.compact(Index(log.last_index - kept))
    assert not (tmp_path / "log" / "log-000000000002.duckdb").exists()
    run_pass(verifier)
    run_pass(verifier)
    log.close()


@pytest.mark.parametrize("seed", range(4))
def test_sound_log_is_never_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever happens between two steps, wherever in a segment the first of them ended."""
    monkeypatch.setattr(verification, "VERIFY_STEP_ROWS", 3)
    choices = random.Random(seed)
    log = Log.open(tmp_path / "log", segment_rows=5)
    verifier = log.verifier()
    passes = 0
    for _ in range(300):
        append(log, choices.randint(0, 4), size=10)
        if choices.random() < 0.3:
            log.compact(Index(choices.randint(log.base_index, log.last_index)))
        passes += verifier.step()
    assert passes > 5, "no pass came to an end"
    log.close()


def test_bit_that_flips_in_a_closed_segment_is_found(tmp_path: Path) -> None:
    log = Log.open(tmp_path / "log", segment_rows=250)
    append(log, 550, size=1_200)
    verifier = log.verifier()
    assert verifier.step()
    path = tmp_path / "log" / "log-000000000001.duckdb"
    for offset in large_offsets(path):
        flip_a_bit(path, offset)
    with pytest.raises(StorageCorruptError):
        verifier.step()


def test_row_that_was_replaced_by_another_sound_row_is_found(tmp_path: Path) -> None:
    """DuckDB's checksums are right, the chain is not: a write that went to the wrong place."""
    log = Log.open(tmp_path / "log", segment_rows=500)
    append(log, 20)
    engine = log._files_engine
    engine.execute("CREATE TEMP TABLE other AS SELECT record FROM log_1.records WHERE rowid = 7")
    engine.execute("UPDATE log_1.records SET record = (SELECT record FROM other) WHERE rowid = 9")
    with pytest.raises(StorageCorruptError, match="expected checksum"):
        log.verifier().step()
    log.close()


def test_row_that_is_gone_is_found(tmp_path: Path) -> None:
    log = Log.open(tmp_path / "log", segment_rows=500)
    append(log, 20)
    log._files_engine.execute("DELETE FROM log_1.records WHERE rowid = 20")
    with pytest.raises(StorageCorruptError, match="expected 21 rows, found 20"):
        log.verifier().step()
    log.close()
