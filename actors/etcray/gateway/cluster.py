"""etcdserverpb.Cluster: the list of members. Changing it is not part of this version."""

from __future__ import annotations

from etcray.gateway.dispatcher import Reply
from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Call, Router
from etcray.gateway.service import ServiceContext
from etcray_storage.commands import ReadKind
from etcray_storage.proto import rpc_pb2 as rpc


class ClusterService:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def register(self, router: Router) -> None:
        router.unary("/etcdserverpb.Cluster/MemberList", self.member_list)

    async def member_list(self, request: bytes, _call: Call) -> bytes:
        """Every gateway serves for every member, so each member's client URLs are the gateways'."""
        message = parse_message(rpc.MemberListRequest, request)
        dispatcher = self._context.dispatcher
        reply = await dispatcher.read(ReadKind.MEMBER_LIST, request, serializable=not message.linearizable)
        without_revision = Reply(0, reply.body, reply.member, reply.term)
        response = rpc.MemberListResponse.FromString(self._context.answer(without_revision))
        for member in response.members:
            member.clientURLs[:] = self._context.endpoints
        return response.SerializeToString()
