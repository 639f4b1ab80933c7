"""etcdserverpb.Maintenance: the status of the cluster, its alarms, hashes, defragmentation, and the
leader's hand-over.

In etcd such a call is about the member whose endpoint it was sent to. A gateway stands for all members:
what shows something shows the leader, or else any member that answers; what does something does it
wherever it has to be done. There is no Snapshot: etcd's clients and tools expect the bytes of etcd's own
database file, and `etcray` has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from etcray.gateway.dispatcher import MemberChannel, MemberUnreachableError
from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Call, Router
from etcray.gateway.proposals import REQUEST_SECONDS_MAX
from etcray.gateway.service import SERVER_VERSION, STORAGE_VERSION, ServiceContext, check_size
from etcray.node import api
from etcray_storage import limits
from etcray_storage.commands import CommandKind, ReadKind
from etcray_storage.errors import (
    NO_LEADER,
    REQUEST_TOO_MANY_REQUESTS,
    TIMEOUT,
    UNHEALTHY,
    error_by_number,
)
from etcray_storage.proto import rpc_pb2 as rpc
from etcray_storage.types import NOBODY, MemberId

RETRY_SECONDS: Final = 0.05
"""Before the leader is looked for again."""

LONG_CALL_SECONDS_MAX: Final = 300.0
"""One member's hash over all rows, or its defragmentation."""

_UINT32: Final = (1 << 32) - 1


