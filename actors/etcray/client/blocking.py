"""The blocking client. `asynchronous` is its twin; everything but the waiting is shared."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from etcray.client import calls, results
from etcray.client.blocking_lease import GrantedLease, Keeper, Session
from etcray.client.blocking_lock import Election, Lock
from etcray.client.blocking_watch import Watch, WatchStream
from etcray.client.channels import BlockingChannels, status_of
from etcray.client.errors import EtcrayError, NotFoundError
from etcray.client.keeping import OnLost
from etcray.client.requests import (
    DeleteOptions,
    FilterOptions,
    PutOptions,
    RangeOptions,
    TxnParts,
)
from etcray.client.retry import Attempts, EndpointRound, parse_endpoints
from etcray.client.sql import Parameters, SqlCall, SqlResult
from etcray.client.values import Data
from etcray.client.watching import WatchOptions
from etcray_storage import errors as store

Result = TypeVar("Result")


class Client:
    """A client for threads. Connects when it is first used; `close` it, or use it in `with`.

    `endpoints` is a list, or a text with commas; they are used in turn, the next one when one fails.
    `timeout` bounds each call in seconds, its retries included.
    """

    def __init__(self, endpoints: str | Sequence[str] = "127.0.0.1:2379", timeout: float = 5.0) -> None:
        self.endpoints = parse_endpoints(endpoints)
        self.timeout = timeout
        self._round = EndpointRound(self.endpoints)
        self._channels = BlockingChannels()
        self._jitter = random.Random()
        self._watches = WatchStream(self._channels, self._round)
        self._keeper = Keeper(self._channels, self._round)

    def put(self, key: Data, value: Data, **options: Unpack[PutOptions]) -> results.PutResult:
        return self._call(calls.put(key, value, options))

    def get(self, key: Data, *, revision: int = 0, serializable: bool = False) -> results.KeyValue | None:
        """The pair at a key, or None if there is none."""
        options = RangeOptions(revision=revision, serializable=serializable)
        return calls.first(self._call(calls.range(key, None, options)))

    def range(
        self, key: Data, range_end: Data | None = None, **options: Unpack[RangeOptions]
    ) -> results.RangeResult:
        """The pairs from `key` up to, without, `range_end`; see `RangeOptions` for the rest."""
        return self._call(calls.range(key, range_end, options))

    def get_prefix(self, prefix: Data, **options: Unpack[FilterOptions]) -> results.RangeResult:
        """The pairs whose keys start with `prefix`."""
        return self._call(calls.range(prefix, None, RangeOptions(prefix=True, from_key=False, **options)))

    def delete(
        self, key: Data, range_end: Data | None = None, **options: Unpack[DeleteOptions]
    ) -> results.DeleteResult:
        return self._call(calls.delete(key, range_end, options))

    def txn(self) -> Txn:
        """A transaction to be filled in and committed."""
        return Txn(self)

    def compact(self, revision: int, physical: bool = False) -> results.CompactResult:
        """Forget what is older than `revision`. With `physical`, returns when the space is free."""
        return self._call(calls.compact(revision, physical))

    def watch(self, key: Data, range_end: Data | None = None, **options: Unpack[WatchOptions]) -> Watch:
        """The events of a key, or of several, from now on or from a revision; see `WatchOptions`.

        Nothing that happens after this has returned is missed."""
        return Watch(self._watches, self.timeout, key, range_end, **options)

    def request_progress(self) -> None:
        """Ask the server how far it is. The answer is a batch without events for every watch of this
        client; none comes while one of them is behind."""
        with self._watches.lock:
            self._watches.send(self._watches.hub.request_progress())

    def lease(self, ttl: int, id: int = 0) -> GrantedLease:
        """A new lease of so many seconds; with `id` 0 the server chooses one."""
        granted_at = time.monotonic()
        granted = self._call(calls.grant_lease(ttl, id))
        return GrantedLease(self, granted.id, granted.ttl, granted_at + granted.ttl)

    def find_lease(self, id: int) -> GrantedLease:
        """A lease that somebody else was granted. Raises NotFoundError if there is none."""
        asked_at = time.monotonic()
        found = self._call(calls.time_to_live(id, False))
        if found.ttl < 0:
            raise NotFoundError(store.LEASE_NOT_FOUND.code, store.LEASE_NOT_FOUND.message)
        return GrantedLease(self, id, found.granted_ttl, asked_at + found.ttl)

    def leases(self) -> tuple[int, ...]:
        """The ids of all leases."""
        return self._call(calls.leases())

    def session(self, ttl: int = 60, on_lost: OnLost | None = None) -> Session:
        """A lease that is kept alive; to be used in `with`."""
        return Session(self, ttl, on_lost)

    def lock(
        self, name: Data, ttl: int = 10, timeout: float | None = None, session: Session | None = None
    ) -> Lock:
        """A lock of that name; to be used in `with`, which waits at most `timeout` seconds for it and
        then raises LockTimeoutError. Without a session it has a lease of `ttl` seconds."""
        return Lock(self, name, ttl, timeout, session)

    def election(self, name: Data, ttl: int = 10, session: Session | None = None) -> Election:
        """An election of that name. Without a session it has a lease of `ttl` seconds."""
        return Election(self, name, ttl, session)

    def sql(
        self,
        query: str,
        parameters: Parameters | None = None,
        *,
        stale: bool = False,
        timeout: float | None = None,
        rows_max: int | None = None,
    ) -> SqlResult:
        """Ask the history: one SELECT over its tables (`SHOW TABLES` names them). Parameters are for ? (a
        list) or $name (a mapping). The answer has everything that was committed before the call, unless
        it may be `stale`. `timeout` bounds the query in seconds (30); the client's own bounds how long
        the way to the history is looked for. Raises SqlError, UnavailableError."""
        call = SqlCall(
            query,
            parameters,
            stale=stale,
            timeout=timeout,
            rows_max=rows_max,
            retry_seconds=self.timeout,
        )
        return call.run(self._round, self._jitter)

    def members(self) -> tuple[results.Member, ...]:
        return self._call(calls.members())

    def status(self) -> results.StatusResult:
        """The state of the member behind the endpoint in use."""
        return self._call(calls.status())

    def close(self) -> None:
        """Drop the connections. Calls under way fail, watches end, leases are not kept alive any more;
        a later call connects again."""
        self._watches.close()
        self._keeper.close()
        self._channels.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[str, ...], float]]:
        return (type(self), (self.endpoints, self.timeout))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({','.join(self.endpoints)!r}, timeout={self.timeout})"

    def _call(self, call: calls.Call[Result]) -> Result:
        import grpc

        attempts = Attempts(
            writes=call.writes,
            endpoints=len(self.endpoints),
            deadline=time.monotonic() + self.timeout,
            jitter=self._jitter,
        )
        while True:
            endpoint = self._round.current
            method = self._channels.method(endpoint, call.method)
            try:
                answer = method(call.request, timeout=attempts.seconds_left(time.monotonic()))
            except grpc.RpcError as error:
                code, message = status_of(error)
                self._round.after_failure(code, endpoint)
                decision = attempts.after_failure(code, message, time.monotonic())
                if isinstance(decision, EtcrayError):
                    raise decision from error
            else:
                return call.read_answer(answer)
            time.sleep(decision)


class Txn(TxnParts):
    """A transaction of a `Client`; see `TxnParts`."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client

    def commit(self) -> results.TxnResult:
        return self._client._call(calls.txn(self.request()))
