"""JSON to protobuf and back: against protobuf's own JSON mapping, and in etcd's words for what is wrong."""

from __future__ import annotations

import json
import string
from contextlib import suppress
from typing import Any, cast

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from etcray.gateway.json_codec import MessageCodec, codec_for, parse_values
from etcray_storage.errors import Code, EtcdError
from etcray_storage.proto import election_pb2 as election
from etcray_storage.proto import kv_pb2 as kv
from etcray_storage.proto import rpc_pb2 as rpc

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
UINT64 = st.integers(0, (1 << 64) - 1)

headers = st.builds(rpc.ResponseHeader, cluster_id=UINT64, member_id=UINT64, revision=INT64, raft_term=UINT64)
pairs = st.builds(
    kv.KeyValue, key=st.binary(), value=st.binary(), create_revision=INT64, version=INT64, lease=INT64
)
puts = st.builds(rpc.PutRequest, key=st.binary(), value=st.binary(), lease=INT64, prev_kv=st.booleans())
ranges = st.builds(
    rpc.RangeRequest,
    key=st.binary(),
    range_end=st.binary(),
    limit=INT64,
    sort_order=st.sampled_from([0, 1, 2]),
    count_only=st.booleans(),
)
operations = st.builds(rpc.RequestOp, request_put=puts) | st.builds(rpc.RequestOp, request_range=ranges)
compares = st.builds(rpc.Compare, key=st.binary(), target=st.sampled_from([0, 3]), value=st.binary())
txns = st.builds(rpc.TxnRequest, compare=st.lists(compares), success=st.lists(operations))
members = st.builds(
    rpc.Member, ID=UINT64, name=st.text(), peerURLs=st.lists(st.text()), isLearner=st.booleans()
)
messages = st.one_of(
    puts,
    ranges,
    txns,
    st.builds(rpc.RangeResponse, header=headers, kvs=st.lists(pairs), more=st.booleans(), count=INT64),
    st.builds(rpc.MemberListResponse, header=headers, members=st.lists(members)),
    st.builds(
        rpc.AlarmResponse, alarms=st.lists(st.builds(rpc.AlarmMember, alarm=st.sampled_from([0, 1, 2])))
    ),
    st.builds(rpc.HashKVResponse, hash=st.integers(0, (1 << 32) - 1), compact_revision=INT64),
    st.builds(election.LeaderResponse, header=headers, kv=pairs),
)


def codec_of(message_type: type[Message]) -> MessageCodec:
    return codec_for(cast(Descriptor, message_type.DESCRIPTOR))


@given(messages)
def test_messages_are_written_as_protobufs_own_mapping_writes_them(message: Message) -> None:
    written = codec_of(type(message)).encode(message.SerializeToString())
    expected = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert json.loads(written) == expected


@given(messages, st.booleans())
def test_what_protobufs_own_mapping_writes_is_read_back(message: Message, proto_names: bool) -> None:
    text = json_format.MessageToJson(message, preserving_proto_field_name=proto_names)
    (value,) = parse_values(text.encode())
    assert codec_of(type(message)).decode(value) == message


def put(text: str) -> rpc.PutRequest:
    message = codec_of(rpc.PutRequest).decode(next(parse_values(text.encode()), None))
    assert isinstance(message, rpc.PutRequest)
    return message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", rpc.PutRequest()),
        (" \n", rpc.PutRequest()),
        ("null", rpc.PutRequest()),
        ("{} and what comes behind", rpc.PutRequest()),
        ('{"key": null, "lease": null, "nonsense": [{}, 1.5]}', rpc.PutRequest()),
        ('{"key": "-_8=", "value": "-_8"}', rpc.PutRequest(key=b"\xfb\xff", value=b"\xfb\xff")),
        ('{"key": "Zm\\n9v"}', rpc.PutRequest(key=b"foo")),
        ('{"lease": 7, "prevKv": true}', rpc.PutRequest(lease=7, prev_kv=True)),
        ('{"lease": "-7", "prev_kv": true}', rpc.PutRequest(lease=-7, prev_kv=True)),
        ('{"key": "YQ==", "key": "Yg=="}', rpc.PutRequest(key=b"b")),
    ],
)
def test_lenient_forms_are_read(text: str, message: rpc.PutRequest) -> None:
    assert put(text) == message


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "unexpected EOF"),
        ('{"key": "Z', "unexpected EOF"),
        ('{"key"}', "invalid character '}' after object key"),
        ('{"key": "YQ==",}', "invalid character '}' looking for beginning of object key string"),
        ("{'key': 1}", "invalid character '\\'' looking for beginning of object key string"),
        ('{"lease": x}', "invalid character 'x' looking for beginning of value"),
        ('{"lease": NaN}', "invalid character 'N' looking for beginning of value"),
        ("[]", "json: cannot unmarshal array into Go value of type map[string]json.RawMessage"),
        ("5", "json: cannot unmarshal number into Go value of type map[string]json.RawMessage"),
        ('{"key": 5}', "json: cannot unmarshal number into Go value of type []uint8"),
        ('{"key": "@@@"}', "illegal base64 data at input byte 0"),
        ('{"key": "YQ==YQ=="}', "illegal base64 data at input byte 0"),
        ('{"prev_kv": "true"}', "json: cannot unmarshal string into Go value of type bool"),
        ('{"prev_kv": 1}', "json: cannot unmarshal number into Go value of type bool"),
        ('{"lease": 1.5}', "json: cannot unmarshal number 1.5 into Go value of type int64"),
        ('{"lease": 1e1}', "json: cannot unmarshal number 1e1 into Go value of type int64"),
        ('{"lease": true}', "json: cannot unmarshal bool into Go value of type int64"),
        ('{"lease": {}}', "json: cannot unmarshal object into Go value of type int64"),
        ('{"lease": "x"}', "invalid character 'x' looking for beginning of value"),
        (
            '{"lease": 9223372036854775808}',
            "json: cannot unmarshal number 9223372036854775808 into Go value of type int64",
        ),
    ],
)
def test_malformed_requests_are_refused_in_etcds_words(text: str, error: str) -> None:
    with pytest.raises(EtcdError) as caught:
        put(text)
    assert caught.value.message == error
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_unknown_enum_names_are_refused() -> None:
    with pytest.raises(EtcdError) as caught:
        codec_of(rpc.RangeRequest).decode({"sort_order": "FOO"})
    assert caught.value.message == 'unknown value "\\"FOO\\"" for enum etcdserverpb.RangeRequest.SortOrder'


@given(st.text(alphabet=string.printable) | st.binary())
def test_no_body_raises_anything_but_a_refusal(body: Any) -> None:
    data = body.encode() if isinstance(body, str) else body
    with suppress(EtcdError):
        for value in parse_values(data):
            codec_of(rpc.TxnRequest).decode(value)


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 100_000])
def test_absurd_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(EtcdError):
        codec_of(rpc.TxnRequest).decode(next(parse_values(body)))
