"""POST /sql at a gateway, and the Python client on top of it, over a real history."""

from __future__ import annotations

import asyncio
import base64
import datetime
import http.client
import json
import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from etcray.client import AsyncClient, Client
from etcray.client.errors import SqlError, UnavailableError
from etcray.gateway.sql import ARROW, HistoryUnreachableError
from etcray.gateway.sql_json import plain
from etcray.history import api
from etcray.history.service import HistoryService
from etcray_storage.commands import CommandKind
from etcray_storage.limits import SQL_BODY_BYTES_MAX
from etcray_storage.proto.rpc_pb2 import PutRequest
from tests.gateway.serving import ServingGateway, until
from tests.history.endless import ENDLESS
from tests.history.local_history import Workload, serving_history
from tests.node.local_cluster import LocalCluster


class ServiceChannel:
    """A gateway's way to a history in the same process."""

    def __init__(self, service: HistoryService) -> None:
        self._service = service
        self.is_dead = False

    async def query(self, request: bytes) -> bytes:
        if self.is_dead:
            raise HistoryUnreachableError("it is dead")
        return api.encode(await asyncio.to_thread(self._service.query, api.decode_query_request(request)))

    async def cancel(self, query_id: str) -> None:
        await asyncio.to_thread(self._service.cancel, query_id)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HistoryService]:
    directory = tmp_path_factory.mktemp("http-sql")
    with (
        LocalCluster(directory / "members", nodes=1) as cluster,
        serving_history(cluster, directory / "history") as service,
    ):
        workload = Workload(cluster, 31)
        for key, value in ((b"/a", b'{"n": 1}'), (b"/b", b"\xff\x00"), (b"/a", b"plain")):
            workload._send([(CommandKind.PUT, PutRequest(key=key, value=value))])
        yield service


@pytest.fixture
def gateway(history: HistoryService) -> Iterator[ServingGateway]:
    with ServingGateway() as serving:
        serving.server.sql.is_kept = True
        serving.server.sql.channel = ServiceChannel(history)
        yield serving


def post(
    gateway: ServingGateway, body: object, accept: str = "application/json"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", "/sql", data, {"Accept": accept})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def ask(gateway: ServingGateway, query: str, **fields: Any) -> Any:
    status, _, data = post(gateway, {"query": query, **fields})
    assert status == 200, data
    return json.loads(data)


def test_an_answer_has_the_revision_the_columns_and_the_rows(gateway: ServingGateway) -> None:
    answer = ask(gateway, "SELECT key_text, mod_revision, value FROM history ORDER BY mod_revision")
    assert answer["revision"] == 4
    assert not answer["stale"]
    assert answer["columns"] == [
        {"name": "key_text", "type": "VARCHAR"},
        {"name": "mod_revision", "type": "BIGINT"},
        {"name": "value", "type": "BLOB"},
    ]
    values = [base64.b64encode(value).decode() for value in (b'{"n": 1}', b"\xff\x00", b"plain")]
    assert answer["rows"] == [["/a", 2, values[0]], ["/b", 3, values[1]], ["/a", 4, values[2]]]
    assert answer["row_count"] == 3
    assert answer["elapsed_ms"] > 0


def test_parameters_are_bound_by_position_or_by_name(gateway: ServingGateway) -> None:
    query = "SELECT mod_revision FROM history WHERE key_text = {} AND mod_revision > {}"
    assert ask(gateway, query.format("?", "?"), parameters=["/a", 2])["rows"] == [[4]]
    named = ask(gateway, query.format("$key", "$after"), parameters={"key": "/a", "after": 2})
    assert named["rows"] == [[4]]
    blob = {"base64": base64.b64encode(b"\xff\x00").decode()}
    answer = ask(gateway, "SELECT key_text FROM history WHERE value = ?", parameters=[blob])
    assert answer["rows"] == [["/b"]]
    hostile = "x' OR true; --"
    assert ask(gateway, query.format("?", "?"), parameters=[hostile, 0])["rows"] == []


def test_a_stale_answer_says_so(gateway: ServingGateway) -> None:
    assert ask(gateway, "SELECT 1", stale=True)["stale"]


def test_arrow_comes_as_a_stream_with_the_revision_in_a_header(gateway: ServingGateway) -> None:
    status, headers, data = post(
        gateway, {"query": "SELECT range AS n FROM range(200000)", "rows_max": 300_000}, ARROW
    )
    assert (status, headers["content-type"], headers["etcray-revision"]) == (200, ARROW, "4")
    table = pa.ipc.open_stream(data).read_all()
    assert table.column("n").to_pylist() == list(range(200_000))
    assert table.schema.metadata[b"etcray.revision"] == b"4"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"no json", 400, "invalid"),
        ({"sql": "SELECT 1"}, 400, "invalid"),
        ({"query": "SELEC 1"}, 400, "invalid"),
        ({"query": "SELECT 1", "timeout_ms": -1}, 400, "invalid"),
        ({"query": "SELECT ?"}, 400, "invalid"),
        ({"query": "DELETE FROM history"}, 400, "refused"),
        ({"query": "SELECT * FROM read_csv('/etc/passwd')"}, 400, "refused"),
        ({"query": ENDLESS, "timeout_ms": 200}, 408, "timeout"),
        ({"query": "SELECT * FROM range(100)", "rows_max": 10}, 413, "too_many_rows"),
        (b" " * (SQL_BODY_BYTES_MAX + 1), 413, "invalid"),
    ],
)  # fmt: skip
def test_errors_have_a_code_a_message_and_a_status(
    gateway: ServingGateway, body: object, status: int, code: str
) -> None:
    found, _, data = post(gateway, body)
    error = json.loads(data)
    assert (found, error["code"]) == (status, code), error
    assert error["message"]


