"""A gateway's way to one member: one connection on the gateway's loop, with many calls on their way.

It is dialled when somebody calls, and again by the first call after it broke. Calls that were on their way
then fail, and so do those that find no room because the member has not answered: whoever called decides what
to do, as after a failed Ray call.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Final, cast

from etcray.gateway.dispatcher import MemberUnreachableError
from etcray.transport.addresses import StreamAddress, is_here, prepare
from etcray.transport.frames import NUMBER_MAX, Frame, FrameDecoder, FrameError, Kind, header
from etcray.transport.handshake import NONCE_BYTES, Claim, Credentials, StrangerError, check_welcome, prove
from etcray_storage.limits import (
    STREAM_ANSWER_BYTES_MAX,
    STREAM_CALLS_MAX,
    STREAM_CONNECT_SECONDS,
    STREAM_HANDSHAKE_BYTES_MAX,
)
from etcray_storage.types import MemberId

ROLE: Final = "gateway"


class StreamMemberChannel:
    """`dispatcher.MemberChannel`; its methods are described there."""

    def __init__(self, credentials: Credentials, member: MemberId, address: StreamAddress) -> None:
        self._credentials = credentials
        self._member = member
        self.address = address
        """Replaced when the member listens elsewhere; the next connection goes there."""
        self._connection: _Connection | None = None
        self._dialling: asyncio.Task[_Connection] | None = None

    async def propose(self, batch: bytes) -> bytes:
        return await self._call(Kind.PROPOSE, batch)

    async def read(self, request: bytes) -> bytes:
        return await self._call(Kind.READ, request)

    async def keep_alive(self, request: bytes) -> bytes:
        return await self._call(Kind.KEEP_ALIVE, request)

    async def watch(self, poll: bytes) -> bytes:
        return await self._call(Kind.WATCH, poll)

    async def history(self, request: bytes) -> bytes:
        return await self._call(Kind.HISTORY, request)

    async def status(self) -> bytes:
        return await self._call(Kind.STATUS, b"")

    async def transfer_leadership(self, request: bytes) -> bytes:
        return await self._call(Kind.TRANSFER_LEADERSHIP, request)

    async def hash_kv(self, request: bytes) -> bytes:
        return await self._call(Kind.HASH_KV, request)

    async def defragment(self) -> bytes:
        return await self._call(Kind.DEFRAGMENT, b"")

    def close(self) -> None:
        """Calls that are on their way fail."""
        if self._dialling is not None:
            self._dialling.cancel()
        if self._connection is not None:
            self._connection.cut()

    async def _call(self, kind: Kind, request: bytes) -> bytes:
        connection = self._connection
        if connection is None or connection.is_cut:
            connection = await self._connect()
        return await connection.call(kind, request)

    async def _connect(self) -> _Connection:
        """One dials, whoever else comes meanwhile waits for it; nobody's giving up ends it."""
        if self._dialling is None:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())
            self._dialling.add_done_callback(self._dialled)
        return await asyncio.shield(self._dialling)

    def _dialled(self, task: asyncio.Task[_Connection]) -> None:
        self._dialling = None
        if not task.cancelled() and task.exception() is None:
            self._connection = task.result()

    async def _dial(self) -> _Connection:
        loop = asyncio.get_running_loop()
        address = self.address
        connection = _Connection(self._credentials, self._member)
        try:
            async with asyncio.timeout(STREAM_CONNECT_SECONDS):
                if is_here(address):
                    await loop.create_unix_connection(lambda: connection, address.unix_path)
                elif address.port:
                    await loop.create_connection(lambda: connection, address.host, address.port)
                else:
                    raise MemberUnreachableError(f"{address.unix_path} is not there")
                await connection.admitted
        except (OSError, TimeoutError) as error:
            connection.cut()
            raise MemberUnreachableError(f"member {self._member:x}: {error}") from error
        except BaseException:
            connection.cut()
            raise
        return connection


