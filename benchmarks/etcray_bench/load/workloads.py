"""What the logical clients send, as prepared bytes, and what the store must hold afterwards.

The keys are dealt out: client `c` of `n` owns the keys c, c+n, c+2n ... and goes round them. Nobody
else writes them, so after the run each key must hold exactly the last value that its owner was
acknowledged. The value begins with its owner and sequence number.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from etcray_storage.proto import rpc_pb2

WorkloadName = Literal["put", "range", "serializable-range", "txn"]
WORKLOADS: Final[tuple[WorkloadName, ...]] = ("put", "range", "serializable-range", "txn")

STAMP_BYTES: Final = 20
"""`cccccccc.ssssssssss.`: client and sequence at the start of a value."""


@dataclass(frozen=True, slots=True)
class KeySpace:
    """Which keys there are, who owns them, and what is written to them."""

    prefix: bytes
    keys: int
    clients: int
    value_bytes: int

    def __post_init__(self) -> None:
        if self.value_bytes < STAMP_BYTES:
            raise ValueError(f"a value needs at least {STAMP_BYTES} bytes, not {self.value_bytes}")
        if self.keys < self.clients:
            raise ValueError(f"{self.clients} clients need a key each, but there are {self.keys} keys")

    @property
    def keys_per_client(self) -> int:
        return self.keys // self.clients

    @property
    def used_keys(self) -> int:
        """A whole number of keys for each client."""
        return self.keys_per_client * self.clients

    def key(self, client: int, sequence: int) -> bytes:
        return b"%b%08d" % (self.prefix, client + self.clients * (sequence % self.keys_per_client))

    def filler(self) -> bytes:
        """The same for every value; not compressible within one."""
        return random.Random(self.value_bytes).randbytes(self.value_bytes - STAMP_BYTES)

    def value(self, client: int, sequence: int, filler: bytes) -> bytes:
        return b"%08d.%010d." % (client, sequence) + filler

    def last_writes(self, client: int, written: int) -> Iterator[tuple[bytes, bytes]]:
        """The (key, value) pairs that must be there once a client's first `written` writes are done."""
        filler = self.filler()
        for sequence in range(max(0, written - self.keys_per_client), written):
            yield self.key(client, sequence), self.value(client, sequence, filler)


class Workload:
    """Makes the request messages of one kind."""

    def __init__(self, name: WorkloadName, space: KeySpace) -> None:
        self.name = name
        self.space = space
        self.writes = name in ("put", "txn")
        self.method = {"put": "/etcdserverpb.KV/Put", "txn": "/etcdserverpb.KV/Txn"}.get(
            name, "/etcdserverpb.KV/Range"
        )
        self.answer_bytes_min = 0 if name == "put" else space.value_bytes
        """A shorter answer cannot hold the pair that was asked for."""
        self._filler = space.filler()
        self._template = _template(name, space)

    def message(self, client: int, sequence: int) -> bytes:
        space = self.space
        key = space.key(client, sequence)
        if not self.writes:
            return self._template % key
        value = space.value(client, sequence, self._filler)
        if self.name == "put":
            return self._template % (key, value)
        return self._template % (key, key, value, key)


def _template(name: WorkloadName, space: KeySpace) -> bytes:
    """The message with `%b` for keys and values; protobuf's lengths are those of the real ones."""
    # No length ends in a byte above 0x7f, so none can be taken for the start of a placeholder.
    key = b"\xf3".ljust(len(space.key(0, 0)), b"\xf4")
    value = b"\xf1".ljust(space.value_bytes, b"\xf2")
    encoded = _example(name, key, value).SerializeToString(deterministic=True)
    assert encoded.count(key) == (3 if name == "txn" else 1), f"the {name} message repeats its key oddly"
    return encoded.replace(b"%", b"%%").replace(key, b"%b").replace(value, b"%b")


def _example(
    name: WorkloadName, key: bytes, value: bytes
) -> rpc_pb2.PutRequest | rpc_pb2.RangeRequest | rpc_pb2.TxnRequest:
    put = rpc_pb2.PutRequest(key=key, value=value)
    if name == "put":
        return put
    if name != "txn":
        return rpc_pb2.RangeRequest(key=key, serializable=name == "serializable-range")
    # Always true, whether or not the key exists, so that every transaction writes.
    compare = rpc_pb2.Compare(
        key=key,
        target=rpc_pb2.Compare.CompareTarget.VERSION,
        result=rpc_pb2.Compare.CompareResult.GREATER,
        version=-1,
    )
    read = rpc_pb2.RangeRequest(key=key)
    return rpc_pb2.TxnRequest(
        compare=[compare],
        success=[rpc_pb2.RequestOp(request_put=put), rpc_pb2.RequestOp(request_range=read)],
    )
