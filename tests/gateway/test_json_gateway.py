"""The JSON gateway: routes, streams, errors, headers."""

from __future__ import annotations

import http.client
import json
import socket

import grpc
import pytest

from etcray.gateway.json_routes import ROUTES
from etcray_storage import limits
from tests.gateway.json_calls import JsonStream, b64, ok, post, request
from tests.gateway.raw_http2 import RawHttp2
from tests.gateway.serving import ServingGateway, until


def test_every_rpc_has_its_routes() -> None:
    assert len(ROUTES) == 51
    assert len({route.rpc for route in ROUTES.values()}) == 48
    assert all(path.startswith("/v3/") for path in ROUTES)


NOT_TWICE = {
    "/v3/watch",
    "/v3/election/observe",
    "/v3/election/campaign",
    "/v3/lock/lock",
    "/v3/kv/compaction",
}
"""These wait without end, or find the second time what they did the first time."""


@pytest.mark.parametrize("path", sorted(ROUTES.keys() - NOT_TWICE))
def test_every_route_answers_with_the_code_of_its_rpc(shared_gateway: ServingGateway, path: str) -> None:
    answer = request(shared_gateway.address, "POST", path, "{}")
    code = 0
    if answer.status != 200:
        fields = answer.fields
        code = fields["error"]["code"] if isinstance(fields["error"], dict) else fields["code"]
    with grpc.insecure_channel(shared_gateway.address) as channel:
        try:
            for _ in channel.unary_stream(ROUTES[path].rpc, None, None)(b"", timeout=10):
                pass
            expected = 0
        except grpc.RpcError as error:
            expected = error.code().value[0]
    assert code == expected


def test_pairs_are_written_and_read(shared_gateway: ServingGateway) -> None:
    address = shared_gateway.address
    written = ok(address, "kv/put", {"key": b64(b"json"), "value": b64(b"\xff\x00")})
    revision = written["header"]["revision"]
    assert int(revision) > 1
    got = ok(address, "kv/range", {"key": b64(b"json")})
    assert got["kvs"] == [
        {
            "key": b64(b"json"),
            "create_revision": revision,
            "mod_revision": revision,
            "version": "1",
            "value": b64(b"\xff\x00"),
        }
    ]
    assert got["count"] == "1"
    assert "more" not in got
    assert request(address, "POST", "/v3beta/kv/range", json.dumps({"key": b64(b"json")})).fields == got


def test_errors_say_their_text_in_both_fields(shared_gateway: ServingGateway) -> None:
    answer = post(shared_gateway.address, "lease/revoke", {"ID": 4711})
    text = "etcdserver: requested lease not found"
    assert answer.status == 404
    assert answer.fields == {"error": text, "code": 5, "message": text}


def test_other_methods_and_paths_are_refused(shared_gateway: ServingGateway) -> None:
    address = shared_gateway.address
    assert request(address, "GET", "/v3/kv/range") == (405, "Method Not Allowed\n")
    assert request(address, "HEAD", "/v3/kv/range") == (405, "")
    assert request(address, "POST", "/v3/kv/nothing", "{}") == (404, "Not Found\n")
    assert request(address, "POST", "/v3/kv/put/", "{}") == (404, "Not Found\n")


def test_any_origin_may_ask(shared_gateway: ServingGateway) -> None:
    for method, path in (
        ("OPTIONS", "/v3/kv/range"),
        ("OPTIONS", "/"),
        ("POST", "/v3/kv/range"),
        ("GET", "/health"),
    ):
        connection = http.client.HTTPConnection(shared_gateway.address, timeout=10)
        connection.request(method, path, headers={"origin": "http://elsewhere"})
        response = connection.getresponse()
        assert response.getheader("access-control-allow-origin") == "*"
        assert "POST" in (response.getheader("access-control-allow-methods") or "")
        assert "content-type" in (response.getheader("access-control-allow-headers") or "")
        if method == "OPTIONS":
            assert (response.status, response.read()) == (200, b"")
        connection.close()


def test_requests_that_are_too_large_are_refused_as_over_grpc(shared_gateway: ServingGateway) -> None:
    body = {"key": b64(b"k"), "value": b64(b"x" * (limits.REQUEST_BYTES_MAX + 1))}
    answer = post(shared_gateway.address, "kv/put", body)
    assert (answer.status, answer.fields["message"]) == (400, "etcdserver: request is too large")
    body["value"] = b64(b"x" * limits.GRPC_RECEIVE_BYTES_MAX)
    answer = post(shared_gateway.address, "kv/put", body)
    assert (answer.status, answer.fields["code"]) == (429, 8)
    assert answer.fields["message"].startswith("grpc: received message larger than max (2097")


