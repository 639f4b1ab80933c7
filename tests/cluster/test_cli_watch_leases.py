"""`etcray lease`, `lock` and `elect`, against a real etcd and beside etcdctl."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from etcray.cli.main import app, exit_code_of
from etcray.client import Client, EtcrayError
from etcray_bench.etcd import EtcdCluster
from tests.cluster.test_cli_watch import interrupt, lines, start


@pytest.fixture(scope="module")
def lease_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("lease-etcd"), members=1) as launched:
        yield launched


@pytest.fixture
def store(lease_etcd: EtcdCluster) -> Iterator[Client]:
    with Client(lease_etcd.endpoints) as client:
        client.delete("", prefix=True)
        yield client


def run(store: Client, *arguments: str) -> tuple[int, str, str]:
    """One command of etcray, in this process."""
    done = CliRunner().invoke(app, [*arguments], env={"ETCRAY_ENDPOINTS": store.endpoints[0]})
    if isinstance(done.exception, EtcrayError):
        return exit_code_of(done.exception) or 0, done.stdout, f"Error: {done.exception}\n"
    return done.exit_code, done.stdout, done.stderr


def run_process(store: Client, *arguments: str, program: str = "etcray") -> tuple[int, str, str]:
    process = start(store.endpoints[0], *arguments, program=program)
    out, error = process.communicate(timeout=20)
    return process.returncode, out, error


def test_lease_commands_print_what_etcdctl_prints(store: Client) -> None:
    lease = store.lease(100)
    name = f"{lease.id:016x}"
    store.put("a", "1", lease=lease.id)
    for arguments in (
        ["timetolive", name, "--keys"],
        ["timetolive", name],
        ["keep-alive", "--once", name],
        ["list"],
    ):
        ours = run(store, "lease", *arguments)
        theirs = run_process(store, "lease", *arguments, program="etcdctl")
        assert ours[0] == theirs[0] == 0
        # A second may have gone by in between.
        assert ours[1].split("remaining")[0] == theirs[1].split("remaining")[0]
        assert ours[2] == ""
    assert run(store, "lease", "revoke", name) == (0, f"lease {name} revoked\n", "")
    for arguments in (["timetolive", name], ["keep-alive", name]):
        theirs = run_process(store, "lease", *arguments, program="etcdctl")
        assert run(store, "lease", *arguments) == theirs
    code, _, error = run(store, "lease", "revoke", name)
    assert (code, error) == (1, "Error: etcdserver: requested lease not found (NOT_FOUND)\n")


def test_lease_commands_speak_json(store: Client) -> None:
    granted = json.loads(run(store, "lease", "grant", "100", "--id", "abc", "--json")[1])
    assert granted == {"id": "abc", "ttl": 100}
    store.put("a", "1", lease=0xABC)
    shown = json.loads(run(store, "lease", "timetolive", "abc", "--keys", "--json")[1])
    assert (shown["granted_ttl"], shown["keys"], shown["ttl"] > 90) == (100, [{"key": "a"}], True)
    assert "abc" in json.loads(run(store, "lease", "list", "--json")[1])["leases"]
    assert json.loads(run(store, "lease", "revoke", "abc", "--json")[1]) == {"id": "abc", "revoked": True}
    assert json.loads(run(store, "lease", "timetolive", "abc", "--json")[1])["ttl"] == -1


def test_keep_alive_goes_on_until_it_is_interrupted(store: Client) -> None:
    lease = store.lease(2)
    process = start(store.endpoints[0], "lease", "keep-alive", f"{lease.id:x}")
    assert lines(process, 3) == [f"lease {lease.id:016x} keepalived with TTL(2)"] * 3
    assert interrupt(process)[0] == 0
    lease.revoke()


def test_lock_runs_a_command_and_ends_with_its_exit_code(store: Client) -> None:
    script = 'echo "$ETCD_LOCK_KEY $ETCD_LOCK_REV"; exit 7'
    code, out, error = run_process(store, "lock", "jobs", "--", "sh", "-c", script)
    key, revision = out.split()
    assert (code, error, key.startswith("jobs/"), int(revision) > 0) == (7, "", True, True)
    assert store.get_prefix("jobs/").count == 0
    code, _, error = run_process(store, "lock", "jobs", "--", "no-such-program")
    assert (code, error) == (2, "Error: no-such-program: No such file or directory\n")


def test_lock_is_held_until_it_is_interrupted_and_etcdctl_waits_for_it(store: Client) -> None:
    process = start(store.endpoints[0], "lock", "jobs")
    shown = lines(process, 2)
    assert (shown[0].startswith("jobs/"), shown[1]) == (True, "")
    waiting = start(store.endpoints[0], "lock", "jobs", "--json")
    theirs = start(store.endpoints[0], "lock", "jobs", "echo", "mine", program="etcdctl")
    deadline = time.monotonic() + 10
    while store.get_prefix("jobs/").count < 3:
        assert time.monotonic() < deadline, "they did not join the queue"
        time.sleep(0.02)
    assert interrupt(process, signal.SIGTERM)[0] == 0
    held = json.loads(lines(waiting, 1)[0])  # before or after etcdctl
    assert held["fencing_token"] <= held["revision"]
    assert interrupt(waiting)[0] == 0
    assert theirs.communicate(timeout=10)[0] == "mine\n"


def test_lost_lock_stops_its_command(store: Client) -> None:
    process = start(store.endpoints[0], "lock", "jobs", "--ttl", "2", "--", "sleep", "60")
    deadline = time.monotonic() + 10
    while not store.get_prefix("jobs/").kvs:
        assert time.monotonic() < deadline, "the lock was not taken"
        time.sleep(0.02)
    (key,) = store.get_prefix("jobs/")
    store.find_lease(key.lease).revoke()
    _, error = process.communicate(timeout=15)
    assert process.returncode == 1
    assert "was lost with its lease" in error


def test_elect_leads_until_it_is_interrupted_and_is_listened_to(store: Client) -> None:
    process = start(store.endpoints[0], "elect", "top", "me")
    shown = lines(process, 2)
    assert (shown[0].startswith("top/"), shown[1]) == (True, "me")
    ours = start(store.endpoints[0], "elect", "top", "--listen")
    theirs = start(store.endpoints[0], "elect", "top", "--listen", program="etcdctl")
    assert lines(ours, 2) == lines(theirs, 2) == shown
    with store.election("top") as election:
        interrupt(process)
        election.campaign("you")
        assert lines(ours, 2) == lines(theirs, 2) == [election.key.decode(), "you"]
        interrupt(theirs)
        assert interrupt(ours)[0] == 0
