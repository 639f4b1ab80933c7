"""The Python client: a strongly consistent key-value store in a few lines.

    from etcray.client import Client, Delete, Put, Range, Version

    with Client("127.0.0.1:2379") as kv:
        kv.put("/jobs/17/state", "running")
        state = kv.get("/jobs/17/state")                   # KeyValue, or None
        if state is not None:
            print(state.text, state.mod_revision)
        jobs = kv.get_prefix("/jobs/", limit=100)          # RangeResult
        taken = (
            kv.txn()
            .compare(Version("/jobs/18/owner") == 0)       # only if nobody owns it
            .then(Put("/jobs/18/owner", "worker-3"))
            .otherwise(Range("/jobs/18/owner"))
            .commit()
        )
        if not taken.succeeded:
            print("owned by", taken.responses[0].kvs[0].text)

        with kv.watch("/jobs/", prefix=True) as watch:     # nothing that happens from here on is missed
            for event in watch:
                print(event.key, "is gone" if event.is_delete else event.kv.text)

        with kv.lock("nightly", ttl=10) as lock:           # waits; lock.lost, lock.check()
            storage.write(data, token=lock.fencing_token)

        with kv.session(ttl=10) as session:                # a lease that is kept alive
            kv.put("/workers/3", "here", lease=session.lease.id)

        with kv.election("scheduler") as election:
            election.campaign("worker-3")                  # returns when it leads

        changes = kv.sql("SELECT * FROM history WHERE key_text = ?", ["/jobs/17/state"])
        print(changes, changes.revision)                   # also .df(), .pl(), .arrow(), .fetchall()

`AsyncClient` has the same methods as coroutines; `async with` and `async for` take the place of `with` and
`for`. Both speak plain etcd v3, so they work with a real
etcd as well; only `sql` is etcray's own.

What it promises
----------------
- Reads are linearizable unless `serializable=True` asks for a faster answer that may be old.
- Keys and values go in as `str` (UTF-8) or `bytes` and come out as `bytes`; `KeyValue.text` and
  `KeyValue.key_text` decode them.
- A call is over after `timeout` seconds, retries included.
- An error says what its caller can do (see `errors`): the two that matter most are
  `UnavailableError`, nothing was changed, so the call can simply be made again, and
  `NotAnsweredError`, a write may or may not have happened, so look before doing it again.
- A client is safe to share between threads (`Client`) or between the tasks of one event loop
  (`AsyncClient`), holds one connection per endpoint that it has used, and pickles as its endpoints
  and timeout, so it may be captured by a Ray task: the copy connects by itself.

- A watch gives every event once and in order, over reconnects and restarts of servers: it goes on behind
  the last revision that it saw. Where that was compacted away it ends with `CompactedError`. A consumer that
  falls behind costs bounded memory (8192 events or 16 MiB) and holds up no other watch: its watch is
  paused at the server and continued from history.
- A lost lease is said loudly: the session's or lock's `lost` event, a callback, a logged error, and
  LeaseLostError or LockLostError from `check` and from the end of the block; in asyncio the task inside
  the block is cancelled as well. The client gives a lease up no later than the server does.
- Locks and elections are those of etcd's Go package `concurrency`, so they exclude etcdctl's and other
  programs', too.

How it retries
--------------
The rules are those of etcd's Go client. A read that failed with Unavailable is sent again, to the
next endpoint, with a growing pause once all endpoints have failed. A write is sent again only if it
provably never left: no connection could be made. Any other Unavailable leaves the outcome of a write
open, because the answer may have been lost after the change was made; the client then raises
`NotAnsweredError` and does not guess. Against etcray this is rarer than against etcd: the gateway
itself carries a write over a change of leader, exactly once. The steps of locks and elections can be
repeated without harm, and are.

How it is built
---------------
    values      str or bytes to bytes, and the end of a prefix
    requests    arguments to request messages, and the operations of a transaction
    compare     Value, Version, CreateRevision, ModRevision, Lease
    results     response messages to plain frozen results
    calls       one call: method, request bytes, how to read the answer, whether it writes
    watching    one watch and where it resumes; all watches of a client on one stream (pure)
    keeping     when leases are renewed and when they are lost (pure)
    recipes     locks and elections as generators of steps (pure)
    sql         queries over HTTP, and their results; both clients use it
    retry       endpoints in turn, and what to do after a failure (pure: time is an argument)
    errors      the exceptions, and which one a status code and text become
    channels    grpcio's channels; the only place that imports it, and only when a client is used
    blocking, asynchronous
                the two shells around all of this; beside each of them its `_watch` (a thread or a task
                that reads the stream), `_lease` (one that renews) and `_lock`

What it leaves out
------------------
Authentication is not here yet. TLS is neither: an `https://` endpoint is refused. A watch does not ask
for fragments: events of one revision come in one message, however large.
"""

from etcray.client.asynchronous import AsyncClient, AsyncTxn
from etcray.client.asynchronous_lease import AsyncGrantedLease, AsyncSession
from etcray.client.asynchronous_lock import AsyncElection, AsyncLock
from etcray.client.asynchronous_watch import AsyncWatch
from etcray.client.blocking import Client, Txn
from etcray.client.blocking_lease import GrantedLease, Session
from etcray.client.blocking_lock import Election, Lock
from etcray.client.blocking_watch import Watch
from etcray.client.compare import CreateRevision, Lease, ModRevision, Value, Version
from etcray.client.errors import (
    AccessDeniedError,
    CompactedError,
    CorruptError,
    EtcrayError,
    ExhaustedError,
    FutureRevisionError,
    InvalidRequestError,
    LeaseLostError,
    LockLostError,
    LockTimeoutError,
    NotAnsweredError,
    NotFoundError,
    NotLeaderError,
    PreconditionError,
    SqlError,
    UnavailableError,
    WatchCancelledError,
)
from etcray.client.requests import Delete, Nested, Put, Range
from etcray.client.results import (
    CompactResult,
    DeleteResult,
    KeyValue,
    Member,
    PutResult,
    RangeResult,
    StatusResult,
    TimeToLiveResult,
    TxnResult,
)
from etcray.client.sql import SqlResult
from etcray.client.watching import WatchBatch, WatchEvent, WatchOptions

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "AsyncElection",
    "AsyncGrantedLease",
    "AsyncLock",
    "AsyncSession",
    "AsyncTxn",
    "AsyncWatch",
    "Client",
    "CompactResult",
    "CompactedError",
    "CorruptError",
    "CreateRevision",
    "Delete",
    "DeleteResult",
    "Election",
    "EtcrayError",
    "ExhaustedError",
    "FutureRevisionError",
    "GrantedLease",
    "InvalidRequestError",
    "KeyValue",
    "Lease",
    "LeaseLostError",
    "Lock",
    "LockLostError",
    "LockTimeoutError",
    "Member",
    "ModRevision",
    "Nested",
    "NotAnsweredError",
    "NotFoundError",
    "NotLeaderError",
    "PreconditionError",
    "Put",
    "PutResult",
    "Range",
    "RangeResult",
    "Session",
    "SqlError",
    "SqlResult",
    "StatusResult",
    "TimeToLiveResult",
    "Txn",
    "TxnResult",
    "UnavailableError",
    "Value",
    "Version",
    "Watch",
    "WatchBatch",
    "WatchCancelledError",
    "WatchEvent",
    "WatchOptions",
]
