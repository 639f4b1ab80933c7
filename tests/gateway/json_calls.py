"""Requests to a JSON gateway, etcd's or ours, as any HTTP client would make them."""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any, NamedTuple

LINES_SECONDS_MAX = 10.0


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class JsonAnswer(NamedTuple):
    status: int
    body: str

    @property
    def fields(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The messages of a stream."""
        return [json.loads(line) for line in self.body.splitlines() if line]


def request(
    address: str, method: str, path: str, body: str | bytes = "", headers: dict[str, str] | None = None
) -> JsonAnswer:
    """One request over a connection of its own, read to the end."""
    connection = http.client.HTTPConnection(address, timeout=LINES_SECONDS_MAX)
    try:
        data = body.encode() if isinstance(body, str) else body
        connection.request(method, path, body=data, headers=headers or {})
        response = connection.getresponse()
        return JsonAnswer(response.status, response.read().decode())
    finally:
        connection.close()


def post(address: str, path: str, body: Any, **headers: str) -> JsonAnswer:
    """POST an object, or text as it is, to a path under /v3/."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    return request(address, "POST", f"/v3/{path}", text, headers)


def ok(address: str, path: str, body: Any) -> Any:
    """What a request that has to succeed answers."""
    answer = post(address, path, body)
    assert answer.status == 200, answer
    return answer.fields


class JsonStream:
    """A streaming request; its lines one by one. Use as a context manager: leaving it hangs up."""

    def __init__(self, address: str, path: str, body: Any) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=LINES_SECONDS_MAX)
        text = body if isinstance(body, str) else json.dumps(body)
        self._connection.request("POST", f"/v3/{path}", body=text.encode())
        self.response = self._connection.getresponse()

    def __enter__(self) -> JsonStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def next(self) -> Any:
        line = self.response.readline()
        assert line, "the stream is over"
        return json.loads(line)
