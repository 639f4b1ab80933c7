"""Prepared bytes: what is sent is what protobuf and HPACK would have made of it."""

from __future__ import annotations

from collections.abc import Callable

import hpack
import pytest

from etcray.errors import OptionsError
from etcray_bench.load import frames, messages
from etcray_bench.load.keys import KeySpace, Values
from etcray_bench.load.messages import LEASE_MAX, LEASE_MIN, Messages, lease_varint, revision_varint
from etcray_bench.load.options import Load
from etcray_storage.proto import rpc_pb2

LOAD = Load(endpoints=("127.0.0.1:1",), value_bytes=300, prefix="p%/")
SPACE, VALUES = KeySpace(b"p%/"), Values(LOAD)
MADE = Messages(SPACE, VALUES)
KEY, STAMP, LEASE = 5, 1 << 32 | 7, LEASE_MIN + 12_345
VALUE = VALUES.value(KEY, STAMP, 300)
PUT = rpc_pb2.PutRequest(key=b"p%/00000005", value=VALUE)
LEASED = rpc_pb2.PutRequest(key=b"p%/00000005", value=VALUE, lease=LEASE)
GET = rpc_pb2.RangeRequest(key=b"p%/00000005")


def test_single_requests_are_what_protobuf_would_have_made() -> None:
    place = (KEY, KEY, 1, 7)
    assert rpc_pb2.PutRequest.FromString(MADE.puts[0](place)) == PUT
    assert rpc_pb2.PutRequest.FromString(MADE.leased_puts[0]((*place, lease_varint(LEASE)))) == LEASED
    assert rpc_pb2.RangeRequest.FromString(MADE.get(KEY)) == GET
    assert rpc_pb2.RangeRequest.FromString(MADE.get_any(KEY)) == rpc_pb2.RangeRequest(
        key=GET.key, serializable=True
    )
    assert rpc_pb2.RangeRequest.FromString(MADE.page(20)((KEY, 9))) == rpc_pb2.RangeRequest(
        key=GET.key, range_end=b"p%/00000009", limit=20
    )


def test_transactions_are_what_protobuf_would_have_made() -> None:
    always = rpc_pb2.TxnRequest.FromString(MADE.txns[0]((KEY, KEY, KEY, 1, 7, KEY)))
    assert (always.compare[0].key, always.compare[0].version) == (GET.key, -1)
    assert [always.success[0].request_put, always.success[1].request_range] == [PUT, GET]
    guard = revision_varint(123)
    guarded = rpc_pb2.TxnRequest.FromString(MADE.guarded_puts[0]((KEY, guard, KEY, KEY, 1, 7, KEY)))
    assert (guarded.compare[0].key, guarded.compare[0].mod_revision) == (GET.key, 123)
    assert [guarded.success[0].request_put, guarded.failure[0].request_range] == [PUT, GET]
    place = (KEY, revision_varint(0), KEY, KEY, 1, 7, lease_varint(LEASE), KEY)
    creation = rpc_pb2.TxnRequest.FromString(MADE.creations[0](place))
    assert (creation.compare[0].mod_revision, creation.success[0].request_put) == (0, LEASED)
    deletion = rpc_pb2.TxnRequest.FromString(MADE.guarded_delete((KEY, guard, KEY, KEY)))
    assert deletion.success[0].request_delete_range.key == GET.key


@pytest.mark.parametrize("lease", [LEASE_MIN, 2**62 + 5, LEASE_MAX])
def test_varints_of_one_length_mean_their_number(lease: int) -> None:
    assert lease == rpc_pb2.LeaseRevokeRequest.FromString(messages.lease_request(lease)).ID
    assert lease == rpc_pb2.LeaseKeepAliveRequest.FromString(messages.lease_request(lease)).ID
    assert lease == rpc_pb2.LeaseGrantRequest.FromString(messages.lease_grant(lease, 60)).ID
    for revision in (0, 1, 127, 128, 2**35 - 1):
        encoded = b"\x20" + revision_varint(revision)
        assert rpc_pb2.RangeRequest.FromString(encoded).revision == revision


def test_headers_of_any_order_of_methods_are_understood_by_hpack() -> None:
    headers, decoder = frames.RequestHeaders("127.0.0.1:2379"), hpack.Decoder()
    paths = [f"/service/Method{number}" for number in range(frames.RequestHeaders.PATHS_MAX)]
    for path in [paths[0], paths[0], paths[1], paths[0], *paths, *reversed(paths)]:
        start, block = headers.block(path)
        assert start == frames.frame(frames.HEADERS, frames.END_HEADERS, 0, block)[:5]
        assert [tuple(header) for header in decoder.decode(block, raw=True)] == [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"127.0.0.1:2379"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]
    assert len(headers.block(paths[3])[1]) == 6


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"workload": "putt"}, "there is no workload 'putt'"),
        ({"clients": 0}, "--clients is from 1"),
        ({"value_bytes": 19}, "value sizes are 20"),
        ({"value_bytes": 50, "value_bytes_max": 40}, "not 50 to 40"),
        ({"rate": 0.0}, "--rate is above 0"),
        ({"read_ratio": 1.5}, "--read-ratio"),
        ({"endpoints": ("localhost",)}, "an endpoint is HOST:PORT, not 'localhost'"),
        ({"endpoints": ()}, "an endpoint is HOST:PORT"),
        ({"prefix": ""}, "--prefix must not be empty"),
        ({"processes": 9, "clients": 8}, "9 processes need a client each"),
        ({"workload": "watch"}, "watch needs --watchers"),
        ({"workload": "watch", "watchers": 1, "rate": 5.0}, "closed loop"),
        ({"workload": "put", "watchers": 1}, "put has no watchers"),
        ({"distribution": "latest"}, "latest is for ycsb-d"),
        ({"key_bytes": 10}, "--key-size needs room"),
        ({"keys": 5, "keys_per_range": 6}, "--keys-per-range"),
    ],
)
def test_options_that_make_no_sense_are_told(options: dict[str, object], found: str) -> None:
    make: Callable[..., Load] = Load
    with pytest.raises(OptionsError, match=found):
        make(**{"endpoints": ("127.0.0.1:1",), **options})
