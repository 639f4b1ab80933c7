"""`etcdctl watch`, `make-mirror` and `elect`'s way to watch, every release that is installed here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.etcd_tools import distributions, run_etcdctl
from tests.gateway.grpc_calls import put
from tests.gateway.serving import ServingGateway, until

PROGRAMS = [found.etcdctl for found in distributions() if found.etcdctl is not None]


@pytest.fixture(params=PROGRAMS, ids=[found.version for found in distributions() if found.etcdctl])
def program(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@contextmanager
def watching(
    program: Path, gateway: ServingGateway, output: Path, *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`etcdctl watch` in the background, from the moment when its watcher exists."""
    hub = gateway.server.watches.hub
    before = gateway.call(lambda: hub.watcher_count)
    with output.open("wb") as file:
        process = subprocess.Popen(
            [str(program), f"--endpoints={gateway.address}", "watch", *arguments],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        try:
            if "-i" not in arguments:
                until(lambda: gateway.call(lambda: hub.watcher_count) > before)
            yield process
        finally:
            process.kill()
            process.communicate()


def shows(output: Path, text: str) -> None:
    until(lambda: output.read_text() == text)


def delete(program: Path, gateway: ServingGateway, *arguments: str) -> None:
    assert run_etcdctl(program, gateway.address, "del", *arguments).returncode == 0


def test_changes_are_shown_as_they_happen(program: Path, gateway: ServingGateway, tmp_path: Path) -> None:
    output = tmp_path / "output"
    put(gateway, "k0", b"before")
    with watching(program, gateway, output, "--prefix", "--prev-kv", "k"):
        put(gateway, "k1", b"1")
        put(gateway, "k1", b"2")
        put(gateway, "other")
        delete(program, gateway, "k1")
        shows(
            output, "PUT\n\n\nk1\n1\nPUT\nk1\n1\nk1\n2\nDELETE\nk1\n2\nk1\n\n".replace("\n\n\nk1", "\nk1", 1)
        )


def test_history_is_shown_from_a_revision_on(program: Path, gateway: ServingGateway, tmp_path: Path) -> None:
    output = tmp_path / "output"
    for n in range(4):
        put(gateway, "k", b"%d" % n)
    with watching(program, gateway, output, "--rev=3", "k"):
        put(gateway, "k", b"live")
        shows(output, "PUT\nk\n1\nPUT\nk\n2\nPUT\nk\n3\nPUT\nk\nlive\n")


def test_compacted_revision_is_reported(program: Path, gateway: ServingGateway, tmp_path: Path) -> None:
    for n in range(4):
        put(gateway, "k", b"%d" % n)
    assert run_etcdctl(program, gateway.address, "compaction", "4").returncode == 0
    done = run_etcdctl(program, gateway.address, "watch", "--rev=2", "k")
    assert b"required revision has been compacted" in done.stderr


def test_command_runs_for_every_event(program: Path, gateway: ServingGateway, tmp_path: Path) -> None:
    output = tmp_path / "output"
    with watching(program, gateway, output, "k", "--", "sh", "-c", 'echo "$ETCD_WATCH_EVENT_TYPE"'):
        put(gateway, "k", b"v")
        until(lambda: output.read_text().endswith('"PUT"\n'))


def test_interactive_watch_takes_several_keys(program: Path, gateway: ServingGateway, tmp_path: Path) -> None:
    output = tmp_path / "output"
    hub = gateway.server.watches.hub
    with watching(program, gateway, output, "-i") as process:
        assert process.stdin is not None
        for number, line in enumerate((b"watch a\n", b"watch --prefix b\n"), 1):
            process.stdin.write(line)
            process.stdin.flush()
            until(lambda number=number: gateway.call(lambda: hub.watcher_count) == number)  # type: ignore[misc]
        put(gateway, "b1", b"1")
        put(gateway, "a", b"2")
        until(lambda: sorted(output.read_text().split()) == sorted(["PUT", "b1", "1", "PUT", "a", "2"]))


def test_mirror_follows_its_source(program: Path, gateway: ServingGateway) -> None:
    put(gateway, "k1", b"old")
    with ServingGateway() as destination:
        process = subprocess.Popen(
            [str(program), f"--endpoints={gateway.address}", "make-mirror", destination.address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        try:

            def mirrored() -> str:
                done = run_etcdctl(program, destination.address, "get", "--prefix", "k")
                return done.stdout.decode()

            until(lambda: mirrored() == "k1\nold\n")
            put(gateway, "k2", b"new")
            until(lambda: mirrored() == "k1\nold\nk2\nnew\n")
        finally:
            process.kill()
            process.wait()
