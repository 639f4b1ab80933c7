"""`etcray bench` as users run it, and how the command `etcray` finds it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from etcray_bench.etcd import EtcdCluster
from etcray_bench.load import LoadResult, Progress
from etcray_bench.load.show import progress_text

SHORT = ("--seconds", "0.3", "--warmup", "0.1", "--keys", "100", "--clients", "8")


@pytest.fixture(scope="module")
def entered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the metadata of a distribution that enters `bench`, as our own wheel does."""
    folder = tmp_path_factory.mktemp("distribution")
    metadata = folder / "enters_bench-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: enters-bench\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[etcray.commands]\nbench = etcray_bench.bench_command:app\n")
    return folder


def etcray(entered: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(entered), *(part for part in sys.path if part)])
    return subprocess.run(
        [sys.executable, "-m", "etcray.cli", *arguments],
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_table_has_percentiles_and_says_what_was_checked(entered: Path, etcd: EtcdCluster) -> None:
    done = etcray(entered, "bench", "mixed", "--rate", "200", "--endpoints", etcd.endpoints[0], *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("operations/s", "open loop", "service time", "p99.9", "checked: 100 keys", "server 3.5.1"):
        assert text in done.stdout


def test_json_is_the_whole_result_and_csv_a_line_for_each_operation(entered: Path, etcd: EtcdCluster) -> None:
    done = etcray(entered, "bench", "put", "--json", "--endpoints", etcd.endpoints[0], *SHORT)
    content = json.loads(done.stdout)
    assert content["operations_per_second"] > 0
    assert content["environment"]["server"] == "3.5.1"
    assert content.keys() >= set(LoadResult.__struct_fields__)
    done = etcray(entered, "bench", "ycsb-a", "--csv", "--endpoints", etcd.endpoints[0], *SHORT)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["operation"] for row in rows} <= {"read", "update", "all"}
    assert float(rows[-1]["p99_ms"]) > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("put", "--endpoints", "127.0.0.1:1"), 1, "nothing listens at 127.0.0.1:1"),
        (("put", "--keys", "0"), 2, "--keys is from 1"),
        (("write",), 2, "there is no workload 'write', but put"),
        (("put", "--json", "--csv"), 2, "--json and --csv exclude each other"),
        (("put", "--speed", "1"), 2, "No such option: --speed"),
    ],
)
def test_errors_are_one_message_and_an_exit_code(
    entered: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = etcray(entered, "bench", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_listens_and_is_no_store_is_told(entered: Path) -> None:
    program = "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler);"
    program += "print(s.server_port, flush=True); s.serve_forever()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        done = etcray(entered, "bench", "put", "--endpoints", f"127.0.0.1:{port}")
        server.kill()
    assert done.returncode == 1
    assert "gRPC server" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_commands_import_nothing_of_it(entered: Path) -> None:
    program = (
        "import sys; sys.argv = ['etcray', 'get', 'k', '--endpoints=127.0.0.1:1',"
        "'--command-timeout=0.1']\n"
        "from etcray.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith(('etcray_bench', 'hdrh', 'hpack'))])\n"
    )
    path = os.pathsep.join([str(entered), *(part for part in sys.path if part)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


def test_the_list_of_commands_has_it(entered: Path) -> None:
    done = etcray(entered, "--help")
    assert "bench" in done.stdout
    done = etcray(entered, "bench", "list")
    assert "ycsb-f" in done.stdout


def test_the_progress_line_says_rate_p99_and_failures() -> None:
    progress = Progress(
        phase="run",
        seconds=2.0,
        of_seconds=10.0,
        operations=8_000,
        operations_per_second=4_000.4,
        p99_ms=12.345,
        failures=3,
    )
    assert progress_text(progress) == "run 2.0/10 s  8,000 operations  4,000/s  p99 12.35 ms  3 failed"
