"""The recipe behind locks and elections: keys under one prefix, and the oldest one has its turn.

Whoever wants a turn creates a key that hangs on its lease. The key's create revision is its place in
the line: nobody can overtake, and it is the fencing token of whoever holds the turn. To wait means to
watch only the newest key that is older than one's own, so that a key that goes wakes one waiter and not
all. A holder that dies loses its key with its lease.

Everything goes through the gateway's own services, so requests are checked, batched and retried as
those of any client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import NamedTuple

from etcray.gateway.dispatcher import Dispatcher
from etcray.gateway.grpc import Call, StreamHandler, UnaryHandler
from etcray_storage import limits
from etcray_storage.errors import COMPACTED, Code, EtcdError
from etcray_storage.proto import kv_pb2 as kv
from etcray_storage.proto import rpc_pb2 as rpc


class Place(NamedTuple):
    """A key in the line."""

    key: bytes
    revision: int
    """Its create revision. Other places under the prefix are before or behind by this number."""
    created: bool
    """False: the key was there already, from an earlier call with the same lease."""
    value: bytes
    first: bool
    """It had its turn at once."""
    header: rpc.ResponseHeader


class WaitingLine:
    """The operations on such lines. Stateless but for what it does in the background."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        read: UnaryHandler,
        txn: UnaryHandler,
        grant: UnaryHandler,
        watch: StreamHandler,
    ) -> None:
        self._dispatcher = dispatcher
        self._read = read
        self._txn = txn
        self._grant = grant
        self._watch = watch

    async def lease_for(self, lease: int, call: Call) -> int:
        """The caller's lease, or a new one that nobody renews."""
        if lease:
            return lease
        request = rpc.LeaseGrantRequest(TTL=limits.LOCK_LEASE_SECONDS)
        return rpc.LeaseGrantResponse.FromString(await self._grant(request.SerializeToString(), call)).ID

    # --- joining and leaving ----------------------------------------------------------------------

    async def join(self, prefix: bytes, lease: int, value: bytes, call: Call) -> Place:
        """Take a place for this lease, or find the one that it has. A caller that leaves while this is
        under way does not keep a place that it never heard of."""
        joining = asyncio.ensure_future(self._join(prefix, lease, value, call))
        try:
            return await asyncio.shield(joining)
        except asyncio.CancelledError:
            self._dispatcher.start(self._undo(joining, call))
            raise

    async def _join(self, prefix: bytes, lease: int, value: bytes, call: Call) -> Place:
        key = prefix + format(lease, "x").encode()
        oldest = rpc.RequestOp(request_range=_by_age(prefix, rpc.RangeRequest.ASCEND))
        txn = rpc.TxnRequest(
            compare=[_exists_since(key, 0)],
            success=[
                rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease)),
                oldest,
            ],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=key)), oldest],
        )
        answer = await self.commit(txn, call)
        revision, found_value = answer.header.revision, value
        if not answer.succeeded:
            found = answer.responses[0].response_range.kvs[0]
            revision, found_value = found.create_revision, found.value
        first = answer.responses[1].response_range.kvs[0].create_revision == revision
        return Place(key, revision, answer.succeeded, found_value, first, answer.header)

    async def _undo(self, joining: asyncio.Future[Place], call: Call) -> None:
        with suppress(EtcdError):
            place = await joining
            if place.created:
                await self.leave(place.key, place.revision, call)

    async def leave(self, key: bytes, revision: int, call: Call) -> rpc.ResponseHeader:
        """Delete the key if it is still the one of that place."""
        delete = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
        txn = rpc.TxnRequest(compare=[_exists_since(key, revision)], success=[delete])
        return (await self.commit(txn, call)).header

    def _leave_later(self, place: Place, call: Call) -> None:
        """For a caller that is gone: nobody waits for this."""

        async def leave() -> None:
            with suppress(EtcdError):
                await self.leave(place.key, place.revision, call)

        self._dispatcher.start(leave())

    # --- waiting ----------------------------------------------------------------------------------

    async def wait_for_turn(self, prefix: bytes, place: Place, call: Call) -> rpc.ResponseHeader | None:
        """Return once all places before this one are gone: the header of a read that found this place
        still there, or None if it was lost meanwhile. Whoever does not wait to the end loses the place."""
        if place.first:
            return place.header
        try:
            before = _by_age(prefix, rpc.RangeRequest.DESCEND)
            before.max_create_revision = place.revision - 1
            while (answer := await self.range(before, call)).kvs:
                await self._wait_until_deleted(answer.kvs[0].key, answer.header.revision, call)
            own = await self.range(rpc.RangeRequest(key=place.key), call)
        except BaseException:
            self._leave_later(place, call)
            raise
        there = bool(own.kvs) and own.kvs[0].create_revision == place.revision
        return own.header if there else None

    async def _wait_until_deleted(self, key: bytes, revision: int, call: Call) -> None:
        """The key was there at this revision. May return early: the caller looks again."""
        async with aclosing(self.watch(key, b"", revision + 1, call)) as responses:
            async for response in responses:
                if any(event.type == kv.Event.DELETE for event in response.events):
                    return

    async def watch(
        self, key: bytes, range_end: bytes, start_revision: int, call: Call
    ) -> AsyncGenerator[rpc.WatchResponse, None]:
        """Responses with events. Ends when the start revision is compacted: read again then."""
        create = rpc.WatchCreateRequest(key=key, range_end=range_end, start_revision=start_revision)

        async def requests() -> AsyncGenerator[bytes, None]:
            yield rpc.WatchRequest(create_request=create).SerializeToString()
            await asyncio.get_running_loop().create_future()

        async with aclosing(self._watch(requests(), call)) as responses:
            async for data in responses:
                response = rpc.WatchResponse.FromString(data)
                if response.canceled:
                    if response.compact_revision or response.cancel_reason == COMPACTED.message:
                        return
                    raise EtcdError(Code.UNKNOWN, response.cancel_reason)
                if response.events:
                    yield response

    # --- reading and writing ----------------------------------------------------------------------

    async def oldest(self, prefix: bytes, call: Call) -> rpc.RangeResponse:
        """Who has the turn."""
        return await self.range(_by_age(prefix, rpc.RangeRequest.ASCEND), call)

    async def write(self, key: bytes, revision: int, value: bytes, lease: int, call: Call) -> rpc.TxnResponse:
        """Put a value if the key is still the one of that place."""
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value, lease=lease))
        return await self.commit(rpc.TxnRequest(compare=[_exists_since(key, revision)], success=[put]), call)

    async def range(self, request: rpc.RangeRequest, call: Call) -> rpc.RangeResponse:
        return rpc.RangeResponse.FromString(await self._read(request.SerializeToString(), call))

    async def commit(self, request: rpc.TxnRequest, call: Call) -> rpc.TxnResponse:
        return rpc.TxnResponse.FromString(await self._txn(request.SerializeToString(), call))


def line_end(prefix: bytes) -> bytes:
    """The range end of all keys under a prefix."""
    assert prefix.endswith(b"/"), f"{prefix!r} is not the prefix of a line"
    return prefix[:-1] + b"0"  # the next byte


def _exists_since(key: bytes, revision: int) -> rpc.Compare:
    """True if the key was created in this revision; for 0: if it does not exist."""
    return rpc.Compare(key=key, target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=revision)


def _by_age(prefix: bytes, order: rpc.RangeRequest.SortOrder) -> rpc.RangeRequest:
    return rpc.RangeRequest(
        key=prefix,
        range_end=line_end(prefix),
        limit=1,
        sort_order=order,
        sort_target=rpc.RangeRequest.CREATE,
    )


def as_unknown(error: EtcdError) -> EtcdError:
    """etcd's lock and election services answer every error of the store with code Unknown, because it
    has passed through etcd's own client before."""
    return EtcdError(Code.UNKNOWN, error.message)
