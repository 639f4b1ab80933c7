"""What the calls do, against a real etcd and against a gateway of etcray."""

from __future__ import annotations

import pytest

from etcray.client import (
    Client,
    CompactedError,
    CreateRevision,
    Delete,
    DeleteResult,
    FutureRevisionError,
    InvalidRequestError,
    Lease,
    ModRevision,
    Nested,
    NotFoundError,
    Put,
    PutResult,
    Range,
    RangeResult,
    TxnResult,
    Value,
    Version,
)
from etcray.client.requests import TxnParts


def keys(found: RangeResult) -> list[str]:
    return [kv.key_text for kv in found]


def test_put_then_get_returns_the_pair(client: Client) -> None:
    put = client.put("a", "grün")
    pair = client.get("a")
    assert pair is not None
    assert (pair.key, pair.value, pair.text, pair.key_text) == (b"a", "grün".encode(), "grün", "a")
    assert (pair.version, pair.create_revision, pair.mod_revision) == (1, put.revision, put.revision)


def test_bytes_that_are_not_text_survive(client: Client) -> None:
    client.put(b"\x00\xff", b"\xfe\x00")
    pair = client.get(b"\x00\xff")
    assert pair is not None
    assert pair.value == b"\xfe\x00"
    with pytest.raises(UnicodeDecodeError):
        _ = pair.text


def test_get_of_a_missing_key_is_none(client: Client) -> None:
    assert client.get("nothing") is None


def test_put_answers_with_the_pair_that_it_replaced(client: Client) -> None:
    assert client.put("a", "1", prev_kv=True).prev_kv is None
    replaced = client.put("a", "2", prev_kv=True).prev_kv
    assert replaced is not None
    assert replaced.text == "1"


def test_put_can_keep_the_current_value(client: Client) -> None:
    client.put("a", "1")
    client.put("a", b"", ignore_value=True)
    pair = client.get("a")
    assert pair is not None
    assert (pair.text, pair.version) == ("1", 2)


def test_range_end_prefix_and_from_key_choose_keys(client: Client) -> None:
    for key in ("a", "b/1", "b/2", "c"):
        client.put(key, key)
    assert keys(client.range("a", "b/2")) == ["a", "b/1"]
    assert keys(client.range("b/", prefix=True)) == keys(client.get_prefix("b/")) == ["b/1", "b/2"]
    assert keys(client.range("b/2", from_key=True)) == ["b/2", "c"]
    assert keys(client.get_prefix("")) == keys(client.range("", from_key=True)) == ["a", "b/1", "b/2", "c"]


def test_limit_leaves_pairs_out_but_counts_them(client: Client) -> None:
    for number in range(5):
        client.put(f"k{number}", "")
    found = client.get_prefix("k", limit=2)
    assert (keys(found), len(found), found.count, found.more) == (["k0", "k1"], 2, 5, True)


def test_sort_orders_by_any_property(client: Client) -> None:
    client.put("a", "2")
    client.put("b", "1")
    client.put("a", "3")
    assert keys(client.get_prefix("", descending=True)) == ["b", "a"]
    assert keys(client.get_prefix("", sort="value")) == ["b", "a"]
    assert keys(client.get_prefix("", sort="mod")) == ["b", "a"]
    assert keys(client.get_prefix("", sort="create", descending=True)) == ["b", "a"]
    assert keys(client.get_prefix("", sort="version", descending=True)) == ["a", "b"]


def test_revision_reads_the_past(client: Client) -> None:
    first = client.put("a", "1").revision
    second = client.put("a", "2").revision
    old = client.get("a", revision=first)
    assert old is not None
    assert old.text == "1"
    assert client.range("a", revision=first).revision == second


def test_keys_only_count_only_and_serializable(client: Client) -> None:
    client.put("a", "1")
    assert [kv.value for kv in client.get_prefix("a", keys_only=True)] == [b""]
    counted = client.get_prefix("a", count_only=True)
    assert (counted.kvs, counted.count) == ((), 1)
    assert keys(client.get_prefix("a", serializable=True)) == ["a"]


