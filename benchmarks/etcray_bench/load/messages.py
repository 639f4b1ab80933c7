"""Request messages, serialized once, with places for keys, stamps and numbers.

A place for a key is a printf conversion of its number, so that a whole message is made by one `%`.
Revisions and leases are varints, whose length depends on the number; here they always have the same
length, with leading zeros, which every decoder of protobuf accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from etcray_bench.load.keys import KeySpace, Values
from etcray_bench.load.options import STAMP_BYTES
from etcray_storage.proto import rpc_pb2

PUT: Final = "/etcdserverpb.KV/Put"
RANGE: Final = "/etcdserverpb.KV/Range"
TXN: Final = "/etcdserverpb.KV/Txn"
LEASE_GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
LEASE_REVOKE: Final = "/etcdserverpb.Lease/LeaseRevoke"
LEASE_KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
WATCH: Final = "/etcdserverpb.Watch/Watch"

Filled = Callable[[Any], bytes]
"""Takes a number, or a tuple of what the places want, in the order of the places."""

_STAMP: Final = b"\xf1" * STAMP_BYTES
_REVISION: Final = 0x7_6D5B_4A39
_LEASE: Final = 0x7A69_5847_3625_1403
LEASE_MIN: Final = 2**56
LEASE_MAX: Final = 2**63 - 1
"""Leases between these have varints of nine bytes."""


def revision_varint(revision: int) -> bytes:
    """In five bytes, whatever it is (below 2 ** 35)."""
    return bytes(
        (
            revision & 0x7F | 0x80,
            revision >> 7 & 0x7F | 0x80,
            revision >> 14 & 0x7F | 0x80,
            revision >> 21 & 0x7F | 0x80,
            revision >> 28 & 0x7F,
        )
    )


def lease_varint(lease: int) -> bytes:
    """In nine bytes, which is as many as it needs from LEASE_MIN on."""
    return bytes(lease >> shift & 0x7F | (0x80 if shift < 56 else 0) for shift in range(0, 63, 7))


class Messages:
    """Makes the requests for one key space. Their answers are protobuf's to read."""

    def __init__(self, space: KeySpace, values: Values) -> None:
        self._space = space
        self._values = values
        digits = space.digits
        self._key = space.prefix + b"\xf3" * digits
        self._end = space.prefix + b"\xf5" * digits
        self._number = b"%%0%dd" % digits
        self.get = self._template(rpc_pb2.RangeRequest(key=self._key))
        """Of the key's number."""
        self.get_any = self._template(rpc_pb2.RangeRequest(key=self._key, serializable=True))
        self.puts = [self._template(self._put(size)) for size in values.sizes]
        """By size: of key, key, writer, sequence."""
        self.leased_puts = [self._template(self._put(size, _LEASE)) for size in values.sizes]
        """Then the lease's varint."""
        self.txns = [self._template(self._always(size)) for size in values.sizes]
        """Compare (always true), put, get: of key, key, key, writer, sequence, key."""
        self.guarded_puts = [
            self._template(self._guarded(self._put(size), _REVISION)) for size in values.sizes
        ]
        """Put if its revision is as given, else get: of key, revision's varint, key, key, writer,
        sequence, key. The compare's key comes before its revision on the wire."""
        self.guarded_delete = self._template(self._guarded(None, _REVISION))
        """Of key, revision's varint, key, key."""
        self.creations = [
            self._template(self._guarded(self._put(size, _LEASE), _REVISION)) for size in values.sizes
        ]
        """Put with a lease if its revision is as given (0): of key, revision's varint, key, key, writer,
        sequence, the lease's varint, key."""
        self.put_txns = [self._template(_then(put=self._put(size))) for size in values.sizes]
        """A transaction with one put: of key, key, writer, sequence."""
        self.get_txn = self._template(_then(get=rpc_pb2.RangeRequest(key=self._key)))

    def page(self, limit: int, *, serializable: bool = False) -> Filled:
        """So many keys from one number up to, without, another one."""
        return self._template(
            rpc_pb2.RangeRequest(key=self._key, range_end=self._end, limit=limit, serializable=serializable)
        )

    def _put(self, size: int, lease: int = 0) -> rpc_pb2.PutRequest:
        return rpc_pb2.PutRequest(key=self._key, value=_STAMP + self._values.fillers[size], lease=lease)

    def _always(self, size: int) -> rpc_pb2.TxnRequest:
        # True whether or not the key exists, so that every transaction writes.
        compare = rpc_pb2.Compare(
            key=self._key,
            target=rpc_pb2.Compare.CompareTarget.VERSION,
            result=rpc_pb2.Compare.CompareResult.GREATER,
            version=-1,
        )
        return rpc_pb2.TxnRequest(
            compare=[compare],
            success=[
                rpc_pb2.RequestOp(request_put=self._put(size)),
                rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=self._key)),
            ],
        )

    def _guarded(self, put: rpc_pb2.PutRequest | None, revision: int) -> rpc_pb2.TxnRequest:
        compare = rpc_pb2.Compare(
            key=self._key,
            target=rpc_pb2.Compare.CompareTarget.MOD,
            result=rpc_pb2.Compare.CompareResult.EQUAL,
            mod_revision=revision,
        )
        if put is not None:
            change = rpc_pb2.RequestOp(request_put=put)
        else:
            deletion = rpc_pb2.DeleteRangeRequest(key=self._key)
            change = rpc_pb2.RequestOp(request_delete_range=deletion)
        read = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=self._key))
        return rpc_pb2.TxnRequest(compare=[compare], success=[change], failure=[read])

    def _template(self, message: Any) -> Filled:
        prefix = self._space.prefix.replace(b"%", b"%%")
        text = message.SerializeToString(deterministic=True).replace(b"%", b"%%")
        for marker, place in (
            (self._key.replace(b"%", b"%%"), prefix + self._number),
            (self._end.replace(b"%", b"%%"), prefix + self._number),
            (_STAMP, b"%07x%05x%08x"),
            (revision_varint(_REVISION), b"%b"),
            (lease_varint(_LEASE), b"%b"),
        ):
            text = text.replace(marker, place)
        return bytes(text).__mod__


def _then(
    *, put: rpc_pb2.PutRequest | None = None, get: rpc_pb2.RangeRequest | None = None
) -> rpc_pb2.TxnRequest:
    return rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=put, request_range=get)])


def lease_grant(lease: int, ttl_seconds: int) -> bytes:
    return rpc_pb2.LeaseGrantRequest(TTL=ttl_seconds, ID=lease).SerializeToString()


def lease_request(lease: int) -> bytes:
    """To revoke it, or to keep it alive: both have the lease as their only field, number 1."""
    return b"\x08" + lease_varint(lease)
