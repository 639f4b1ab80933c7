"""KV.Txn: the rules and quirks of etcd-behaviour, one by one."""

from __future__ import annotations

import pytest

from etcray_storage import errors
from etcray_storage.commands import ReadKind
from etcray_storage.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

from .machine_driver import MachineDriver

ALL = b"\0"


def put(key: bytes, value: bytes = b"v", **options: bool | int) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, value=value, **options))  # type: ignore[arg-type]


def get(key: bytes, range_end: bytes = b"", **options: bool | int) -> RequestOp:
    request = RangeRequest(key=key, range_end=range_end, **options)  # type: ignore[arg-type]
    return RequestOp(request_range=request)


def delete(key: bytes, range_end: bytes = b"", prev_kv: bool = False) -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv))


def nested(request: TxnRequest) -> RequestOp:
    return RequestOp(request_txn=request)


def exists(key: bytes) -> Compare:
    return Compare(key=key, target=Compare.CREATE, result=Compare.NOT_EQUAL, create_revision=0)


def filled() -> MachineDriver:
    """a = 1 at revision 2, b = 2 at revision 3."""
    driver = MachineDriver()
    driver.put(b"a", b"1")
    driver.put(b"b", b"2")
    return driver


def holds(driver: MachineDriver, *compares: Compare) -> bool:
    answer = driver.machine.read(ReadKind.TXN, TxnRequest(compare=compares).SerializeToString())
    assert answer.error == 0
    return TxnResponse.FromString(answer.body).succeeded


@pytest.mark.parametrize("result", list(Compare.CompareResult.values()))
def test_a_value_compare_on_a_missing_key_is_false(result: Compare.CompareResult) -> None:
    compare = Compare(key=b"missing", target=Compare.VALUE, result=result, value=b"")
    assert not holds(filled(), compare)
    compare.range_end = b"n"
    assert not holds(filled(), compare)


@pytest.mark.parametrize(
    ("target", "union"),
    [
        (Compare.VERSION, "version"),
        (Compare.CREATE, "create_revision"),
        (Compare.MOD, "mod_revision"),
        (Compare.LEASE, "lease"),
    ],
)
def test_a_missing_key_compares_as_zero(target: Compare.CompareTarget, union: str) -> None:
    compare = Compare(key=b"missing", target=target, result=Compare.EQUAL)
    setattr(compare, union, 0)
    assert holds(filled(), compare)
    setattr(compare, union, 1)
    assert not holds(filled(), compare)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Compare.EQUAL, [False, True, False]),
        (Compare.NOT_EQUAL, [True, False, True]),
        (Compare.GREATER, [True, False, False]),
        (Compare.LESS, [False, False, True]),
    ],
)
def test_operators_compare_the_stored_with_the_given(
    result: Compare.CompareResult, expected: list[bool]
) -> None:
    driver = filled()
    for given, outcome in zip((2, 3, 4), expected, strict=True):
        mod = Compare(key=b"b", target=Compare.MOD, result=result, mod_revision=given)
        assert holds(driver, mod) == outcome
    for text, outcome in zip((b"1\xff", b"2", b"2\x00"), expected, strict=True):
        value = Compare(key=b"b", target=Compare.VALUE, result=result, value=text)
        assert holds(driver, value) == outcome


def test_a_union_that_does_not_fit_the_target_counts_as_zero() -> None:
    assert holds(filled(), Compare(key=b"missing", target=Compare.VERSION, mod_revision=7))


def test_unknown_compare_enums_are_answered() -> None:
    driver = filled()
    compare = Compare(key=b"a", version=9)
    compare.result = 77  # type: ignore[assignment]
    assert holds(driver, compare)
    compare = Compare(key=b"a", result=Compare.EQUAL, version=9)
    compare.target = -5  # type: ignore[assignment]
    assert holds(driver, compare)


def test_with_a_range_every_key_must_hold() -> None:
    driver = filled()
    compare = Compare(key=b"a", range_end=ALL, target=Compare.MOD, result=Compare.LESS, mod_revision=4)
    assert holds(driver, compare)
    compare.mod_revision = 3
    assert not holds(driver, compare)


def test_all_compares_must_hold() -> None:
    assert holds(filled(), exists(b"a"), exists(b"b"))
    assert not holds(filled(), exists(b"a"), exists(b"x"))


def test_the_branch_is_told_and_run() -> None:
    driver = filled()
    request = TxnRequest(compare=[exists(b"a")], success=[put(b"s")], failure=[put(b"f")])
    response = driver.txn(request)
    assert response.succeeded
    assert driver.read(RangeRequest(key=b"s")).count == 1
    request.compare.add().CopyFrom(exists(b"x"))
    assert not driver.txn(request).succeeded
    assert driver.read(RangeRequest(key=b"f")).count == 1


def test_one_revision_for_all_changes_numbered_by_sub_revision() -> None:
    driver = filled()
    driver.flush()
    driver.txn(TxnRequest(success=[put(b"c"), delete(b"a", b"c"), put(b"d")]))
    assert driver.revision == 4
    flush = driver.flush()
    assert flush is not None
    assert [(r.main, r.sub, r.key, r.tombstone) for r in flush.rows] == [
        (4, 0, b"c", False),
        (4, 1, b"a", True),
        (4, 2, b"b", True),
        (4, 3, b"d", False),
    ]


def test_reads_see_the_writes_before_them_and_headers_say_so() -> None:
    driver = filled()
    response = driver.txn(TxnRequest(success=[get(b"c"), put(b"c"), get(b"c"), delete(b"x")]))
    first, write, second, nothing = response.responses
    assert (first.response_range.count, first.response_range.header.revision) == (0, 3)
    assert write.response_put.header.revision == 4
    assert (second.response_range.count, second.response_range.header.revision) == (1, 4)
    assert second.response_range.kvs[0].mod_revision == 4
    assert nothing.response_delete_range.header.revision == 4
    assert second.response_range.header.cluster_id == 0


