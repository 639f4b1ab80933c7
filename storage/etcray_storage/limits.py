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

DATABASE_QUOTA_BYTES: Final = 2 * 1024 * MIB
"""What Maintenance.Status reports as the quota: etcd's default."""

# --- gateway ----------------------------------------------------------------------------------
PROPOSALS_PENDING_MAX: Final = 20_000
"""Commands of one gateway that wait for their answer; above it: too many requests."""

READS_PENDING_MAX: Final = 20_000
"""Reads of one gateway that wait for their answer; above it: too many requests."""

PENDING_BYTES_MAX: Final = 256 * MIB
"""Requests of the commands, and again of the reads, that wait in one gateway; above it: too many
requests."""

REQUESTS_INCOMPLETE_BYTES_MAX: Final = 256 * MIB
"""Parts of messages in one gateway whose rest has not arrived yet; above it: too many requests."""

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

STREAM_BYTES_PENDING_MAX: Final = 1 * MIB
"""Bytes of those messages; a single larger one is taken when no other waits."""

# --- consensus --------------------------------------------------------------------------------
APPEND_BYTES_MAX: Final = 1 * MIB
"""Entries in one Append message; one larger entry may travel alone."""

APPENDS_IN_FLIGHT_MAX: Final = 16
"""Append messages to one peer that are not yet acknowledged."""

APPENDS_IN_FLIGHT_BYTES_MAX: Final = 8 * MIB
"""Entries in all these messages together."""

APPLY_BYTES_MAX: Final = 4 * MIB
"""Committed entries handed out for apply in one piece; one larger entry may come alone."""

SNAPSHOT_REPORT_SECONDS_MAX: Final = 60.0
"""A leader asks for a snapshot again if it hears nothing about the last one for this long."""

UNCOMMITTED_BYTES_MAX: Final = 64 * MIB
"""Proposals that the leader keeps while they are not committed; above it: too many requests."""

OUTBOX_MESSAGES_MAX: Final = 64
"""Raft messages that wait for the next call to a peer; the oldest are dropped above it."""

# --- sessions (exactly once) ------------------------------------------------------------------
SESSIONS_MAX: Final = 1_024
"""Gateway sessions that the state machine remembers; the longest unused one is forgotten first."""

SESSION_ANSWERS_MAX: Final = 64
"""Batches of one session whose answers are remembered because they are not acknowledged yet."""

ALARMS_MAX: Final = 1_024
"""Raised alarms; a client may raise them for member ids that do not exist. Above it: too many requests."""

# --- storage ----------------------------------------------------------------------------------
LOG_RECORD_BYTES_MAX: Final = 16 * MIB
"""Entries that one commit of the log may group."""

LOG_SEGMENT_BYTES: Final = 16 * MIB
"""A segment of the log is closed once its payloads reach this size. They stay in DuckDB's memory until
then, and replaying 64 MiB of them takes a second."""

LOG_SEGMENT_ROWS: Final = 4_096
"""A segment is also closed after this many rows: DuckDB replays an unfinished one at 50 to 100 us a
row, and this bounds a restart to less than half a second of it."""

LOG_MEMORY_MIB: Final = 512
"""DuckDB's memory for a log. It holds the payloads of the open segment, and of closed ones until they
are checkpointed; this leaves room for a dozen that a crash left."""

LOG_FREE_BYTES_MIN: Final = 16 * MIB
"""Segments are not prepared and not checkpointed unless this much of the disk stays free."""

LOG_TIP_SYNC_SECONDS: Final = 0.1
"""How often `Log.maintain` should be called: the tip is at most so far behind after a power loss."""

LOG_QUEUE_RECORDS_MAX: Final = 65_536
"""Records that wait for the log's writer thread. Proposals are bounded long before, by bytes."""

LOG_CACHE_BYTES: Final = 32 * MIB
"""Newest entries kept in memory, so that followers are served without reading the disk."""

LOG_CATCH_UP_ENTRIES: Final = 5_000
LOG_CATCH_UP_BYTES: Final = 128 * MIB
"""Entries kept behind the flushed index, so that a short absence needs no snapshot: as many as both
numbers allow."""

FLUSH_ROWS_MAX: Final = 10_000
FLUSH_INTERVAL_SECONDS: Final = 0.5
"""The tables are written when this many rows wait, or after this time, whichever comes first."""

SNAPSHOT_CHUNK_BYTES: Final = 1 * MIB
"""One piece of a snapshot on its way to a lagging member."""

MAINTENANCE_JOBS_MAX: Final = 16
"""Long jobs of one member that wait for the one before."""

SNAPSHOT_BYTES_MAX: Final = 16 * 1024 * MIB
"""Largest snapshot that a lagging member accepts: twice etcd's suggested maximum of a database."""

TABLES_WAL_BYTES: Final = 64 * MIB
"""The tables are checkpointed once their WAL has this size: about 0.3 s of work, and about as long
to replay at the next start."""

TABLES_GARBAGE_BYTES_MIN: Final = 32 * MIB
"""Less garbage than this in the tables is not worth a rewrite (and never less than their half)."""
