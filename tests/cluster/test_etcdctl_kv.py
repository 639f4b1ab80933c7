"""etcdctl's commands for keys: every flag, every output format, exact output."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from etcray_storage.proto.rpc_pb2 import DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader
from tests.etcd_tools import Etcdctl, Facts

NOT_FOUND = (1, "Error: etcdserver: key not found")
COMPACTED = (1, "Error: etcdserver: mvcc: required revision has been compacted")
FUTURE = (1, "Error: etcdserver: mvcc: required revision is a future revision")
EMPTY_KEY = (1, "Error: etcdserver: key is not provided")
NO_TABLE = (4, "Error: table not supported as output format")


@pytest.fixture(autouse=True)
def empty(ctl: Etcdctl) -> Iterator[None]:
    """Every test starts without keys; revisions go on."""
    ctl.ok("del", "", "--from-key")
    yield
    ctl.ok("del", "", "--from-key")


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def split_fields(facts: Facts, output: str, revision: int) -> str:
    """What follows the header in `-w fields`; the header is checked."""
    cluster, member, *rest = output.split("\n", 4)
    status = facts.status()
    assert cluster == f'"ClusterID" : {status.header.cluster_id}'
    assert member in [f'"MemberID" : {each.ID}' for each in facts.members()]
    assert rest[:2] == [f'"Revision" : {revision}', f'"RaftTerm" : {status.raftTerm}']
    return rest[2]


def split_json(facts: Facts, output: str, revision: int) -> dict[str, Any]:
    """What is beside the header in `-w json`; the header is checked."""
    assert output.endswith("}\n")
    answer: dict[str, Any] = json.loads(output)
    header = answer.pop("header")
    status = facts.status()
    assert header.pop("member_id") in [each.ID for each in facts.members()]
    assert header == {
        "cluster_id": status.header.cluster_id,
        "revision": revision,
        "raft_term": status.raftTerm,
    }
    return answer


def check_header(facts: Facts, header: ResponseHeader, revision: int) -> None:
    status = facts.status()
    assert header.cluster_id == status.header.cluster_id
    assert header.member_id in [each.ID for each in facts.members()]
    assert (header.revision, header.raft_term) == (revision, status.raftTerm)


def fill(ctl: Etcdctl, **pairs: str) -> None:
    for key, value in pairs.items():
        ctl.ok("put", key, value)


# --- put --------------------------------------------------------------------------------------


def test_put_says_ok(ctl: Etcdctl) -> None:
    assert ctl.ok("put", "k", "v") == "OK\n"
    assert ctl.ok("get", "k") == "k\nv\n"


def test_put_returns_the_previous_pair(ctl: Etcdctl) -> None:
    assert ctl.ok("put", "k", "1", "--prev-kv") == "OK\n"
    assert ctl.ok("put", "k", "2", "--prev-kv") == "OK\nk\n1\n"
    assert ctl.ok("put", "k", "3", "--prev-kv", "--hex") == "OK\n\\x6b\n\\x32\n"


def test_put_reads_the_value_from_stdin(ctl: Etcdctl) -> None:
    assert ctl.ok("put", "k", stdin="two\nlines\n") == "OK\n"
    assert ctl.ok("get", "k") == "k\ntwo\nlines\n\n"


def test_put_keeps_the_value_or_the_lease(ctl: Etcdctl) -> None:
    assert ctl.refused("put", "k", "--ignore-value") == NOT_FOUND
    assert ctl.refused("put", "k", "v", "--ignore-lease") == NOT_FOUND
    fill(ctl, k="v")
    assert ctl.ok("put", "k", "--ignore-value") == "OK\n"
    assert ctl.ok("put", "k", "w", "--ignore-lease", "--prev-kv") == "OK\nk\nv\n"
    assert ctl.ok("get", "k") == "k\nw\n"


def test_put_with_a_lease_that_is_not_there_fails(ctl: Etcdctl) -> None:
    assert ctl.refused("put", "k", "v", "--lease=1234") == (1, "Error: etcdserver: requested lease not found")
    assert ctl.ok("put", "k", "v", "--lease=0") == "OK\n"


def test_put_refuses_bad_arguments(ctl: Etcdctl) -> None:
    too_few = (128, "Error: put command needs 1 argument and input from stdin or 2 arguments")
    assert ctl.refused("put") == too_few
    assert ctl.refused("put", "k") == too_few
    only_one = "Error: put command needs only 1 argument when 'ignore-value' is set"
    assert ctl.refused("put", "k", "v", "--ignore-value") == (128, only_one)
    assert ctl.refused("put", "", "v") == EMPTY_KEY
    assert ctl.refused("put", "k", "v", "-w", "table") == NO_TABLE
    assert ctl.refused("put", "k", "v", "-w", "none") == (4, "Error: unsupported output format")


def test_put_prints_every_format(ctl: Etcdctl, facts: Facts) -> None:
    fill(ctl, k="v")
    first = facts.revision()
    assert split_fields(facts, ctl.ok("put", "k", "1", "-w", "fields"), first + 1) == ""
    assert split_fields(facts, ctl.ok("put", "k", "2", "--prev-kv", "-w", "fields"), first + 2) == (
        f'"PrevKey" : "k"\n"PrevCreateRevision" : {first}\n"PrevModRevision" : {first + 1}\n'
        '"PrevVersion" : 2\n"PrevValue" : "1"\n"PrevLease" : 0\n'
    )
    assert split_json(facts, ctl.ok("put", "k", "3", "-w", "json"), first + 3) == {}
    assert split_json(facts, ctl.ok("put", "k", "4", "--prev-kv", "-w", "json"), first + 4) == {
        "prev_kv": {
            "key": encoded("k"),
            "create_revision": first,
            "mod_revision": first + 3,
            "version": 4,
            "value": encoded("3"),
        }
    }
    response = PutResponse()
    response.ParseFromString(ctl.ok("put", "k", "5", "--prev-kv", "-w", "protobuf").encode("latin-1"))
    check_header(facts, response.header, first + 5)
    assert (response.prev_kv.value, response.prev_kv.mod_revision) == (b"4", first + 4)


# --- get --------------------------------------------------------------------------------------


def test_get_selects_keys(ctl: Etcdctl) -> None:
    fill(ctl, a="1", ab="2", b="3", c="4")
    assert ctl.ok("get", "a") == "a\n1\n"
    assert ctl.ok("get", "nothing") == ""
    assert ctl.ok("get", "a", "b") == "a\n1\nab\n2\n"
    assert ctl.ok("get", "b", "a") == ""
    assert ctl.ok("get", "a", "--prefix") == "a\n1\nab\n2\n"
    assert ctl.ok("get", "", "--prefix") == "a\n1\nab\n2\nb\n3\nc\n4\n"
    assert ctl.ok("get", "b", "--from-key") == "b\n3\nc\n4\n"
    assert ctl.ok("get", "", "--from-key", "--limit=3") == "a\n1\nab\n2\nb\n3\n"


def test_get_shows_parts(ctl: Etcdctl) -> None:
    fill(ctl, a="1", b="2")
    assert ctl.ok("get", "a", "--print-value-only") == "1\n"
    assert ctl.ok("get", "", "--prefix", "--keys-only") == "a\n\nb\n\n"
    assert ctl.ok("get", "", "--prefix", "--hex") == "\\x61\n\\x31\n\\x62\n\\x32\n"
    assert ctl.ok("get", "a", "--print-value-only", "--hex") == "\\x31\n"


def test_get_sorts(ctl: Etcdctl) -> None:
    for key, value in (("c", "2"), ("a", "3"), ("b", "1"), ("a", "3"), ("a", "3"), ("b", "1")):
        ctl.ok("put", key, value)
    orders = {"KEY": "abc", "CREATE": "cab", "MODIFY": "cab", "VERSION": "cba", "VALUE": "bca"}
    for sort_by, keys in orders.items():
        for order, expected in (("", keys), ("ASCEND", keys), ("DESCEND", keys[::-1])):
            output = ctl.ok("get", "", "--prefix", "--keys-only", f"--sort-by={sort_by}", f"--order={order}")
            assert output == "".join(f"{key}\n\n" for key in expected), (sort_by, order)
    assert ctl.ok("get", "", "--prefix", "--keys-only", "--order=DESCEND", "--limit=2") == "c\n\nb\n\n"
    assert ctl.refused("get", "a", "--sort-by=SIZE") == (4, "Error: bad sort target SIZE")
    assert ctl.refused("get", "a", "--order=UP") == (4, "Error: bad sort order UP")


def test_get_reads_old_revisions(ctl: Etcdctl, facts: Facts) -> None:
    fill(ctl, k="old")
    revision = facts.revision()
    fill(ctl, k="new", other="1")
    assert ctl.ok("get", "k", f"--rev={revision}") == "k\nold\n"
    assert ctl.ok("get", "", "--prefix", f"--rev={revision}") == "k\nold\n"
    assert ctl.ok("get", "k", f"--rev={revision + 1}") == "k\nnew\n"
    assert ctl.ok("get", "k", f"--rev={revision - 1}") == ""
    assert ctl.refused("get", "k", f"--rev={revision + 3}") == FUTURE


def test_get_reads_serializably(ctl: Etcdctl) -> None:
    fill(ctl, k="v")
    assert ctl.ok("get", "k", "--consistency=l") == "k\nv\n"
    # Another member than the one that took the write may still be a moment behind.
    assert ctl.ok("get", "k", "--consistency=s") in ("k\nv\n", "")
    assert ctl.refused("get", "k", "--consistency=x") == (4, 'Error: unknown consistency flag "x"')


def test_get_refuses_bad_arguments(ctl: Etcdctl) -> None:
    needs = "Error: get command needs one argument as key and an optional argument as range_end"
    assert ctl.refused("get") == (128, needs)
    both = "Error: `--prefix` and `--from-key` cannot be set at the same time, choose one"
    assert ctl.refused("get", "k", "--prefix", "--from-key") == (128, both)
    many = "Error: too many arguments, only accept one argument when `--prefix` or `--from-key` is set"
    assert ctl.refused("get", "k", "l", "--prefix") == (128, many)
    assert ctl.refused("get", "") == EMPTY_KEY
    assert ctl.refused("get", "k", "-w", "table") == NO_TABLE


def test_get_prints_every_format(ctl: Etcdctl, facts: Facts) -> None:
    fill(ctl, k="v", l="w")
    revision = facts.revision()
    pair = f'"CreateRevision" : {revision - 1}\n"ModRevision" : {revision - 1}\n"Version" : 1\n'
    for hex_flag in ([], ["--hex"]):
        fields = ctl.ok("get", "", "--prefix", "--limit=1", "-w", "fields", *hex_flag)
        assert split_fields(facts, fields, revision) == (
            f'"Key" : "k"\n{pair}"Value" : "v"\n"Lease" : 0\n"More" : true\n"Count" : 2\n'
        )
    assert split_json(facts, ctl.ok("get", "", "--prefix", "--limit=1", "-w", "json"), revision) == {
        "kvs": [
            {
                "key": encoded("k"),
                "create_revision": revision - 1,
                "mod_revision": revision - 1,
                "version": 1,
                "value": encoded("v"),
            }
        ],
        "more": True,
        "count": 2,
    }
    assert split_json(facts, ctl.ok("get", "nothing", "-w", "json"), revision) == {}
    response = RangeResponse()
    response.ParseFromString(ctl.ok("get", "", "--prefix", "-w", "protobuf").encode("latin-1"))
    check_header(facts, response.header, revision)
    assert [(kv.key, kv.value) for kv in response.kvs] == [(b"k", b"v"), (b"l", b"w")]


def test_get_counts(ctl: Etcdctl, facts: Facts) -> None:
    if ctl.version.startswith("3.4"):
        pytest.skip("3.4 cannot only count")
    fill(ctl, a="1", b="2")
    only_fields = (128, "Error: --count-only is only for `--write-out=fields`")
    assert ctl.refused("get", "", "--prefix", "--count-only") == only_fields
    fields = ctl.ok("get", "", "--prefix", "--count-only", "-w", "fields")
    assert split_fields(facts, fields, facts.revision()) == '"More" : false\n"Count" : 2\n'


# --- del --------------------------------------------------------------------------------------


def test_del_says_how_many(ctl: Etcdctl) -> None:
    fill(ctl, a="1", ab="2", b="3", c="4", d="5", e="6")
    assert ctl.ok("del", "nothing") == "0\n"
    assert ctl.ok("del", "a") == "1\n"
    assert ctl.ok("del", "a") == "0\n"
    assert ctl.ok("del", "a", "c") == "2\n"
    assert ctl.ok("del", "c", "--prefix") == "1\n"
    assert ctl.ok("del", "d", "--from-key") == "2\n"
    assert ctl.ok("get", "", "--prefix") == ""


def test_del_returns_the_deleted_pairs(ctl: Etcdctl) -> None:
    fill(ctl, a="1", b="2", c="3")
    assert ctl.ok("del", "a", "--prev-kv") == "1\na\n1\n"
    assert ctl.ok("del", "", "--prefix", "--prev-kv", "--hex") == "2\n\\x62\n\\x32\n\\x63\n\\x33\n"
    assert ctl.ok("del", "a", "--prev-kv") == "0\n"


def test_del_refuses_bad_arguments(ctl: Etcdctl) -> None:
    needs = (128, "Error: del command needs one argument as key and an optional argument as range_end")
    assert ctl.refused("del") == needs
    assert ctl.refused("del", "a", "b", "c") == needs
    assert ctl.refused("del", "") == EMPTY_KEY
    assert ctl.refused("del", "a", "-w", "table") == NO_TABLE


def test_del_prints_every_format(ctl: Etcdctl, facts: Facts) -> None:
    fill(ctl, a="1", b="2", c="3")
    revision = facts.revision()
    fields = ctl.ok("del", "a", "--prev-kv", "-w", "fields")
    assert split_fields(facts, fields, revision + 1) == (
        f'"Deleted" : 1\n"PrevKey" : "a"\n"PrevCreateRevision" : {revision - 2}\n'
        f'"PrevModRevision" : {revision - 2}\n"PrevVersion" : 1\n"PrevValue" : "1"\n"PrevLease" : 0\n'
    )
    assert split_fields(facts, ctl.ok("del", "a", "-w", "fields"), revision + 1) == '"Deleted" : 0\n'
    assert split_json(facts, ctl.ok("del", "b", "--prev-kv", "-w", "json"), revision + 2) == {
        "deleted": 1,
        "prev_kvs": [
            {
                "key": encoded("b"),
                "create_revision": revision - 1,
                "mod_revision": revision - 1,
                "version": 1,
                "value": encoded("2"),
            }
        ],
    }
    response = DeleteRangeResponse()
    response.ParseFromString(ctl.ok("del", "c", "-w", "protobuf").encode("latin-1"))
    check_header(facts, response.header, revision + 3)
    assert (response.deleted, len(response.prev_kvs)) == (1, 0)


# --- compaction -------------------------------------------------------------------------------


@pytest.mark.parametrize("physical", [[], ["--physical"]])
def test_compaction_forgets_older_revisions(ctl: Etcdctl, facts: Facts, physical: list[str]) -> None:
    fill(ctl, k="1")
    first = facts.revision()
    fill(ctl, k="2")
    fill(ctl, k="3")
    assert ctl.ok("compaction", str(first + 1), *physical) == f"compacted revision {first + 1}\n"
    assert ctl.refused("get", "k", f"--rev={first}") == COMPACTED
    assert ctl.ok("get", "k", f"--rev={first + 1}") == "k\n2\n"
    assert ctl.ok("get", "k") == "k\n3\n"
    assert facts.revision() == first + 2
    assert ctl.refused("compaction", str(first + 1), *physical) == COMPACTED
    assert ctl.refused("compaction", str(first), *physical) == COMPACTED
    assert ctl.refused("compaction", str(first + 3), *physical) == FUTURE
    assert ctl.ok("compaction", str(first + 2), *physical) == f"compacted revision {first + 2}\n"


def test_compaction_prints_the_same_in_every_format(ctl: Etcdctl, facts: Facts) -> None:
    for name in ("simple", "fields", "json", "protobuf", "table"):
        fill(ctl, k=name)
        revision = facts.revision()
        assert ctl.ok("compaction", str(revision), "-w", name) == f"compacted revision {revision}\n"


def test_compaction_refuses_bad_arguments(ctl: Etcdctl) -> None:
    assert ctl.refused("compaction") == (128, "Error: compaction command needs 1 argument")
    bad_number = 'Error: strconv.ParseInt: parsing "x": invalid syntax'
    assert ctl.refused("compaction", "x") == (1, bad_number)
