"""`etcray recover`, and the cluster that grows from what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from etcray import Cluster, state_file
from tests.cluster.writers import wait_for
from tests.node.local_cluster import LocalCluster

pytestmark = pytest.mark.cluster

SESSION = 0xA11


def recover(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "etcray.cli", "recover", "--data-dir", str(data), "--name", "test"]
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, env={**os.environ}
    )


def test_a_lost_majority_is_recovered_with_one_command(tmp_path: Path) -> None:
    directory = tmp_path / "test"
    directory.mkdir()
    with LocalCluster(directory, 3) as local:
        local.open_session(SESSION)
        local.put(SESSION, 1, b"kept", b"yes")
        local.wait_until_equal()
        spec = msgspec.structs.replace(local.spec, formed=True)
    state_file.save(directory, spec)
    for name in ("m1", "m3"):
        (directory / name).rename(tmp_path / f"lost-{name}")

    asked = json.loads(recover(tmp_path, "--json").stdout)
    assert (asked["chosen"], asked["may_lose_writes"], asked["recovered"]) == ("m2", True, False)
    assert state_file.load(directory, "test") == spec
    done = recover(tmp_path, "--yes")
    assert done.returncode == 0, done.stderr
    assert "WRITES MAY BE LOST" in done.stdout
    assert "m2 is the only member now" in done.stdout

    with Cluster.launch(name="test", data_dir=str(tmp_path), listen="127.0.0.1:0") as cluster:
        assert [member.name for member in cluster.status().members] == ["m2"]
        running = recover(tmp_path)
        assert running.returncode == 1
        assert "is running already" in running.stderr
        with cluster.client() as client:
            pair = client.get("kept")
            assert pair is not None
            assert pair.text == "yes"
            client.put("after", "recovery")
        status = cluster.resize(3)
        assert len(status.members) == 3
        assert status.cluster_id != spec.cluster_id
        wait_for(lambda: len({m.revision for m in cluster.status().members}) == 1, "equal members")
