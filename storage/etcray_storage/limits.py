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

HTTP_BODY_BYTES_MAX: Final = 2 * GRPC_RECEIVE_BYTES_MAX
"""Largest body of a plain HTTP request; above it: 413. In JSON, bytes take a third more than in gRPC."""

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

KEEP_ALIVES_PENDING_MAX: Final = 100_000
"""Renewals of one gateway that wait for their answer; above it: too many requests."""

KEEP_ALIVE_BATCH_LEASES_MAX: Final = 8_192
"""Renewals in one call to the leader."""

KEEP_ALIVE_BATCHES_IN_FLIGHT_MAX: Final = 4
"""Such calls of one gateway that are on their way at once."""

KEEP_ALIVES_PER_STREAM_MAX: Final = 1_024
"""Renewals of one stream that wait for their answer; above it the stream is not read from."""

LOCK_LEASE_SECONDS: Final = 60
"""The lease that the lock and election services take for a caller who names none."""

# --- client -----------------------------------------------------------------------------------
WATCH_QUEUE_EVENTS_MAX: Final = 8_192
"""Events of one watch that its consumer has not taken; above it the watch is paused at the server."""

WATCH_QUEUE_BYTES_MAX: Final = 16 * MIB
"""Bytes of those events; a single larger batch is taken when no other waits."""

KEEP_ALIVE_LEASES_MAX: Final = 1_024
"""Leases that one client renews in one round; the rest follow in the next."""

# --- watches ----------------------------------------------------------------------------------
EVENT_RING_BYTES: Final = 32 * MIB
EVENT_RING_REVISIONS: Final = 50_000
"""Newest events that a member keeps in memory; a gateway that is further behind reads the tables."""

WATCH_POLLS_MAX: Final = 16
"""Gateways that wait at one member for its next event. One more is told to go to another member."""

WATCH_POLL_SECONDS: Final = 1.0
"""How long such a poll waits. Short, because its answer is also how a gateway learns that its member
still has a leader."""

WATCH_POLL_BYTES: Final = 1 * MIB
"""Events in one answer, about; one larger revision travels alone."""

HISTORY_READS_MAX: Final = 4
"""Reads of the past that one member runs at once."""

WATCH_CATCH_UPS_MAX: Final = 4
"""Reads of the past that one gateway has under way."""

WATCH_CATCH_UP_RANGES_MAX: Final = 16
"""Up to so many key ranges that lag behind are read one by one; above it all keys are read once for all."""

WATCH_CATCH_UP_WINDOW_REVISIONS: Final = 10_000
"""Watchers share one read of all keys if their positions are no further apart."""

WATCH_CATCH_UP_REVISIONS: Final = 1_000
WATCH_CATCH_UP_BYTES: Final = 1 * MIB
"""Revisions, and bytes of events, in one read of the past."""

WATCH_RECENT_BYTES: Final = 8 * MIB
WATCH_RECENT_REVISIONS: Final = 5_000
"""Newest events that a gateway keeps, so that catching up ends in memory."""

WATCH_STREAM_RESPONSES_MAX: Final = 128
WATCH_STREAM_BYTES_MAX: Final = 1 * MIB
"""Responses of one watch stream that its client has not read. Above it the stream's watchers stop, and are
brought up to date from history once the client reads again. A single larger response may wait alone."""

WATCH_BUFFERED_BYTES_MAX: Final = 256 * MIB
"""The same over all streams of a gateway: above it no stream may have more than one response waiting."""

WATCH_RESPONSE_BYTES_MAX: Final = 1 * MIB
"""Events of several revisions are put into one response up to this size. Only a single revision makes a
larger one."""

WATCH_FRAGMENT_BYTES: Final = 2 * MIB
"""A response that would reach this size is sent in parts to a watcher that asked for fragments."""

WATCHERS_MAX: Final = 250_000
"""Watchers of one gateway; one more is refused: too many requests."""

WATCH_RANGES_BYTES_MAX: Final = 256 * MIB
"""Keys and range ends of all these watchers."""

# --- history ----------------------------------------------------------------------------------
HISTORY_FEED_BYTES: Final = 4 * MIB
"""Rows in one answer to the history actor, about; one larger revision travels alone."""

