"""`etcray watch`, against a real etcd, beside etcdctl where the output must be the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from etcray.cli.main import app, exit_code_of
from etcray.cli.watch import go_quoted
from etcray.client import Client
from etcray.errors import OptionsError
from etcray_bench.etcd import EtcdCluster, find_etcd


@pytest.fixture(scope="module")
def solo_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("solo-etcd"), members=1) as launched:
        yield launched


@pytest.fixture
def store(solo_etcd: EtcdCluster) -> Iterator[Client]:
    with Client(solo_etcd.endpoints) as client:
        client.delete("", prefix=True)
        yield client


def start(endpoint: str, *arguments: str, program: str = "etcray") -> subprocess.Popen[str]:
    """One of the two command lines; its settings come from the environment."""
    environment = {
        **os.environ,
        "ETCRAY_ENDPOINTS": endpoint,
        "ETCDCTL_ENDPOINTS": endpoint,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    etcray = [sys.executable, "-m", "etcray.cli"]
    return subprocess.Popen(
        [*(etcray if program == "etcray" else [str(find_etcd().with_name("etcdctl"))]), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def interrupt(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
    process.send_signal(number)
    out, error = process.communicate(timeout=10)
    return process.returncode, out, error


def history(store: Client) -> int:
    """Three events; the revision of the first."""
    first = store.put("a", "1").revision
    store.put("a", "2")
    store.delete("a")
    return first


def test_events_look_like_etcdctls(store: Client) -> None:
    first = history(store)
    arguments = ["watch", "a", "--rev", str(first), "--prev-kv"]
    shown = {}
    for program in ("etcray", "etcdctl"):
        process = start(store.endpoints[0], *arguments, program=program)
        shown[program] = lines(process, 13)
        code, _, error = interrupt(process)
        if program == "etcray":
            assert (code, error) == (0, "")
    assert shown["etcray"] == shown["etcdctl"]
    assert shown["etcray"][:8] == ["PUT", "a", "1", "PUT", "a", "1", "a", "2"]


def test_json_has_one_object_for_each_batch(store: Client) -> None:
    first = history(store)
    process = start(store.endpoints[0], "watch", "--prefix", "", "--rev", str(first), "--json")
    seen: list[dict[str, object]] = []
    while len(seen) < 3:
        (line,) = lines(process, 1)
        batch = json.loads(line)
        assert batch["revision"] >= first
        seen += batch["events"]
    assert [event["type"] for event in seen] == ["PUT", "PUT", "DELETE"]
    assert seen[0]["kv"] == {
        "key": "a",
        "value": "1",
        "create_revision": first,
        "mod_revision": first,
        "version": 1,
        "lease": "0",
    }
    assert interrupt(process, signal.SIGTERM)[0] == 0


def test_command_gets_what_etcdctl_gives_its_commands(store: Client) -> None:
    first = store.put("a", 'new\nline "quoted" grün').revision
    names = ("REVISION", "EVENT_TYPE", "KEY", "VALUE")
    command = ["printenv", *(f"ETCD_WATCH_{name}" for name in names)]
    shown = {}
    for program in ("etcray", "etcdctl"):
        process = start(
            store.endpoints[0], "watch", "a", "--rev", str(first), "--", *command, program=program
        )
        shown[program] = lines(process, 8)
        interrupt(process)
    assert shown["etcray"] == shown["etcdctl"]
    assert shown["etcray"][4:] == [str(first), '"PUT"', '"a"', '"new\\nline \\"quoted\\" grün"']


def test_command_that_fails_ends_the_watch(store: Client) -> None:
    first = store.put("a", "1").revision
    process = start(store.endpoints[0], "watch", "a", "--rev", str(first), "--", "sh", "-c", "exit 3")
    _, error = process.communicate(timeout=10)
    assert process.returncode == 1
    assert error == "Error: the command 'sh -c exit 3' ended with exit code 3\n"


def test_interactive_watches_and_progress(store: Client) -> None:
    first = store.put("b", "1").revision
    process = start(store.endpoints[0], "watch", "--interactive")
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(f'foo\nwatch\nwatch "b" --rev={first}\n')
    process.stdin.flush()
    assert lines(process, 3) == ["PUT", "b", "1"]
    process.stdin.write("progress\n")
    process.stdin.flush()
    assert lines(process, 1) == [f"progress notify: {first}"]
    process.stdin.close()
    assert process.wait(10) == 0
    assert process.stderr.read().splitlines() == [
        "Error: 'foo': say watch or progress",
        "Error: watch needs a KEY, or --interactive",
    ]
    process.stdout.close() if process.stdout else None
    process.stderr.close()


def test_compacted_revision_is_an_error(store: Client) -> None:
    first = history(store)
    newest = store.put("c", "").revision
    store.compact(newest)
    process = start(store.endpoints[0], "watch", "a", "--rev", str(first))
    out, error = process.communicate(timeout=10)
    assert (process.returncode, out) == (1, "")
    assert error.startswith("Error: etcdserver: mvcc: required revision has been compacted")
    assert f"the oldest one left is {newest}" in error


def test_reader_that_goes_away_ends_the_watch_quietly(store: Client) -> None:
    process = start(store.endpoints[0], "watch", "a")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    while process.poll() is None:
        store.put("a", "1")
    _, error = process.communicate(timeout=10)
    assert (process.returncode, error) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch"],
        ["watch", ""],
        ["watch", "a", "b", "--prefix"],
        ["watch", "a", "b", "c"],
        ["lease", "revoke", "xyz"],
        ["elect", "name"],
        ["elect", "name", "proposal", "--listen"],
    ],
)
def test_senseless_arguments_are_usage_errors(arguments: list[str]) -> None:
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, OptionsError)
    assert exit_code_of(error) == 2


@pytest.mark.parametrize(
    ("data", "quoted"),
    [
        (b"plain", '"plain"'),
        (b'a"b\\c\n\t', r'"a\"b\\c\n\t"'),
        (b"\x00\x1f\x7f\xff", r'"\x00\x1f\x7f\xff"'),
        ("grün\u00a0\u200b\U000e0001".encode(), r'"grün\u00a0\u200b\U000e0001"'),
    ],
)
def test_values_are_quoted_as_go_does(data: bytes, quoted: str) -> None:
    assert go_quoted(data) == quoted
