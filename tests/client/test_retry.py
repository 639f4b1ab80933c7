"""What the client does when a server does not answer."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from etcray.client import (
    EtcrayError,
    ExhaustedError,
    InvalidRequestError,
    NotAnsweredError,
    UnavailableError,
)
from etcray.client.errors import error_for
from etcray.client.retry import JITTER, PAUSE_FIRST_SECONDS, PAUSE_MAX_SECONDS, Attempts
from etcray_bench.etcd import EtcdCluster, free_ports
from etcray_storage.errors import Code
from tests.client.conftest import Maker

REFUSED = "failed to connect to all addresses; last error: connection refused"


def attempts(*, writes: bool, endpoints: int = 1, deadline: float = 1000.0) -> Attempts:
    return Attempts(writes=writes, endpoints=endpoints, deadline=deadline, jitter=random.Random(1))


def test_read_is_repeated_while_unavailable_with_growing_pauses() -> None:
    read = attempts(writes=False)
    pauses = [read.after_failure(Code.UNAVAILABLE, "etcdserver: leader changed", 0.0) for _ in range(8)]
    for number, pause in enumerate(pauses):
        assert isinstance(pause, float)
        assert pause == pytest.approx(min(PAUSE_FIRST_SECONDS * 2**number, PAUSE_MAX_SECONDS), rel=JITTER)


def test_every_endpoint_is_tried_before_the_first_pause() -> None:
    read = attempts(writes=False, endpoints=3)
    pauses = [read.after_failure(Code.UNAVAILABLE, "", 0.0) for _ in range(6)]
    assert [pause == 0.0 for pause in pauses] == [True, True, False, True, True, False]


def test_write_that_was_sent_is_never_repeated() -> None:
    ended = attempts(writes=True).after_failure(Code.UNAVAILABLE, "etcdserver: request timed out", 0.0)
    assert isinstance(ended, NotAnsweredError)


def test_write_that_never_left_is_repeated_and_then_reported_as_undone() -> None:
    write = attempts(writes=True, deadline=10.0)
    assert isinstance(write.after_failure(Code.UNAVAILABLE, REFUSED, 0.0), float)
    assert isinstance(write.after_failure(Code.UNAVAILABLE, REFUSED, 9.99), UnavailableError)


def test_refusal_ends_a_call_at_once() -> None:
    ended = attempts(writes=False).after_failure(
        Code.INVALID_ARGUMENT, "etcdserver: key is not provided", 0.0
    )
    assert isinstance(ended, InvalidRequestError)


@pytest.mark.parametrize(
    ("code", "message", "writes", "kind"),
    [
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", True, NotAnsweredError),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", False, UnavailableError),
        (Code.INTERNAL, "Received RST_STREAM with error code 2", True, NotAnsweredError),
        (Code.UNKNOWN, "etcdserver: too many requests", True, EtcrayError),
        (Code.UNKNOWN, "Stream removed", True, NotAnsweredError),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", True, ExhaustedError),
    ],
)
def test_error_says_whether_a_write_may_have_happened(
    code: Code, message: str, writes: bool, kind: type[EtcrayError]
) -> None:
    error = error_for(code, message, writes=writes)
    assert type(error) is kind
    assert (error.code, error.message) == (code, message)


def test_dead_endpoints_are_skipped_for_reads_and_writes(make_client: Maker, etcd: EtcdCluster) -> None:
    dead = [f"127.0.0.1:{port}" for port in free_ports(2)]
    client = make_client([*dead, *etcd.endpoints])
    client.put("a", "1")
    pair = client.get("a")
    assert pair is not None
    assert pair.text == "1"


def test_nobody_listening_leaves_a_write_undone(make_client: Maker) -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnavailableError):
        make_client(f"127.0.0.1:{port}", timeout=0.3).put("a", "1")


def test_write_to_a_paused_server_is_not_answered(make_client: Maker, private_etcd: EtcdCluster) -> None:
    client = make_client(private_etcd.endpoints[:1], timeout=0.5)
    client.put("a", "1")
    private_etcd.signal(0, signal.SIGSTOP)
    with pytest.raises(NotAnsweredError):
        client.put("a", "2")
    with pytest.raises(UnavailableError):
        client.get("a")


def test_client_moves_on_when_its_member_is_killed(make_client: Maker, private_etcd: EtcdCluster) -> None:
    client = make_client(private_etcd.endpoints)
    client.put("a", "1")
    private_etcd.signal(0, signal.SIGKILL)
    pair = client.get("a")
    assert pair is not None
    assert pair.text == "1"
    client.put("a", "2")


class HangUp:
    """Greets as an HTTP/2 server, then hangs up as soon as a request comes."""

    EMPTY_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    HEADERS = 1

    def __init__(self) -> None:
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connection.sendall(self.EMPTY_SETTINGS)
                if self._await_request(connection) == b"":
                    return
                self.requests += 1

    def _await_request(self, connection: socket.socket) -> bytes:
        """Empty if the other side only said what `close` says."""
        stream = connection.makefile("rb")
        if not stream.read(24).startswith(b"PRI"):
            return b""
        while header := stream.read(9):
            stream.read(int.from_bytes(header[:3], "big"))
            if header[3] == self.HEADERS:
                break
        return b"request"

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", int(self.endpoint.split(":")[1]))) as connection:
            connection.sendall(bytes(24))
            self._thread.join()
        self._listener.close()


@pytest.fixture
def hang_up() -> Iterator[HangUp]:
    server = HangUp()
    yield server
    server.close()


def test_write_whose_connection_breaks_is_sent_once(make_client: Maker, hang_up: HangUp) -> None:
    with pytest.raises(NotAnsweredError):
        make_client(hang_up.endpoint, timeout=2.0).put("a", "1")
    assert hang_up.requests == 1


def test_read_whose_connection_breaks_is_sent_again(make_client: Maker, hang_up: HangUp) -> None:
    with pytest.raises(UnavailableError):
        make_client(hang_up.endpoint, timeout=0.5).get("a")
    assert hang_up.requests > 1


def test_client_waits_for_a_server_that_starts_late(make_client: Maker, etcd: EtcdCluster) -> None:
    (port,) = free_ports(1)
    target = etcd.endpoints[0].split(":")

    def forward_once() -> None:
        time.sleep(0.2)
        with socket.create_server(("127.0.0.1", port)) as listener:
            inner, _ = listener.accept()
            with inner, socket.create_connection((target[0], int(target[1]))) as outer:
                back = threading.Thread(target=pump, args=(outer, inner))
                back.start()
                pump(inner, outer)
                back.join()

    thread = threading.Thread(target=forward_once)
    thread.start()
    client = make_client(f"127.0.0.1:{port}")
    assert client.put("late", "1").revision > 0
    client.close()
    thread.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(65536):
        sink.sendall(data)
    with contextlib.suppress(OSError):  # it may have hung up first
        sink.shutdown(socket.SHUT_WR)
