"""The state machine as a whole: single commands, entries, flushes, and what must never stop it."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcray_storage import errors
from etcray_storage.commands import Batch, BatchAnswer, CommandKind, ReadKind, encode_batch
from etcray_storage.machine import state_hash
from etcray_storage.machine.machine import StateMachine
from etcray_storage.mvcc.rows import RevisionRow
from etcray_storage.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    MemberListResponse,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from etcray_storage.types import Entry, EntryKind, Index, Term

from .machine_driver import MEMBERS, SESSION, MachineDriver, MemoryTables


def test_a_fresh_store_is_at_revision_1_and_its_first_write_is_2() -> None:
    driver = MachineDriver()
    assert (driver.revision, driver.machine.compact_revision) == (1, -1)
    driver.put(b"a")
    assert driver.revision == 2


def test_put_gives_the_previous_pair_if_there_was_one() -> None:
    driver = MachineDriver()
    assert not driver.put(b"a", b"1", prev_kv=True).HasField("prev_kv")
    previous = driver.put(b"a", b"2", prev_kv=True).prev_kv
    assert (previous.key, previous.value, previous.mod_revision) == (b"a", b"1", 2)


def test_put_of_the_same_value_moves_the_revision() -> None:
    driver = MachineDriver()
    driver.put(b"a", b"1")
    driver.put(b"a", b"1")
    (kv,) = driver.read(RangeRequest(key=b"a")).kvs
    assert (kv.mod_revision, kv.version) == (3, 2)


def test_put_can_keep_the_value() -> None:
    driver = MachineDriver()
    driver.put(b"a", b"1")
    driver.put(b"a", ignore_value=True)
    (kv,) = driver.read(RangeRequest(key=b"a")).kvs
    assert (kv.value, kv.version) == (b"1", 2)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PutRequest(key=b"a", ignore_value=True), errors.KEY_NOT_FOUND),
        (PutRequest(key=b"a", ignore_lease=True), errors.KEY_NOT_FOUND),
        (PutRequest(key=b"a", lease=7), errors.LEASE_NOT_FOUND),
        (PutRequest(key=b"a", lease=7, ignore_value=True), errors.LEASE_NOT_FOUND),
        (PutRequest(), errors.EMPTY_KEY),
        (DeleteRangeRequest(), errors.EMPTY_KEY),
        (CompactionRequest(revision=2), errors.FUTURE_REV),
        (CompactionRequest(revision=-1), errors.COMPACTED),
    ],
)
def test_a_refused_command_changes_nothing(
    request_: PutRequest | DeleteRangeRequest | CompactionRequest, error: errors.EtcdError
) -> None:
    assert MachineDriver().error(request_) == error.number


def test_delete_tells_how_many_and_moves_the_revision_once() -> None:
    driver = MachineDriver()
    for key in (b"a", b"b", b"c"):
        driver.put(key, key)
    response = driver.delete(b"a", b"c", prev_kv=True)
    assert (response.deleted, [kv.value for kv in response.prev_kvs]) == (2, [b"a", b"b"])
    assert driver.revision == 5
    assert len(driver.delete(b"c").prev_kvs) == 0


def test_delete_of_nothing_keeps_the_revision() -> None:
    driver = MachineDriver()
    assert driver.delete(b"a", b"\0").deleted == 0
    assert driver.revision == 1


def test_compaction_of_what_is_compacted_is_refused_and_of_the_newest_is_not() -> None:
    driver = MachineDriver()
    driver.compact(0)
    for _ in range(4):
        driver.put(b"a")
    driver.compact(5)
    assert (driver.revision, driver.machine.compact_revision) == (5, 5)
    for revision in (5, 4, 0):
        assert driver.error(CompactionRequest(revision=revision)) == errors.COMPACTED.number
    assert driver.error(CompactionRequest(revision=6)) == errors.FUTURE_REV.number


def test_rows_carry_the_clock_of_the_entry_and_the_flush_its_index() -> None:
    driver = MachineDriver()
    driver.put(b"a", b"1")
    driver.delete(b"a")
    flush = driver.flush()
    assert flush is not None
    assert (flush.applied_index, flush.applied_term, flush.revision, flush.compact_revision) == (3, 3, 3, -1)
    assert flush.rows == [
        RevisionRow(2, 0, b"a", b"1", 2, 1, 0, False, 1_010, ""),
        RevisionRow(3, 0, b"a", b"", 0, 0, 0, True, 1_015, ""),
    ]


def test_time_never_goes_back_not_even_over_a_restart() -> None:
    """A new leader's clock is behind, or the only member's clock was set back."""
    driver = MachineDriver()
    driver.put(b"a")
    latest = driver.time_ms
    for _ in range(2):
        driver.time_ms = 7
        driver.put(b"a")
        flush = driver.flush()
        assert flush is not None
        assert flush.rows[-1].time_ms == latest
        driver.restart()


def test_an_entry_without_data_moves_only_the_index() -> None:
    driver = MachineDriver()
    driver.flush()
    machine = driver.machine
    assert machine.apply(Entry(Index(2), Term(9), EntryKind.COMMANDS, b"")) == []
    assert (machine.applied_index, machine.applied_term, machine.revision) == (2, 9, 1)
    flush = driver.flush()
    assert flush is not None
    assert (flush.applied_index, flush.rows) == (2, [])
    assert [item.part for item in flush.items] == [state_hash.PART]
    assert driver.flush() is None


def test_entries_must_come_in_order() -> None:
    machine = MachineDriver().machine
    for index in (1, 3):
        with pytest.raises(AssertionError, match=f"entry {index} after 1"):
            machine.apply(Entry(Index(index), Term(3), EntryKind.COMMANDS, b""))


def test_commands_of_a_batch_are_answered_one_by_one() -> None:
    driver = MachineDriver()
    put = PutRequest(key=b"a").SerializeToString()
    (answer,) = driver.apply_batches(Batch(SESSION, 1, 0, bytes([1, 9, 1, 1]), [put, put, b"\xff\xff", put]))
    malformed = errors.MALFORMED_REQUEST.number
    assert answer == BatchAnswer(SESSION, 1, [2, 2, 2, 3], [0, malformed, malformed, 0], [b"", b"", b"", b""])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        encode_batch(Batch(SESSION, 1, 0, b"\x01\x01", [b""])),
        encode_batch(Batch(-1, 0, 0, b"", [])),
        encode_batch(Batch(SESSION, -1, 0, b"", [])),
    ],
)
def test_a_batch_that_is_none_gets_an_empty_answer(data: bytes) -> None:
    driver = MachineDriver()
    good = encode_batch(Batch(SESSION, 1, 0, b"\x01", [PutRequest(key=b"a").SerializeToString()]))
    answers = driver.apply_raw([data, good])
    assert answers[0] == BatchAnswer(0, 0, [], [], [])
    assert answers[1].errors == [0]
    assert driver.flush() is not None


def test_a_deeply_nested_txn_is_answered() -> None:
    request = b""
    for _ in range(3_000):  # RequestOp{request_txn} in TxnRequest.success, over and over
        inner = b"\x22" + _varint(len(request)) + request
        request = b"\x12" + _varint(len(inner)) + inner
    answer = MachineDriver().apply_command(CommandKind.TXN, request)
    assert answer.errors == [errors.MALFORMED_REQUEST.number]


def test_the_deepest_txn_that_protobuf_reads_is_applied() -> None:
    request = TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"deep"))])
    for _ in range(48):
        request = TxnRequest(success=[RequestOp(request_txn=request)])
    driver = MachineDriver()
    driver.txn(request)
    assert driver.read(RangeRequest(key=b"deep")).count == 1


def _varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 255), st.binary(max_size=60))
def test_no_bytes_of_a_client_can_stop_the_machine(kind: int, request: bytes) -> None:
    driver = MachineDriver()
    driver.put(b"a", b"1")
    for command in range(1, 6):
        driver.apply_command(command, request)
    driver.apply_command(kind, request)
    for read in ReadKind:
        driver.machine.read(read, request)
    applied = driver.machine.applied_index
    pair = driver.read(RangeRequest(key=b"a"))
    driver.restart()
    assert driver.machine.applied_index == applied
    assert driver.read(RangeRequest(key=b"a")) == pair


def test_members_are_listed_as_given_and_without_a_revision() -> None:
    answer = MachineDriver().machine.read(ReadKind.MEMBER_LIST, b"")
    assert (answer.revision, answer.error) == (0, 0)
    one, two = MemberListResponse.FromString(answer.body).members
    assert (one.ID, one.name, list(one.peerURLs), list(one.clientURLs), one.isLearner) == (
        11,
        "one",
        ["http://one:2380"],
        ["http://one:2379", "http://one:9"],
        False,
    )
    assert (two.ID, two.name, list(two.clientURLs), two.isLearner) == (12, "two", [], True)


def test_a_read_of_unknown_kind_is_an_error_answer() -> None:
    answer = MachineDriver().machine.read(99, b"")  # type: ignore[arg-type]
    assert answer.error == errors.MALFORMED_REQUEST.number


def test_restore_refuses_items_that_it_does_not_know() -> None:
    driver = MachineDriver()
    flush = driver.flush()
    assert flush is not None
    unknown = flush.items[0]._replace(part="surprise")
    driver.tables.items["surprise", b""] = unknown
    with pytest.raises(AssertionError, match="surprise"):
        driver.tables.restore()


def test_large_values_are_kept_whole() -> None:
    driver = MachineDriver()
    value = os.urandom(1 << 20)
    driver.put(b"a" * 300, value)
    driver.restart()
    assert driver.read(RangeRequest(key=b"a" * 300)).kvs[0].value == value


def test_a_damaged_payload_stops_the_machine() -> None:
    """The payload is the leader's own work and the log has checksums: this is no client's doing."""
    machine = StateMachine(MemoryTables(), MEMBERS)
    with pytest.raises(msgspec.DecodeError):
        machine.apply(Entry(Index(1), Term(1), EntryKind.COMMANDS, b"\xc1"))


def with_lease() -> MachineDriver:
    driver = MachineDriver()
    driver.grant(9)
    driver.put(b"a", b"1", lease=9)
    driver.restart()
    return driver


def test_put_can_keep_the_lease_and_otherwise_detaches_it() -> None:
    driver = with_lease()
    driver.put(b"a", b"2", ignore_lease=True)
    assert driver.read(RangeRequest(key=b"a")).kvs[0].lease == 9
    driver.put(b"a", b"3")
    assert driver.read(RangeRequest(key=b"a")).kvs[0].lease == 0
    assert driver.read(RangeRequest(key=b"a", revision=2)).kvs[0].lease == 9


def test_keys_only_drops_the_lease_unless_sorting_by_value() -> None:
    driver = with_lease()
    (kv,) = driver.read(RangeRequest(key=b"a", keys_only=True)).kvs
    assert (kv.value, kv.lease) == (b"", 0)
    request = RangeRequest(key=b"a", keys_only=True, sort_target=RangeRequest.VALUE)
    (kv,) = driver.read(request).kvs
    assert (kv.value, kv.lease) == (b"", 9)