HISTORY_FEEDS_MAX: Final = 4
"""Copies of the history that one member serves at once: one, and what is left of its predecessors."""

HISTORY_LEASES_PER_READ: Final = 1_000
"""Leases that history asks the leader for in one call."""

HISTORY_FRESH_SECONDS: Final = 10.0
"""How long a query waits until history holds what was committed when it was asked."""

SQL_BODY_BYTES_MAX: Final = 2 * MIB
"""Body of a POST /sql, parameters included; above it: 413."""

SQL_REQUESTS_MAX: Final = 64
"""Queries of one gateway that are on their way or being converted; one more is refused: 429."""

SQL_CHUNK_BYTES: Final = 256 * KIB
"""An Arrow answer leaves the gateway in pieces of this size, as fast as its client reads."""

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

PEERS_MAX: Final = 64
"""Other members that one member keeps an outbox for, those that it only heard of included."""

STATE_HASHES_MAX: Final = 4_096
"""Newest applied entries whose state hash a member keeps, to compare with what peers report."""

STATE_REPORTS_MAX: Final = 64
"""Newest reports of one peer that a leader keeps, to find out who differs when two do."""

TRANSFER_BEFORE_STOP_SECONDS: Final = 1.0
"""How long a leader that is stopped waits until another member leads."""

PROMOTE_MATCH_PERCENT: Final = 90
"""How much of the leader's log a learner must hold before it may be made a voter."""

MEMBERS_HEALTHY_ELECTION_TIMEOUTS: Final = 2.0
"""A member counts as connected if the leader has heard it within so many election timeouts."""

# --- streams between actors (transport direct) -------------------------------------------------
STREAM_REQUEST_BYTES_MAX: Final = 64 * MIB
"""Largest frame that a member reads from a peer, a gateway or the history."""

STREAM_ANSWER_BYTES_MAX: Final = 2048 * MIB - 1
"""Largest frame that they read from a member: a range may be as large as the store."""

STREAM_HANDSHAKE_BYTES_MAX: Final = 1 * KIB
"""Largest frame of somebody who has not proved yet that he belongs to the cluster,"""

STREAM_HANDSHAKE_SECONDS: Final = 2.0
"""and how long he may take to do so."""

STREAM_CONNECT_SECONDS: Final = 0.5
"""How long a dialled member may take to answer, the handshake included."""

STREAM_CONNECTIONS_MAX: Final = 256
"""Connections to one member; one more is closed at once."""

STREAM_CALLS_MAX: Final = 64
"""Calls on one connection that wait for their answer."""

STREAM_WORKERS_MAX: Final = 64
"""Threads of a member for calls that block: at most so many run at once, the others wait."""

STREAM_BACKLOG_BYTES_MAX: Final = 64 * MIB
"""Bytes that a connection's other end has not taken; above it the connection is cut. A single larger frame
may wait alone."""

STREAM_STALLED_SECONDS: Final = 5.0
"""A connection whose other end takes nothing for this long, although something waits, is cut."""

# --- sessions (exactly once) ------------------------------------------------------------------
SESSIONS_MAX: Final = 1_024
"""Gateway sessions that the state machine remembers; the longest unused one is forgotten first."""

SESSION_ANSWERS_MAX: Final = 64
"""Batches of one session whose answers are remembered because they are not acknowledged yet."""

ALARMS_MAX: Final = 1_024
"""Raised alarms; a client may raise them for member ids that do not exist. Above it: too many requests."""

# --- leases -----------------------------------------------------------------------------------
LEASE_TTL_SECONDS_MIN: Final = 2
"""A lease that is asked for a shorter life gets this. etcd: one and a half election timeouts, rounded up."""

LEASE_TTL_SECONDS_MAX: Final = 9_000_000_000
"""Above it: OutOfRange, too large lease TTL."""

LEASE_ROUND_SECONDS: Final = 0.25
"""How often a leader looks for leases that have ended or need a checkpoint."""

LEASE_EXPIRIES_PER_ROUND_MAX: Final = 1_000
"""Leases that one log entry ends; there is one such entry a round, so 4,000 leases a second."""

LEASE_EXPIRY_KEYS_PER_ROUND_MAX: Final = 2_500
"""Keys that these leases have together, unless it is a single lease: the entry takes about 50 ms to apply
then, and that is how long a put may have to wait for it."""