def test_only_post_is_known(gateway: ServingGateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request("GET", "/sql")
    response = connection.getresponse()
    assert (response.status, response.headers["allow"]) == (405, "POST")
    connection.close()


def test_a_client_that_goes_away_cancels_its_query(gateway: ServingGateway, history: HistoryService) -> None:
    body = json.dumps({"query": ENDLESS}).encode()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: history.status().queries == 1)
    until(lambda: history.status().queries == 0)


def test_while_history_is_away_the_answer_says_so(gateway: ServingGateway) -> None:
    sql = gateway.server.sql
    channel = sql.channel
    assert isinstance(channel, ServiceChannel)
    channel.is_dead = True
    status, _, data = post(gateway, {"query": "SELECT 1"})
    assert (status, json.loads(data)["code"]) == (503, "unavailable")
    sql.channel = None
    status, _, data = post(gateway, {"query": "SELECT 1"})
    assert (status, json.loads(data)["code"]) == (503, "unavailable")
    sql.is_kept = False
    status, _, data = post(gateway, {"query": "SELECT 1"})
    assert (status, json.loads(data)["code"]) == (501, "unavailable")
    assert "without history" in json.loads(data)["message"]
    with Client(gateway.address) as client, pytest.raises(UnavailableError, match="without history"):
        client.sql("SELECT 1")


def test_numbers_that_json_would_change_are_texts() -> None:
    assert plain(2**53) == 2**53
    assert plain(-(2**53) - 1) == str(-(2**53) - 1)
    assert plain(Decimal("0.5")) == 0.5
    assert plain(Decimal("0.1")) == "0.1"
    assert plain(float("inf")) == "inf"
    assert plain([b"\x00", {"a": 2**60}]) == ["AA==", {"a": str(2**60)}]
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    assert plain(moment) == "2026-01-02T01:04:05Z"


# --- the client -----------------------------------------------------------------------------------


def test_a_result_can_be_had_in_every_form(gateway: ServingGateway) -> None:
    with Client(gateway.address) as client:
        result = client.sql("SELECT key_text, mod_revision AS revision FROM history ORDER BY 2")
    assert (result.revision, result.stale, result.columns) == (4, False, ["key_text", "revision"])
    rows = [("/a", 2), ("/b", 3), ("/a", 4)]
    assert result.fetchall() == rows
    assert list(result) == rows
    assert len(result) == 3
    assert result.arrow().num_rows == 3
    assert list(result.df()["revision"]) == [2, 3, 4]
    assert repr(result).splitlines() == [
        "key_text  revision",
        "--------  --------",
        "/a        2",
        "/b        3",
        "/a        4",
        "(3 rows; revision 4)",
    ]


def test_parameters_may_be_bytes(gateway: ServingGateway) -> None:
    with Client(gateway.address) as client:
        assert client.sql("SELECT key FROM history WHERE value = ?", [b"\xff\x00"]).fetchall() == [(b"/b",)]
        named = client.sql("SELECT count(*) FROM history WHERE key = $key", {"key": b"/a"})
        assert named.fetchall() == [(2,)]
        with pytest.raises(TypeError, match="a parameter is"):
            client.sql("SELECT ?", [object()])  # type: ignore[list-item]


def test_errors_are_told_apart(gateway: ServingGateway) -> None:
    with Client(gateway.address) as client:
        for query, reason in (("SELEC 1", "invalid"), ("DROP TABLE history", "refused")):
            with pytest.raises(SqlError) as caught:
                client.sql(query)
            assert caught.value.reason == reason
        with pytest.raises(SqlError) as caught:
            client.sql(ENDLESS, timeout=0.3)
        assert caught.value.reason == "timeout"


def test_a_gateway_that_is_gone_is_passed_over(gateway: ServingGateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        gone = f"127.0.0.1:{unused.getsockname()[1]}"
    with Client([gone, gateway.address]) as client:
        assert client.sql("SELECT 1").fetchall() == [(1,)]
    with Client(gone, timeout=0.2) as client, pytest.raises(UnavailableError):
        client.sql("SELECT 1")


def test_a_cancelled_task_cancels_the_query(gateway: ServingGateway, history: HistoryService) -> None:
    async def run() -> None:
        async with AsyncClient(gateway.address) as client:
            assert (await client.sql("SELECT 5")).fetchall() == [(5,)]
            task = asyncio.create_task(client.sql(ENDLESS))
            while history.status().queries == 0:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    until(lambda: history.status().queries == 0)
