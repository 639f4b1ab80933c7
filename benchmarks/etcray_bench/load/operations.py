"""What one operation does: its requests, and what its answers must say.

An operation is a generator. It yields a request (method and message), gets the answer's bytes, and may go
on with another; when it returns, it is done. An error of a request is thrown into it, so that it can note
that a write may have happened or not. What an answer must not say raises CheckFailedError.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Generator
from typing import Protocol

from etcray_bench.load import messages
from etcray_bench.load.errors import CheckFailedError, RequestFailedError
from etcray_bench.load.keys import KeySpace, Values
from etcray_bench.load.ledger import Ledger
from etcray_bench.load.messages import LEASE_MIN, Messages, lease_varint, revision_varint
from etcray_storage.proto import kv_pb2, rpc_pb2

Request = tuple[str, bytes]
Steps = Generator[Request, bytes, None]

_put_response = rpc_pb2.PutResponse.FromString
_range_response = rpc_pb2.RangeResponse.FromString
_lease_grant_response = rpc_pb2.LeaseGrantResponse.FromString
_txn_response = rpc_pb2.TxnResponse.FromString


class Writer(Protocol):
    """Who does an operation: numbers what it writes."""

    number: int
    sequence: int


def next_stamp(writer: Writer) -> int:
    sequence = writer.sequence
    writer.sequence = sequence + 1
    return writer.number << 32 | sequence


class Operations:
    """On one key space. `conflicts` counts guarded writes that lost a race."""

    def __init__(self, space: KeySpace, values: Values, ledger: Ledger, generator: random.Random) -> None:
        self.space = space
        self.values = values
        self.ledger = ledger
        self.messages = Messages(space, values)
        self.conflicts = 0
        self._draw = generator.random
        self._sizes = len(values.sizes)

    def _size(self) -> int:
        return int(self._draw() * self._sizes) if self._sizes > 1 else 0

    # --- one key ----------------------------------------------------------------------------------

    def put(self, writer: Writer, key: int, *, in_txn: bool = False, lease: int = 0) -> Steps:
        stamp = next_stamp(writer)
        place = (key, key, stamp >> 32, stamp & 0xFFFFFFFF)
        if lease:
            message = self.messages.leased_puts[self._size()]((*place, lease_varint(lease)))
        else:
            message = (self.messages.put_txns if in_txn else self.messages.puts)[self._size()](place)
        try:
            answer = yield (messages.TXN if in_txn else messages.PUT), message
        except RequestFailedError:
            self.ledger.in_doubt(key, stamp)
            raise
        # The header is field 1 of both answers.
        self.ledger.put(key, _put_response(answer).header.revision, stamp)

    def get(self, key: int, *, serializable: bool = False) -> Steps:
        """The key must be there if it is known to be."""
        made = self.messages.get_any if serializable else self.messages.get
        floor = self.ledger.revisions[key]
        answer = yield messages.RANGE, made(key)
        found = _range_response(answer).kvs
        if found:
            self.accept(found[0], key, 0 if serializable else floor)
        elif floor and key not in self.ledger.deleted and not serializable:
            raise CheckFailedError(f"key {key} was written at revision {floor}, and a later read finds none")

    def get_in_txn(self, key: int) -> Steps:
        floor = self.ledger.revisions[key]
        answer = yield messages.TXN, self.messages.get_txn(key)
        self.accept(_only_pair(_txn_response(answer), key), key, floor)

    def compare_put_get(self, writer: Writer, key: int) -> Steps:
        """One transaction that always succeeds, and reads what it wrote."""
        stamp = next_stamp(writer)
        message = self.messages.txns[self._size()]((key, key, key, stamp >> 32, stamp & 0xFFFFFFFF, key))
        try:
            answer = yield messages.TXN, message
        except RequestFailedError:
            self.ledger.in_doubt(key, stamp)
            raise
        response = _txn_response(answer)
        revision = response.header.revision
        if not response.succeeded:
            raise CheckFailedError(f"key {key} has a version below 0")
        pair = response.responses[1].response_range.kvs[0]
        if (pair.mod_revision, self.values.stamp_of(key, pair.value)) != (revision, stamp):
            raise CheckFailedError(f"a transaction of revision {revision} did not read what it wrote")
        self.ledger.put(key, revision, stamp)

    def compare_and_put(self, writer: Writer, key: int, lease: int = 0) -> Steps:
        """Put if the key is as it was last seen here, or not there if it was not seen; else look at it."""
        stamp = next_stamp(writer)
        revision = self.ledger.revisions[key]
        guard = revision_varint(0 if self.ledger.stamps[key] < 0 else revision)
        place: tuple[int | bytes, ...] = (key, guard, key, key, stamp >> 32, stamp & 0xFFFFFFFF)
        if lease:
            message = self.messages.creations[self._size()]((*place, lease_varint(lease), key))
        else:
            message = self.messages.guarded_puts[self._size()]((*place, key))
        try:
            answer = yield messages.TXN, message
        except RequestFailedError:
            self.ledger.in_doubt(key, stamp)
            raise
        response = _txn_response(answer)
        if response.succeeded:
            self.ledger.put(key, response.header.revision, stamp)
        else:
            self._lost_race(response, key, revision)

    def delete(self, key: int) -> Steps:
        """If it is as it was last seen here; else look at it."""
        revision = self.ledger.revisions[key]
        message = self.messages.guarded_delete((key, revision_varint(revision), key, key))
        try:
            answer = yield messages.TXN, message
        except RequestFailedError:
            self.ledger.in_doubt(key, -1)
            raise
        response = _txn_response(answer)
        if response.succeeded:
            self.ledger.delete(key, response.header.revision)
        else:
            self._lost_race(response, key, revision)

    def read_modify_write(self, writer: Writer, key: int) -> Steps:
        """YCSB's: get, then put if nobody else did in between; one that lost the race begins anew."""
        while True:
            yield from self.get(key)
            conflicts = self.conflicts
            yield from self.compare_and_put(writer, key)
            if self.conflicts == conflicts:
                return

    def _lost_race(self, response: rpc_pb2.TxnResponse, key: int, expected: int) -> None:
        self.conflicts += 1
        found = response.responses[0].response_range.kvs
        if found and found[0].mod_revision == expected:
            raise CheckFailedError(f"a compare with revision {expected} of key {key} failed, and it has that")
        if found:
            self.accept(found[0], key, expected)

    def accept(self, pair: kv_pb2.KeyValue, key: int, floor: int) -> None:
        """A pair that was read must be one that was written, and not be older than `floor`."""
        if pair.key != self.space.key(key):
            raise CheckFailedError(f"a read of {self.space.key(key)!r} was answered with {pair.key!r}")
        self.ledger.seen(key, pair.mod_revision, self.values.stamp_of(key, pair.value), floor)

    # --- leases -----------------------------------------------------------------------------------

    def grant(self, ttl_seconds: int) -> Generator[Request, bytes, int]:
        """Returns the lease. Its number is chosen here: even of a grant whose answer got lost, it is known
        which lease it may have made."""
        lease = new_lease()
        try:
            answer = yield messages.LEASE_GRANT, messages.lease_grant(lease, ttl_seconds)
        except RequestFailedError:
            self.ledger.uncertain_leases.add(lease)
            raise
        if lease != _lease_grant_response(answer).ID:
            raise CheckFailedError(f"lease {lease:x} was asked for, and another one granted")
        self.ledger.leases.add(lease)
        return lease

    # --- several keys -----------------------------------------------------------------------------

    def neighbours(self, page: messages.Filled, key: int, count: int, *, serializable: bool) -> Steps:
        """A range of keys that all exist; one of them is looked at closely."""
        at = int(self._draw() * count)
        floor = 0 if serializable else self.ledger.revisions[key + at]
        answer = yield messages.RANGE, page((key, key + count))
        found = _range_response(answer).kvs
        if len(found) != count:
            raise CheckFailedError(f"a range of {count} keys from {key} on was answered with {len(found)}")
        self.accept(found[at], key + at, floor)

    def scan(self, page: messages.Filled, key: int, limit: int, until: int) -> Steps:
        """Up to so many keys from one on that is known to exist."""
        floor = self.ledger.revisions[key]
        answer = yield messages.RANGE, page((key, until))
        found = _range_response(answer).kvs
        if not 1 <= len(found) <= limit:
            raise CheckFailedError(f"a scan of {limit} keys was answered with {len(found)}")
        self.accept(found[0], key, floor)
        last = self.space.number(found[-1].key)
        if last < key + len(found) - 1:
            raise CheckFailedError(f"a scan of {len(found)} keys from {key} on ends with {last}")
        self.accept(found[-1], last, 0)

    def list_all(self, page: messages.Filled, first: int, until: int, look: Callable[[], float]) -> Steps:
        """Page after page of a group of keys, as it was when the first page was read."""
        floors = self.ledger.revisions[first:until]
        at, revision = first, 0
        while True:
            message = page((at, until))
            if revision:
                message += b"\x20" + revision_varint(revision)  # Field 4 of the request.
            response = _range_response((yield messages.RANGE, message))
            revision = revision or response.header.revision
            found = response.kvs
            if found:
                pair = found[int(look() * len(found))]
                key = self.space.number(pair.key)
                self.accept(pair, key, floors[key - first])
            if not response.more:
                return
            if not found:
                raise CheckFailedError("a page has no keys, and there are more")
            at = self.space.number(found[-1].key) + 1


def _only_pair(response: rpc_pb2.TxnResponse, key: int) -> kv_pb2.KeyValue:
    found = response.responses[0].response_range.kvs
    if len(found) != 1:
        raise CheckFailedError(f"a read of key {key} was answered with {len(found)} pairs")
    return found[0]


def new_lease() -> int:
    """Not from the seed: a second run of a load must not ask for the leases that the first one left."""
    return LEASE_MIN + secrets.randbits(62)
