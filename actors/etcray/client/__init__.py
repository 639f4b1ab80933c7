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

`AsyncClient` has the same methods as coroutines. Both speak plain etcd v3, so they work with a real
etcd as well.

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

How it retries
--------------
The rules are those of etcd's Go client. A read that failed with Unavailable is sent again, to the
next endpoint, with a growing pause once all endpoints have failed. A write is sent again only if it
provably never left: no connection could be made. Any other Unavailable leaves the outcome of a write
open, because the answer may have been lost after the change was made; the client then raises
`NotAnsweredError` and does not guess. Against etcray this is rarer than against etcd: the gateway
itself carries a write over a change of leader, exactly once.

How it is built
---------------
    values      str or bytes to bytes, and the end of a prefix
    requests    arguments to request messages, and the operations of a transaction
    compare     Value, Version, CreateRevision, ModRevision, Lease
    results     response messages to plain frozen results
    calls       one call: method, request bytes, how to read the answer, whether it writes
    retry       endpoints in turn, and what to do after a failure (pure: time is an argument)
    errors      the exceptions, and which one a status code and text become
    channels    grpcio's channels; the only place that imports it, and only when a client is used
    blocking, asynchronous
                the two shells around all of this

What it leaves out
------------------
Streams (watch), leases, locks and authentication are not here yet. TLS is neither: an `https://`
endpoint is refused.
"""

from etcray.client.asynchronous import AsyncClient, AsyncTxn
from etcray.client.blocking import Client, Txn
from etcray.client.compare import CreateRevision, Lease, ModRevision, Value, Version
from etcray.client.errors import (
    AccessDeniedError,
    CompactedError,
    CorruptError,
    EtcrayError,
    ExhaustedError,
    FutureRevisionError,
    InvalidRequestError,
    NotAnsweredError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
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
    TxnResult,
)

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "AsyncTxn",
    "Client",
    "CompactResult",
    "CompactedError",
    "CorruptError",
    "CreateRevision",
    "Delete",
    "DeleteResult",
    "EtcrayError",
    "ExhaustedError",
    "FutureRevisionError",
    "InvalidRequestError",
    "KeyValue",
    "Lease",
    "Member",
    "ModRevision",
    "Nested",
    "NotAnsweredError",
    "NotFoundError",
    "PreconditionError",
    "Put",
    "PutResult",
    "Range",
    "RangeResult",
    "StatusResult",
    "Txn",
    "TxnResult",
    "UnavailableError",
    "Value",
    "Version",
]
