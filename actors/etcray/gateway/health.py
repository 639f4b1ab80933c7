"""grpc.health.v1.Health, as load balancers and the Go client's health check use it.

As in etcd, the service "" is SERVING as long as the server answers at all; whether the cluster can
write is what the HTTP route /health says. The two messages are so small that they are read and written
by hand: the request has one string, the response one enum.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from etcray.gateway.grpc import Call, Router
from etcray_storage.errors import Code, EtcdError

_SERVING: Final = b"\x08\x01"
_SERVICE_UNKNOWN: Final = b"\x08\x03"
_NO_SERVICE_NAMED: Final = (b"", b"\x0a\x00")


class HealthService:
    def register(self, router: Router) -> None:
        router.unary("/grpc.health.v1.Health/Check", self.check)
        router.server_stream("/grpc.health.v1.Health/Watch", self.watch)

    async def check(self, request: bytes, _call: Call) -> bytes:
        if request not in _NO_SERVICE_NAMED:
            raise EtcdError(Code.NOT_FOUND, "unknown service")
        return _SERVING

    async def watch(self, request: bytes, _call: Call) -> AsyncGenerator[bytes, None]:
        """The state now; it does not change while the gateway lives, so nothing follows."""
        yield _SERVING if request in _NO_SERVICE_NAMED else _SERVICE_UNKNOWN
        await asyncio.get_running_loop().create_future()
