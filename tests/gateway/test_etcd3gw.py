"""A published client of etcd's JSON gateway, unchanged, against ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import etcd3gw
import pytest
from etcd3gw.exceptions import ConnectionFailedError, Etcd3Exception

from tests.gateway.serving import ServingGateway


@pytest.fixture
def client(shared_gateway: ServingGateway) -> Iterator[Any]:
    opened = etcd3gw.client(host="127.0.0.1", port=shared_gateway.port, api_path="/v3/", timeout=10)
    yield opened
    opened.session.close()


@pytest.fixture
def key() -> str:
    return f"/{uuid.uuid4()}/"


def test_status_and_members(client: Any) -> None:
    assert client.status()["version"] == "3.7.1"
    assert [member["name"] for member in client.members()] == ["solo"]


def test_keys_are_written_read_and_deleted(client: Any, key: str) -> None:
    assert client.put(key + "a", "1") is True
    assert client.put(key + "b", b"\xff") is True
    assert client.get(key + "a") == [b"1"]
    assert client.get_prefix(key)[1][0] == b"\xff"
    assert [value for value, _ in client.get_prefix(key, sort_order="descend")] == [b"\xff", b"1"]
    assert client.get(key + "nothing") == []
    assert client.delete(key + "a") is True
    assert client.delete(key + "a") is False
    assert client.delete_prefix(key) is True
    assert client.get_prefix(key) == []


def test_compare_and_swap(client: Any, key: str) -> None:
    assert client.create(key, "first") is True
    assert client.create(key, "second") is False
    assert client.replace(key, "first", "third") is True
    assert client.replace(key, "first", "fourth") is False
    assert client.get(key) == [b"third"]


def test_lease_carries_keys(client: Any, key: str) -> None:
    lease = client.lease(ttl=30)
    assert client.put(key, "leased", lease=lease) is True
    assert lease.keys() == [key.encode()]
    assert 0 < lease.ttl() <= 30
    assert lease.refresh() == 30
    assert lease.revoke() is True
    assert client.get(key) == []
    assert lease.ttl() == -1


def test_lock_is_held_by_one(client: Any, key: str) -> None:
    first, second = client.lock(id=key, ttl=30), client.lock(id=key, ttl=30)
    assert first.acquire() is True
    assert second.acquire() is False
    assert first.is_acquired()
    assert first.refresh() == 30
    assert first.release() is True
    assert second.acquire() is True
    with pytest.raises(Etcd3Exception):
        client.post(client.get_url("/lease/revoke"), json={"ID": "1"})
    assert second.release() is True


def test_watch_brings_events(client: Any, key: str) -> None:
    events, cancel = client.watch_prefix(key)
    for number in range(5):
        client.put(f"{key}{number}", str(number))
    client.delete(f"{key}0")
    got = [next(events) for _ in range(6)]
    cancel()
    assert [event["kv"]["key"].decode() for event in got] == [
        *(f"{key}{number}" for number in range(5)),
        f"{key}0",
    ]
    assert got[-1]["type"] == "DELETE"


def test_watch_once_waits_for_one_event(client: Any, key: str) -> None:
    writer = threading.Timer(0.3, lambda: client.put(key, "now"))
    writer.start()
    assert client.watch_once(key, timeout=10)["kv"]["value"] == b"now"
    writer.join()


def test_nobody_listening_is_told_as_usual() -> None:
    lost = etcd3gw.client(host="127.0.0.1", port=1, api_path="/v3/", timeout=1)
    with pytest.raises(ConnectionFailedError):
        lost.status()
    lost.session.close()


def test_its_own_integration_tests_pass(shared_gateway: ServingGateway, tmp_path: Path) -> None:
    """They are in the package. All that they use of `oslotest`, which is not installed, is a base class."""
    package = tmp_path / "oslotest"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text("from unittest import TestCase as BaseTestCase\n")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "TOOZ_TEST_HTTP_URL": f"http://{shared_gateway.address}/health",
        "TOOZ_TEST_ETCD_PORT": str(shared_gateway.port),
    }
    command = [sys.executable, "-m", "unittest", "etcd3gw.tests.test_etcd3gw"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    ran = re.search(r"Ran (\d+) tests", done.stderr)
    assert ran is not None
    assert int(ran[1]) >= 20
    assert "skipped" not in done.stderr