def test_revision_bounds_filter(client: Client) -> None:
    first = client.put("a", "").revision
    second = client.put("b", "").revision
    assert keys(client.get_prefix("", min_mod_revision=second)) == ["b"]
    assert keys(client.get_prefix("", max_mod_revision=first)) == ["a"]
    assert keys(client.get_prefix("", min_create_revision=second)) == ["b"]
    assert keys(client.get_prefix("", max_create_revision=first)) == ["a"]


def test_delete_counts_and_returns_what_it_removed(client: Client) -> None:
    for key in ("a/1", "a/2", "b"):
        client.put(key, key)
    removed = client.delete("a/", prefix=True, prev_kv=True)
    assert (removed.deleted, [kv.text for kv in removed.prev_kvs]) == (2, ["a/1", "a/2"])
    assert client.delete("a/", prefix=True).revision == removed.revision
    assert keys(client.get_prefix("")) == ["b"]


def test_txn_takes_the_branch_that_its_conditions_choose(client: Client) -> None:
    for expected in (True, False):
        done = (
            client.txn()
            .compare(Version("lock") == 0)
            .then(Put("lock", "mine"), Range("lock"))
            .otherwise(Range("lock"), Delete("lock", prev_kv=True))
            .commit()
        )
        assert done.succeeded is expected
        match done.responses:
            case (PutResult(), RangeResult() as read):
                assert expected
                assert read.kvs[0].text == "mine"
            case (RangeResult(), DeleteResult() as removed):
                assert not expected
                assert removed.prev_kvs[0].text == "mine"
            case other:
                pytest.fail(f"unexpected responses {other}")


def test_every_comparison_is_judged_by_the_store(client: Client) -> None:
    revision = client.put("a", "m").revision
    holding = [
        Value("a") == "m",
        Value("a") != "n",
        Value("a") > "l",
        Value("a") < b"n",
        Version("a") > 0,
        CreateRevision("a") == revision,
        ModRevision("a") < revision + 1,
        Lease("a") == 0,
        Version("", prefix=True) > 0,
    ]
    assert client.txn().compare(*holding).commit().succeeded
    failing = [Value("a") == "n", Value("missing") != "m", Version("a") == 0, ModRevision("a") > revision]
    for condition in failing:
        assert not client.txn().compare(condition).commit().succeeded


def test_txns_nest(client: Client) -> None:
    inner = TxnParts().compare(Version("a") == 0).then(Put("a", "inner"))
    done = client.txn().then(Nested(inner)).commit()
    assert isinstance(done.responses[0], TxnResult)
    assert done.responses[0].succeeded
    pair = client.get("a")
    assert pair is not None
    assert pair.text == "inner"


def test_a_range_larger_than_grpcs_default_limit_arrives(client: Client) -> None:
    for number in range(5):
        client.put(f"k{number}", bytes(1_000_000))
    assert sum(len(kv.value) for kv in client.get_prefix("k")) == 5_000_000


def test_compacted_and_future_revisions_have_their_own_errors(client: Client) -> None:
    client.put("a", "1")
    revision = client.put("a", "2").revision
    assert client.compact(revision, physical=True).revision == revision
    with pytest.raises(CompactedError, match="required revision has been compacted"):
        client.get("a", revision=revision - 1)
    with pytest.raises(FutureRevisionError) as raised:
        client.get("a", revision=revision + 100)
    assert raised.value.code.name == "OUT_OF_RANGE"
    assert raised.value.message == "etcdserver: mvcc: required revision is a future revision"


def test_refusals_are_told_apart_by_what_can_be_done(client: Client) -> None:
    with pytest.raises(InvalidRequestError, match="key is not provided"):
        client.put("", "value")
    with pytest.raises(NotFoundError, match="requested lease not found"):
        client.put("a", "1", lease=12345)


def test_members_and_status_describe_the_cluster(client: Client) -> None:
    (member,) = client.members()
    status = client.status()
    assert member.id == status.member_id == status.leader
    assert member.client_urls == (f"http://{client.endpoints[0]}",)
    assert status.version.startswith("3.")
    assert status.raft_applied_index <= status.raft_index
