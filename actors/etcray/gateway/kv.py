"""etcdserverpb.KV: reads, writes, transactions, compaction.

Requests are decoded once here, to be checked; what travels on are the client's own bytes. Everything
that must look at the store is decided by the state machine, in log order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Answer, Call, Router, awaited
from etcray.gateway.service import ServiceContext, Waiting, check_size
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
        self.range = awaited(self._range)
        self.txn = awaited(self._txn)
        self.delete_range = awaited(self._delete_range)

    def register(self, router: Router) -> None:
        router.direct("/etcdserverpb.KV/Range", self._range)
        router.server_stream("/etcdserverpb.KV/RangeStream", self.range_stream)
        router.direct("/etcdserverpb.KV/Put", self._put)
        router.direct("/etcdserverpb.KV/DeleteRange", self._delete_range)
        router.direct("/etcdserverpb.KV/Txn", self._txn)
        router.direct("/etcdserverpb.KV/Compact", self._compact)

    def _range(self, request: bytes, answer: Answer) -> None:
        message = parse_message(rpc.RangeRequest, request)
        validate.check_range(message)
        self._read(ReadKind.RANGE, request, answer, serializable=message.serializable)

    def _put(self, request: bytes, answer: Answer) -> None:
        validate.check_put(parse_message(rpc.PutRequest, request))
        self._propose(CommandKind.PUT, request, answer)

    def _delete_range(self, request: bytes, answer: Answer) -> None:
        validate.check_delete_range(parse_message(rpc.DeleteRangeRequest, request))
        self._propose(CommandKind.DELETE_RANGE, request, answer)

    def _txn(self, request: bytes, answer: Answer) -> None:
        message = parse_message(rpc.TxnRequest, request)
        validate.check_txn(message, limits.TXN_OPS_MAX)
        if validate.is_read_only_txn(message):
            serializable = validate.is_serializable_txn(message)
            self._read(ReadKind.TXN, request, answer, serializable=serializable)
        else:
            self._propose(CommandKind.TXN, request, answer)

    def _compact(self, request: bytes, answer: Answer) -> None:
        parse_message(rpc.CompactionRequest, request)
        self._propose(CommandKind.COMPACT, request, answer)

    def _read(self, kind: ReadKind, request: bytes, answer: Answer, *, serializable: bool) -> None:
        waiting = Waiting(self._context, answer)
        self._dispatcher.submit_read(kind, request, waiting, serializable=serializable)

    def _propose(self, kind: CommandKind, request: bytes, answer: Answer) -> None:
        check_size(request)
        self._dispatcher.submit(kind, request, Waiting(self._context, answer))

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
