"""Clients: what they ask for is drawn, what they are told is recorded for the checkers.

Every value is written once, so that a value tells which request wrote it. A client waits for one answer
at a time. If its gateway dies it never learns what became of its request; it goes on with another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from etcray.gateway.proposals import Settled
from etcray_storage import errors
from etcray_storage.commands import CommandKind, ReadKind
from etcray_storage.errors import EtcdError
from etcray_storage.proto import rpc_pb2 as rpc
from tests.consistency.history import (
    Answer,
    Compact,
    CompactAnswer,
    Compare,
    Delete,
    DeleteAnswer,
    Operation,
    Outcome,
    Pair,
    Put,
    PutAnswer,
    Range,
    RangeAnswer,
    Refusal,
    Relation,
    Request,
    Target,
    Txn,
    TxnAnswer,
)
from tests.simulation.gateway import Gateway
from tests.simulation.scheduler import Process, World

_REFUSALS = {
    errors.COMPACTED.number: Refusal.COMPACTED,
    errors.FUTURE_REV.number: Refusal.FUTURE_REVISION,
}
_UNKNOWN = {errors.TIMEOUT.number, errors.SESSION_EXPIRED.number}


class Renewal:
    """What a client was promised about a lease: alive for `ttl_seconds` from `asked_at` on."""

    __slots__ = ("asked_at", "lease", "ttl_seconds")

    def __init__(self, lease: int, asked_at: float, ttl_seconds: int) -> None:
        self.lease = lease
        self.asked_at = asked_at
        self.ttl_seconds = ttl_seconds


class Record:
    """What all clients did."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.renewals: list[Renewal] = []
        self.ended_leases: set[int] = set()
        """Asked to be revoked, whatever came of it."""
        self.counts: Counter[str] = Counter()
        self._clock = 0

    def tick(self) -> int:
        """Orders calls and returns, also those of one instant."""
        self._clock += 1
        return self._clock


