"""etcdctl txn: both branches, every kind of compare, every output format, exact output.

All but compares of leases: `lease("k") = "0"` makes etcdctl itself panic, up to 3.5 at least.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from etcray_storage.proto.rpc_pb2 import TxnResponse
from tests.etcd_tools import Etcdctl, Facts


@pytest.fixture(autouse=True)
def empty(ctl: Etcdctl) -> Iterator[None]:
    """Every test starts without keys; revisions go on."""
    ctl.ok("del", "", "--from-key")
    yield
    ctl.ok("del", "", "--from-key")


def script(compares: list[str], success: list[str], failure: list[str]) -> str:
    """The three parts, each ended by an empty line."""
    return "".join("".join(f"{line}\n" for line in part) + "\n" for part in (compares, success, failure))


def test_success_branch_runs_when_the_compares_hold(ctl: Etcdctl) -> None:
    ctl.ok("put", "k", "old")
    text = script(['value("k") = "old"'], ["put k new", "get k", "del nothing"], ["put wrong 1"])
    assert ctl.ok("txn", stdin=text) == "SUCCESS\n\nOK\n\nk\nnew\n\n0\n"
    assert ctl.ok("get", "wrong") == ""


def test_failure_branch_runs_when_a_compare_does_not_hold(ctl: Etcdctl) -> None:
    ctl.ok("put", "k", "v")
    text = script(
        ['value("k") = "v"', 'version("k") > "1"'],
        ["put wrong 1"],
        ["put x 1 --prev-kv", "del k --prev-kv", 'get "" --prefix', "get x --keys-only"],
    )
    assert ctl.ok("txn", stdin=text) == "FAILURE\n\nOK\n\n1\nk\nv\n\nx\n1\n\nx\n\n"
    assert ctl.ok("get", "", "--prefix") == "x\n1\n"


def test_empty_transactions_succeed(ctl: Etcdctl, facts: Facts) -> None:
    revision = facts.revision()
    assert ctl.ok("txn", stdin=script([], [], [])) == "SUCCESS\n"
    assert ctl.ok("txn", stdin=script(['version("k") = "1"'], [], [])) == "FAILURE\n"
    assert facts.revision() == revision


@pytest.mark.parametrize("target_of_compare", ["mod", "create", "version", "value"])
@pytest.mark.parametrize("short", [False, True])
def test_every_compare_is_understood(ctl: Etcdctl, facts: Facts, target_of_compare: str, short: bool) -> None:
    ctl.ok("put", "k", "m")
    ctl.ok("put", "k", "m")
    revision = facts.revision()
    actual = {"mod": revision, "create": revision - 1, "version": 2}
    name = {"mod": "m", "create": "c", "version": "ver", "value": "val"}[target_of_compare]
    operands = ["l", "m", "n"]
    if target_of_compare != "value":
        number = actual[target_of_compare]
        operands = [str(number - 1), str(number), str(number + 1)]
    below, equal, above = operands
    holds = {
        ("=", equal): True,
        ("=", above): False,
        ("!=", equal): False,
        ("!=", above): True,
        (">", equal): False,
        ("<", equal): False,
        ("<", above): True,
        (">", below): True,
        (">", above): False,
    }
    for (operator, operand), expected in holds.items():
        line = f'{name if short else target_of_compare}("k") {operator} "{operand}"'
        output = ctl.ok("txn", stdin=script([line], [], []))
        assert output == ("SUCCESS\n" if expected else "FAILURE\n"), line


def test_missing_keys_compare_as_zero_but_never_by_value(ctl: Etcdctl) -> None:
    for line in ('mod("k") = "0"', 'create("k") = "0"', 'version("k") = "0"'):
        assert ctl.ok("txn", stdin=script([line], [], [])) == "SUCCESS\n", line
    for line in ('value("k") = ""', 'value("k") != "x"', 'value("k") < "x"', 'version("k") > "0"'):
        assert ctl.ok("txn", stdin=script([line], [], [])) == "FAILURE\n", line


def test_mistakes_are_named_on_stderr(ctl: Etcdctl) -> None:
    for text, answer in (
        (script(["garbage"], [], []), (3, "Error: malformed comparison: garbage")),
        (script(['mod("k") = "x"'], [], []), (3, 'Error: invalid txn compare request: mod("k") = "x"')),
        (script([], ["bogus k"], []), (3, "Error: invalid txn request: bogus k")),
        (script(['mod("") = "1"'], [], []), (1, "Error: etcdserver: key is not provided")),
        (
            script([], ["put k 1", "put k 2"], []),
            (1, "Error: etcdserver: duplicate key given in txn request"),
        ),
        (
            script([], ["get k", *[f"put k{number} 1" for number in range(128)]], []),
            (1, "Error: etcdserver: too many operations in txn request"),
        ),
        (script([], ["put k 1 --lease=99"], []), (1, "Error: etcdserver: requested lease not found")),
        (
            script([], ["get k --rev=1000000"], []),
            (1, "Error: etcdserver: mvcc: required revision is a future revision"),
        ),
    ):
        assert ctl.refused("txn", stdin=text) == answer
    assert ctl.refused("txn", "extra") == (128, "Error: txn command does not accept argument")
    assert ctl.ok("get", "", "--prefix") == ""


def test_128_operations_are_allowed(ctl: Etcdctl) -> None:
    text = script([], [f"put k{number} 1" for number in range(128)], [])
    assert ctl.ok("txn", stdin=text) == "SUCCESS\n" + "\nOK\n" * 128
    assert ctl.ok("del", "k", "--prefix") == "128\n"


def test_interactive_mode_prompts(ctl: Etcdctl) -> None:
    text = script([], ["put k v"], [])
    prompts = "compares:\nsuccess requests (get, put, del):\nfailure requests (get, put, del):\n"
    assert ctl.ok("txn", "--interactive", stdin=text) == f"{prompts}SUCCESS\n\nOK\n"


TEXT = script(['value("k") = "v"'], ["put x 1", "get k", "del nothing"], ["put wrong 1"])


def test_hex_output(ctl: Etcdctl) -> None:
    ctl.ok("put", "k", "v")
    assert ctl.ok("txn", "--hex", stdin=TEXT) == "SUCCESS\n\nOK\n\n\\x6b\n\\x76\n\n0\n"


def test_fields_output(ctl: Etcdctl, facts: Facts) -> None:
    ctl.ok("put", "k", "v")
    revision = facts.revision()
    lines = ctl.ok("txn", "-w", "fields", stdin=TEXT).splitlines()
    status = facts.status()
    inner = ['"ClusterID" : 0', '"MemberID" : 0', f'"Revision" : {revision + 1}', '"RaftTerm" : 0']
    assert lines[0] == f'"ClusterID" : {status.header.cluster_id}'
    assert lines[1] in [f'"MemberID" : {each.ID}' for each in facts.members()]
    assert lines[2:] == [
        *(f'"Revision" : {revision + 1}', f'"RaftTerm" : {status.raftTerm}', '"Succeeded" : true'),
        *inner,
        *inner,
        *('"Key" : "k"', f'"CreateRevision" : {revision}', f'"ModRevision" : {revision}'),
        *('"Version" : 1', '"Value" : "v"', '"Lease" : 0', '"More" : false', '"Count" : 1'),
        *inner,
        '"Deleted" : 0',
    ]


def test_json_output(ctl: Etcdctl, facts: Facts) -> None:
    ctl.ok("put", "k", "v")
    revision = facts.revision()
    answer = json.loads(ctl.ok("txn", "-w", "json", stdin=TEXT))
    assert answer["header"]["revision"] == revision + 1
    assert answer["succeeded"] is True
    old = ctl.version.startswith("3.4")
    put, get, delete = (
        ("ResponsePut", "ResponseRange", "ResponseDeleteRange")
        if old
        else ("response_put", "response_range", "response_delete_range")
    )
    header = {"revision": revision + 1}
    pair = {"key": "aw==", "create_revision": revision, "mod_revision": revision, "version": 1}
    assert answer["responses"] == [
        {"Response": {put: {"header": header}}},
        {"Response": {get: {"header": header, "kvs": [{**pair, "value": "dg=="}], "count": 1}}},
        {"Response": {delete: {"header": header}}},
    ]


def test_protobuf_output(ctl: Etcdctl, facts: Facts) -> None:
    ctl.ok("put", "k", "v")
    response = TxnResponse()
    response.ParseFromString(ctl.ok("txn", "-w", "protobuf", stdin=TEXT).encode("latin-1"))
    assert response.succeeded
    assert response.header.revision == facts.revision()
    assert [op.WhichOneof("response") for op in response.responses] == [
        *("response_put", "response_range", "response_delete_range")
    ]


def test_there_is_no_table_output(ctl: Etcdctl) -> None:
    text = script([], ["get k"], [])
    assert ctl.refused("txn", "-w", "table", stdin=text) == (4, "Error: table not supported as output format")
