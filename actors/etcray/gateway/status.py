"""What a gateway says of itself."""

from __future__ import annotations

import msgspec


class GatewayCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway did since it started, and what it has to do now."""

    connections: int
    calls: int
    commands: int
    command_batches: int
    reads: int
    read_batches: int
    resends: int
    pending: int
    watchers: int
    watch_streams: int


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway says of itself, as msgpack."""

    index: int
    endpoint: str
    """HOST:PORT; empty before `open`."""
    process_id: int
    counters: GatewayCounters | None
