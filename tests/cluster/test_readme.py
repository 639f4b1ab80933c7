"""The README's Python examples, run as they are printed (but for ports and folders)."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from etcray import Client, Cluster

pytestmark = pytest.mark.cluster

README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(source: str, directory: Path) -> str:
    done = subprocess.run([sys.executable, "-c", source], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_cluster_is_launched_from_a_script(tmp_path: Path) -> None:
    (source,) = [example for example in EXAMPLES if "Cluster.launch" in example]
    assert run(source.replace(":2399", f":{free_port()}"), tmp_path).splitlines()[-1] == "running"


def test_locks_and_watches_work_as_shown(cluster: Cluster, tmp_path: Path) -> None:
    (source,) = [example for example in EXAMPLES if "kv.lock" in example]
    printed = run(source.replace("127.0.0.1:2379", cluster.endpoints[0]), tmp_path)
    assert re.fullmatch(r"token \d+\n/reports/today running\n", printed)


def test_etc_is_loaded_as_shown(cluster: Cluster, tmp_path: Path) -> None:
    (source,) = [example for example in EXAMPLES if 'Path("/etc")' in example]
    printed = run(source.replace("127.0.0.1:2379", cluster.endpoints[0]), tmp_path)
    assert re.fullmatch(r"\d+ files\n", printed)
    with Client(cluster.endpoints[0]) as client:
        stored = client.get_prefix("/etc/").kvs
        assert stored
        assert all(Path(pair.key_text).read_bytes() == pair.value for pair in stored)
        client.delete("/etc/", prefix=True)
