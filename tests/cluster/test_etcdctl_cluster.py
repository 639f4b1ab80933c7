"""etcdctl's commands about members and endpoints, in every output format."""

from __future__ import annotations

import json
import re

import pytest

from etcray_storage.proto.rpc_pb2 import MemberListResponse
from tests.cluster.conftest import Target
from tests.etcd_tools import Etcdctl, Facts

TOOK = r"\d+(\.\d+)?(µs|ms|s)"
SIZE = r"\d+(\.\d)? [kMG]?B"


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table, its header first; the frame is checked."""
    frame, header, rule, *body = table.rstrip("\n").split("\n")
    assert frame == rule == body[-1]
    assert set(frame) == {"+", "-"}
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *body[:-1])]


def utf8(text: str) -> str:
    """Etcdctl's output with its µ put together again."""
    return text.encode("latin-1").decode()


# --- members ----------------------------------------------------------------------------------


def test_member_list_prints_lines(ctl: Etcdctl, facts: Facts) -> None:
    expected = "".join(
        f"{member.ID:x}, started, {member.name}, {','.join(member.peerURLs)}, "
        f"{','.join(member.clientURLs)}, false\n"
        for member in facts.members()
    )
    assert len(facts.members()) == 3
    assert ctl.ok("member", "list") == expected
    assert ctl.ok("member", "list", "--hex") == expected


def test_member_list_prints_a_table(ctl: Etcdctl, facts: Facts) -> None:
    header, *body = rows(ctl.ok("member", "list", "-w", "table"))
    assert header == ["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"]
    assert body == [
        [f"{each.ID:x}", "started", each.name, ",".join(each.peerURLs), ",".join(each.clientURLs), "false"]
        for each in facts.members()
    ]


def test_member_list_prints_json(ctl: Etcdctl, facts: Facts) -> None:
    answer = json.loads(ctl.ok("member", "list", "-w", "json"))
    status = facts.status()
    members = facts.members()
    assert answer["header"].pop("member_id") in [each.ID for each in members]
    assert answer == {
        "header": {"cluster_id": status.header.cluster_id, "raft_term": status.raftTerm},
        "members": [
            {
                "ID": each.ID,
                "name": each.name,
                **({"peerURLs": list(each.peerURLs)} if each.peerURLs else {}),
                "clientURLs": list(each.clientURLs),
            }
            for each in members
        ],
    }


def test_member_list_prints_fields(ctl: Etcdctl, facts: Facts) -> None:
    cluster, member, *rest = ctl.ok("member", "list", "-w", "fields").split("\n")
    status = facts.status()
    assert cluster == f'"ClusterID" : {status.header.cluster_id}'
    assert member in [f'"MemberID" : {each.ID}' for each in facts.members()]
    expected = ['"Revision" : 0', f'"RaftTerm" : {status.raftTerm}']
    for each in facts.members():
        expected += [f'"ID" : {each.ID}', f'"Name" : "{each.name}"']
        expected += [f'"PeerURL" : "{url}"' for url in each.peerURLs]
        expected += [f'"ClientURL" : "{url}"' for url in each.clientURLs]
        expected += ['"IsLearner" : false', ""]
    assert rest == [*expected, ""]


def test_member_list_prints_protobuf(ctl: Etcdctl, facts: Facts) -> None:
    response = MemberListResponse()
    response.ParseFromString(ctl.ok("member", "list", "-w", "protobuf").encode("latin-1"))
    assert list(response.members) == facts.members()
    assert response.header.revision == 0


# --- endpoint status --------------------------------------------------------------------------


def status_cells(target: Target, endpoint: str) -> list[str]:
    """What `endpoint status` has to show; regular expressions."""
    status = target.facts.status()
    leads = "true" if status.leader == status.header.member_id else "false"
    return [
        *(re.escape(endpoint), f"{status.header.member_id:x}", re.escape(status.version), SIZE),
        *(leads, "false", str(status.raftTerm), r"\d+", r"\d+", ""),
    ]


def matches(patterns: list[str], cells: list[str]) -> bool:
    return all(re.fullmatch(pattern, cell) for pattern, cell in zip(patterns, cells, strict=True))


def test_endpoint_status_prints_a_line(target: Target) -> None:
    ctl = target.etcdctl
    line = ctl.ok("endpoint", "status").removesuffix("\n")
    assert matches(status_cells(target, ctl.endpoint), line.split(", ")), line


def test_endpoint_status_prints_a_table(target: Target) -> None:
    ctl = target.etcdctl
    header, *body = rows(ctl.ok("endpoint", "status", "-w", "table"))
    assert header == [
        *("ENDPOINT", "ID", "VERSION", "DB SIZE", "IS LEADER", "IS LEARNER"),
        *("RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX", "ERRORS"),
    ]
    assert len(body) == 1
    assert matches(status_cells(target, ctl.endpoint), body[0]), body


