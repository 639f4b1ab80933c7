"""etcdctl's commands about members and maintenance against a gateway, every release installed here."""

from __future__ import annotations

import json

import pytest

from etcray_storage.types import Index, MemberId
from tests.etcd_tools import Etcdctl, distributions
from tests.gateway.local_member import MEMBER_ID
from tests.gateway.serving import ServingGateway

RELEASES = [found for found in distributions() if found.etcdctl is not None]


@pytest.fixture(params=RELEASES, ids=[found.version for found in RELEASES])
def etcdctl(request: pytest.FixtureRequest, gateway: ServingGateway) -> Etcdctl:
    assert request.param.etcdctl is not None
    return Etcdctl(request.param.etcdctl, request.param.version, gateway.address)


def test_member_commands(etcdctl: Etcdctl, gateway: ServingGateway) -> None:
    learner = ("--learner", "--peer-urls=http://127.0.0.1:7")
    added = etcdctl.ok("member", "add", "four", *learner)
    assert "Member" in added.splitlines()[0]
    assert "added to cluster" in added
    assert 'ETCD_NAME="four"' in added
    lines = [line.split(", ") for line in etcdctl.ok("member", "list").splitlines()]
    assert sorted((line[1], line[-1]) for line in lines) == [("started", "false"), ("unstarted", "true")]
    (new,) = [line[0] for line in lines if line[1] == "unstarted"]
    assert etcdctl.refused("member", "add", "five", *learner)[1].endswith("Peer URLs already exists")
    assert etcdctl.refused("member", "promote", new)[1].endswith("which is in sync with leader")
    gateway.member.matched[MemberId(int(new, 16))] = Index(1_000)
    assert etcdctl.ok("member", "promote", new).startswith(f"Member {new:>16} promoted in cluster")
    assert etcdctl.ok("member", "update", new, "--peer-urls=http://127.0.0.1:8").startswith(
        f"Member {new:>16}"
    )
    assert "http://127.0.0.1:8" in etcdctl.ok("member", "list")
    assert etcdctl.refused("member", "add", "five", "--peer-urls=http://127.0.0.1:9")[1].endswith(
        "re-configuration failed due to not enough started members"
    )
    assert etcdctl.ok("member", "remove", new).startswith(f"Member {new:>16} removed from cluster")
    assert etcdctl.refused("member", "remove", new)[1].endswith("etcdserver: member not found")


def test_maintenance_commands(etcdctl: Etcdctl, gateway: ServingGateway) -> None:
    etcdctl.ok("put", "a", "1")
    (hashed,) = json.loads(etcdctl.ok("endpoint", "hashkv", "-w", "json"))
    assert hashed["HashKV"]["header"]["revision"] == 2
    assert hashed["HashKV"]["hash"] > 0
    refused = etcdctl.run("endpoint", "hashkv", "--rev=9")
    assert "required revision is a future revision" in refused.stderr
    assert "Finished defragmenting etcd member" in etcdctl.ok("defrag")
    assert gateway.member.defragmented == 1
    moved = etcdctl.refused("move-leader", "77")
    assert moved[1].endswith("etcdserver: bad leader transferee")
    assert etcdctl.ok("move-leader", f"{MEMBER_ID:x}").startswith("Leadership transferred from")
    (status,) = json.loads(etcdctl.ok("endpoint", "status", "-w", "json"))
    assert status["Status"]["raftAppliedIndex"] == status["Status"]["raftIndex"] > 0
    assert status["Status"]["dbSize"] > 0
