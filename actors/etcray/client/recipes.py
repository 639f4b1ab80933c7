"""Locks and elections, as conversations with the store. Pure: each is a generator that yields what to do
next (a `Call`, an `OpenWatch`, a `NextBatch`) and is sent the outcome; both clients drive the same ones.

The keys are those of etcd's Go package `concurrency`, so everybody who uses it, `etcdctl lock` and
`elect` among them, stands in the same queue:

1. Everybody puts a key `name/<lease in hexadecimal>` with their lease, if it is not there yet.
2. The one whose key was created first holds the lock, or leads. The key's create revision is the place in
   the queue, and the fencing token: it grows from holder to holder.
3. Everybody else waits for the newest key that is older than their own to be deleted, then looks again:
   so a release wakes one waiter, not all.
4. Releasing is deleting the key, which the end of the lease does as well.

Every step can be repeated: a lost answer is asked for again, not guessed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from etcray.client import calls, results
from etcray.client.compare import Condition, CreateRevision
from etcray.client.errors import CompactedError, LeaseLostError, NotLeaderError
from etcray.client.requests import Delete, DeleteOptions, Operation, Put, Range, RangeOptions, TxnParts
from etcray.client.results import KeyValue, RangeResult, TxnResult
from etcray.client.values import Data, to_bytes
from etcray.client.watching import WatchBatch, WatchEvent, WatchOptions
from etcray_storage.errors import Code

ReturnT = TypeVar("ReturnT")


class OpenedWatch(Protocol):
    """The watch of either client."""

    def cancel(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OpenWatch:
    """Answered with an `OpenedWatch`."""

    key: bytes
    options: WatchOptions


@dataclass(frozen=True, slots=True)
class NextBatch:
    """Answered with the watch's next `WatchBatch`, however long that takes."""

    watch: OpenedWatch


@dataclass(frozen=True, slots=True)
class Emit:
    """News for whoever started the recipe; not answered."""

    leader: KeyValue


Step = calls.Call[Any] | OpenWatch | NextBatch
Recipe = Generator[Step, Any, ReturnT]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a queue. It is kept as long as the key exists."""

    prefix: bytes
    key: bytes
    lease_id: int
    create_revision: int
    revision: int
    """The store's revision when the place was known to be the first."""

    @property
    def is_taken(self) -> Condition:
        """Holds in a transaction as long as the place is kept."""
        return CreateRevision(self.key) == self.create_revision


class PlaceHolder:
    """What is known of a lock or a leadership while it is held: what both clients' classes have in common."""

    def __init__(self, name: Data) -> None:
        self.name = name
        self._place: Place | None = None

    @property
    def place(self) -> Place:
        assert self._place is not None, f"{self.name!r} is not held by this instance"
        return self._place

    @property
    def key(self) -> bytes:
        """It exists as long as the place is held."""
        return self.place.key

    @property
    def fencing_token(self) -> int:
        """The key's create revision: larger for each next holder."""
        return self.place.create_revision

    @property
    def revision(self) -> int:
        """The store's revision at which the place was seen to be ours."""
        return self.place.revision

    @property
    def is_held(self) -> Condition:
        """For a transaction that must not be done unless the place is still held."""
        return self.place.is_taken


@dataclass(frozen=True, slots=True)
class Finished:
    """A recipe's end."""

    value: Any


def proceed(
    recipe: Generator[Any, Any, Any], outcome: Any = None, error: Exception | None = None
) -> Step | Emit | Finished:
    """Tell a recipe how its last step went; what it does next. Raises what it does not catch."""
    try:
        next_step: Step | Emit = recipe.send(outcome) if error is None else recipe.throw(error)
    except StopIteration as stop:
        return Finished(stop.value)
    return next_step


# --- locks ------------------------------------------------------------------------------------


def acquire(name: Data, lease_id: int, *, wait: bool) -> Recipe[Place | None]:
    """Stand in the queue until it is our turn; without `wait`, None if it is not. Whoever gives up
    has to `leave`. Raises LeaseLostError if our key vanished while we waited."""
    entered = yield from _enter(name, lease_id, b"")
    if entered.is_first:
        return entered.place
    if not wait:
        yield leave(name, lease_id)
        return None
    return (yield from _await_turn(entered.place))


def leave(name: Data, lease_id: int) -> calls.Call[results.DeleteResult]:
    """Release the lock, or the place in its queue. Nobody else uses this key, so it may be repeated."""
    return replace(calls.delete(_place_key(name, lease_id), None, DeleteOptions()), writes=False)


# --- elections --------------------------------------------------------------------------------


def campaign(name: Data, lease_id: int, value: Data) -> Recipe[Place]:
    """Stand in the queue until we lead. Raises LeaseLostError if our key vanished while we waited."""
    entered = yield from _enter(name, lease_id, to_bytes(value))
    if entered.value != to_bytes(value):
        yield from proclaim(entered.place, value)
    if entered.is_first:
        return entered.place
    return (yield from _await_turn(entered.place))