LEASE_CHECKPOINTS_PER_ROUND_MAX: Final = 1_000
"""Leases in one checkpoint; there is one such entry a round."""

LEASE_CHECKPOINT_SECONDS_MIN: Final = 0.25
LEASE_CHECKPOINT_SECONDS_MAX: Final = 300.0
"""Between two checkpoints of a lease: an eighth of its TTL, but not less and not more than these."""

LEASE_EXPIRY_RETRY_SECONDS: Final = 5.0
"""A leader proposes the end of a lease again if it has not seen it applied for this long."""

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

DISK_FREE_LOW_BYTES: Final = 96 * MIB
"""With less room than this on a member's disk the NOSPACE alarm is raised: enough for what is under way
(a checkpoint, a segment, a flush) until the alarm is applied everywhere."""

DISK_FREE_ENOUGH_BYTES: Final = 160 * MIB
"""With more room than this the alarm is taken back, if it was the lack of room that had raised it."""

DISK_LOOK_SECONDS: Final = 1.0
"""How often a member looks how much room its disk has."""

BALLAST_BYTES: Final = 16 * MIB
"""A file of zeros beside a member's data. It is given up when the disk is full after all, so that the
entry which raises the alarm can be written, and made again when there is room."""

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

VERIFY_STEP_ROWS: Final = 4_096
VERIFY_STEP_BYTES: Final = 4 * MIB
"""What the background check of a member's files reads in one step: about 10 ms."""

VERIFY_STEP_SECONDS: Final = 10.0
"""Between two such steps of a member; they take turns between its log and its tables."""

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

# --- history ----------------------------------------------------------------------------------
HISTORY_TAIL_ROWS_MAX: Final = 131_072
HISTORY_TAIL_BYTES_MAX: Final = 64 * MIB
"""The newest rows of the history are sealed into a part at this many rows, or bytes."""

HISTORY_ROW_GROUP_ROWS: Final = 8_192
"""Rows of a part that are skipped or read together. Small groups make one key and one prefix cheap: a
key's rows in 1,000,000 cost 13 ms; with groups of 16,384 24 ms, of 122,880 135 ms. The file does not grow."""

HISTORY_COMPACTIONS_MAX: Final = 10_000
"""Compactions that the history remembers, newest first."""

HISTORY_MEMORY_MIB: Final = 512
"""DuckDB's memory for the history's own work: the tail, and sorting a part."""

HISTORY_QUERY_WORKERS: Final = 3
"""Processes that run users' SQL, and so queries that run at once."""

HISTORY_QUERIES_WAITING_MAX: Final = 16
"""Queries that wait for such a process; one more is told: busy."""

HISTORY_QUERY_MEMORY_MIB: Final = 512
"""DuckDB's memory for one query."""

HISTORY_QUERY_ADDRESS_SPACE_MIB: Final = 1_536
"""What a worker may map on top of what it has mapped when it is ready. DuckDB does not count everything
against its own limit; this is what stops the rest."""

HISTORY_QUERY_LEFTOVER_MIB: Final = 512
"""A worker that keeps more address space than this after a query is replaced. Allocators keep what they
have mapped, so a query that fills its memory takes it from those that come after it."""

HISTORY_QUERY_FILES_MAX: Final = 256
"""Files that a worker may have open at once."""

HISTORY_QUERY_MILLISECONDS: Final = 30_000
HISTORY_QUERY_MILLISECONDS_MAX: Final = 600_000
"""How long a query may take if it does not say so, and the most that it may say."""

HISTORY_QUERY_SQL_BYTES_MAX: Final = 64 * KIB
"""Longest statement."""

HISTORY_RESULT_ROWS: Final = 100_000
HISTORY_RESULT_ROWS_MAX: Final = 10_000_000
"""Rows of a result if the query does not say so, and the most that it may say."""

HISTORY_RESULT_BYTES_MAX: Final = 128 * MIB
"""Bytes of a result. It is held in memory in three processes."""

HISTORY_CANCEL_SECONDS: Final = 1.0
"""A cancelled query that has not ended by then loses its process."""

HISTORY_WORKER_START_SECONDS: Final = 30.0
"""A worker that is not ready by then is replaced."""