class _Connection(asyncio.Protocol):
    """One connection, from its handshake to its end."""

    def __init__(self, credentials: Credentials, member: MemberId) -> None:
        self._loop = asyncio.get_running_loop()
        self._credentials = credentials
        self._member = member
        self._decoder = FrameDecoder(STREAM_HANDSHAKE_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._challenged = b""
        self._claim = Claim(credentials.cluster, member, ROLE, os.urandom(NONCE_BYTES))
        self._number = 0
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        """By number: those that are not answered, also if nobody waits for them any more."""
        self.is_cut = False
        self.admitted: asyncio.Future[None] = self._loop.create_future()
        """Done when calls may be made, or the connection ended."""

    async def call(self, kind: Kind, request: bytes) -> bytes:
        """Raises MemberUnreachableError."""
        transport = self._transport
        if self.is_cut or transport is None:
            raise MemberUnreachableError(f"the connection to member {self._member:x} broke")
        if len(self._calls) >= STREAM_CALLS_MAX:
            raise MemberUnreachableError(f"member {self._member:x} has not answered its last calls")
        number = self._number = self._number % NUMBER_MAX + 1
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._calls[number] = future
        transport.writelines((header(kind, number, len(request)), request))
        return await future

    def cut(self) -> None:
        """Idempotent."""
        if not self.is_cut:
            self.is_cut = True
            self._fail_all("the connection broke")
        if self._transport is not None:
            self._transport.abort()

    def _fail_all(self, why: str) -> None:
        calls, self._calls = self._calls, {}
        error = MemberUnreachableError(f"member {self._member:x}: {why}")
        for future in calls.values():
            if not future.done():
                future.set_exception(error)
        if not self.admitted.done():
            self.admitted.set_exception(error)
            self.admitted.exception()  # it may be that nobody waits for it

    # --- what the loop calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio's
        if self.is_cut:
            self._transport.abort()
            return
        # A duplicate, because what uvloop hands out is no socket of Python's.
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        with socket.socket(fileno=descriptor) as duplicate:
            prepare(duplicate)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                if self.admitted.done():
                    self._answered(frame)
                else:
                    self._shake(frame)
        except (FrameError, StrangerError) as error:
            self._fail_all(str(error))
            self.cut()

    def connection_lost(self, _error: Exception | None) -> None:
        self.cut()

    def _shake(self, frame: Frame) -> None:
        if not self._challenged and frame.kind == Kind.CHALLENGE:
            self._challenged = frame.payload
            proof = prove(self._credentials, frame.payload, self._claim)
            assert self._transport is not None
            self._transport.write(header(Kind.PROOF, 0, len(proof)) + proof)
        elif self._challenged and frame.kind == Kind.WELCOME:
            check_welcome(self._credentials, self._challenged, self._claim, frame.payload)
            self._decoder.payload_bytes_max = STREAM_ANSWER_BYTES_MAX
            self.admitted.set_result(None)
        else:
            raise FrameError(f"a frame of kind {frame.kind} in the handshake")

    def _answered(self, frame: Frame) -> None:
        future = self._calls.pop(frame.number, None)
        if future is None:
            raise FrameError(f"an answer to call {frame.number}, which was not made")
        if future.done():
            return  # nobody waits for it any more
        if frame.kind == Kind.ANSWER:
            future.set_result(frame.payload)
        else:
            future.set_exception(MemberUnreachableError(frame.payload.decode(errors="replace")))


class GatewayStreams:
    """A gateway's ways to all members."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._channels: dict[MemberId, StreamMemberChannel] = {}

    def set_addresses(self, addresses: Mapping[int, StreamAddress]) -> None:
        """Of all members; those that are not among them are none any more. Connections stay."""
        for gone in [member for member in self._channels if member not in addresses]:
            self._channels.pop(gone).close()
        for number, address in addresses.items():
            member = MemberId(number)
            known = self._channels.get(member)
            if known is None:
                self._channels[member] = StreamMemberChannel(self._credentials, member, address)
            else:
                known.address = address

    @property
    def channels(self) -> dict[MemberId, StreamMemberChannel]:
        return dict(self._channels)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
