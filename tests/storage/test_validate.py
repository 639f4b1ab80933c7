"""The static checks: which error, and which one first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from etcray_storage import errors
from etcray_storage.errors import EtcdError
from etcray_storage.limits import TXN_OPS_MAX
from etcray_storage.machine import validate
from etcray_storage.proto.rpc_pb2 import Compare, PutRequest, RangeRequest, RequestOp, TxnRequest

from .test_txn import delete, get, nested, put


def error_of(check: Callable[[], None]) -> int:
    try:
        check()
    except EtcdError as error:
        return error.number
    return 0


def txn_error(request: TxnRequest, ops_max: int = TXN_OPS_MAX) -> int:
    return error_of(lambda: validate.check_txn(request, ops_max))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PutRequest(key=b"a"), None),
        (PutRequest(), errors.EMPTY_KEY),
        (PutRequest(key=b"a", value=b"v", ignore_value=True), errors.VALUE_PROVIDED),
        (PutRequest(key=b"a", lease=1, ignore_lease=True), errors.LEASE_PROVIDED),
        (PutRequest(key=b"a", ignore_value=True, ignore_lease=True), None),
        (
            PutRequest(key=b"a", value=b"v", lease=1, ignore_value=True, ignore_lease=True),
            errors.VALUE_PROVIDED,
        ),
    ],
)
def test_put(request_: PutRequest, error: EtcdError | None) -> None:
    assert error_of(lambda: validate.check_put(request_)) == (error.number if error else 0)


def test_errors_are_fresh_each_time() -> None:
    raised = []
    for _ in range(2):
        with pytest.raises(EtcdError, match="key is not provided") as caught:
            validate.check_put(PutRequest())
        raised.append(caught.value)
    assert raised[0] is not raised[1]


def test_128_operations_are_allowed_and_129_are_not() -> None:
    ops = [put(b"%d" % n) for n in range(129)]
    assert txn_error(TxnRequest(success=ops[:128], failure=ops[:128])) == 0
    for request in (
        TxnRequest(success=ops),
        TxnRequest(failure=ops),
        TxnRequest(compare=[Compare(key=b"a")] * 129),
    ):
        assert txn_error(request) == errors.TOO_MANY_OPS.number


def test_a_nested_txn_may_use_what_its_parents_longest_list_leaves() -> None:
    inner = TxnRequest(success=[get(b"%d" % n) for n in range(3)])
    assert txn_error(TxnRequest(success=[nested(inner)], failure=[get(b"a")] * 2), 5) == 0
    assert txn_error(TxnRequest(success=[nested(inner)], failure=[get(b"a")] * 3), 5) == (
        errors.TOO_MANY_OPS.number
    )


def test_too_many_operations_come_before_bad_ones() -> None:
    assert txn_error(TxnRequest(success=[put(b"")] * 2), 1) == errors.TOO_MANY_OPS.number


def test_an_operation_that_is_none_is_key_not_found() -> None:
    assert txn_error(TxnRequest(success=[RequestOp()])) == errors.KEY_NOT_FOUND.number


def test_operations_are_checked_in_both_branches_and_inside() -> None:
    bad_sort = RequestOp(request_range=RangeRequest(key=b"a"))
    bad_sort.request_range.sort_order = 9  # type: ignore[assignment]
    for op, error in (
        (get(b""), errors.EMPTY_KEY),
        (delete(b""), errors.EMPTY_KEY),
        (put(b"a", ignore_value=True), errors.VALUE_PROVIDED),
        (bad_sort, errors.INVALID_SORT_OPTION),
    ):
        assert txn_error(TxnRequest(success=[op])) == error.number
        assert txn_error(TxnRequest(failure=[op])) == error.number
        assert txn_error(TxnRequest(failure=[nested(TxnRequest(success=[op]))])) == error.number
    assert txn_error(TxnRequest(compare=[Compare()])) == errors.EMPTY_KEY.number


@pytest.mark.parametrize(
    ("ops", "duplicate"),
    [
        ([put(b"a"), put(b"b")], False),
        ([put(b"a"), put(b"a")], True),
        ([put(b"a"), delete(b"a")], True),
        ([delete(b"a"), put(b"a")], True),
        ([put(b"b"), delete(b"a", b"c")], True),
        ([put(b"c"), delete(b"a", b"c")], False),
        ([put(b"a"), delete(b"a", b"a")], False),
        ([put(b"z"), delete(b"a", b"\0")], True),
        ([put(b"a"), delete(b"b", b"\0")], False),
        ([delete(b"a", b"c"), delete(b"a", b"c")], False),
        ([put(b"a"), get(b"a")], False),
        ([put(b"a"), nested(TxnRequest(success=[put(b"a")]))], True),
        ([put(b"a"), nested(TxnRequest(failure=[delete(b"a")]))], True),
        ([delete(b"a"), nested(TxnRequest(failure=[put(b"a")]))], True),
        ([nested(TxnRequest(success=[put(b"a")], failure=[put(b"a")]))], False),
        ([nested(TxnRequest(success=[put(b"a")])), nested(TxnRequest(failure=[put(b"a")]))], True),
        ([nested(TxnRequest(success=[put(b"a")])), nested(TxnRequest(success=[delete(b"a")]))], True),
        ([nested(TxnRequest(success=[put(b"a"), put(b"a")]))], True),
    ],
)
def test_a_key_may_change_once(ops: list[RequestOp], duplicate: bool) -> None:
    error = errors.DUPLICATE_KEY.number if duplicate else 0
    assert txn_error(TxnRequest(success=ops)) == error
    assert txn_error(TxnRequest(failure=ops)) == error


def test_branches_are_checked_separately() -> None:
    assert txn_error(TxnRequest(success=[put(b"a")], failure=[put(b"a")])) == 0


def test_only_ranges_make_a_txn_read_only() -> None:
    assert validate.is_read_only_txn(TxnRequest())
    assert validate.is_read_only_txn(TxnRequest(success=[get(b"a")], failure=[get(b"a")]))
    assert not validate.is_read_only_txn(TxnRequest(success=[get(b"a")], failure=[delete(b"a")]))
    assert not validate.is_read_only_txn(TxnRequest(success=[nested(TxnRequest(success=[get(b"a")]))]))


def test_a_txn_is_serializable_if_every_range_is() -> None:
    fresh, stale = get(b"a"), get(b"a", serializable=True)
    assert validate.is_serializable_txn(TxnRequest())
    assert validate.is_serializable_txn(TxnRequest(success=[stale], failure=[stale]))
    assert not validate.is_serializable_txn(TxnRequest(success=[stale], failure=[fresh]))