class Client:
    def __init__(
        self, number: int, world: World, record: Record, gateway: Callable[[], Gateway | None], keys: int
    ) -> None:
        self.number = number
        self._world = world
        self._record = record
        self._gateway = gateway
        self._keys = [b"k%d" % key for key in range(keys)]
        self._written = 0
        self._known_revision = 1
        self._known: dict[bytes, int] = {}
        self._leases: list[int] = []
        self.think_seconds = 0.05
        self.lease_share = 0.1
        self.compact_share = 0.02
        self.is_stopping = False
        self.is_waiting = False

    def start(self, process: Process) -> None:
        process.spawn(self._run, f"client-{self.number}")

    def _run(self) -> None:
        world = self._world
        while not self.is_stopping:
            world.sleep(world.rng.random() * 2 * self.think_seconds)
            if world.chance(self.lease_share):
                self._do_lease()
            else:
                self._do_request()

    # --- asking -----------------------------------------------------------------------------------

    def _ask(self, submit: Callable[[Gateway, Callable[[Settled], None]], None]) -> Settled | None:
        """None if nobody will ever answer."""
        world = self._world
        task = world.current
        assert task is not None, "a client is a task"
        gateway = self._gateway()
        while gateway is None:
            world.sleep(0.1)
            if self.is_stopping:
                return None
            gateway = self._gateway()
        answers: list[Settled | None] = []

        def settled(answer: Settled | None) -> None:
            if not answers:
                answers.append(answer)
                world.wake(task)

        gateway.waiting[settled] = None
        self.is_waiting = True
        submit(gateway, settled)
        world.park()
        self.is_waiting = False
        gateway.waiting.pop(settled, None)
        return answers[0]

    def _request(self, request: Request, kind: CommandKind, message: Any) -> Settled | None:
        data = message.SerializeToString()
        return self._recorded(request, lambda gateway, ticket: gateway.command(kind, data, ticket))

    def _read(self, request: Range) -> Settled | None:
        data = rpc.RangeRequest(
            key=request.key, range_end=request.range_end, revision=request.revision
        ).SerializeToString()
        return self._recorded(
            request,
            lambda gateway, ticket: gateway.read(ReadKind.RANGE, data, request.serializable, ticket),
        )

    def _recorded(
        self, request: Request, submit: Callable[[Gateway, Callable[[Settled], None]], None]
    ) -> Settled | None:
        record = self._record
        call = record.tick()
        settled = self._ask(submit)
        returned = record.tick()
        outcome, revision = Outcome.UNKNOWN, 0
        answer: Answer | Refusal | None = None
        if settled is not None and settled.error is None:
            outcome, revision = Outcome.OK, settled.revision
            answer = _answer_of(request, settled.body)
            self._known_revision = max(self._known_revision, revision)
        elif settled is not None and not _is_unknown(settled.error):
            outcome, answer = Outcome.REFUSED, _REFUSALS.get(_number(settled.error), Refusal.OTHER)
        record.counts[f"{type(request).__name__.lower()} {outcome.name.lower()}"] += 1
        record.operations.append(Operation(self.number, call, returned, outcome, request, revision, answer))
        return settled

    # --- keys -------------------------------------------------------------------------------------

    def _value(self) -> bytes:
        self._written += 1
        return b"%d-%d" % (self.number, self._written)

    def _do_request(self) -> None:
        draw = self._world.rng.random()
        key = self._world.pick(self._keys)
        if draw < 0.4:
            self._put(key, 0)
        elif draw < 0.65:
            self._remember(key, self._read(Range(key)))
        elif draw < 0.70:
            self._read(Range(key, serializable=True))
        elif draw < 0.78:
            self._read(Range(b"\0", b"\0"))
        elif draw < 0.82:
            self._read(Range(b"\0", b"\0", revision=max(1, self._known_revision - int(20 * draw))))
        elif draw < 0.90:
            self._request(Delete(key), CommandKind.DELETE_RANGE, rpc.DeleteRangeRequest(key=key))
        elif draw < 1 - self.compact_share:
            self._compare_and_put(key)
        else:
            revision = max(1, self._known_revision - 5)
            self._request(Compact(revision), CommandKind.COMPACT, rpc.CompactionRequest(revision=revision))

    def _put(self, key: bytes, lease: int) -> None:
        value = self._value()
        request = rpc.PutRequest(key=key, value=value, lease=lease)
        self._request(Put(key, value), CommandKind.PUT, request)

    def _remember(self, key: bytes, settled: Settled | None) -> None:
        if settled is not None and settled.error is None:
            pairs = rpc.RangeResponse.FromString(settled.body).kvs
            self._known[key] = pairs[0].mod_revision if pairs else 0

    def _compare_and_put(self, key: bytes) -> None:
        """Put if nobody has changed the key since it was read; else read it."""
        value, known = self._value(), self._known.get(key, 0)
        request = Txn((Compare(key, Target.MOD, Relation.EQUAL, known),), (Put(key, value),), (Range(key),))
        message = rpc.TxnRequest(
            compare=[rpc.Compare(key=key, target=rpc.Compare.MOD, mod_revision=known)],
            success=[rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=key))],
        )
        settled = self._request(request, CommandKind.TXN, message)
        if settled is not None and settled.error is None:
            answer = rpc.TxnResponse.FromString(settled.body)
            if answer.succeeded:
                self._known[key] = settled.revision
            elif answer.responses[0].response_range.kvs:
                self._known[key] = answer.responses[0].response_range.kvs[0].mod_revision
            else:
                self._known[key] = 0

    # --- leases -----------------------------------------------------------------------------------

    def _do_lease(self) -> None:
        draw = self._world.rng.random()
        if not self._leases or draw < 0.25:
            self._grant()
        elif draw < 0.55:
            self._renew(self._world.pick(self._leases))
        elif draw < 0.9:
            self._put(self._world.pick(self._keys), self._world.pick(self._leases))
        else:
            lease = self._leases.pop()
            self._record.ended_leases.add(lease)
            data = rpc.LeaseRevokeRequest(ID=lease).SerializeToString()
            self._ask(lambda gateway, ticket: gateway.command(CommandKind.LEASE_REVOKE, data, ticket))

    def _grant(self) -> None:
        lease = self._record.tick() << 8 | self.number
        ttl_seconds = 2 + int(self._world.rng.random() * 6)
        asked_at = self._world.now
        data = rpc.LeaseGrantRequest(ID=lease, TTL=ttl_seconds).SerializeToString()
        settled = self._ask(lambda gateway, ticket: gateway.command(CommandKind.LEASE_GRANT, data, ticket))
        self._record.counts["grant"] += 1
        if settled is not None and settled.error is None:
            self._leases.append(lease)
            granted = rpc.LeaseGrantResponse.FromString(settled.body).TTL
            self._record.renewals.append(Renewal(lease, asked_at, granted))

    def _renew(self, lease: int) -> None:
        asked_at = self._world.now
        settled = self._ask(lambda gateway, ticket: gateway.keep_alive(lease, ticket))
        self._record.counts["renewal"] += 1
        if settled is not None and settled.error is None:
            ttl_seconds = rpc.LeaseKeepAliveResponse.FromString(settled.body).TTL
            if ttl_seconds > 0:
                self._record.renewals.append(Renewal(lease, asked_at, ttl_seconds))
            elif lease in self._leases:
                self._leases.remove(lease)


def _number(error: EtcdError | None) -> int:
    return 0 if error is None else error.number


def _is_unknown(error: EtcdError | None) -> bool:
    return _number(error) in _UNKNOWN


def _pair(pair: Any) -> Pair:
    return (pair.key, pair.value, pair.create_revision, pair.mod_revision, pair.version)


def _answer_of(request: Request, body: bytes) -> Answer:
    if isinstance(request, Put):
        return PutAnswer()
    if isinstance(request, Delete):
        return DeleteAnswer(rpc.DeleteRangeResponse.FromString(body).deleted)
    if isinstance(request, Range):
        return _range_answer(rpc.RangeResponse.FromString(body))
    if isinstance(request, Compact):
        return CompactAnswer()
    txn = rpc.TxnResponse.FromString(body)
    if txn.succeeded:
        return TxnAnswer(True, (PutAnswer(),))
    return TxnAnswer(False, (_range_answer(txn.responses[0].response_range),))


def _range_answer(response: Any) -> RangeAnswer:
    return RangeAnswer(tuple(_pair(pair) for pair in response.kvs), response.count, response.more)
