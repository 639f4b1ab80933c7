"""/etc, distributed: every readable file of this machine's /etc goes in, and every byte comes out."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from etcray import AsyncClient, Client, Cluster
from etcray_storage.limits import REQUEST_BYTES_MAX
from tests.cluster.writers import kill, leader_of

pytestmark = pytest.mark.cluster

CONCURRENCY = 32


def readable_files(top: str = "/etc") -> dict[bytes, bytes]:
    """Every regular file that can be read and fits a request, by its path."""
    files = {}
    for directory, _, names in os.walk(top):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                content = path.read_bytes()
                if len(content) < REQUEST_BYTES_MAX - 4096:
                    files[os.fsencode(path)] = content
    return files


async def load(cluster: Cluster, files: dict[bytes, bytes]) -> None:
    """Put all files, many at a time; kill the leader half-way."""
    queue = list(files.items())
    half = len(queue) // 2
    killed = False

    async def worker(client: AsyncClient) -> None:
        nonlocal killed
        while queue:
            key, content = queue.pop()
            if len(queue) < half and not killed:
                killed = True
                kill(leader_of(cluster))
            await client.put(key, content)

    async with AsyncClient(cluster.endpoints[0]) as client:
        await asyncio.gather(*(worker(client) for _ in range(CONCURRENCY)))
    assert killed


def check(cluster: Cluster, files: dict[bytes, bytes]) -> None:
    with Client(cluster.endpoints[0]) as client:
        found = {pair.key: pair.value for pair in client.get_prefix("/etc/").kvs}
        assert found == files
        # One revision a file: nothing was applied twice when the leader was killed.
        assert client.range("/etc/", prefix=True, count_only=True).revision == 1 + len(files)


def test_every_file_below_etc_survives_a_leader_kill_and_a_restart(tmp_path: Path) -> None:
    files = readable_files()
    assert len(files) > 20
    data = str(tmp_path)
    with Cluster.launch(nodes=3, name="etc", data_dir=data, listen="127.0.0.1:0") as cluster:
        asyncio.run(load(cluster, files))
        check(cluster, files)
    with Cluster.launch(name="etc", data_dir=data, listen="127.0.0.1:0") as cluster:
        check(cluster, files)
