"""From records to etcd's messages and back; and what an error tells about the request."""

from __future__ import annotations

import pytest

from etcray_storage.errors import (
    COMPACTED,
    FUTURE_REV,
    LEADER_CHANGED,
    NO_LEADER,
    NO_SPACE,
    REQUEST_TOO_MANY_REQUESTS,
    SESSION_EXPIRED,
    TIMEOUT,
    EtcdError,
)
from etcray_storage.proto import kv_pb2 as kv
from etcray_storage.proto import rpc_pb2 as rpc
from tests.consistency.history import (
    Compare,
    Delete,
    DeleteAnswer,
    Event,
    Outcome,
    Put,
    PutAnswer,
    Range,
    RangeAnswer,
    Refusal,
    Relation,
    Target,
    Txn,
    TxnAnswer,
)
from tests.consistency.messages import AnswerReader, encode, event_of, outcome_of_error

PAIR = (b"a", b"1", 2, 3, 4)
MESSAGE = kv.KeyValue(key=b"a", value=b"1", create_revision=2, mod_revision=3, version=4)
HEADER = rpc.ResponseHeader(revision=7, member_id=5)


def test_a_transaction_reaches_the_wire_as_it_was_meant() -> None:
    compares = (
        Compare(b"a", Target.VALUE, Relation.NOT_EQUAL, b"1"),
        Compare(b"b", Target.CREATE, Relation.LESS, 5),
        Compare(b"c", Target.MOD, Relation.GREATER, 6),
        Compare(b"d", Target.VERSION, Relation.EQUAL, 7),
    )
    inner = Txn((), (Put(b"x", b"y"),))
    txn = Txn(compares, (Put(b"a", b"2", True), Delete(b"b", b"c"), inner), (Range(b"a", b"\0", 3, 4, True),))
    message = rpc.TxnRequest.FromString(encode(txn))
    kinds = rpc.Compare
    assert [(c.target, c.result) for c in message.compare] == [
        (kinds.VALUE, kinds.NOT_EQUAL),
        (kinds.CREATE, kinds.LESS),
        (kinds.MOD, kinds.GREATER),
        (kinds.VERSION, kinds.EQUAL),
    ]
    assert message.compare[0].value == b"1"
    assert (message.compare[1].create_revision, message.compare[2].mod_revision) == (5, 6)
    assert message.compare[3].version == 7
    assert message.success[0].request_put == rpc.PutRequest(key=b"a", value=b"2", prev_kv=True)
    assert message.success[1].request_delete_range == rpc.DeleteRangeRequest(key=b"b", range_end=b"c")
    assert message.success[2].request_txn.success[0].request_put.value == b"y"
    expected = rpc.RangeRequest(key=b"a", range_end=b"\0", revision=3, limit=4, count_only=True)
    assert message.failure[0].request_range == expected


def test_answers_are_read_with_their_revision_and_member() -> None:
    reader = AnswerReader()
    put = rpc.PutResponse(header=HEADER, prev_kv=MESSAGE)
    assert reader.read(Put(b"a", b"2"), put.SerializeToString()) == (PutAnswer(PAIR), 7, 5)
    found = rpc.RangeResponse(header=HEADER, kvs=[MESSAGE], count=9, more=True)
    answer, *_ = reader.read(Range(b"a"), found.SerializeToString())
    assert answer == RangeAnswer((PAIR,), 9, True)
    deleted = rpc.DeleteRangeResponse(header=HEADER, deleted=1, prev_kvs=[MESSAGE])
    parts = [rpc.ResponseOp(response_delete_range=deleted), rpc.ResponseOp(response_put=rpc.PutResponse())]
    txn = rpc.TxnResponse(header=HEADER, succeeded=True, responses=parts)
    assert reader.read(Txn((), ()), txn.SerializeToString()) == (
        TxnAnswer(True, (DeleteAnswer(1, (PAIR,)), PutAnswer())),
        7,
        5,
    )


def test_events_are_read() -> None:
    assert event_of(kv.Event(kv=MESSAGE), 1.5) == Event(3, b"a", b"1", 2, 4, 1.5)
    gone = kv.Event(type=kv.Event.DELETE, kv=kv.KeyValue(key=b"a", mod_revision=8))
    assert event_of(gone) == Event(8, b"a", None)


@pytest.mark.parametrize(
    ("error", "outcome", "refusal"),
    [
        (COMPACTED, Outcome.REFUSED, Refusal.COMPACTED),
        (FUTURE_REV, Outcome.REFUSED, Refusal.FUTURE_REVISION),
        (NO_SPACE, Outcome.REFUSED, Refusal.OTHER),
        (REQUEST_TOO_MANY_REQUESTS, Outcome.REFUSED, Refusal.OTHER),
        (TIMEOUT, Outcome.UNKNOWN, None),
        (NO_LEADER, Outcome.UNKNOWN, None),
        (LEADER_CHANGED, Outcome.UNKNOWN, None),
        (SESSION_EXPIRED, Outcome.UNKNOWN, None),
    ],
    ids=lambda value: value.message if isinstance(value, EtcdError) else "",
)
def test_only_who_looked_at_a_request_can_say_that_it_was_not_done(
    error: EtcdError, outcome: Outcome, refusal: Refusal | None
) -> None:
    assert outcome_of_error(error.code, error.message) == (outcome, refusal)
