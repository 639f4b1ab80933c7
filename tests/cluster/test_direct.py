"""A cluster whose actors talk by sockets: members come and go, and watchers and the history miss nothing.

Deaths are in `test_failover` and `test_cluster_history`, which run over both transports."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from etcray import Cluster
from etcray.cli.screen import status_json
from tests.cluster.writers import Writers, kill, leader_of, wait_for

pytestmark = pytest.mark.cluster


def test_watchers_and_the_history_follow_while_members_come_and_go(tmp_path: Path) -> None:
    with Cluster.launch(
        nodes=3,
        name="direct",
        data_dir=str(tmp_path),
        listen="127.0.0.1:0",
        transport="direct",
        durability="written",
        tune={"appends_in_flight": 8},
    ) as cluster:
        shown = status_json(cluster.status())["tuning"]
        assert shown == msgspec.to_builtins(cluster.status().tuning)
        assert (shown["transport"], shown["durability"], shown["appends_in_flight"]) == (
            "direct",
            "written",
            8,
        )
        client = cluster.client(timeout=30.0)
        first = client.put("before", "x").revision
        watch = client.watch(b"", from_key=True, start_revision=first + 1)
        with Writers(cluster.endpoints[0], count=3) as writers:
            writers.progress(20)
            assert len(cluster.resize(5).members) == 5
            writers.progress(20)
            kill(leader_of(cluster))
            writers.progress(20)
            wait_for(lambda: all(m.phase == "serving" for m in cluster.status().members), "its successor")
            assert len(cluster.resize(3).members) == 3
            writers.progress(20)
        writers.check(client)
        watched: list[int] = []
        while len(watched) < len(writers.revisions):
            batch = watch.next_batch(timeout=60.0)
            assert batch is not None, f"{len(watched)} events of {len(writers.revisions)}"
            watched += [event.kv.mod_revision for event in batch.events]
        assert watched == sorted(writers.revisions)
        found = client.sql("SELECT mod_revision FROM history WHERE mod_revision > ? ORDER BY 1", [first])
        assert [row[0] for row in found.fetchall()] == watched
        watch.cancel()
        client.close()
