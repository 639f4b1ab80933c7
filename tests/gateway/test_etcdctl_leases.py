"""etcd's own command line for leases, locks and elections, every release that is installed here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.etcd_tools import distributions
from tests.gateway.serving import ServingGateway
from tests.gateway.test_etcdctl import ctl
from tests.gateway.test_lock import line

PROGRAMS = [(found.version, found.etcdctl) for found in distributions() if found.etcdctl is not None]


@pytest.fixture(params=[path for _, path in PROGRAMS], ids=[version for version, _ in PROGRAMS])
def program(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@contextmanager
def running(program: Path, gateway: ServingGateway, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until it is interrupted."""
    command = [str(program), f"--endpoints={gateway.address}", *arguments]
    environment = {**os.environ, "ETCDCTL_API": "3"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_leases_live_and_end(program: Path, gateway: ServingGateway) -> None:
    granted = re.fullmatch(
        r"lease ([0-9a-f]+) granted with TTL\(60s\)\n", ctl(program, gateway, "lease", "grant", "60")
    )
    assert granted is not None
    lease = granted[1]
    ctl(program, gateway, "put", f"--lease={lease}", "k", "v")
    told = ctl(program, gateway, "lease", "timetolive", "--keys", lease)
    assert re.fullmatch(
        rf"lease {lease} granted with TTL\(60s\), remaining\(\d+s\), attached keys\(\[k\]\)\n", told
    )
    kept = ctl(program, gateway, "lease", "keep-alive", "--once", lease)
    assert kept == f"lease {lease} keepalived with TTL(60)\n"
    assert lease in ctl(program, gateway, "lease", "list").split()
    assert ctl(program, gateway, "lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert ctl(program, gateway, "get", "k") == ""
    assert "already expired" in ctl(program, gateway, "lease", "timetolive", lease)


def test_keep_alive_goes_on(program: Path, gateway: ServingGateway) -> None:
    lease = ctl(program, gateway, "lease", "grant", "2").split()[1]
    with running(program, gateway, "lease", "keep-alive", lease) as process:
        assert [next_line(process) for _ in range(2)] == [f"lease {lease} keepalived with TTL(2)"] * 2
        gateway.call(lambda: gateway.member.expire(int(lease, 16)))
        assert next_line(process) == f"lease {lease} expired or revoked."


def test_lock_guards_a_command(program: Path, gateway: ServingGateway) -> None:
    with running(program, gateway, "lock", "door") as holder:
        key = next_line(holder)
        assert [pair.key.decode() for pair in line(gateway, b"door")] == [key]
        with running(program, gateway, "lock", "door", "--", "echo", "inside") as waiter:
            holder.send_signal(signal.SIGINT)
            assert next_line(waiter) == "inside"
            assert waiter.wait(20) == 0


def test_election_has_one_leader_that_others_observe(program: Path, gateway: ServingGateway) -> None:
    with running(program, gateway, "elect", "chair", "first") as first:
        key = next_line(first)
        assert next_line(first) == "first"
        with running(program, gateway, "elect", "-l", "chair") as observer:
            assert [next_line(observer), next_line(observer)] == [key, "first"]
            with running(program, gateway, "elect", "chair", "second") as second:
                first.send_signal(signal.SIGINT)
                key = next_line(second)
                assert next_line(second) == "second"
                assert [next_line(observer), next_line(observer)] == [key, "second"]
