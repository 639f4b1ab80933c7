"""v3lockpb.Lock: a lock for clients that can do nothing but call."""

from __future__ import annotations

from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Call, Router, UnaryHandler
from etcray.gateway.waiting_line import WaitingLine, as_unknown
from etcray_storage.errors import Code, EtcdError
from etcray_storage.proto import lock_pb2 as lock
from etcray_storage.proto import rpc_pb2 as rpc


class LockService:
    """The holder of a lock is the oldest key under NAME/; the key is what unlocks it."""

    def __init__(self, line: WaitingLine, delete_range: UnaryHandler) -> None:
        self._line = line
        self._delete_range = delete_range

    def register(self, router: Router) -> None:
        router.unary("/v3lockpb.Lock/Lock", self.lock)
        router.unary("/v3lockpb.Lock/Unlock", self.unlock)

    async def lock(self, request: bytes, call: Call) -> bytes:
        """Return with the lock held. With the same lease again: at once, because it is held already. A
        caller that leaves before gives up its place."""
        message = parse_message(lock.LockRequest, request)
        prefix = message.name + b"/"
        try:
            lease = await self._line.lease_for(message.lease, call)
            place = await self._line.join(prefix, lease, b"", call)
            header = await self._line.wait_for_turn(prefix, place, call)
        except EtcdError as error:
            raise as_unknown(error) from error
        if header is None:
            raise EtcdError(Code.UNKNOWN, "mutex: session is expired")
        return lock.LockResponse(header=header, key=place.key).SerializeToString()

    async def unlock(self, request: bytes, call: Call) -> bytes:
        """A key that is not there is as good as unlocked."""
        delete = rpc.DeleteRangeRequest(key=parse_message(lock.UnlockRequest, request).key)
        try:
            answer = await self._delete_range(delete.SerializeToString(), call)
        except EtcdError as error:
            raise as_unknown(error) from error
        header = rpc.DeleteRangeResponse.FromString(answer).header
        return lock.UnlockResponse(header=header).SerializeToString()
