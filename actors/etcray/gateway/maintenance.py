"""etcdserverpb.Maintenance: the status of the cluster, and its alarms."""

from __future__ import annotations

from etcray.gateway.framing import parse_message
from etcray.gateway.grpc import Call, Router
from etcray.gateway.service import SERVER_VERSION, STORAGE_VERSION, ServiceContext, check_size
from etcray_storage import limits
from etcray_storage.commands import CommandKind, ReadKind
from etcray_storage.errors import NO_LEADER, UNHEALTHY, error_by_number
from etcray_storage.proto import rpc_pb2 as rpc
from etcray_storage.types import NOBODY


class MaintenanceService:
    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def register(self, router: Router) -> None:
        router.unary("/etcdserverpb.Maintenance/Status", self.status)
        router.unary("/etcdserverpb.Maintenance/Alarm", self.alarm)

    async def status(self, request: bytes, _call: Call) -> bytes:
        """A gateway stands for all members; it shows the leader, or else any that answers."""
        parse_message(rpc.StatusRequest, request)
        statuses = await self._context.dispatcher.statuses()
        if not statuses:
            raise error_by_number(UNHEALTHY.number)
        status = statuses[0]
        response = rpc.StatusResponse(
            header=rpc.ResponseHeader(
                cluster_id=self._context.cluster_id,
                member_id=status.member,
                revision=status.revision,
                raft_term=status.term,
            ),
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
        return response.SerializeToString()

    async def alarm(self, request: bytes, _call: Call) -> bytes:
        message = parse_message(rpc.AlarmRequest, request)
        dispatcher = self._context.dispatcher
        if message.action == rpc.AlarmRequest.GET:
            return self._context.answer(await dispatcher.read(ReadKind.ALARMS, request, serializable=False))
        check_size(request)
        return self._context.answer(await dispatcher.propose(CommandKind.ALARM, request))