def proclaim(place: Place, value: Data) -> Recipe[int]:
    """Change our value; the revision. Raises NotLeaderError if our place is gone."""
    put = Put(place.key, value, lease=place.lease_id)
    answer: TxnResult = yield _transaction(place.is_taken, [put], [])
    if not answer.succeeded:
        raise NotLeaderError(Code.FAILED_PRECONDITION, "election: not leader")
    return answer.revision


def resign(place: Place) -> calls.Call[TxnResult]:
    """No error if the place is gone already."""
    return _transaction(place.is_taken, [Delete(place.key)], [])


def leader(name: Data) -> calls.Call[RangeResult]:
    """The oldest key is the leader's."""
    return calls.range(
        _prefix(name), None, RangeOptions(prefix=True, sort="create", descending=False, limit=1)
    )


def observe(name: Data) -> Generator[Step | Emit, Any, None]:
    """Emits the leader, each of its proclamations, and the next leader, without end."""
    emitted = 0
    while True:
        found: RangeResult = yield leader(name)
        if found.kvs:
            current, revision = found.kvs[0], found.revision
        else:
            first = yield from _await_event(_prefix(name), found.revision + 1, prefix=True)
            if first is None:
                continue
            current, revision = first.kv, first.revision
        if current.mod_revision > emitted:
            yield Emit(current)
            emitted = current.mod_revision
        options = WatchOptions(start_revision=revision + 1)
        try:
            watch: OpenedWatch = yield OpenWatch(current.key, options)
            try:
                is_over = False
                while not is_over:
                    batch: WatchBatch = yield NextBatch(watch)
                    for event in batch.events:
                        if event.is_delete:
                            is_over = True
                            break
                        yield Emit(event.kv)
                        emitted = event.revision
            finally:
                watch.cancel()
        except CompactedError:
            continue  # so far behind that only the present state tells who leads


# --- what both are made of --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entered:
    place: Place
    value: bytes
    is_first: bool


def _prefix(name: Data) -> bytes:
    return to_bytes(name) + b"/"


def _place_key(name: Data, lease_id: int) -> bytes:
    return _prefix(name) + b"%x" % lease_id


def _transaction(
    condition: Condition, then: Iterable[Operation], otherwise: Iterable[Operation]
) -> calls.Call[TxnResult]:
    """One that may be repeated: done twice, it has the effect of once."""
    parts = TxnParts().compare(condition).then(*then).otherwise(*otherwise)
    return replace(calls.txn(parts.request()), writes=False)


def _enter(name: Data, lease_id: int, value: bytes) -> Recipe[_Entered]:
    """Put our key, or find the one that we put before."""
    prefix, key = _prefix(name), _place_key(name, lease_id)
    oldest = Range(prefix, prefix=True, sort="create", descending=False, limit=1)
    answer: TxnResult = yield _transaction(
        CreateRevision(key) == 0, [Put(key, value, lease=lease_id), oldest], [Range(key), oldest]
    )
    ours, first = answer.responses
    assert isinstance(first, RangeResult), f"a range was answered with {first!r}"
    create_revision, present = answer.revision, value
    if isinstance(ours, RangeResult):
        create_revision, present = ours.kvs[0].create_revision, ours.kvs[0].value
    place = Place(prefix, key, lease_id, create_revision, answer.revision)
    return _Entered(place, present, first.kvs[0].create_revision == create_revision)


def _await_turn(place: Place) -> Recipe[Place]:
    """Until no older key is left and ours still is."""
    options = RangeOptions(
        prefix=True,
        sort="create",
        descending=True,
        limit=1,
        max_create_revision=place.create_revision - 1,
    )
    while True:
        older: RangeResult = yield calls.range(place.prefix, None, options)
        if not older.kvs:
            break
        yield from _await_event(older.kvs[0].key, older.revision + 1, prefix=False)
    own: RangeResult = yield calls.range(place.key, None, RangeOptions())
    if not own.kvs or own.kvs[0].create_revision != place.create_revision:
        raise LeaseLostError(Code.NOT_FOUND, f"lease {place.lease_id:x} was lost while waiting")
    return replace(place, revision=own.revision)


def _await_event(key: bytes, revision: int, *, prefix: bool) -> Recipe[WatchEvent | None]:
    """The first deletion of a key, or the first write below a prefix, at or after a revision. None if
    that was so long ago that it is compacted away."""
    options = WatchOptions(start_revision=revision, prefix=prefix, no_put=not prefix, no_delete=prefix)
    try:
        watch: OpenedWatch = yield OpenWatch(key, options)
        try:
            while True:
                batch: WatchBatch = yield NextBatch(watch)
                if batch.events:
                    return batch.events[0]
        finally:
            watch.cancel()
    except CompactedError:
        return None