def test_a_read_at_the_revision_before_the_txn_does_not_see_its_writes() -> None:
    driver = filled()
    for flushed in (False, True):
        if flushed:
            driver.flush()
        now = driver.revision
        before = driver.read(RangeRequest(key=b"a"))
        response = driver.txn(TxnRequest(success=[put(b"a", b"new"), get(b"a", revision=now)]))
        assert response.responses[1].response_range.kvs == before.kvs


def test_a_txn_that_changes_nothing_keeps_the_revision() -> None:
    driver = filled()
    for request in (
        TxnRequest(),
        TxnRequest(compare=[exists(b"x")], success=[put(b"y")]),
        TxnRequest(success=[delete(b"x", b"z"), get(b"a")]),
    ):
        driver.txn(request)
        assert driver.revision == 3


def test_nested_compares_see_the_state_before_the_whole_txn() -> None:
    driver = filled()
    inner = TxnRequest(compare=[exists(b"new")], success=[put(b"yes")], failure=[put(b"no")])
    response = driver.txn(TxnRequest(success=[put(b"new"), nested(inner)]))
    assert not response.responses[1].response_txn.succeeded
    assert driver.read(RangeRequest(key=b"no")).count == 1


def test_nested_txns_run_in_order_each_on_its_own_branch() -> None:
    driver = filled()
    first = TxnRequest(compare=[exists(b"a")], success=[put(b"c", b"first")])
    second = TxnRequest(compare=[exists(b"missing")], failure=[get(b"c")])
    response = driver.txn(TxnRequest(success=[nested(first), nested(second)]))
    inner = [one.response_txn for one in response.responses]
    assert [one.succeeded for one in inner] == [True, False]
    assert inner[1].responses[0].response_range.kvs[0].value == b"first"


def test_the_header_of_an_inner_txn_is_present_but_empty() -> None:
    response = filled().txn(TxnRequest(success=[nested(TxnRequest(success=[put(b"c")]))]))
    inner = response.responses[0].response_txn
    assert inner.HasField("header")
    assert inner.header.revision == 0
    assert inner.responses[0].response_put.header.revision == 4


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (get(b"a", revision=4), errors.FUTURE_REV),
        (get(b"a", revision=1), errors.COMPACTED),
        (get(b"a", revision=-1), errors.COMPACTED),
        (put(b"c", lease=5), errors.LEASE_NOT_FOUND),
        (put(b"c", b"", ignore_value=True), errors.KEY_NOT_FOUND),
        (put(b"c", ignore_lease=True), errors.KEY_NOT_FOUND),
        (nested(TxnRequest(success=[get(b"a", revision=4)])), errors.FUTURE_REV),
    ],
)
def test_what_cannot_be_done_is_found_before_anything_is_written(
    op: RequestOp, error: errors.EtcdError
) -> None:
    driver = filled()
    driver.compact(2)
    driver.flush()
    assert driver.error(TxnRequest(success=[put(b"z"), op])) == error.number
    assert driver.read(RangeRequest(key=b"z")).count == 0
    flush = driver.flush()
    assert flush is not None
    assert flush.rows == []


def test_the_first_impossible_operation_names_the_error() -> None:
    driver = filled()
    ops = [get(b"a", revision=9), put(b"c", lease=5)]
    assert driver.error(TxnRequest(success=ops)) == errors.FUTURE_REV.number
    assert driver.error(TxnRequest(success=ops[::-1])) == errors.LEASE_NOT_FOUND.number


def test_only_the_chosen_branch_is_checked() -> None:
    driver = filled()
    driver.txn(TxnRequest(success=[put(b"c")], failure=[get(b"a", revision=99)]))
    assert driver.revision == 4


def test_a_negative_revision_is_the_newest_on_a_store_that_never_was_compacted() -> None:
    driver = filled()
    response = driver.txn(TxnRequest(success=[get(b"a", revision=-1), put(b"c")]))
    assert response.responses[0].response_range.count == 1
    assert driver.error(TxnRequest(success=[get(b"a", revision=-2), put(b"c")])) == errors.COMPACTED.number


def test_put_and_delete_in_a_txn_give_previous_pairs() -> None:
    response = filled().txn(TxnRequest(success=[put(b"a", prev_kv=True), delete(b"b", prev_kv=True)]))
    assert response.responses[0].response_put.prev_kv.value == b"1"
    assert response.responses[1].response_delete_range.prev_kvs[0].value == b"2"


def test_overlapping_deletes_delete_once() -> None:
    response = filled().txn(TxnRequest(success=[delete(b"a"), delete(b"a", b"c")]))
    assert [op.response_delete_range.deleted for op in response.responses] == [1, 1]


def test_a_duplicate_that_a_gateway_let_through_is_refused_in_apply() -> None:
    driver = filled()
    assert driver.error(TxnRequest(success=[put(b"c"), put(b"c")])) == errors.DUPLICATE_KEY.number
    assert driver.read(RangeRequest(key=b"c")).count == 0


def test_the_read_path_refuses_a_txn_that_could_write() -> None:
    driver = filled()
    for request in (TxnRequest(failure=[put(b"c")]), TxnRequest(success=[nested(TxnRequest())])):
        answer = driver.machine.read(ReadKind.TXN, request.SerializeToString())
        assert answer.error == errors.MALFORMED_REQUEST.number
    assert driver.revision == 3
