"""The JSON gateway beside a real etcd's: the same requests to both, and equal answers.

Ids of the cluster, the member and leases, the term and the size of the database differ by nature. Where
etcd 3.7, whose API this is, differs from the 3.5 that is the oracle, the request is not here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etcray_bench.etcd import EtcdCluster, find_etcd
from tests.gateway.json_calls import JsonStream, b64, post, request
from tests.gateway.serving import ServingGateway

KEY, OTHER, ALL = b64(b"foo"), b64(b"zoo"), b64(b"\0")
LEASE = 7_777
BY_NATURE = {"cluster_id", "member_id", "raft_term"}


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("etcd")
    with EtcdCluster(directory, members=1, binary=find_etcd("3.5")) as cluster:
        yield cluster.endpoints[0]


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    with ServingGateway() as serving:
        yield serving.address


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_ids(item) for name, item in value.items() if name not in BY_NATURE}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def comparable(status: int, body: str) -> tuple[int, Any]:
    if not body.startswith("{"):
        return status, body
    return status, [without_ids(json.loads(line)) for line in body.splitlines()]


def put(**fields: Any) -> tuple[str, Any]:
    return "kv/put", {"key": KEY, **fields}


def get(**fields: Any) -> tuple[str, Any]:
    return "kv/range", {"key": KEY, **fields}


def txn(**fields: Any) -> tuple[str, Any]:
    return "kv/txn", fields


HISTORY: list[tuple[str, Any]] = [
    put(value=b64(b"one")),
    put(value=b64(b"two"), prev_kv=True),
    put(value=b64(b"three"), prevKv=True),
    put(ignore_value=True, prev_kv=True),
    put(ignoreValue=True, value=b64(b"x")),
    put(lease=4711),
    ("kv/put", {"key": OTHER, "value": b64(bytes(range(256)))}),
    get(),
    get(rangeEnd=OTHER, limit="1"),
    get(range_end=ALL, limit=1, sort_order="DESCEND", sort_target="MOD"),
    get(range_end=ALL, sortOrder=2, sortTarget=4, keys_only=True),
    get(count_only=True),
    get(revision=2),
    get(revision="99"),
    get(serializable=True, unknown={"nested": [1]}),
    txn(
        compare=[{"target": "VERSION", "result": "GREATER", "version": "1", "key": KEY}],
        success=[{"request_put": {"key": KEY, "value": b64(b"four")}}, {"requestRange": {"key": KEY}}],
        failure=[{"request_delete_range": {"key": KEY}}],
    ),
    txn(
        compare=[{"target": "VALUE", "value": b64(b"none"), "key": KEY}],
        failure=[{"request_delete_range": {"key": OTHER, "prev_kv": True}}],
    ),
    txn(compare=[{"target": "LEASE", "result": "NOT_EQUAL", "lease": 5, "key": KEY, "range_end": ALL}]),
    txn(success=[{"request_txn": {"success": [{"request_range": {"key": KEY}}]}}]),
    txn(success=[{}]),
    txn(),
    ("kv/deleterange", {"key": ALL, "range_end": ALL}),
    ("kv/deleterange", {"key": KEY, "prev_kv": True}),
    ("kv/compaction", {"revision": "4"}),
    ("kv/compaction", {"revision": 3}),
    ("kv/compaction", {"revision": 1000}),
    get(revision=2),
    ("lease/grant", {"TTL": 500, "ID": LEASE}),
    ("lease/grant", {"TTL": 500, "ID": LEASE}),
    ("lease/grant", {"TTL": "9000000001"}),
    ("lease/grant", {"TTL": "-5", "ID": 12}),
    ("lease/grant", {"ID": "-9"}),
    put(lease=LEASE),
    put(lease=LEASE, ignore_lease=True),
    ("kv/range", {"key": KEY}),
    ("lease/timetolive", {"ID": 12345, "keys": True}),
    ("lease/keepalive", f'{{"ID":{LEASE}}}{{"ID":"5"}} {{"ID":{LEASE}}}'),
    ("lease/keepalive", ""),
    ("lease/keepalive", '{"ID":5} [] {"ID":6}'),
    ("lock/lock", {"name": b64(b"door"), "lease": LEASE}),
    ("lock/lock", {"name": b64(b"door"), "lease": str(LEASE)}),
    ("lock/lock", {"name": b64(b"door"), "lease": 99}),
    ("lock/unlock", {"key": b64(b"door/1e61")}),
    ("lock/unlock", {"key": b64(b"door/1e61")}),
    ("lock/unlock", {}),
    ("lock/lock", {"lease": -9}),
    ("election/leader", {"name": b64(b"chair")}),
    ("election/campaign", {"name": b64(b"chair"), "lease": LEASE, "value": b64(b"me")}),
    ("election/campaign", {"name": b64(b"chair"), "lease": LEASE, "value": b64(b"me")}),
    ("election/campaign", {"name": b64(b"chair"), "lease": LEASE, "value": b64(b"me again")}),
    ("election/campaign", {"name": b64(b"chair"), "lease": 98}),
    ("election/leader", {"name": b64(b"chair")}),
    ("election/proclaim", {"value": b64(b"x")}),
    ("election/proclaim", {"leader": {"key": b64(b"chair/1e61"), "rev": 3, "lease": LEASE}}),
    ("election/resign", {}),
    ("election/resign", {"leader": {"key": b64(b"chair/1e61"), "rev": 3, "lease": LEASE}}),
    ("lease/revoke", {"ID": LEASE}),
    ("lease/revoke", {"ID": LEASE}),
    ("kv/lease/revoke", {"ID": 12}),
    ("lease/revoke", {"ID": -9}),
    ("lease/leases", {}),
    ("kv/lease/timetolive", {"ID": LEASE}),
    ("election/leader", {"name": b64(b"chair")}),
    ("maintenance/alarm", {"action": "ACTIVATE", "memberID": "1", "alarm": "NOSPACE"}),
    ("maintenance/alarm", {}),
    put(),
    ("maintenance/alarm", {"action": 2, "memberID": 1, "alarm": 1}),
    put(),
]

MALFORMED: list[tuple[str, str]] = [
    ("kv/range", text)
    for text in (
        "", " ", "null", "[]", "5", "true", '"x"', "{", '{"key"}', '{"key":', '{"key":"Z', "{'key':1}", "x",
        '{"key":"@@@"}', '{"key":5}', '{"key":{}}', '{"key":""}', '{"key":"Zm9v",}',
        '{"key":"Zm9v"} nonsense', '{"key":"Zm9v","limit":"x"}', '{"key":"Zm9v","limit":1.5}',
        '{"key":"Zm9v","limit":1e3}', '{"key":"Zm9v","limit":true}', '{"key":"Zm9v","limit":[]}',
        '{"key":"Zm9v","limit":99999999999999999999}', '{"key":"Zm9v","limit":"99999999999999999999"}',
        '{"key":"Zm9v","sort_order":"UP"}', '{"key":"Zm9v","sort_order":true}',
        '{"key":"Zm9v","sort_order":1.0}', '{"key":"Zm9v","sort_order":"1"}', '{"key":"Zm9v","count_only":1}',
        '{"key":"Zm9v","count_only":"true"}', '{"key":"Zm9v","nonsense":NaN}', '{"key":"Zm9v"}}}}',
        '{"KEY":"Zm9v"}', '{"key":"Zm9v","key":"YQ=="}',
    )
] + [
    ("kv/txn", text)
    for text in ('{"compare":"x"}', '{"compare":{}}', '{"compare":[5]}', '{"success":[{"request_put":5}]}')
] + [
    ("lease/keepalive", "x"),
    ("lease/keepalive", '{"ID":"x"}'),
    ("election/observe", '{"name":"@"}'),
    ("watch", "x"),
]  # fmt: skip


def test_one_history_gives_the_same_answers(etcd: str, ours: str) -> None:
    for number, (path, body) in enumerate(HISTORY):
        expected = comparable(*post(etcd, path, body))
        assert comparable(*post(ours, path, body)) == expected, f"request {number}: {path} {body}"


@pytest.mark.parametrize(("path", "body"), MALFORMED)
def test_malformed_requests_are_refused_in_the_same_words(etcd: str, ours: str, path: str, body: str) -> None:
    expected, actual = post(etcd, path, body), post(ours, path, body)
    if expected.status == 200:
        assert actual.status == 200
    else:
        assert comparable(*actual) == comparable(*expected)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v3/kv/range", "/v3/nothing", "/v3/kv/range/", "/nothing", "/health"])
def test_other_methods_and_paths_are_refused_alike(etcd: str, ours: str, method: str, path: str) -> None:
    expected, actual = request(etcd, method, path), request(ours, method, path)
    assert (actual.status, actual.body.strip()) == (expected.status, expected.body.strip())


def test_watch_brings_the_same_lines(etcd: str, ours: str) -> None:
    create = {"key": b64(b"w"), "range_end": b64(b"x"), "prev_kv": True, "filters": []}
    only_puts = {"key": b64(b"w"), "range_end": b64(b"x"), "watch_id": "7", "filters": ["NODELETE"]}
    body = json.dumps({"create_request": create}) + json.dumps({"createRequest": only_puts})
    seen: list[Any] = []
    for address in (etcd, ours):
        with JsonStream(address, "watch", body) as stream:
            created = [stream.next()["result"], stream.next()["result"]]
            base = int(created[0]["header"]["revision"])
            post(address, "kv/put", {"key": b64(b"wa"), "value": b64(b"1")})
            post(address, "kv/put", {"key": b64(b"wa"), "value": b64(b"2")})
            post(address, "kv/deleterange", {"key": b64(b"wa")})
            events: dict[str, list[Any]] = {"0": [], "7": []}
            while (len(events["0"]), len(events["7"])) != (3, 2):  # several may come in one line
                result = stream.next()["result"]
                events[result.get("watch_id", "0")] += result["events"]
        seen.append((relative(without_ids(created), base), relative(events, base)))
    assert seen[0] == seen[1]


REVISIONS = {"revision", "create_revision", "mod_revision"}


def relative(value: Any, base: int) -> Any:
    """Revisions counted from a base, because the two stores have seen different histories."""
    if isinstance(value, dict):
        return {
            name: int(item) - base if name in REVISIONS else relative(item, base)
            for name, item in value.items()
        }
    return [relative(item, base) for item in value] if isinstance(value, list) else value


def test_election_is_observed_alike(etcd: str, ours: str) -> None:
    name = {"name": b64(b"observed")}
    lines: list[list[Any]] = []
    for address in (etcd, ours):
        for lease in (501, 502):
            post(address, "lease/grant", {"TTL": 100, "ID": lease})
        won = post(address, "election/campaign", {**name, "lease": 501, "value": b64(b"a")}).fields
        base = int(won["header"]["revision"])
        with JsonStream(address, "election/observe", name) as stream:
            got = [stream.next()]
            post(address, "election/proclaim", {"leader": won["leader"], "value": b64(b"b")})
            got.append(stream.next())
            post(address, "election/resign", {"leader": won["leader"]})
            post(address, "election/campaign", {**name, "lease": 502, "value": b64(b"c")})
            got.append(stream.next())
        lines.append([relative(without_ids(line), base) for line in got])
    assert lines[0] == lines[1]


def test_version_and_health_are_told_alike(etcd: str, ours: str) -> None:
    assert request(ours, "GET", "/health") == request(etcd, "GET", "/health")
    assert request(ours, "GET", "/version").fields.keys() >= request(etcd, "GET", "/version").fields.keys()
