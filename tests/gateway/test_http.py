"""Plain HTTP on the same port: /health, /version, and requests that no client should send."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket

import pytest

from etcray.gateway import reads
from etcray.gateway.listener import HttpServer
from etcray.node import api
from etcray_storage import limits
from etcray_storage.errors import ListenError
from etcray_storage.proto import rpc_pb2 as rpc
from tests.gateway.grpc_calls import call
from tests.gateway.serving import ServingGateway


def fetch(gateway: ServingGateway, method: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def exchange(gateway: ServingGateway, data: bytes, *, half_close: bool = True) -> bytes:
    """Send bytes and read until the gateway closes."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
        return received


def test_health_is_a_real_read(gateway: ServingGateway) -> None:
    assert fetch(gateway, "GET", "/health") == (200, '{"health":"true","reason":""}')
    gateway.member.leaderless = True
    gateway.call(lambda: setattr(gateway.server.dispatcher, "_leader_confirmed_at", -1.0))
    assert fetch(gateway, "GET", "/health") == (503, '{"health":"false","reason":"RAFT NO LEADER"}')
    assert fetch(gateway, "GET", "/health?serializable=true")[0] == 200


def test_health_is_red_while_linearizable_reads_hang(
    gateway: ServingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a leader, and it does not get anywhere."""
    monkeypatch.setattr(reads, "REQUEST_SECONDS_MAX", 0.3)
    answer = gateway.member.read

    async def stuck(request: bytes) -> bytes:
        if api.decode_read_request(request).linearizable:
            await asyncio.get_running_loop().create_future()
        return await answer(request)

    monkeypatch.setattr(gateway.member, "read", stuck)
    timed_out = '{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}'
    assert fetch(gateway, "GET", "/health") == (503, timed_out)
    assert fetch(gateway, "GET", "/health?serializable=true")[0] == 200


def test_health_tells_alarms_unless_excluded(gateway: ServingGateway) -> None:
    alarm = rpc.AlarmRequest(action=rpc.AlarmRequest.ACTIVATE, memberID=1, alarm=rpc.NOSPACE)
    call(gateway, "/etcdserverpb.Maintenance/Alarm", alarm.SerializeToString())
    assert fetch(gateway, "GET", "/health") == (503, '{"health":"false","reason":"ALARM NOSPACE"}')
    assert fetch(gateway, "GET", "/health?exclude=NOSPACE")[0] == 200
    alarm.action = rpc.AlarmRequest.DEACTIVATE
    call(gateway, "/etcdserverpb.Maintenance/Alarm", alarm.SerializeToString())
    assert fetch(gateway, "GET", "/health")[0] == 200


def test_health_tells_alarms_before_anything_else(gateway: ServingGateway) -> None:
    alarm = rpc.AlarmRequest(action=rpc.AlarmRequest.ACTIVATE, memberID=1, alarm=rpc.CORRUPT)
    call(gateway, "/etcdserverpb.Maintenance/Alarm", alarm.SerializeToString())
    gateway.member.leaderless = True
    assert fetch(gateway, "GET", "/health") == (503, '{"health":"false","reason":"ALARM CORRUPT"}')
    assert fetch(gateway, "GET", "/readyz/data_corruption") == (
        503,
        "[-]data_corruption failed: alarm activated: CORRUPT\n\n",
    )


def test_probes_say_ok_and_their_checks_when_asked(shared_gateway: ServingGateway) -> None:
    assert fetch(shared_gateway, "GET", "/livez") == (200, "ok\n")
    assert fetch(shared_gateway, "GET", "/livez?verbose") == (200, "[+]serializable_read ok\nok\n")
    assert fetch(shared_gateway, "GET", "/livez/serializable_read") == (200, "ok\n")
    assert fetch(shared_gateway, "GET", "/readyz?verbose=true&exclude=non_learner") == (
        200,
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n",
    )
    for name in ("data_corruption", "serializable_read", "linearizable_read", "non_learner"):
        assert fetch(shared_gateway, "GET", f"/readyz/{name}?verbose") == (200, f"[+]{name} ok\nok\n")


def test_probes_refuse_other_checks_and_methods(shared_gateway: ServingGateway) -> None:
    for path in ("/livez/linearizable_read", "/readyz/nothing", "/livez/", "/readyz/non_learner/x"):
        assert fetch(shared_gateway, "GET", path)[0] == 404
    assert fetch(shared_gateway, "POST", "/readyz")[0] == 405


def test_gateway_without_a_leader_is_alive_but_not_ready(
    gateway: ServingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "REQUEST_SECONDS_MAX", 0.1)
    gateway.member.leaderless = True
    assert fetch(gateway, "GET", "/livez")[0] == 200
    status, text = fetch(gateway, "GET", "/readyz")
    assert status == 503
    assert "[-]linearizable_read failed: etcdserver: request timed out\n" in text
    assert "[+]serializable_read ok\n" in text
    assert fetch(gateway, "GET", "/readyz?exclude=linearizable_read") == (200, "ok\n")


def test_version_names_the_api_that_is_spoken(shared_gateway: ServingGateway) -> None:
    status, body = fetch(shared_gateway, "GET", "/version")
    assert status == 200
    assert json.loads(body) == {"etcdserver": "3.7.1", "etcdcluster": "3.7.0", "storage": "3.7.0"}


def test_other_methods_and_paths_are_refused(shared_gateway: ServingGateway) -> None:
    assert fetch(shared_gateway, "POST", "/health")[0] == 405
    assert fetch(shared_gateway, "DELETE", "/version")[0] == 405
    assert fetch(shared_gateway, "GET", "/nothing")[0] == 404


def test_connection_is_kept_for_the_next_request(shared_gateway: ServingGateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared_gateway.port, timeout=10)
    for body in (None, b"ignored"):
        connection.request("GET", "/version", body=body)
        response = connection.getresponse()
        assert response.status == 200
        response.read()
    connection.close()


def test_pipelined_requests_are_answered_in_order(shared_gateway: ServingGateway) -> None:
    request = b"GET %s HTTP/1.1\r\nhost: a\r\n%s\r\n"
    data = request % (b"/version", b"") + request % (b"/nothing", b"connection: close\r\n")
    received = exchange(shared_gateway, data, half_close=False)
    assert received.index(b"200 OK") < received.index(b"404 Not Found")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 1_000_000, b"4"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b""),
        (b"GET / HTTP/1.1\r\n", b""),
        (b"PRI * HTTP/2.0\r\n\r\nNO", b""),
    ],
)
def test_malformed_and_half_sent_requests_end_their_connection(
    shared_gateway: ServingGateway, data: bytes, status: bytes
) -> None:
    try:
        received = exchange(shared_gateway, data)
    except OSError:  # the gateway was faster
        received = b""
    assert received == b"" or received.startswith(b"HTTP/1.1 " + status)
    assert fetch(shared_gateway, "GET", "/version")[0] == 200


def test_client_that_half_closes_gets_its_answer(shared_gateway: ServingGateway) -> None:
    received = exchange(shared_gateway, b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200")


def test_body_over_the_limit_is_refused(shared_gateway: ServingGateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared_gateway.port, timeout=10)
    try:
        connection.request("POST", "/health", body=b"x" * (limits.HTTP_BODY_BYTES_MAX + 100_000))
        assert connection.getresponse().status == 413
    except (ConnectionResetError, BrokenPipeError):
        pass  # the answer was overtaken by the end of the connection
    finally:
        connection.close()
    assert fetch(shared_gateway, "GET", "/version")[0] == 200


def test_port_in_use_is_said_with_a_way_out(gateway: ServingGateway) -> None:
    second = HttpServer(gateway.server._router)
    with pytest.raises(ListenError) as caught:
        gateway.run(second.listen("127.0.0.1", gateway.port))
    text = str(caught.value)
    assert f"127.0.0.1:{gateway.port}" in text
    assert "choose another port" in text
