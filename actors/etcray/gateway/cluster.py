"""etcdserverpb.Cluster: the members, and how they change.

A change goes through the same proposals as a put, alone in its batch, so it happens exactly once
whatever becomes of leaders and gateways meanwhile. The rules are not here: what follows from the members
alone is decided where the change is applied (`machine.members`), what only the leader can know is
checked by the leader before (`node.reconfiguration`). Here a request is only made complete: URLs are
looked at, and a new member gets its id.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from etcray.gateway.dispatcher import Reply
from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Call, Router
from etcray.gateway.service import ServiceContext, check_size
from etcray_storage.commands import (
    CommandKind,
    MemberAdd,
    MemberPromote,
    MemberRemove,
    MemberUpdate,
    ReadKind,
    encode_member_command,
)
from etcray_storage.errors import MEMBER_BAD_URLS, error_by_number
from etcray_storage.proto import rpc_pb2 as rpc
from etcray_storage.types import ClusterId, MemberId


class ClusterService:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def register(self, router: Router) -> None:
        router.unary("/etcdserverpb.Cluster/MemberAdd", self.member_add)
        router.unary("/etcdserverpb.Cluster/MemberRemove", self.member_remove)
        router.unary("/etcdserverpb.Cluster/MemberUpdate", self.member_update)
        router.unary("/etcdserverpb.Cluster/MemberPromote", self.member_promote)
        router.unary("/etcdserverpb.Cluster/MemberList", self.member_list)

    async def member_add(self, request: bytes, _call: Call) -> bytes:
        """The new member has no name until it is started, which the supervisor does by itself."""
        message = parse_message(rpc.MemberAddRequest, request)
        urls = checked_urls(message.peerURLs)
        member = new_member_id(self._context.cluster_id, urls, time.time_ns())
        command = MemberAdd(member, "", urls, message.isLearner)
        reply = await self._propose(CommandKind.MEMBER_ADD, command)
        return self._answer(reply, rpc.MemberAddResponse, lambda response: [response.member])

    async def member_remove(self, request: bytes, _call: Call) -> bytes:
        message = parse_message(rpc.MemberRemoveRequest, request)
        command = MemberRemove(MemberId(message.ID))
        return self._answer(await self._propose(CommandKind.MEMBER_REMOVE, command), rpc.MemberRemoveResponse)

    async def member_update(self, request: bytes, _call: Call) -> bytes:
        """As in etcd, the URLs are not looked at."""
        message = parse_message(rpc.MemberUpdateRequest, request)
        command = MemberUpdate(MemberId(message.ID), tuple(message.peerURLs))
        return self._answer(await self._propose(CommandKind.MEMBER_UPDATE, command), rpc.MemberUpdateResponse)

    async def member_promote(self, request: bytes, _call: Call) -> bytes:
        message = parse_message(rpc.MemberPromoteRequest, request)
        command = MemberPromote(MemberId(message.ID))
        reply = await self._propose(CommandKind.MEMBER_PROMOTE, command)
        return self._answer(reply, rpc.MemberPromoteResponse)

    async def member_list(self, request: bytes, _call: Call) -> bytes:
        message = parse_message(rpc.MemberListRequest, request)
        dispatcher = self._context.dispatcher
        reply = await dispatcher.read(ReadKind.MEMBER_LIST, request, serializable=not message.linearizable)
        return self._answer(reply, rpc.MemberListResponse)

    async def _propose(self, kind: CommandKind, command: Any) -> Reply:
        encoded = encode_member_command(command)
        check_size(encoded)
        return await self._context.dispatcher.propose(kind, encoded)

    def _answer(self, reply: Reply, response_type: Any, others: Callable[[Any], Any] = lambda _: ()) -> bytes:
        """The response, which says nothing of revisions. Every gateway serves for every member: one that
        has started, and whose client URLs nobody has published yet, is shown with the gateways'."""
        without_revision = Reply(0, reply.body, reply.member, reply.term)
        response = response_type.FromString(self._context.answer(without_revision))
        for member in (*response.members, *others(response)):
            if member.name and not member.clientURLs:
                member.clientURLs[:] = self._context.endpoints
        encoded: bytes = response.SerializeToString()
        return encoded


def checked_urls(urls: Any) -> tuple[str, ...]:
    """The peer URLs of a new member, sorted. etcd's rules, and besides those `ray://CLUSTER/NAME`, which
    is what members of ours are called. Raises MEMBER_BAD_URLS."""
    stripped = tuple(sorted(url.strip() for url in urls))
    if not stripped or not all(_is_peer_url(url) for url in stripped):
        raise error_by_number(MEMBER_BAD_URLS.number)
    return stripped


def _is_peer_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https"):
            return parts.netloc.rpartition(":")[2].isdecimal() and parts.port is not None and not parts.path
    except ValueError:
        return False
    return parts.scheme in ("unix", "unixs") or (parts.scheme == "ray" and bool(parts.netloc and parts.path))


def new_member_id(cluster: ClusterId, urls: tuple[str, ...], time_ns: int) -> MemberId:
    """63 bits and never 0, which means nobody. The time is in it because a removed id never comes back,
    and its URLs may."""
    digest = hashlib.sha256("\0".join((f"{cluster:x}", *urls, str(time_ns))).encode()).digest()
    return MemberId((int.from_bytes(digest[:8], "big") >> 1) or 1)
