"""`etcray sql`, `log`, `diff` and `history` against a real cluster, and the prompt on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from etcray import Client, Cluster
from etcray.cli.main import app, exit_code_of
from tests.cluster.writers import wait_for

pytestmark = pytest.mark.cluster

PREFIX = "/cli-sql/"


@pytest.fixture(scope="module")
def endpoint(cluster: Cluster) -> str:
    return cluster.endpoints[0]


@pytest.fixture(scope="module")
def revisions(endpoint: str) -> list[int]:
    """Four changes: two of a text of two lines, a key that comes, and one that goes."""
    with Client(endpoint) as kv:
        written = [
            kv.put(f"{PREFIX}text", "one\ntwo").revision,
            kv.put(f"{PREFIX}text", "one\nthree").revision,
            kv.put(f"{PREFIX}raw", b"\xff\x00").revision,
        ]
        return [*written, kv.delete(f"{PREFIX}text").revision]


def run(endpoint: str, *arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*arguments], env={"ETCRAY_ENDPOINTS": endpoint}, input=stdin)
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        return exit_code_of(done.exception) or 99, done.stdout, str(done.exception)
    return done.exit_code, done.stdout, done.stderr


def test_a_query_is_printed_in_every_format(endpoint: str, revisions: list[int], tmp_path: Path) -> None:
    query = "SELECT mod_revision, op FROM history WHERE key_text = $key ORDER BY 1"
    asked = ["sql", query, "-p", f"key={PREFIX}text"]
    expected = [(revisions[0], "put"), (revisions[1], "put"), (revisions[3], "delete")]
    code, out, errors = run(endpoint, *asked, "--format", "csv")
    assert (code, out.splitlines()[1:]) == (0, [f"{revision},{op}" for revision, op in expected])
    code, out, _ = run(endpoint, *asked, "--json")
    assert [tuple(json.loads(line).values()) for line in out.splitlines()] == expected
    code, out, errors = run(endpoint, *asked)
    assert code == 0
    assert all(f"{revision} │ {op}" in out for revision, op in expected)
    assert "3 rows, revision" in errors
    path = tmp_path / "out.parquet"
    assert run(endpoint, *asked, "--format", "parquet", "-o", str(path))[0] == 0
    assert parquet.read_table(path).column(0).to_pylist() == [revision for revision, _ in expected]
    path = tmp_path / "out.arrow"
    assert run(endpoint, *asked, "--format", "arrow", "-o", str(path))[0] == 0
    assert pa.ipc.open_stream(path.read_bytes()).read_all().column(1).to_pylist() == [
        op for _, op in expected
    ]


def test_a_query_comes_from_standard_input_and_its_errors_exit_with_1(
    endpoint: str, revisions: list[int]
) -> None:
    assert run(endpoint, "sql", "-", "--format", "csv", stdin="SELECT 41 + 1 AS n")[:2] == (0, "n\n42\n")
    code, _, errors = run(endpoint, "sql", "SELECT nonsense FROM history")
    assert (code, "nonsense" in errors) == (1, True)
    code, _, errors = run(endpoint, "sql", "COPY history TO '/tmp/out.csv'")
    assert (code, "only queries" in errors) == (1, True)
    code, _, errors = run(endpoint, "sql", "SELECT * FROM range(10)", "--rows-max", "5")
    assert (code, "rows" in errors) == (1, True)


def test_log_shows_the_newest_change_first(endpoint: str, revisions: list[int]) -> None:
    code, out, _ = run(endpoint, "log", f"{PREFIX}text")
    lines = out.splitlines()
    assert code == 0
    assert [int(line.split()[0]) for line in lines] == [revisions[3], revisions[1], revisions[0]]
    assert lines[0].endswith("deleted")
    assert lines[1].endswith("v2  one⏎three")
    changes = json.loads(run(endpoint, "log", PREFIX, "--prefix", "-n", "2", "--json")[1])["changes"]
    assert [change["op"] for change in changes] == ["delete", "put"]
    assert (changes[1]["value"], changes[1]["value_base64"]) == (None, "/wA=")


def test_diff_shows_what_came_changed_and_went(endpoint: str, revisions: list[int]) -> None:
    before, changed, added, removed = revisions
    code, out, _ = run(endpoint, "diff", str(before), str(changed), "--prefix", PREFIX)
    assert (code, out.splitlines()) == (0, [f"~ {PREFIX}text", "    - two", "    + three"])
    code, out, errors = run(endpoint, "diff", str(before), "--prefix", PREFIX, "--stat")
    assert out.splitlines() == [f"+ {PREFIX}raw", f"- {PREFIX}text"]
    assert "1 added, 0 changed, 1 removed" in errors
    code, out, _ = run(endpoint, "diff", str(changed), str(added), "--prefix", PREFIX, "--json")
    assert [change["change"] for change in json.loads(out)["changes"]] == ["added"]
    assert run(endpoint, "diff", str(removed), str(before))[0] == 2


def test_restore_brings_a_value_back_only_over_what_was_seen(endpoint: str, revisions: list[int]) -> None:
    at = f"{PREFIX}text@{revisions[0]}"
    assert run(endpoint, "history", "restore", at, "--dry-run")[0] == 0
    with Client(endpoint) as kv:
        assert kv.get(f"{PREFIX}text") is None
        code, out, _ = run(endpoint, "history", "restore", at, "--json")
        pair = kv.get(f"{PREFIX}text")
        assert pair is not None
        assert (code, pair.value, json.loads(out)["revision"]) == (0, b"one\ntwo", pair.mod_revision)
        code, _, errors = run(endpoint, "history", "restore", f"{PREFIX}text@{revisions[3]}")
        assert (code, "did not exist" in errors) == (1, True)
        assert run(endpoint, "history", "restore", f"{PREFIX}text@{revisions[3]}", "--delete")[0] == 0
        assert kv.get(f"{PREFIX}text") is None


def test_export_writes_each_revision_once_and_whole(
    endpoint: str, revisions: list[int], tmp_path: Path
) -> None:
    with Client(endpoint) as kv:
        last = kv.range(PREFIX, prefix=True).revision
    target = str(tmp_path / "export")
    arguments = ["history", "export", target, "--to", str(last), "--rows-per-file", "3"]
    code, out, errors = run(endpoint, *arguments, "--json")
    assert code == 0, errors
    told = json.loads(out)
    rows = [row for file in told["files"] for row in parquet.read_table(file).to_pylist()]
    assert len(rows) == told["rows"]
    order = [(row["mod_revision"], row["sub_revision"]) for row in rows]
    assert order == sorted(set(order))
    assert {revision for revision, _ in order} >= set(revisions)
    assert run(endpoint, "history", "export", target, "--to", str(last + 1_000_000))[0] == 2


def test_history_status_names_revisions_and_source(cluster: Cluster) -> None:
    def is_followed() -> bool:
        history = cluster.status().history
        return history is not None and history.is_following

    wait_for(is_followed, "the history to follow")
    code, out, _ = run("", "history", "status", "--name", cluster.name, "--json")
    report = json.loads(out)
    assert (code, report["phase"], report["first_revision"]) == (0, "serving", 1)
    assert report["source"] in [member.name for member in cluster.status().members]


# --- the prompt -------------------------------------------------------------------------------


class Terminal:
    """The prompt, as somebody at a terminal has it."""

    def __init__(self, endpoint: str, state: Path) -> None:
        program = "import sys; sys.argv = ['etcray', 'sql']; from etcray.cli.main import main; main()"
        environment = {"ETCRAY_ENDPOINTS": endpoint, "XDG_STATE_HOME": str(state), "TERM": "xterm"}
        self.process, self._descriptor = pty.fork()
        if self.process == 0:
            os.execve(sys.executable, [sys.executable, "-c", program], {**os.environ, **environment})
        self._seen = b""

    def shows(self, text: str) -> None:
        """Wait until it has shown this; what came up to there is forgotten."""
        for _ in range(600):
            plain = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", self._seen)
            _, found, rest = plain.partition(text.encode())
            if found:
                self._seen = rest
                return
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self._seen += os.read(self._descriptor, 65536)
        raise AssertionError(f"no {text!r} in {self._seen!r}")

    def types(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def close(self) -> int:
        """Its exit code."""
        status = os.waitpid(self.process, 0)[1]
        os.close(self._descriptor)
        self.process = 0
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """Leave nothing behind of a prompt that did not end by itself."""
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            self.close()


@pytest.fixture
def terminal(endpoint: str, tmp_path: Path) -> Iterator[Terminal]:
    started = Terminal(endpoint, tmp_path)
    yield started
    started.kill()


def test_the_prompt_answers_stops_and_remembers(
    terminal: Terminal, revisions: list[int], tmp_path: Path
) -> None:
    terminal.shows("etcray>")
    terminal.types("SELECT 6 * 7\r")
    terminal.shows("...")
    terminal.types("AS answer;\r")
    terminal.shows("42")
    terminal.shows("1 row, revision")
    terminal.types(".describe kv\r")
    terminal.shows("create_revision")
    terminal.types("SELECT count(*) FROM range(100000000000) a, range(1000) b;\r")
    time.sleep(1)
    terminal.types("\x03")
    terminal.shows("stopped")
    terminal.types("SELECT nonsense;\r")
    terminal.shows("Error: Binder Error")
    terminal.shows("etcray>")  # typed before the prompt reads keys, ^D would mean the end of a line
    terminal.types("\x04")
    assert terminal.close() == 0
    assert "+AS answer;" in (tmp_path / "etcray" / "sql_history").read_text()