def test_endpoint_status_prints_json(target: Target) -> None:
    ctl = target.etcdctl
    (answer,) = json.loads(ctl.ok("endpoint", "status", "-w", "json"))
    status = target.facts.status()
    assert answer["Endpoint"] == ctl.endpoint
    got = answer["Status"]
    assert got["header"] == {
        "cluster_id": status.header.cluster_id,
        "member_id": status.header.member_id,
        "revision": status.header.revision,
        "raft_term": status.header.raft_term,
    }
    assert (got["version"], got["leader"], got["raftTerm"]) == (
        *(status.version, status.leader, status.raftTerm),
    )
    assert 0 <= got.get("dbSizeInUse", 0) <= got["dbSize"]  # an estimate; JSON leaves out zeros
    assert 0 < got["raftAppliedIndex"] <= got["raftIndex"]
    assert status.leader in [each.ID for each in target.facts.members()]


def test_endpoint_status_prints_fields(target: Target) -> None:
    ctl = target.etcdctl
    output = ctl.ok("endpoint", "status", "-w", "fields")
    status = target.facts.status()
    for line in (
        f'"ClusterID" : {status.header.cluster_id}',
        f'"MemberID" : {status.header.member_id}',
        f'"Revision" : {status.header.revision}',
        f'"RaftTerm" : {status.raftTerm}',
        f'"Version" : "{status.version}"',
        f'"Leader" : {status.leader}',
        f'"Endpoint" : "{ctl.endpoint}"',
    ):
        assert f"{line}\n" in output


def test_endpoint_status_of_the_cluster_asks_every_client_url_of_the_members(target: Target) -> None:
    urls = {url for each in target.facts.members() for url in each.clientURLs}
    lines = target.etcdctl.ok("endpoint", "status", "--cluster").splitlines()
    assert {line.split(", ")[0] for line in lines} == urls


# --- endpoint health --------------------------------------------------------------------------


def test_endpoint_health_prints_a_line(ctl: Etcdctl) -> None:
    outcome = ctl.run("endpoint", "health")
    assert outcome.code == 0
    # 3.4 writes it to stderr.
    assert re.fullmatch(
        rf"{re.escape(ctl.endpoint)} is healthy: successfully committed proposal: took = {TOOK}\n",
        utf8(outcome.stdout + outcome.stderr),
    )


def test_endpoint_health_prints_every_format(ctl: Etcdctl) -> None:
    (answer,) = json.loads(ctl.ok("endpoint", "health", "-w", "json"))
    assert re.fullmatch(TOOK, utf8(answer.pop("took")))
    assert answer == {"endpoint": ctl.endpoint, "health": True}
    header, body = rows(utf8(ctl.ok("endpoint", "health", "-w", "table")))
    assert header == ["ENDPOINT", "HEALTH", "TOOK", "ERROR"]
    assert matches([re.escape(ctl.endpoint), "true", TOOK, ""], body)
    fields = ctl.ok("endpoint", "health", "-w", "fields")
    assert fields.startswith(f'"Endpoint" : "{ctl.endpoint}"\n"Health" : true\n"Took" : ')


def test_endpoint_health_of_the_cluster_asks_every_client_url_of_the_members(target: Target) -> None:
    urls = {url for each in target.facts.members() for url in each.clientURLs}
    answers = json.loads(target.etcdctl.ok("endpoint", "health", "--cluster", "-w", "json"))
    assert {answer["endpoint"] for answer in answers} == urls
    assert all(answer["health"] for answer in answers)


# --- check ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_check_perf_runs_to_its_end_and_cleans_up(target: Target) -> None:
    """50 clients, 150 puts a second, one minute. Its verdict depends on the machine, so it is printed
    and not asserted; that no put failed and that every one was made is not a matter of speed."""
    ctl = target.etcdctl
    if not ctl.version.startswith("3.5") or target.is_etcd:
        pytest.skip("one minute of it is enough")
    before = target.facts.revision()
    outcome = ctl.run("check", "perf", "--load=s", "--auto-compact")
    print(outcome.stdout.rsplit("\r", 1)[-1], outcome.stderr)
    assert re.search(r"Throughput (is|too low:) \d+ writes/s", outcome.stdout)
    assert "FAIL: too many errors" not in outcome.stdout + outcome.stderr
    assert target.facts.revision() > before + 150
    assert ctl.ok("get", "/etcdctl-check-perf/", "--prefix", "--keys-only") == ""