def test_deadlines_and_metadata_are_read_from_headers(gateway: ServingGateway) -> None:
    body = {"key": b64(b"k")}
    assert post(gateway.address, "kv/put", body, **{"grpc-timeout": "1x"}).fields["message"] == (
        "invalid grpc-timeout: 1x"
    )
    gateway.member.silent = True
    answer = post(gateway.address, "kv/put", body, **{"grpc-timeout": "50m"})
    assert (answer.status, answer.fields["message"]) == (504, "context deadline exceeded")
    answer = post(gateway.address, "kv/put", body, **{"grpc-metadata-hasleader": "true"})
    assert (answer.status, answer.fields["message"]) == (503, "etcdserver: no leader")


def test_many_requests_in_one_body_are_answered_line_by_line(shared_gateway: ServingGateway) -> None:
    address = shared_gateway.address
    lease = ok(address, "lease/grant", {"TTL": 30})["ID"]
    answer = post(address, "lease/keepalive", f'{{"ID": {lease}}}\n{{"ID": "1"}} {{"ID": "{lease}"}}')
    assert answer.status == 200
    results = [line["result"] for line in answer.lines]
    assert [(result["ID"], result.get("TTL")) for result in results] == [
        (lease, "30"),
        ("1", None),
        (lease, "30"),
    ]


def test_stream_that_cannot_be_read_fails_before_it_begins(shared_gateway: ServingGateway) -> None:
    answer = post(shared_gateway.address, "lease/keepalive", "x")
    assert (answer.status, answer.fields["code"]) == (500, 2)
    answer = post(shared_gateway.address, "election/observe", '{"name": "@"}')
    assert (answer.status, answer.fields["code"]) == (400, 3)
    assert post(shared_gateway.address, "lease/keepalive", "") == (200, "")


def test_malformed_text_behind_a_stream_s_first_request_only_ends_the_requests(
    shared_gateway: ServingGateway,
) -> None:
    answer = post(shared_gateway.address, "lease/keepalive", '{"ID": 1} nonsense {"ID": 2}')
    assert (answer.status, len(answer.lines)) == (200, 1)


def test_stream_that_fails_later_says_so_in_its_last_line(gateway: ServingGateway) -> None:
    gateway.member.silent = True
    answer = post(gateway.address, "lease/keepalive", {"ID": 1}, **{"grpc-timeout": "50m"})
    assert answer.status == 504
    (line,) = answer.lines
    assert line["error"] == {
        "grpc_code": 4,
        "http_code": 504,
        "message": "context deadline exceeded",
        "http_status": "Gateway Timeout",
        "code": 4,
    }


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(shared_gateway: ServingGateway) -> None:
    body = b'{"ID": 1}{"ID": 2}'
    with socket.create_connection(("127.0.0.1", shared_gateway.port), timeout=10) as client:
        head = f"POST /v3/lease/keepalive HTTP/1.0\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    head_bytes, _, content = received.partition(b"\r\n\r\n")
    assert b"chunked" not in head_bytes.lower()
    assert [json.loads(line)["result"]["ID"] for line in content.splitlines()] == ["1", "2"]


def test_connection_is_kept_after_a_stream(shared_gateway: ServingGateway) -> None:
    connection = http.client.HTTPConnection(shared_gateway.address, timeout=10)
    for _ in range(3):
        connection.request("POST", "/v3/lease/keepalive", body=b'{"ID": 1}{"ID": 2}')
        assert len(connection.getresponse().read().splitlines()) == 2
    connection.close()


def test_http2_clients_that_speak_no_grpc_are_served(shared_gateway: ServingGateway) -> None:
    with RawHttp2(shared_gateway.port) as client:
        stream = client.open("/v3/lease/keepalive", content_type="application/json")
        client.send_data(stream, b'{"ID": 1}{"ID": 2}')
        assert [json.loads(line)["result"]["ID"] for line in client.receive_body(stream).splitlines()] == [
            "1",
            "2",
        ]


def test_client_that_hangs_up_ends_its_stream(gateway: ServingGateway) -> None:
    body = {"create_request": {"key": b64(b"a")}}
    with JsonStream(gateway.address, "watch", body) as stream:
        assert stream.next()["result"]["created"] is True
        assert gateway.call(lambda: gateway.server.counters().connections) == 1
    until(lambda: gateway.call(lambda: gateway.server.counters().connections) == 0)


def test_large_bodies_of_many_clients_are_bounded(
    gateway: ServingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUESTS_INCOMPLETE_BYTES_MAX", 100_000)
    head = b"POST /v3/kv/put HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(head + b"x" * 80_000)
        until(lambda: gateway.call(lambda: gateway.server._router.incomplete_bytes) == 80_000)
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as second:
            second.sendall(head + b"x" * 80_000)
            assert second.recv(1000).startswith(b"HTTP/1.1 503")
    until(lambda: gateway.call(lambda: gateway.server._router.incomplete_bytes) == 0)
