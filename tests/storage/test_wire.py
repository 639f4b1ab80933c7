"""What is assembled by hand must be what protobuf writes, and what it can read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcray_storage import wire
from etcray_storage.proto.kv_pb2 import KeyValue
from etcray_storage.proto.rpc_pb2 import (
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeResponse,
    ResponseHeader,
    ResponseOp,
    TxnResponse,
)

INT64 = st.one_of(
    st.integers(0, 300), st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([127, 128, 16383, 16384])
)


@given(INT64, INT64, INT64, INT64, st.binary(max_size=300), st.binary(max_size=300))
def test_key_value_is_what_protobuf_writes(
    create: int, mod: int, version: int, lease: int, key: bytes, value: bytes
) -> None:
    message = KeyValue(
        key=key, create_revision=create, mod_revision=mod, version=version, value=value, lease=lease
    )
    assert KeyValue.FromString(wire.key_value(key, create, mod, version, value, lease)) == message
    if key and create and mod and version:
        assert wire.key_value(key, create, mod, version, value, lease) == message.SerializeToString()


EDGES = [1, 127, 128, (1 << 14) - 1, 1 << 14, (1 << 21) - 1, 1 << 21, (1 << 28) - 1, 1 << 28]


@given(
    st.sampled_from(EDGES) | st.integers(1, 1 << 30),
    st.sampled_from(EDGES) | st.integers(1, 1 << 30),
    st.sampled_from(EDGES) | st.integers(1, 1 << 15),
    st.sampled_from([0, 0, 1, 1 << 62]),
    st.sampled_from([1, 127, 128, 16383, 16384]),
    st.sampled_from([0, 1, 127, 128, 16383, 16384]),
)
def test_a_pair_of_the_store_is_what_protobuf_writes(
    one: int, other: int, version: int, lease: int, key_bytes: int, value_bytes: int
) -> None:
    create, mod = min(one, other), max(one, other)
    key, value = b"k" * key_bytes, b"v" * value_bytes
    message = KeyValue(
        key=key, create_revision=create, mod_revision=mod, version=version, value=value, lease=lease
    )
    assert wire.key_value(key, create, mod, version, value, lease) == message.SerializeToString()


@pytest.mark.parametrize("n", [0, 1, 127, 128, 16383, 16384, 1 << 21, 1 << 28, (1 << 64) - 1])
def test_varint_is_what_protobuf_writes(n: int) -> None:
    assert wire.varint_field(1, n) == ResponseHeader(cluster_id=n).SerializeToString()


def test_header_in_front_of_a_body_makes_a_response() -> None:
    pairs = [wire.key_value(b"k%d" % n, 2, 3, 2, b"v", 0) for n in range(3)]
    body = wire.range_response(pairs, True, 9)
    response = RangeResponse.FromString(wire.response_header(1 << 63, 5, 7, 2) + body)
    assert response.header == ResponseHeader(cluster_id=1 << 63, member_id=5, revision=7, raft_term=2)
    assert [kv.key for kv in response.kvs] == [b"k0", b"k1", b"k2"]
    assert (response.more, response.count) == (True, 9)
    assert body == RangeResponse(kvs=response.kvs, more=True, count=9).SerializeToString()


def test_response_bodies_are_what_protobuf_writes() -> None:
    pair = wire.key_value(b"k", 2, 3, 2, b"v", 0)
    message = KeyValue.FromString(pair)
    assert wire.put_response(None) == b""
    assert wire.put_response(pair) == PutResponse(prev_kv=message).SerializeToString()
    assert (
        wire.delete_range_response(2, [pair, pair])
        == DeleteRangeResponse(deleted=2, prev_kvs=[message, message]).SerializeToString()
    )
    inner = wire.bytes_field(2, wire.revision_header(5))
    response = TxnResponse.FromString(wire.txn_response(True, [inner]))
    assert response == TxnResponse(
        succeeded=True, responses=[ResponseOp(response_put=PutResponse(header=ResponseHeader(revision=5)))]
    )


def test_an_empty_header_is_present() -> None:
    assert TxnResponse.FromString(wire.EMPTY_HEADER).HasField("header")


SIZES = st.sampled_from([1, 2, 127, 128, 129, 255, 256, 16383, 16384, 16385])


@given(SIZES, SIZES)
def test_a_plain_put_is_read_without_protobuf(key_bytes: int, value_bytes: int) -> None:
    request = PutRequest(key=b"k" * key_bytes, value=b"v" * value_bytes)
    is_short = key_bytes < 128 and value_bytes < 16384
    assert wire.plain_put(request.SerializeToString()) == ((request.key, request.value) if is_short else None)


FIELDS = st.one_of(
    st.builds(lambda key: b"\x0a" + wire.varint(len(key)) + key, st.binary(max_size=140)),
    st.builds(lambda value: b"\x12" + wire.varint(len(value)) + value, st.binary(max_size=300)),
    st.builds(lambda n, value: bytes((0x12, n, *value)), st.integers(0, 255), st.binary(max_size=300)),
    st.builds(lambda tag, n: bytes((tag,)) + wire.varint(n), st.sampled_from([0x18, 0x20, 0x28]), INT64),
    st.binary(max_size=6),
    st.sampled_from([b"\x12\x81\x80\x00v", b"\x12\x83\x00abc", b"\x12\xff\x7f" + b"v" * 16383]),
)


@given(st.lists(FIELDS, max_size=4).map(b"".join))
def test_what_is_read_as_a_plain_put_is_one(data: bytes) -> None:
    plain = wire.plain_put(data)
    if plain is not None:
        assert PutRequest.FromString(data) == PutRequest(key=plain[0], value=plain[1])


def test_a_number_that_is_longer_than_it_must_be_hides_nothing() -> None:
    """The size of the value says 1 in three bytes. Read as two bytes it would be 16,385, all there is."""
    rest = b"\x1a" + wire.varint(16380) + b"x" * 16380
    data = b"\x0a\x01k\x12\x81\x80\x00v" + rest
    assert PutRequest.FromString(data).value == b"v"
    assert len(data) - len(b"\x0a\x01k\x12\x81\x80") == 16385
    assert wire.plain_put(data) is None
