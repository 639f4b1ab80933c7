"""v3electionpb.Election: leader election for clients that can do nothing but call.

Where etcd differs: a campaign whose key was lost while it waited (its lease ended) is answered
"election: not leader" here; etcd reports it as won.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Call, Router
from etcray.gateway.waiting_line import WaitingLine, as_unknown, line_end
from etcray_storage.errors import Code, EtcdError
from etcray_storage.proto import election_pb2 as election
from etcray_storage.proto import kv_pb2 as kv
from etcray_storage.proto import rpc_pb2 as rpc


class ElectionService:
    """The leader is the oldest key under NAME/, and what it proclaims is the key's value."""

    def __init__(self, line: WaitingLine) -> None:
        self._line = line

    def register(self, router: Router) -> None:
        router.unary("/v3electionpb.Election/Campaign", self.campaign)
        router.unary("/v3electionpb.Election/Proclaim", self.proclaim)
        router.unary("/v3electionpb.Election/Leader", self.leader)
        router.unary("/v3electionpb.Election/Resign", self.resign)
        router.server_stream("/v3electionpb.Election/Observe", self.observe)

    async def campaign(self, request: bytes, call: Call) -> bytes:
        """Return when elected. Again with the same lease and another value: that is proclaimed."""
        message = parse_message(election.CampaignRequest, request)
        prefix = message.name + b"/"
        try:
            lease = await self._line.lease_for(message.lease, call)
            place = await self._line.join(prefix, lease, message.value, call)
            if place.value != message.value:
                await self._write(place.key, place.revision, message.value, lease, call)
            header = await self._line.wait_for_turn(prefix, place, call)
        except EtcdError as error:
            raise as_unknown(error) from error
        if header is None:
            raise _not_leader()
        key = election.LeaderKey(name=message.name, key=place.key, rev=place.revision, lease=lease)
        return election.CampaignResponse(header=place.header, leader=key).SerializeToString()

    async def proclaim(self, request: bytes, call: Call) -> bytes:
        message = parse_message(election.ProclaimRequest, request)
        leader = _leader_of(message)
        try:
            lease = await self._line.lease_for(leader.lease, call)
            header = await self._write(leader.key, leader.rev, message.value, lease, call)
        except EtcdError as error:
            raise as_unknown(error) from error
        return election.ProclaimResponse(header=header).SerializeToString()

    async def _write(
        self, key: bytes, revision: int, value: bytes, lease: int, call: Call
    ) -> rpc.ResponseHeader:
        answer = await self._line.write(key, revision, value, lease, call)
        if not answer.succeeded:
            raise _not_leader()
        return answer.header

    async def resign(self, request: bytes, call: Call) -> bytes:
        """Who does not lead any more has nothing to give up, and that is success."""
        leader = _leader_of(parse_message(election.ResignRequest, request))
        try:
            header = await self._line.leave(leader.key, leader.rev, call)
        except EtcdError as error:
            raise as_unknown(error) from error
        return election.ResignResponse(header=header).SerializeToString()

    async def leader(self, request: bytes, call: Call) -> bytes:
        message = parse_message(election.LeaderRequest, request)
        try:
            answer = await self._line.oldest(message.name + b"/", call)
        except EtcdError as error:
            raise as_unknown(error) from error
        if not answer.kvs:
            raise EtcdError(Code.UNKNOWN, "election: no leader")
        return election.LeaderResponse(header=answer.header, kv=answer.kvs[0]).SerializeToString()

    # --- observing --------------------------------------------------------------------------------

    async def observe(self, request: bytes, call: Call) -> AsyncGenerator[bytes, None]:
        """The leader and what it proclaims, then its successors; waits while there is none."""
        prefix = parse_message(election.LeaderRequest, request).name + b"/"
        try:
            async with aclosing(self._proclamations(prefix, call)) as proclamations:
                async for response in proclamations:
                    yield response.SerializeToString()
        except EtcdError as error:
            raise as_unknown(error) from error

    async def _proclamations(
        self, prefix: bytes, call: Call
    ) -> AsyncGenerator[election.LeaderResponse, None]:
        """Each revision once, also when a watch had to begin anew behind a compaction."""
        told = 0
        while True:
            answer = await self._line.oldest(prefix, call)
            if not answer.kvs:
                await self._wait_for_candidate(prefix, answer.header.revision, call)
                continue
            pair = answer.kvs[0]
            if pair.mod_revision > told:
                told = pair.mod_revision
                yield election.LeaderResponse(header=answer.header, kv=pair)
            async with aclosing(
                self._puts_until_deleted(pair.key, answer.header.revision + 1, call)
            ) as responses:
                async for response in responses:
                    told = response.kv.mod_revision
                    yield response

    async def _wait_for_candidate(self, prefix: bytes, revision: int, call: Call) -> None:
        """Until something is put under the prefix after this revision; the caller looks who leads then."""
        async with aclosing(self._line.watch(prefix, line_end(prefix), revision + 1, call)) as responses:
            async for response in responses:
                if any(event.type == kv.Event.PUT for event in response.events):
                    return

    async def _puts_until_deleted(
        self, key: bytes, start_revision: int, call: Call
    ) -> AsyncGenerator[election.LeaderResponse, None]:
        async with aclosing(self._line.watch(key, b"", start_revision, call)) as responses:
            async for response in responses:
                for event in response.events:
                    if event.type == kv.Event.DELETE:
                        return
                    yield election.LeaderResponse(header=response.header, kv=event.kv)


def _leader_of(message: election.ProclaimRequest | election.ResignRequest) -> election.LeaderKey:
    if not message.HasField("leader"):
        raise EtcdError(Code.UNKNOWN, '"leader" field must be provided')
    return message.leader


def _not_leader() -> EtcdError:
    return EtcdError(Code.UNKNOWN, "election: not leader")
