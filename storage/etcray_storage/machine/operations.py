"""Put, DeleteRange, Compact: the single operations, alone or as a part of a transaction.

Each has two halves: a check that may fail and changes nothing, and an execution that cannot fail.
"""

from __future__ import annotations

from etcray_storage import errors, wire
from etcray_storage.errors import error_by_number
from etcray_storage.machine.leases import Leases
from etcray_storage.mvcc.key_index import KeyRecord
from etcray_storage.mvcc.store import Store
from etcray_storage.proto.rpc_pb2 import DeleteRangeRequest, PutRequest


def check_put_applies(store: Store, leases: Leases, request: PutRequest) -> None:
    """Raises LEASE_NOT_FOUND, or KEY_NOT_FOUND where something of a missing key is to be kept."""
    if request.lease and request.lease not in leases:
        raise error_by_number(errors.LEASE_NOT_FOUND.number)
    if (request.ignore_value or request.ignore_lease) and store.index.get(request.key) is None:
        raise error_by_number(errors.KEY_NOT_FOUND.number)


def execute_put(store: Store, request: PutRequest) -> bytes:
    """The body of the PutResponse."""
    key, value, lease = request.key, request.value, request.lease
    previous: bytes | None = None
    if request.prev_kv or request.ignore_value or request.ignore_lease:
        record: KeyRecord | None = store.index.get(key)
        if record is not None:
            previous = record.key_value if request.prev_kv else None
            if request.ignore_value:
                value = record.value()
            if request.ignore_lease:
                lease = record.lease
    store.put(key, value, lease)
    return wire.put_response(previous)


def execute_delete_range(store: Store, request: DeleteRangeRequest) -> bytes:
    """The body of the DeleteRangeResponse."""
    key, range_end = request.key, request.range_end
    previous: list[bytes] = []
    if request.prev_kv:
        if range_end:
            previous = [record.key_value for record in store.index.records(key, range_end)]
        elif (record := store.index.get(key)) is not None:
            previous = [record.key_value]
    return wire.delete_range_response(store.delete(key, range_end), previous)
