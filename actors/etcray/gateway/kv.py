"""etcdserverpb.KV: reads, writes, transactions, compaction.

Requests are decoded once here, to be checked; what travels on are the client's own bytes. Everything
that must look at the store is decided by the state machine, in log order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Call, Router
from etcray.gateway.service import ServiceContext, check_size
from etcray_storage import limits
from etcray_storage.commands import CommandKind, ReadKind
from etcray_storage.errors import Code, EtcdError
from etcray_storage.machine import validate
from etcray_storage.proto import rpc_pb2 as rpc

STREAM_PAGE_KEYS_FIRST = 10
"""Keys in the first page of a RangeStream."""


class KvService:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._dispatcher = context.dispatcher

    def register(self, router: Router) -> None:
        router.unary("/etcdserverpb.KV/Range", self.range)
        router.server_stream("/etcdserverpb.KV/RangeStream", self.range_stream)
        router.unary("/etcdserverpb.KV/Put", self.put)
        router.unary("/etcdserverpb.KV/DeleteRange", self.delete_range)
        router.unary("/etcdserverpb.KV/Txn", self.txn)
        router.unary("/etcdserverpb.KV/Compact", self.compact)

    async def range(self, request: bytes, _call: Call) -> bytes:
        message = parse_message(rpc.RangeRequest, request)
        validate.check_range(message)
        reply = await self._dispatcher.read(ReadKind.RANGE, request, serializable=message.serializable)
        return self._context.answer(reply)

    async def put(self, request: bytes, _call: Call) -> bytes:
        validate.check_put(parse_message(rpc.PutRequest, request))
        return await self._propose(CommandKind.PUT, request)

    async def delete_range(self, request: bytes, _call: Call) -> bytes:
        validate.check_delete_range(parse_message(rpc.DeleteRangeRequest, request))
        return await self._propose(CommandKind.DELETE_RANGE, request)

    async def txn(self, request: bytes, _call: Call) -> bytes:
        message = parse_message(rpc.TxnRequest, request)
        validate.check_txn(message, limits.TXN_OPS_MAX)
        if validate.is_read_only_txn(message):
            serializable = validate.is_serializable_txn(message)
            reply = await self._dispatcher.read(ReadKind.TXN, request, serializable=serializable)
            return self._context.answer(reply)
        return await self._propose(CommandKind.TXN, request)

    async def compact(self, request: bytes, _call: Call) -> bytes:
        parse_message(rpc.CompactionRequest, request)
        return await self._propose(CommandKind.COMPACT, request)

    async def _propose(self, kind: CommandKind, request: bytes) -> bytes:
        check_size(request)
        return self._context.answer(await self._dispatcher.propose(kind, request))

    async def range_stream(self, request: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
        """A Range in pages, all of one revision: the one that was current at the first page.

        Header, `more` and `count` come with the last page only. Pages start small, so that the first
        pair arrives soon, and then follow the size of a request message.
        """
        message = parse_message(rpc.RangeRequest, request)
        validate.check_range(message)
        _check_streamable(message)
        page_keys = STREAM_PAGE_KEYS_FIRST
        remaining = message.limit  # 0: no limit
        total = -1
        header = rpc.ResponseHeader()
        while True:
            page_limit = min(page_keys, remaining) if remaining else page_keys
            page, size = await self._page(message, page_limit)
            if total < 0:
                total = page.count
                header.CopyFrom(page.header)
                if message.revision <= 0:
                    message.revision = page.header.revision
            limit_reached = remaining != 0 and len(page.kvs) >= remaining
            if limit_reached or not page.more:
                page.header.CopyFrom(header)
                page.count = total
                yield rpc.RangeStreamResponse(range_response=page).SerializeToString()
                return
            remaining -= len(page.kvs) if remaining else 0
            message.key = page.kvs[-1].key + b"\0"
            yield rpc.RangeStreamResponse(range_response=rpc.RangeResponse(kvs=page.kvs)).SerializeToString()
            if size > limits.REQUEST_BYTES_MAX:
                page_keys = max(1, page_keys // 2)
            elif size <= limits.REQUEST_BYTES_MAX // 2:
                page_keys *= 2

    async def _page(self, message: rpc.RangeRequest, limit: int) -> tuple[rpc.RangeResponse, int]:
        page_request = rpc.RangeRequest()
        page_request.CopyFrom(message)
        if not message.count_only:
            page_request.limit = limit
        reply = await self._dispatcher.read(
            ReadKind.RANGE, page_request.SerializeToString(), serializable=message.serializable
        )
        return rpc.RangeResponse.FromString(self._context.answer(reply)), len(reply.body)


def _check_streamable(message: rpc.RangeRequest) -> None:
    by_key = message.sort_target == rpc.RangeRequest.KEY
    if not by_key or message.sort_order not in (rpc.RangeRequest.NONE, rpc.RangeRequest.ASCEND):
        raise EtcdError(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders")
    if (
        message.min_mod_revision
        or message.max_mod_revision
        or message.min_create_revision
        or message.max_create_revision
    ):
        raise EtcdError(Code.UNIMPLEMENTED, "RangeStream does not support revision filters")
