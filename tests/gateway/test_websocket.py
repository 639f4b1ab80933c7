"""WebSockets on the paths of the JSON API, with the library's client side over a plain socket."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from etcray.gateway.http_engine import HeaderMap
from etcray.gateway.websocket import read_handshake
from etcray_storage import limits
from tests.gateway.json_calls import b64, ok, request
from tests.gateway.serving import ServingGateway, until

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455's own example, and what has to be answered to it."""
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class Client:
    """A context manager: leaving it hangs up without a word."""

    def __init__(
        self, gateway: ServingGateway, path: str, subprotocols: list[str] | None = None, behind: bytes = b""
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
        self._frames = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        opening = Request(host="127.0.0.1", target=path, subprotocols=subprotocols or [])
        self._socket.sendall(self._frames.send(opening) + behind)
        self.opening = self.event()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send_event(self, event: Event) -> None:
        self._socket.sendall(self._frames.send(event))

    def send(self, fields: Any) -> None:
        self.send_event(TextMessage(data=fields if isinstance(fields, str) else json.dumps(fields)))

    def event(self) -> Event:
        while not self._events:
            data = self._socket.recv(65536)
            assert data, "the connection is over"
            self._frames.receive_data(data)
            self._events.extend(self._frames.events())
        return self._events.pop(0)

    def next(self) -> Any:
        """The next answer, which may have come in pieces of the socket's."""
        text = ""
        while True:
            event = self.event()
            assert isinstance(event, TextMessage), event
            text += event.data
            if event.message_finished:
                return json.loads(text)

    def result(self) -> Any:
        answer = self.next()
        assert list(answer) == ["result"], answer
        return answer["result"]

    def closed_with(self) -> int:
        """The code of the server's close frame, which is answered; then the connection has to end."""
        event = self.event()
        assert isinstance(event, CloseConnection), event
        self.send_event(event.response())
        assert self._socket.recv(1) == b""
        return int(event.code)


def create(key: bytes, **more: object) -> dict[str, object]:
    return {"create_request": {"key": b64(key), **more}}


def put(gateway: ServingGateway, key: bytes) -> None:
    ok(gateway.address, "kv/put", {"key": b64(key), "value": b64(b"v")})


def test_watches_are_added_while_events_arrive(shared_gateway: ServingGateway) -> None:
    with Client(shared_gateway, "/v3/watch") as client:
        assert isinstance(client.opening, AcceptConnection)
        client.send(create(b"ws-a", watch_id=7))
        assert client.result()["created"] is True
        put(shared_gateway, b"ws-a")
        assert client.result()["events"][0]["kv"]["key"] == b64(b"ws-a")
        client.send(create(b"ws-b", watch_id=8))
        created = client.result()
        assert (created["created"], created["watch_id"]) == (True, "8")
        put(shared_gateway, b"ws-b")
        put(shared_gateway, b"ws-a")
        assert [client.result()["watch_id"] for _ in range(2)] == ["8", "7"]
        client.send({"cancel_request": {"watch_id": 7}})
        assert client.result()["canceled"] is True


def test_leases_are_kept_alive_one_after_the_other(shared_gateway: ServingGateway) -> None:
    leases = [ok(shared_gateway.address, "lease/grant", {"TTL": 30})["ID"] for _ in range(2)]
    with Client(shared_gateway, "/v3/lease/keepalive") as client:
        for lease in leases * 2:
            client.send({"ID": lease})
            answer = client.result()
            assert (answer["ID"], answer["TTL"]) == (lease, "30")
        client.send(f'{{"ID": {leases[0]}}} {{"ID": {leases[1]}}}')
        assert [client.result()["ID"] for _ in leases] == leases
        client.send_event(BytesMessage(data=json.dumps({"ID": leases[0]}).encode()))
        assert client.result()["ID"] == leases[0]


def test_an_election_is_observed(shared_gateway: ServingGateway) -> None:
    lease = ok(shared_gateway.address, "lease/grant", {"TTL": 30})["ID"]
    name = b64(b"ws-election")
    with Client(shared_gateway, "/v3/election/observe") as client:
        client.send({"name": name})
        ok(shared_gateway.address, "election/campaign", {"name": name, "lease": lease, "value": b64(b"me")})
        assert client.result()["kv"]["value"] == b64(b"me")


def test_a_unary_call_is_over_after_one_answer(shared_gateway: ServingGateway) -> None:
    with Client(shared_gateway, "/v3beta/kv/range") as client:
        client.send({"key": b64(b"ws-none")})
        assert "header" in client.next()
        assert client.closed_with() == 1000
    with Client(shared_gateway, "/v3/lease/revoke") as client:
        client.send({"ID": "4711"})
        assert client.next()["error"] == "etcdserver: requested lease not found"
        assert client.closed_with() == 1000


def test_a_close_by_the_client_is_answered_and_ends_its_watches(gateway: ServingGateway) -> None:
    with Client(gateway, "/v3/watch") as client:
        client.send(create(b"k"))
        client.result()
        assert gateway.call(gateway.server.counters).watchers == 1
        client.send_event(CloseConnection(code=1001))
        event = client.event()
        assert isinstance(event, CloseConnection)
        assert event.code == 1001
        until(lambda: gateway.call(gateway.server.counters).watchers == 0)
        until(lambda: gateway.call(gateway.server.counters).connections == 0)


def test_a_client_that_hangs_up_leaves_nothing_behind(gateway: ServingGateway) -> None:
    with Client(gateway, "/v3/watch") as client:
        client.send(create(b"k"))
        client.result()
        client.send_event(TextMessage(data='{"create_', message_finished=False))
        client.send_event(Ping())
        assert isinstance(client.event(), Pong)
    until(lambda: gateway.call(gateway.server.counters).watch_streams == 0)
    until(lambda: gateway.call(gateway.server.counters).connections == 0)
    assert gateway.call(lambda: gateway.server._router.incomplete_bytes) == 0


def test_a_stopping_gateway_says_that_it_goes_away() -> None:
    with ServingGateway() as gateway:
        client = Client(gateway, "/v3/watch")
        client.send(create(b"k"))
        client.result()
    event = client.event()
    assert isinstance(event, CloseConnection)
    assert event.code == 1001
    client.__exit__()


@pytest.mark.parametrize("before", [[], [create(b"ws-before")]])
def test_malformed_json_ends_the_stream_with_an_error(shared_gateway: ServingGateway, before: Any) -> None:
    with Client(shared_gateway, "/v3/watch") as client:
        for fields in before:
            client.send(fields)
            client.result()
        client.send("{]")
        error = client.next()["error"]
        assert (error["grpc_code"], error["http_code"]) == (2, 500)
        assert error["message"].startswith("invalid character ']'")
        assert client.closed_with() == 1000


def test_pings_are_answered_also_inside_a_message(shared_gateway: ServingGateway) -> None:
    with Client(shared_gateway, "/v3/watch") as client:
        text = json.dumps(create(b"ws-ping"))
        client.send_event(TextMessage(data=text[:9], message_finished=False))
        client.send_event(Ping(payload=b"there?"))
        pong = client.event()
        assert isinstance(pong, Pong)
        assert pong.payload == b"there?"
        client.send_event(TextMessage(data=text[9:]))
        assert client.result()["created"] is True


def test_a_message_that_is_too_large_closes_with_1009(gateway: ServingGateway) -> None:
    with Client(gateway, "/v3/watch") as client:
        piece = " " * limits.MIB
        for _ in range(limits.HTTP_BODY_BYTES_MAX // limits.MIB + 1):
            client.send_event(TextMessage(data=piece, message_finished=False))
        assert client.closed_with() == 1009
    assert gateway.call(lambda: gateway.server._router.incomplete_bytes) == 0


def test_a_flood_of_requests_waits_at_the_client(shared_gateway: ServingGateway) -> None:
    lease = ok(shared_gateway.address, "lease/grant", {"TTL": 30})["ID"]
    count = 3 * limits.STREAM_MESSAGES_PENDING_MAX
    with Client(shared_gateway, "/v3/lease/keepalive") as client:
        frames = [client._frames.send(TextMessage(data=json.dumps({"ID": lease}))) for _ in range(count)]
        client._socket.sendall(b"".join(frames))
        assert {client.result()["ID"] for _ in range(count)} == {lease}


def test_frames_right_behind_the_handshake_are_read(shared_gateway: ServingGateway) -> None:
    text = json.dumps({"key": b64(b"ws")}).encode()
    masked = bytes([0x81, 0x80 | len(text)]) + bytes(4) + text
    with Client(shared_gateway, "/v3/kv/range", behind=masked) as client:
        assert "header" in client.next()
        assert client.closed_with() == 1000


def test_broken_frames_close_with_1002(shared_gateway: ServingGateway) -> None:
    with Client(shared_gateway, "/v3/watch") as client:
        client._socket.sendall(b"\x81\x05hello")  # not masked
        assert client.closed_with() == 1002


def test_unknown_paths_are_not_found(shared_gateway: ServingGateway) -> None:
    for path in ("/v3/nothing", "/health"):
        with Client(shared_gateway, path) as client:
            assert isinstance(client.opening, RejectConnection)
            assert client.opening.status_code == 404


HANDSHAKE = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Connection", "keep-alive"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "c2hvcnQ="),
        ("Content-Length", "3"),
    ],
)
def test_a_bad_handshake_is_refused(shared_gateway: ServingGateway, name: str, value: str) -> None:
    answer = request(shared_gateway.address, "GET", "/v3/watch", headers={**HANDSHAKE, name: value})
    assert answer.status == 400
    assert answer.body.startswith("bad WebSocket handshake: ")


def test_the_token_in_the_subprotocol_becomes_metadata(shared_gateway: ServingGateway) -> None:
    with Client(shared_gateway, "/v3/watch", ["Bearer", "abc.def"]) as client:
        assert isinstance(client.opening, AcceptConnection)
        assert client.opening.subprotocol == "Bearer"
    fields = [(name.lower(), value) for name, value in HANDSHAKE.items()]
    offered = HeaderMap([*fields, ("host", "h"), ("sec-websocket-protocol", "Bearer, abc.def")])
    seen, answered = read_handshake("/v3/watch", offered)
    assert (seen.method, seen.headers.get("authorization")) == ("POST", b"Bearer abc.def")
    assert answered.get("sec-websocket-accept") == ACCEPT