class MaintenanceService:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def register(self, router: Router) -> None:
        router.unary("/etcdserverpb.Maintenance/Status", self.status)
        router.unary("/etcdserverpb.Maintenance/Alarm", self.alarm)
        router.unary("/etcdserverpb.Maintenance/Hash", self.hash)
        router.unary("/etcdserverpb.Maintenance/HashKV", self.hash_kv)
        router.unary("/etcdserverpb.Maintenance/Defragment", self.defragment)
        router.unary("/etcdserverpb.Maintenance/MoveLeader", self.move_leader)

    async def status(self, request: bytes, _call: Call) -> bytes:
        """Shows the leader, or else any that answers."""
        parse_message(rpc.StatusRequest, request)
        status = (await self._statuses())[0]
        response = rpc.StatusResponse(
            header=self._header(status),
            version=SERVER_VERSION,
            dbSize=status.size_bytes,
            dbSizeInUse=status.size_in_use_bytes,
            leader=status.leader,
            raftIndex=status.commit_index,
            raftAppliedIndex=status.applied_index,
            raftTerm=status.term,
            isLearner=status.member in status.membership.learners,
            storageVersion=STORAGE_VERSION,
            dbSizeQuota=limits.DATABASE_QUOTA_BYTES,
            downgradeInfo=rpc.DowngradeInfo(),
        )
        if status.leader == NOBODY:
            response.errors.append(NO_LEADER.message)
        response.errors.extend(_alarm_text(member, kind) for member, kind in status.alarms)
        return response.SerializeToString()

    async def alarm(self, request: bytes, _call: Call) -> bytes:
        message = parse_message(rpc.AlarmRequest, request)
        dispatcher = self._context.dispatcher
        if message.action == rpc.AlarmRequest.GET:
            return self._context.answer(await dispatcher.read(ReadKind.ALARMS, request, serializable=False))
        check_size(request)
        return self._context.answer(await dispatcher.propose(CommandKind.ALARM, request))

    async def hash(self, request: bytes, _call: Call) -> bytes:
        """Of everything that the member has applied, however little of it is left: the state hash."""
        parse_message(rpc.HashRequest, request)
        status = (await self._statuses())[0]
        response = rpc.HashResponse(header=self._header(status), hash=status.state_hash & _UINT32)
        return response.SerializeToString()

    async def hash_kv(self, request: bytes, _call: Call) -> bytes:
        message = parse_message(rpc.HashKVRequest, request)
        encoded = api.encode(api.HashKVRequest(message.revision))
        reason = UNHEALTHY
        async for channel in self._reachable():
            try:
                async with asyncio.timeout(LONG_CALL_SECONDS_MAX):
                    reply = api.decode_hash_kv_reply(await channel.hash_kv(encoded))
            except (MemberUnreachableError, TimeoutError):
                continue
            if reply.outcome is api.Outcome.ANSWERED:
                return self._hash_kv_response(reply)
            if reply.outcome is api.Outcome.BUSY:
                reason = REQUEST_TOO_MANY_REQUESTS
        raise error_by_number(reason.number)

    def _hash_kv_response(self, reply: api.HashKVReply) -> bytes:
        if reply.error:
            raise error_by_number(reply.error)
        return rpc.HashKVResponse(
            header=rpc.ResponseHeader(
                cluster_id=self._context.cluster_id,
                member_id=reply.member,
                revision=reply.revision,
                raft_term=reply.term,
            ),
            hash=reply.hash,
            compact_revision=reply.compact_revision,
            hash_revision=reply.hash_revision,
        ).SerializeToString()

    async def defragment(self, request: bytes, _call: Call) -> bytes:
        """One member after the other, so that the others serve as ever. Members that cannot be reached
        are passed over; they have to start anew in any case. The response is empty, as in etcd."""
        parse_message(rpc.DefragmentRequest, request)
        done = 0
        reason = UNHEALTHY
        async for channel in self._reachable():
            try:
                async with asyncio.timeout(LONG_CALL_SECONDS_MAX):
                    reply = api.decode_defragment_reply(await channel.defragment())
            except (MemberUnreachableError, TimeoutError):
                continue
            if reply.outcome is api.Outcome.ANSWERED:
                done += 1
            elif reply.outcome is api.Outcome.BUSY:
                reason = REQUEST_TOO_MANY_REQUESTS
        if not done:
            raise error_by_number(reason.number)
        return rpc.DefragmentResponse().SerializeToString()

    async def move_leader(self, request: bytes, _call: Call) -> bytes:
        """Sent on to whoever leads. Answered, with an empty response as in etcd, once the target leads."""
        target = MemberId(parse_message(rpc.MoveLeaderRequest, request).targetID)
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                while not await self._moved(target):
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            raise error_by_number(TIMEOUT.number) from None
        return rpc.MoveLeaderResponse().SerializeToString()

    async def _moved(self, target: MemberId) -> bool:
        """One attempt. A call that was lost may have been obeyed: then the target leads at the next."""
        leader = next((s for s in await self._statuses() if s.role == "leader"), None)
        if leader is None:
            return False
        if leader.member == target:
            return True
        channel = self._context.dispatcher.channel(leader.member)
        if channel is None:
            return False
        try:
            reply = api.decode_transfer_reply(
                await channel.transfer_leadership(api.encode(api.TransferRequest(target)))
            )
        except MemberUnreachableError:
            return False
        if reply.error:
            raise error_by_number(reply.error)
        return reply.outcome is api.Outcome.ANSWERED and reply.leader == target

    async def _statuses(self) -> list[api.MemberStatus]:
        """The leader's first; at least one. Raises UNHEALTHY."""
        statuses = await self._context.dispatcher.statuses()
        if not statuses:
            raise error_by_number(UNHEALTHY.number)
        return statuses

    async def _reachable(self) -> AsyncIterator[MemberChannel]:
        """The members that answer, the leader first."""
        for status in await self._statuses():
            channel = self._context.dispatcher.channel(status.member)
            if channel is not None:
                yield channel

    def _header(self, status: api.MemberStatus) -> rpc.ResponseHeader:
        return rpc.ResponseHeader(
            cluster_id=self._context.cluster_id,
            member_id=status.member,
            revision=status.revision,
            raft_term=status.term,
        )


def _alarm_text(member: int, kind: int) -> str:
    """As Go prints an AlarmMember: fields that are 0 are left out, and there is a space at the end."""
    name = rpc.AlarmType.Name(kind) if kind in rpc.AlarmType.values() else str(kind)
    return (f"memberID:{member} " if member else "") + f"alarm:{name} "
