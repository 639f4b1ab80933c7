"""Published client libraries, unchanged: `aetcd` (asyncio) and npm's `etcd3`. etcd3gw is in tests/gateway.

`etcd3` is not something that pip can install. Its test runs where `node` is on the `PATH` and can find the
package: after `npm install etcd3` in some folder, set `NODE_PATH` to the `node_modules` there. It is skipped
everywhere else.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from etcray import Cluster

HERE = Path(__file__).parent
SECONDS_MAX = 240


@pytest.mark.cluster
def test_aetcd_works(cluster: Cluster) -> None:
    """In a process of its own: it brings etcd's messages under the names that ours have."""
    host, _, port = cluster.endpoints[0].rpartition(":")
    done = subprocess.run(
        [sys.executable, str(HERE / "aetcd_client.py"), host, port],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["kv", "transaction", "watch", "lease", "lock"]


@pytest.mark.cluster
def test_etcd3_of_npm_works(cluster: Cluster) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    found = subprocess.run([node, "-e", "require.resolve('etcd3')"], capture_output=True, check=False)
    if found.returncode != 0:
        pytest.skip("node cannot find the package etcd3: npm install etcd3, and set NODE_PATH")
    done = subprocess.run(
        [node, str(HERE / "etcd3_client.js"), cluster.endpoints[0]],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["kv", "transaction", "watch", "lease", "lock", "election"]
