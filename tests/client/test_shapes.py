"""What the two clients have in common, and what needs no server."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest

from etcray.client import AsyncClient, Client, Put, Version
from etcray.client.retry import parse_endpoints
from etcray.client.values import key_interval, prefix_end
from etcray_bench.etcd import EtcdCluster


def public_methods(kind: type) -> dict[str, list[str]]:
    return {
        name: [
            str(parameter).replace("Async", "") for parameter in inspect.signature(method).parameters.values()
        ]
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    assert public_methods(Client) == public_methods(AsyncClient)


def test_pickled_client_connects_by_itself(etcd: EtcdCluster) -> None:
    with Client(etcd.endpoints, timeout=3.0) as client:
        revision = client.put("pickled", "1").revision
        with pickle.loads(pickle.dumps(client)) as copy:
            assert (copy.endpoints, copy.timeout) == (client.endpoints, 3.0)
            assert copy.get("pickled").mod_revision == revision


def test_closed_client_connects_again(etcd: EtcdCluster) -> None:
    client = Client(etcd.endpoints)
    client.put("a", "1")
    client.close()
    assert client.get("a") is not None
    client.close()


def test_importing_the_client_does_not_import_grpc() -> None:
    program = "import sys, etcray.client; sys.exit('grpc' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"a", b"b"),
        (b"a\xff", b"b"),
        (b"a\xff\xff", b"b"),
        (b"\xff", b"\x00"),
        (b"", b"\x00"),
        (b"a\x00", b"a\x01"),
    ],
)
def test_prefix_ends_before_the_next_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


def test_two_ends_for_one_range_are_refused() -> None:
    with pytest.raises(ValueError, match="only one of"):
        key_interval("a", "b", prefix=True, from_key=False)


def test_keys_are_text_or_bytes() -> None:
    with pytest.raises(TypeError, match="str or bytes, not int"):
        Put(17, "x")  # type: ignore[arg-type]


def test_endpoints_come_as_list_or_text() -> None:
    assert parse_endpoints("http://a:1, b:2/") == parse_endpoints(["a:1", "b:2"]) == ("a:1", "b:2")
    with pytest.raises(ValueError, match="no endpoint"):
        parse_endpoints("")
    with pytest.raises(ValueError, match="TLS"):
        parse_endpoints("https://a:1")


def test_condition_has_no_truth_of_its_own() -> None:
    with pytest.raises(TypeError, match="judged by the store"):
        bool(Version("a") == 0)
