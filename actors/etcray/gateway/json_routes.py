"""The 51 HTTP routes of etcd's JSON gateway, all derived from one table.

Every RPC of etcd's API has at least one path under /v3/; three lease calls have an older one besides.
All are POST with the request as the body. The table names a method's messages by their common stem,
because nearly always it is the method's own name.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final, NamedTuple

from etcray.gateway.json_codec import MessageCodec, codec_for
from etcray_storage.proto import election_pb2, lock_pb2, rpc_pb2


class Route(NamedTuple):
    """One HTTP path and the RPC behind it."""

    path: str
    rpc: str
    """The gRPC path."""
    request: MessageCodec
    response: MessageCodec
    client_streams: bool
    """The body is any number of requests, one behind the other."""


_CLIENT_STREAMS: Final = ("/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive")

_TABLE: Final[tuple[tuple[ModuleType, str, dict[str, str]], ...]] = (
    (
        rpc_pb2,
        "etcdserverpb.KV",
        {
            "Range": "kv/range",
            "Put": "kv/put",
            "DeleteRange": "kv/deleterange",
            "Txn": "kv/txn",
            "Compact Compaction": "kv/compaction",
        },
    ),
    (rpc_pb2, "etcdserverpb.Watch", {"Watch": "watch"}),
    (
        rpc_pb2,
        "etcdserverpb.Lease",
        {
            "LeaseGrant": "lease/grant",
            "LeaseRevoke": "lease/revoke kv/lease/revoke",
            "LeaseKeepAlive": "lease/keepalive",
            "LeaseTimeToLive": "lease/timetolive kv/lease/timetolive",
            "LeaseLeases": "lease/leases kv/lease/leases",
        },
    ),
    (
        rpc_pb2,
        "etcdserverpb.Cluster",
        {
            "MemberAdd": "cluster/member/add",
            "MemberRemove": "cluster/member/remove",
            "MemberUpdate": "cluster/member/update",
            "MemberList": "cluster/member/list",
            "MemberPromote": "cluster/member/promote",
        },
    ),
    (
        rpc_pb2,
        "etcdserverpb.Maintenance",
        {
            "Alarm": "maintenance/alarm",
            "Status": "maintenance/status",
            "Defragment": "maintenance/defragment",
            "Hash": "maintenance/hash",
            "HashKV": "maintenance/hashkv",
            "Snapshot": "maintenance/snapshot",
            "MoveLeader": "maintenance/transfer-leadership",
            "Downgrade": "maintenance/downgrade",
        },
    ),
    (
        rpc_pb2,
        "etcdserverpb.Auth",
        {
            "AuthEnable": "auth/enable",
            "AuthDisable": "auth/disable",
            "AuthStatus": "auth/status",
            "Authenticate": "auth/authenticate",
            "UserAdd AuthUserAdd": "auth/user/add",
            "UserGet AuthUserGet": "auth/user/get",
            "UserList AuthUserList": "auth/user/list",
            "UserDelete AuthUserDelete": "auth/user/delete",
            "UserChangePassword AuthUserChangePassword": "auth/user/changepw",
            "UserGrantRole AuthUserGrantRole": "auth/user/grant",
            "UserRevokeRole AuthUserRevokeRole": "auth/user/revoke",
            "RoleAdd AuthRoleAdd": "auth/role/add",
            "RoleGet AuthRoleGet": "auth/role/get",
            "RoleList AuthRoleList": "auth/role/list",
            "RoleDelete AuthRoleDelete": "auth/role/delete",
            "RoleGrantPermission AuthRoleGrantPermission": "auth/role/grant",
            "RoleRevokePermission AuthRoleRevokePermission": "auth/role/revoke",
        },
    ),
    (lock_pb2, "v3lockpb.Lock", {"Lock": "lock/lock", "Unlock": "lock/unlock"}),
    (
        election_pb2,
        "v3electionpb.Election",
        {
            "Campaign": "election/campaign",
            "Proclaim": "election/proclaim",
            "Leader": "election/leader",
            "Observe Leader": "election/observe",
            "Resign": "election/resign",
        },
    ),
)
"""Messages; service; "Method" or "Method MessageStem": the paths, without /v3/."""


def _routes() -> dict[str, Route]:
    routes: dict[str, Route] = {}
    for messages, service, methods in _TABLE:
        types = messages.DESCRIPTOR.message_types_by_name
        for names, paths in methods.items():
            method, _, stem = names.partition(" ")
            rpc = f"/{service}/{method}"
            request = codec_for(types[f"{stem or method}Request"])
            response = codec_for(types[f"{stem or method}Response"])
            for path in paths.split():
                assert f"/v3/{path}" not in routes, f"{path} is there twice"
                routes[f"/v3/{path}"] = Route(f"/v3/{path}", rpc, request, response, rpc in _CLIENT_STREAMS)
    return routes


ROUTES: Final = _routes()
"""By path."""
