"""One gateway, without Ray: the services, the router and the listening port put together."""

from __future__ import annotations

import random
from collections.abc import Mapping

from etcray.gateway.cluster import ClusterService
from etcray.gateway.dispatcher import Dispatcher, MemberChannel
from etcray.gateway.election import ElectionService
from etcray.gateway.grpc import Router
from etcray.gateway.health import HealthService
from etcray.gateway.http_routes import HttpRoutes
from etcray.gateway.json_gateway import JsonGateway
from etcray.gateway.kv import KvService
from etcray.gateway.lease import LeaseService
from etcray.gateway.listener import HttpServer
from etcray.gateway.lock import LockService
from etcray.gateway.maintenance import MaintenanceService
from etcray.gateway.service import ServiceContext
from etcray.gateway.status import GatewayCounters
from etcray.gateway.waiting_line import WaitingLine
from etcray.gateway.watch import WatchService
from etcray.gateway.watch_feed import WatchFeed
from etcray.gateway.watch_hub import PROGRESS_SECONDS
from etcray.tuning import DEFAULT_TUNING, Tuning
from etcray_storage.types import ClusterId, MemberId


class GatewayServer:
    """Create it on its event loop. `open` before use; `stop` ends it for good."""

    def __init__(
        self,
        cluster_id: ClusterId,
        channels: Mapping[MemberId, MemberChannel],
        endpoints: list[str],
        rng: random.Random,
        progress_seconds: float = PROGRESS_SECONDS,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        self.dispatcher = Dispatcher(channels, rng, tuning)
        self.context = ServiceContext(cluster_id, self.dispatcher, endpoints)
        routes = HttpRoutes(self.context)
        self.sql = routes.sql
        self._router = Router(routes.handle, self.context.admit)
        json_gateway = JsonGateway(self._router)
        routes.json_api = json_gateway.handle
        self._router.exchange = json_gateway.exchange
        kv = KvService(self.context)
        kv.register(self._router)
        leases = LeaseService(self.context, rng)
        leases.register(self._router)
        self.watches = WatchFeed(cluster_id, self.dispatcher, rng, progress_seconds)
        watches = WatchService(self.context, self.watches)
        watches.register(self._router)
        line = WaitingLine(
            self.dispatcher,
            read=kv.range,
            txn=kv.txn,
            grant=leases.grant,
            watch=watches.watch,
        )
        LockService(line, kv.delete_range).register(self._router)
        ElectionService(line).register(self._router)
        ClusterService(self.context).register(self._router)
        MaintenanceService(self.context).register(self._router)
        HealthService().register(self._router)
        self._http = HttpServer(self._router)

    async def open(self, host: str, port: int) -> int:
        """Bind and serve. Returns the port; raises `ListenError`."""
        return await self._http.listen(host, port)

    async def stop(self, grace_seconds: float) -> None:
        """Let running requests finish within the grace time, then end the rest."""
        self.watches.stop()
        await self._http.stop(grace_seconds)
        await self.dispatcher.stop()

    def counters(self) -> GatewayCounters:
        dispatcher = self.dispatcher
        reads = (dispatcher.linearizable_reads, dispatcher.serializable_reads)
        waiting = (dispatcher.proposals, dispatcher.keep_alives, *reads)
        return GatewayCounters(
            connections=self._http.connection_count,
            calls=self._router.call_count,
            commands=dispatcher.proposals.command_count,
            command_batches=dispatcher.proposals.batch_count,
            reads=sum(r.read_count for r in reads),
            read_batches=sum(r.batch_count for r in reads),
            resends=dispatcher.delivery.resend_count,
            pending=sum(source.pending_count for source in waiting),
            watchers=self.watches.hub.watcher_count,
            watch_streams=len(self.watches.hub.streams),
        )
