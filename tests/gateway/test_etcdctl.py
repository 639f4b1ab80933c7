"""etcd's own command line against a gateway, every release that is installed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.etcd_tools import distributions, run_etcdctl
from tests.gateway.serving import ServingGateway

PROGRAMS = [found.etcdctl for found in distributions() if found.etcdctl is not None]


@pytest.fixture(params=PROGRAMS, ids=[found.version for found in distributions() if found.etcdctl])
def program(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def ctl(program: Path, gateway: ServingGateway, *arguments: str, stdin: str = "") -> str:
    done = run_etcdctl(program, gateway.address, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_some_etcdctl_is_installed() -> None:
    assert PROGRAMS


def test_keys_are_written_read_and_deleted(program: Path, gateway: ServingGateway) -> None:
    assert ctl(program, gateway, "put", "a", "1") == "OK\n"
    assert ctl(program, gateway, "put", "ab", "2") == "OK\n"
    assert ctl(program, gateway, "get", "a") == "a\n1\n"
    assert ctl(program, gateway, "get", "--consistency=s", "--prefix", "a") == "a\n1\nab\n2\n"
    got = json.loads(ctl(program, gateway, "get", "a", "-w", "json"))
    assert got["count"] == 1
    assert got["kvs"][0]["mod_revision"] == 2
    assert ctl(program, gateway, "put", "--prev-kv", "a", "3") == "OK\na\n1\n"
    assert ctl(program, gateway, "get", "--rev=2", "--print-value-only", "a") == "1\n"
    assert ctl(program, gateway, "del", "--prefix", "a") == "2\n"
    assert ctl(program, gateway, "get", "--prefix", "a") == ""


def test_transaction_and_compaction(program: Path, gateway: ServingGateway) -> None:
    ctl(program, gateway, "put", "k", "old")
    script = 'value("k") = "old"\n\nput k new\nget k\n\nput k wrong\n\n'
    assert ctl(program, gateway, "txn", stdin=script) == "SUCCESS\n\nOK\n\nk\nnew\n"
    assert "compacted revision 3" in ctl(program, gateway, "compaction", "3")
    failed = run_etcdctl(program, gateway.address, "get", "--rev=2", "k")
    assert failed.returncode == 1
    assert b"required revision has been compacted" in failed.stderr


def test_cluster_is_described(program: Path, gateway: ServingGateway) -> None:
    (member,) = json.loads(ctl(program, gateway, "member", "list", "-w", "json"))["members"]
    assert member["name"] == "solo"
    assert member["clientURLs"] == [f"http://{gateway.address}"]
    (status,) = json.loads(ctl(program, gateway, "endpoint", "status", "-w", "json"))
    assert status["Status"]["version"] == "3.7.1"
    assert status["Status"]["leader"] == status["Status"]["header"]["member_id"]
    ctl(program, gateway, "endpoint", "health")
    assert ctl(program, gateway, "endpoint", "status", "--cluster").startswith(f"http://{gateway.address}")


def test_alarms_are_listed_and_disarmed(program: Path, gateway: ServingGateway) -> None:
    assert ctl(program, gateway, "alarm", "list") == ""
    assert ctl(program, gateway, "alarm", "disarm") == ""
