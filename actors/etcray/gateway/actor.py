"""The gateway as a Ray actor: a thin shell around `GatewayServer`. The only module here that knows Ray.

An asyncio actor, because a gateway is one event loop with many clients; Ray runs it on uvloop. Calls to
members go out through their handles, one bytes object each way. The server is imported in the gateway's own
process alone: the supervisor only needs the class.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from ray.exceptions import RayError

from etcray.gateway.dispatcher import MemberChannel, MemberUnreachableError
from etcray.gateway.sql import HistoryUnreachableError
from etcray.gateway.status import GatewayStatus
from etcray.spec import ClusterSpec, GatewaySpec, decode_spec
from etcray.transport.addresses import StreamAddress
from etcray.transport.gateway_stream import GatewayStreams
from etcray.transport.handshake import credentials_of
from etcray.tuning import Transport
from etcray_storage.types import MemberId

if TYPE_CHECKING:
    from etcray.gateway.server import GatewayServer

STOP_GRACE_SECONDS: Final = 2.0
"""For requests that run when the gateway is told to stop."""
DEFECT_EXIT_CODE: Final = 70
COLLECTION_THRESHOLD: Final = 20_000
"""So many more containers than at the last collection start the next one. Above what 1,024 calls under
way are made of, so that traffic alone starts none: a call leaves no cycles behind."""


class RayMemberChannel:
    """Calls one member through its actor handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def propose(self, batch: bytes) -> bytes:
        return await self._call(self._handle.propose, batch)

    async def read(self, request: bytes) -> bytes:
        return await self._call(self._handle.read, request)

    async def keep_alive(self, request: bytes) -> bytes:
        return await self._call(self._handle.keep_alive, request)

    async def watch(self, poll: bytes) -> bytes:
        return await self._call(self._handle.watch, poll)

    async def history(self, request: bytes) -> bytes:
        return await self._call(self._handle.history, request)

    async def status(self) -> bytes:
        return await self._call(self._handle.status)

    async def transfer_leadership(self, request: bytes) -> bytes:
        return await self._call(self._handle.transfer_leadership, request)

    async def hash_kv(self, request: bytes) -> bytes:
        return await self._call(self._handle.hash_kv, request)

    async def defragment(self) -> bytes:
        return await self._call(self._handle.defragment)

    @staticmethod
    async def _call(method: Any, *arguments: bytes) -> bytes:
        """A dead actor, a broken way to it and an exception in the member are all the same to a
        gateway: ask another. The member's supervisor learns of each by itself."""
        try:
            reply: bytes = await method.remote(*arguments)
        except RayError as error:
            raise MemberUnreachableError(str(error)) from error
        return reply


class RayHistoryChannel:
    """Calls the history actor through its handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def query(self, request: bytes) -> bytes:
        reply: bytes = await self._call(self._handle.query, request)
        return reply

    async def cancel(self, query_id: str) -> None:
        await self._call(self._handle.cancel, query_id)

    @staticmethod
    async def _call(method: Any, argument: bytes | str) -> Any:
        try:
            return await method.remote(argument)
        except RayError as error:
            raise HistoryUnreachableError(str(error)) from error


class GatewayActor:
    """One gateway's process. Created by the supervisor, which alone decides where and when."""

    def __init__(self, spec: bytes, index: int) -> None:
        self._cluster: ClusterSpec = decode_spec(spec)
        self._spec: GatewaySpec = next(g for g in self._cluster.gateways if g.index == index)
        self._server: GatewayServer | None = None
        self._members: dict[int, Any] = {}
        is_direct = self._cluster.tuning.transport is Transport.DIRECT
        self._streams = GatewayStreams(credentials_of(self._cluster)) if is_direct else None
        """To the members, unless these are called through their handles."""
        self._history: Any = None
        self._endpoint = ""
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Bind and serve; the endpoint as HOST:PORT. Once open, returns the same again.

        Raises `ListenError` if the address cannot be had; the next call may succeed."""
        if self._endpoint:
            return self._endpoint
        from etcray.gateway.server import GatewayServer

        server = GatewayServer(
            self._cluster.cluster_id,
            self._channels(),
            [],
            random.Random(os.urandom(16)),
            tuning=self._cluster.tuning,
        )
        try:
            port = await server.open(self._spec.host, self._spec.port)
        except BaseException:
            await server.stop(0.0)
            raise
        self._server = server
        if self._cluster.history is not None:
            await self.set_history(self._history)
        self._watch = asyncio.get_running_loop().create_task(_end_with(server))
        self._endpoint = f"{self._spec.host}:{port}"
        # All that was imported and made until now stays: the collector need not look at it again. With
        # the threshold this takes a third of the gateway's CPU from a put of 256 clients.
        gc.freeze()
        gc.set_threshold(COLLECTION_THRESHOLD, *gc.get_threshold()[1:])
        others = [f"{g.host}:{g.port}" for g in self._cluster.gateways if g is not self._spec and g.port]
        await self.set_endpoints([self._endpoint, *others])
        return self._endpoint

    async def set_members(self, handles: dict[int, Any]) -> None:
        """The actors of all members; called again whenever one of them was created anew."""
        self._members = handles
        if self._server is not None:
            self._server.dispatcher.set_channels(self._channels())

    async def set_streams(self, addresses: dict[int, StreamAddress]) -> None:
        """In place of `set_members`, if the transport is direct: where all members listen."""
        assert self._streams is not None, "the transport of this cluster is not direct"
        self._streams.set_addresses(addresses)
        if self._server is not None:
            self._server.dispatcher.set_channels(self._channels())

    async def set_history(self, handle: Any) -> None:
        """The history actor, or None while it is away; called again whenever that changes."""
        self._history = handle
        if self._server is not None:
            self._server.sql.is_kept = True
            self._server.sql.channel = None if handle is None else RayHistoryChannel(handle)

    async def member_died(self, member: int) -> None:
        """The supervisor saw a member's process end."""
        if self._server is not None:
            self._server.dispatcher.member_died(MemberId(member))

    def _channels(self) -> Mapping[MemberId, MemberChannel]:
        if self._streams is not None:
            return self._streams.channels
        return {MemberId(member): RayMemberChannel(handle) for member, handle in self._members.items()}

    async def set_endpoints(self, endpoints: list[str]) -> None:
        """HOST:PORT of every gateway: what clients are told in member lists."""
        if self._server is not None:
            self._server.context.endpoints = [f"http://{endpoint}" for endpoint in endpoints]

    async def status(self) -> bytes:
        """An encoded `GatewayStatus`."""
        return msgspec.msgpack.encode(
            GatewayStatus(
                index=self._spec.index,
                endpoint=self._endpoint,
                process_id=os.getpid(),
                counters=self._server.counters() if self._server is not None else None,
            )
        )

    async def stop(self) -> None:
        """Say goodbye to clients and close. The process is of no use afterwards. Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
        if self._server is not None:
            await self._server.stop(STOP_GRACE_SECONDS)
        if self._streams is not None:
            self._streams.close()


async def _end_with(server: GatewayServer) -> None:
    """A background task died of a defect: so does the process, and the supervisor makes a new one.
    Serving on with state that broke an assertion would be worse."""
    try:
        await asyncio.shield(server.dispatcher.failed)
    except asyncio.CancelledError:
        raise
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        os._exit(DEFECT_EXIT_CODE)
