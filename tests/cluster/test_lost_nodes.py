"""On a Ray of several nodes: members are spread, a lost node's member is replaced, and a cluster survives
the loss of everything but its disks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etcray import Client
from tests.cluster.ray_nodes import RayNodes, kill_all
from tests.cluster.writers import Writers, wait_for
from tests.etcd_tools import Facts

pytestmark = pytest.mark.cluster

NAMES = ("head", "left", "middle", "right")


class Story:
    """One cluster on one Ray after another, through the command line only."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._launcher = 0
        self.nodes: RayNodes | None = None

    def etcray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "etcray.cli", *arguments, "--name", "lost"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "ETCRAY_RUN_DIR": str(self.directory / "run")},
        )

    def begin(self) -> None:
        self.nodes = RayNodes(*NAMES)

    def up(self, *options: str) -> subprocess.CompletedProcess[str]:
        assert self.nodes is not None
        where = ("--address", self.nodes.address, "--data-dir", str(self.directory / "data"))
        done = self.etcray("up", "--detach", "--json", "--listen", "127.0.0.1:0", *where, *options)
        if done.returncode == 0:
            self._launcher = json.loads(done.stdout)["process_id"]
        return done

    def status(self) -> dict[str, Any]:
        shown = self.etcray("status", "--json")
        assert shown.returncode == 0, shown.stderr
        status: dict[str, Any] = json.loads(shown.stdout)
        return status

    def status_when(self, is_true: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        seen: list[dict[str, Any]] = []

        def look() -> object:
            seen[:] = [self.status()]
            return is_true(seen[0])

        wait_for(look, what)
        return seen[0]

    def lose_everything(self) -> None:
        """Every process of the cluster and of Ray at once, the head's too."""
        if self._launcher:
            kill_all(self._launcher)
            self._launcher = 0
        if self.nodes is not None:
            self.nodes.kill_everything()
            self.nodes = None


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    told = Story(tmp_path)
    yield told
    told.lose_everything()


def ray_nodes_of(status: dict[str, Any]) -> set[str]:
    return {member["ray_node"] for member in status["members"]}


def is_whole(status: dict[str, Any]) -> bool:
    members = status["members"]
    return (
        status["ready"]
        and len(members) == 3
        and all(m["phase"] == "serving" and m["client_urls"] and not m["learner"] for m in members)
    )


def are_three_without(endpoint: str, lost: str) -> bool:
    """By the replicated list, as any client sees it."""
    facts = Facts(endpoint)
    members = facts.members()
    facts.close()
    voters = [f"{member.ID:x}" for member in members if not member.isLearner and member.clientURLs]
    return len(voters) == len(members) == 3 and lost not in voters


def test_a_lost_node_is_replaced_and_lost_rays_are_survived(story: Story) -> None:
    story.begin()
    launched = story.up("--nodes", "3", "--replace-after", "2")
    assert launched.returncode == 0, launched.stderr
    before = story.status_when(is_whole, "three members")
    assert len(ray_nodes_of(before)) == 3

    # 1. A node with a member and without the supervisor is lost: the fourth one takes its place.
    endpoint = before["endpoints"][0]
    supervised = before["supervisor"]["ray_node"]
    victim = next(m for m in reversed(before["members"]) if m["ray_node"] != supervised)
    assert story.nodes is not None
    with Writers(endpoint, count=2) as writers:
        writers.progress(10)
        story.nodes.kill_node_of(victim["process_id"])
        wait_for(lambda: are_three_without(endpoint, victim["id"]), "a replacement")
        writers.progress(10)
        writers.stop()
        with Client(endpoint, timeout=20) as client:
            writers.check(client)
            client.put("last", "word")
    after = story.status_when(is_whole, "three members that serve")
    assert len(ray_nodes_of(after)) == 3
    assert victim["ray_node"] not in ray_nodes_of(after)
    names = sorted(member["name"] for member in after["members"])
    assert names != ["member1", "member2", "member3"]

    # 2. Everything is lost but the disks, and of those the cluster's own file.
    story.lose_everything()
    (story.directory / "data" / "lost" / "cluster.json").unlink()
    story.begin()
    refused = story.up("--nodes", "5")
    assert refused.returncode == 1
    assert "has 3 members, --nodes 5" in refused.stderr
    again = story.up()
    assert again.returncode == 0, again.stderr
    status = story.status_when(is_whole, "three members again")
    assert sorted(member["name"] for member in status["members"]) == names
    assert status["cluster_id"] == before["cluster_id"]
    with Client(status["endpoints"][0], timeout=20) as client:
        writers.check(client)
        pair = client.get("last")
        assert pair is not None
        assert pair.text == "word"
    assert story.etcray("down").returncode == 0
