"""The differential test finds differences, and explains away only what it is told to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from etcray_storage import errors
from etcray_storage.errors import Code
from etcray_storage.proto.kv_pb2 import KeyValue
from etcray_storage.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from tests.differential import stores
from tests.differential.calls import Answer, Call, PendingAnswer, Side
from tests.differential.comparison import Comparison
from tests.differential.meant import meant, unasked
from tests.differential.shrinking import shrink


class Forgetful(Side):
    """Loses the value of every put to one key."""

    def start(self, call: Call) -> PendingAnswer:
        request = call.request
        if isinstance(request, PutRequest) and request.key == b"z":
            lossy = PutRequest()
            lossy.CopyFrom(request)
            lossy.value = b""
            return super().start(Call(lossy))
        return super().start(call)


@pytest.fixture
def good() -> Iterator[Side]:
    with stores.one_member()() as side:
        yield side


@pytest.fixture
def forgetful() -> Iterator[Side]:
    with stores.serving_member() as endpoint, Forgetful(endpoint) as side:
        yield side


def test_a_lost_value_is_found_and_can_be_repeated(good: Side, forgetful: Side) -> None:
    difference = Comparison().generated(good, forgetful, seed=1, requests=3_000)
    assert difference is not None
    with stores.one_member()() as fresh:
        calls = list(Comparison().recorded(fresh, 1, difference.number + 1))
    assert calls[-1] == difference.call
    assert str(difference.number) in difference.describe()


def test_recorded_requests_show_the_difference_again(good: Side, forgetful: Side) -> None:
    calls = [
        Call(PutRequest(key=b"a", value=b"1")),
        Call(PutRequest(key=b"z", value=b"2")),
        Call(RangeRequest(key=b"a")),
        Call(RangeRequest(key=b"z")),
    ]
    difference = Comparison().replayed(good, forgetful, calls)
    assert difference is not None
    assert difference.number == 3


def test_equal_sides_do_not_differ_and_every_kind_of_answer_occurs(good: Side) -> None:
    comparison = Comparison()
    with stores.one_member()() as other:
        assert comparison.generated(good, other, seed=2, requests=3_000) is None
    texts = {text for _, text in comparison.tally.answers}
    assert texts >= {
        error.message
        for error in (
            *(errors.EMPTY_KEY, errors.KEY_NOT_FOUND, errors.VALUE_PROVIDED, errors.LEASE_PROVIDED),
            *(errors.TOO_MANY_OPS, errors.DUPLICATE_KEY, errors.INVALID_SORT_OPTION),
            *(errors.COMPACTED, errors.FUTURE_REV, errors.LEASE_NOT_FOUND, errors.REQUEST_TOO_LARGE),
        )
    }
    succeeded = sum(count for (_, text), count in comparison.tally.answers.items() if text == "OK")
    assert succeeded > comparison.tally.requests // 2


def test_shrinking_leaves_only_what_is_needed() -> None:
    def fails(items: Sequence[int]) -> bool:
        return 17 in items and 4_711 in items

    assert shrink(range(5_000), fails, attempts=1_000) == [17, 4_711]


def test_shrinking_stops_after_its_attempts() -> None:
    calls: list[int] = []

    def fails(items: Sequence[int]) -> bool:
        calls.append(len(items))
        return 99 in items

    assert 99 in shrink(range(1_000), fails, attempts=3)
    assert len(calls) == 3


# --- what is explained away -------------------------------------------------------------------


def pairs(*items: tuple[bytes, int], more: bool = False) -> Answer:
    kvs = [KeyValue(key=key, version=version) for key, version in items]
    return Answer(Code.OK, "", RangeResponse(kvs=kvs, more=more, count=9))


BY_VERSION = RangeRequest(key=b"\0", range_end=b"\0", sort_target=RangeRequest.VERSION)


def test_ties_may_come_in_any_order() -> None:
    assert meant(BY_VERSION, pairs((b"a", 1), (b"b", 1)), pairs((b"b", 1), (b"a", 1)))


def test_what_is_no_tie_may_not_change_places() -> None:
    assert not meant(BY_VERSION, pairs((b"a", 1), (b"b", 2)), pairs((b"b", 2), (b"a", 1)))


def test_a_tie_must_still_hold_the_same_keys() -> None:
    assert not meant(BY_VERSION, pairs((b"a", 1), (b"b", 1)), pairs((b"a", 1), (b"c", 1)))


def test_only_the_last_tie_may_be_cut_differently() -> None:
    assert meant(BY_VERSION, pairs((b"a", 1), (b"b", 2), more=True), pairs((b"a", 1), (b"c", 2), more=True))
    assert not meant(
        BY_VERSION, pairs((b"a", 1), (b"b", 2), more=True), pairs((b"c", 1), (b"b", 2), more=True)
    )


def test_a_range_sorted_by_key_has_no_ties() -> None:
    request = RangeRequest(key=b"\0", range_end=b"\0")
    assert not meant(request, pairs((b"a", 1), (b"b", 1)), pairs((b"b", 1), (b"a", 1)))


def put(key: bytes) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key))


def delete(key: bytes, range_end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=range_end))


def nested(*ops: RequestOp) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(success=ops))


@pytest.mark.parametrize(
    "ops",
    [
        pytest.param([put(b"c"), delete(b"b", b"\0")], id="delete with an open end"),
        pytest.param([nested(put(b"c")), nested(delete(b"c"))], id="sibling deletes later"),
    ],
)
def test_changing_a_key_twice_unnoticed_is_asked_of_etcray_only(ops: list[RequestOp]) -> None:
    rule = unasked(TxnRequest(failure=ops))
    assert rule is not None
    assert rule.answer is errors.DUPLICATE_KEY


@pytest.mark.parametrize(
    "ops",
    [
        pytest.param([put(b"c"), put(b"c")], id="etcd sees two puts"),
        pytest.param([put(b"c"), delete(b"b", b"d")], id="etcd sees the delete"),
        pytest.param([put(b"c"), delete(b"c", b"a")], id="the delete is empty"),
        pytest.param([delete(b"a", b"\0"), delete(b"b", b"\0")], id="deletes may overlap"),
        pytest.param([put(b""), put(b"c"), delete(b"b", b"\0")], id="malformed anyway"),
    ],
)
def test_everything_else_is_asked_of_both(ops: list[RequestOp]) -> None:
    assert unasked(TxnRequest(success=ops)) is None


def test_unknown_sort_options_are_asked_of_etcray_only() -> None:
    bad = RangeRequest(key=b"a", sort_target=9)  # type: ignore[arg-type]
    for request in (bad, TxnRequest(success=[nested(RequestOp(request_range=bad))])):
        rule = unasked(request)
        assert rule is not None
        assert rule.answer is errors.INVALID_SORT_OPTION
    assert unasked(TxnRequest(compare=[Compare()], success=[RequestOp(request_range=bad)])) is None


def test_another_error_is_not_explained_by_the_order_of_checks() -> None:
    request = TxnRequest(success=[put(b"a"), RequestOp(request_range=RangeRequest(key=b"a", revision=9))])
    missing = Answer(Code.INVALID_ARGUMENT, errors.KEY_NOT_FOUND.message, None)
    future = Answer(Code.OUT_OF_RANGE, errors.FUTURE_REV.message, None)
    assert not meant(request, missing, future)
    request.success[0].request_put.ignore_value = True
    assert meant(request, missing, future)
    assert not meant(request, future, missing)
