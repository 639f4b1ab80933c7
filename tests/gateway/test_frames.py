"""What no library would send: broken messages, abandoned streams, windows of a thousand bytes."""

from __future__ import annotations

import gzip
import struct
import threading

import pytest
from httpunk._httpunk import H2FrameData, H2FrameGoAway, H2FramePing

from etcray_storage.proto import rpc_pb2 as rpc
from tests.gateway.grpc_calls import KV, put
from tests.gateway.raw_http2 import ACK, END_HEADERS, HEADERS, PING, RST_STREAM, WINDOW_UPDATE, RawHttp2
from tests.gateway.serving import ServingGateway, until


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + struct.pack(">I", len(message)) + message


PUT = rpc.PutRequest(key=b"raw", value=b"1").SerializeToString()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 13),
        (b"\0\0", 13),
        (b"\0\0\0\0\x09abc", 13),
        (framed(PUT) + framed(PUT), 13),
        (framed(PUT, flag=1), 13),
        (framed(PUT, flag=7), 13),
        (b"\0\xff\xff\xff\xff", 8),
    ],
)
def test_malformed_messages_end_the_call_and_not_the_connection(
    shared_gateway: ServingGateway, data: bytes, status: int
) -> None:
    with RawHttp2(shared_gateway.port) as client:
        stream = client.open(KV + "Put")
        client.send_data(stream, data)
        assert client.receive_status(stream) == status
        _works(client)


def test_message_in_many_small_pieces_is_put_together(shared_gateway: ServingGateway) -> None:
    with RawHttp2(shared_gateway.port) as client:
        stream = client.open(KV + "Put")
        for byte in framed(PUT):
            client.send_data(stream, bytes([byte]), end=False)
        client.send_data(stream, b"")
        assert client.receive_status(stream) == 0


def test_gzip_bomb_is_refused(shared_gateway: ServingGateway) -> None:
    with RawHttp2(shared_gateway.port) as client:
        stream = client.open(KV + "Put", grpc_encoding="gzip")
        client.send_data(stream, framed(gzip.compress(b"\0" * 5_000_000), flag=1))
        assert client.receive_status(stream) == 8
        stream = client.open(KV + "Put", grpc_encoding="gzip")
        client.send_data(stream, framed(b"not gzip", flag=1))
        assert client.receive_status(stream) == 13
        stream = client.open(KV + "Put", grpc_encoding="snappy")
        assert client.receive_status(stream) == 12


def test_reset_streams_and_connections_are_forgotten(gateway: ServingGateway) -> None:
    gateway.member.busy = True
    client = RawHttp2(gateway.port)
    for _ in range(50):
        stream = client.open(KV + "Put")
        client.send_data(stream, framed(PUT))
        client.send(RST_STREAM, 0, stream, struct.pack(">I", 8))
    half_sent = client.open(KV + "Put")
    client.send_data(half_sent, framed(PUT)[:7], end=False)
    client.send(PING, 0, 0, b"12345678")
    while not isinstance(client.receive(), H2FramePing):
        pass
    client.reset_connection()
    until(lambda: gateway.call(gateway.server.counters).connections == 0)
    gateway.member.busy = False
    put(gateway, "after")


def test_half_sent_messages_are_counted_and_given_back(gateway: ServingGateway) -> None:
    with RawHttp2(gateway.port) as client:
        for _ in range(3):
            stream = client.open(KV + "Put")
            client.send_data(stream, framed(b"x" * 100_000)[:50_000], end=False)
        until(lambda: gateway.call(lambda: gateway.server._router.incomplete_bytes) == 150_000)
    until(lambda: gateway.call(lambda: gateway.server._router.incomplete_bytes) == 0)


def test_garbage_after_the_preface_is_answered_with_goaway(shared_gateway: ServingGateway) -> None:
    with RawHttp2(shared_gateway.port) as client:
        client.send(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff")
        while not isinstance(client.receive(), H2FrameGoAway):
            pass
        with pytest.raises((EOFError, ConnectionResetError)):
            client.receive()


def test_slow_reader_gets_its_answer_window_by_window(shared_gateway: ServingGateway) -> None:
    put(shared_gateway, "slow", b"s" * 100_000)
    with RawHttp2(shared_gateway.port, initial_window=1000) as client:
        stream = client.open(KV + "Range")
        client.send_data(stream, framed(rpc.RangeRequest(key=b"slow").SerializeToString()))
        received = 0
        while received < 100_000:
            frame = client.receive()
            if isinstance(frame, H2FrameData):
                assert len(frame.data) <= 1000
                received += len(frame.data)
                client.send(WINDOW_UPDATE, 0, stream, struct.pack(">I", max(1, len(frame.data))))
                client.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", max(1, len(frame.data))))


def test_stop_says_goaway_and_lets_the_running_call_finish(gateway: ServingGateway) -> None:
    gateway.member.busy = True
    with RawHttp2(gateway.port) as client:
        stream = client.open(KV + "Put")
        client.send_data(stream, framed(PUT))
        until(lambda: gateway.call(lambda: gateway.server.dispatcher.proposals.pending_count) == 1)
        stopping = threading.Thread(target=lambda: gateway.run(gateway.server.stop(5.0)))
        stopping.start()
        while not isinstance(client.receive(), H2FrameGoAway):
            pass
        ping = client.receive()
        assert isinstance(ping, H2FramePing)
        client.send(PING, ACK, 0, ping.data)
        gateway.member.busy = False
        while not isinstance(client.receive(), H2FrameGoAway):
            pass
        assert client.receive_status(stream) == 0
        stopping.join(10)
        assert not stopping.is_alive()


def _works(client: RawHttp2) -> None:
    stream = client.open(KV + "Put")
    client.send_data(stream, framed(PUT))
    assert client.receive_status(stream) == 0
