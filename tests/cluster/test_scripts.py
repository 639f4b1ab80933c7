"""Programs of users: what they import before etcray must not matter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

SCRIPT = """
import ray
from etcray import Cluster

with Cluster.launch(nodes=1, name="script", data_dir="data", listen="127.0.0.1:0") as cluster:
    kv = cluster.client()
    kv.put("key", "value")

    @ray.remote(num_cpus=0)
    def read():
        return Cluster.connect("script").client().get("key").text

    print(ray.get(read.remote()))
"""


@pytest.mark.parametrize("first", ["import ray, ray._raylet", "import etcray"])
def test_a_script_may_import_ray_before_etcray(tmp_path: Path, first: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", first + SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "value"
