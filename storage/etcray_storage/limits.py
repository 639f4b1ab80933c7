"""Every limit, in one place. Over a limit the client gets etcd's own error, never growing memory.

Names end in their unit. Where etcd has the same limit, the value is etcd's default.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- requests ---------------------------------------------------------------------------------
REQUEST_BYTES_MAX: Final = 1536 * KIB
"""Largest request that may enter the log; above it: InvalidArgument, request is too large."""

GRPC_RECEIVE_BYTES_MAX: Final = REQUEST_BYTES_MAX + 512 * KIB
"""Largest gRPC message that the gateway reads; above it: ResourceExhausted, from the transport."""

TXN_OPS_MAX: Final = 128
"""Longest of the compare, success and failure lists of a transaction."""

# --- gateway ----------------------------------------------------------------------------------
PROPOSALS_PENDING_MAX: Final = 20_000
"""Commands of one gateway that wait for their answer; above it: too many requests."""

READS_PENDING_MAX: Final = 20_000
"""Reads of one gateway that wait for their answer; above it: too many requests."""

BATCH_COMMANDS_MAX: Final = 2_048
"""Commands in one batch from a gateway."""

BATCH_BYTES_MAX: Final = 2 * MIB
"""A batch is closed when it reaches this size; one request may be larger alone."""

BATCHES_IN_FLIGHT_MAX: Final = 4
"""Batches of one gateway that are on their way to the leader at once."""

STREAMS_PER_CONNECTION_MAX: Final = 4_096
"""Concurrent HTTP/2 streams of one connection. etcd's default has no bound; a bound is what keeps
one client from filling the gateway's memory, and HTTP/2 clients queue by themselves above it."""

CONNECTIONS_MAX: Final = 16_384
"""Client connections of one gateway; one more is closed at once."""

READ_BATCH_REQUESTS_MAX: Final = 2_048
"""Reads in one batch from a gateway."""

READ_BATCHES_IN_FLIGHT_MAX: Final = 4
"""Batches of reads of one gateway, of each kind, that are on their way at once."""

STREAM_MESSAGES_PENDING_MAX: Final = 128
"""Messages of one client stream that the gateway holds; above it HTTP/2 flow control stops the client."""

# --- consensus --------------------------------------------------------------------------------
APPEND_BYTES_MAX: Final = 1 * MIB
"""Entries in one Append message; one larger entry may travel alone."""

APPENDS_IN_FLIGHT_MAX: Final = 16
"""Append messages to one peer that are not yet acknowledged."""

UNCOMMITTED_BYTES_MAX: Final = 64 * MIB
"""Proposals that the leader keeps while they are not committed; above it: too many requests."""

# --- sessions (exactly once) ------------------------------------------------------------------
SESSIONS_MAX: Final = 1_024
"""Gateway sessions that the state machine remembers; the longest unused one is forgotten first."""

SESSION_ANSWERS_MAX: Final = 64
"""Batches of one session whose answers are remembered because they are not acknowledged yet."""

# --- storage ----------------------------------------------------------------------------------
LOG_RECORD_BYTES_MAX: Final = 16 * MIB
"""Entries that one commit of the log may group."""

LOG_SEGMENT_BYTES: Final = 64 * MIB
"""A segment of the log is closed once its payloads reach this size."""

LOG_CACHE_BYTES: Final = 32 * MIB
"""Newest entries kept in memory, so that followers are served without reading the disk."""

LOG_CATCH_UP_ENTRIES: Final = 5_000
"""Entries kept behind the flushed index, so that a short absence needs no snapshot."""

FLUSH_ROWS_MAX: Final = 10_000
FLUSH_INTERVAL_SECONDS: Final = 0.5
"""The tables are written when this many rows wait, or after this time, whichever comes first."""

SNAPSHOT_CHUNK_BYTES: Final = 1 * MIB
"""One piece of a snapshot on its way to a lagging member."""

OUTBOX_MESSAGES_MAX: Final = 64
"""Raft messages that wait for the next call to a peer; the oldest are dropped above it."""

MAINTENANCE_JOBS_MAX: Final = 16
"""Long jobs of one member that wait for the one before."""
