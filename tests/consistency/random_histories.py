"""Random histories of a naive store, right or with one kind of defect: what the checkers are tested with.

The store copies its whole state for every revision and shares no code with the checkers' replay.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush
from typing import Final, TypeAlias

from tests.consistency.history import (
    Answer,
    Compare,
    Delete,
    DeleteAnswer,
    Event,
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

Snapshot: TypeAlias = tuple[Pair, ...]
Snapshots: TypeAlias = tuple[Snapshot, ...]
"""The state at revision 1, 2, 3 ... each sorted by key."""

EMPTY: Final[Snapshots] = ((),)


class Defect(StrEnum):
    """What a broken store does now and then."""

    NONE = "none"
    STALE_READ = "a read shows an older state, and says so"
    STALE_CONTENT = "a read shows an older state and says the current revision"
    LOST_WRITE = "a put is acknowledged and not done"
    DOUBLE_APPLY = "a write is done twice"
    EARLY_ACKNOWLEDGEMENT = "a write is done after its answer, in the place that it was to have then"
    PHANTOM = "a refused write is done"
    TORN = "a transaction is done in two parts"
    HALF = "only the first part of a transaction is done"
    OLD_COMPARE = "a transaction compares with an older state"


def run(request: Request, history: Snapshots, compared: Snapshots | None = None) -> tuple[Answer, Snapshots]:
    """One request on the newest state. `compared`: what a transaction's compares look at instead."""
    now, revision = {pair[0]: pair for pair in history[-1]}, len(history) + 1
    if isinstance(request, Txn):
        seen = {pair[0]: pair for pair in (compared or history)[-1]}
        succeeded = all(_holds(c, seen.get(c.key)) for c in request.compares)
        parts = request.success if succeeded else request.failure
        answer: Answer = TxnAnswer(succeeded, tuple(_part(part, now, history, revision) for part in parts))
    else:
        answer = _part(request, now, history, revision)
    after = tuple(now[key] for key in sorted(now))
    wrote = any(pair[3] == revision for pair in after) or len(after) != len(history[-1])
    return answer, (*history, after) if wrote else history


def _part(request: Request, now: dict[bytes, Pair], history: Snapshots, revision: int) -> Answer:
    if isinstance(request, Put):
        old = now.get(request.key)
        created, version = (old[2], old[4] + 1) if old else (revision, 1)
        now[request.key] = (request.key, request.value, created, revision, version)
        return PutAnswer(old if request.prev_kv else None)
    if isinstance(request, Delete):
        gone = [now.pop(name) for name in sorted(now) if _inside(name, request.key, request.range_end)]
        return DeleteAnswer(len(gone), tuple(gone) if request.prev_kv else ())
    assert isinstance(request, Range)
    shown = history[request.revision - 1] if request.revision else tuple(now[name] for name in sorted(now))
    found = [pair for pair in shown if _inside(pair[0], request.key, request.range_end)]
    if request.count_only:
        return RangeAnswer((), len(found))
    cut = found[: request.limit] if request.limit else found
    return RangeAnswer(tuple(cut), len(found), len(cut) < len(found))


def _inside(name: bytes, key: bytes, range_end: bytes) -> bool:
    return name == key if not range_end else name >= key and (name < range_end or range_end == b"\0")


def _holds(compare: Compare, pair: Pair | None) -> bool:
    if compare.target == Target.VALUE and pair is None:
        return False
    field_of = {Target.VALUE: 1, Target.CREATE: 2, Target.MOD: 3, Target.VERSION: 4}[compare.target]
    held = pair[field_of] if pair else 0
    less, equal = held < compare.operand, held == compare.operand  # type: ignore[operator]
    return {
        Relation.EQUAL: equal,
        Relation.NOT_EQUAL: not equal,
        Relation.LESS: less,
        Relation.GREATER: not less and not equal,
    }[compare.relation]


def events_of(history: Snapshots) -> Iterator[Event]:
    """What a watcher of everything gets."""
    for revision in range(2, len(history) + 1):
        before = {pair[0]: pair for pair in history[revision - 2]}
        after = {pair[0]: pair for pair in history[revision - 1]}
        for key in sorted(before.keys() | after.keys()):
            pair = after.get(key)
            if pair is None:
                yield Event(revision, key, None)
            elif pair != before.get(key):
                yield Event(revision, key, pair[1], pair[2], pair[4])


@dataclass
class Recorded:
    operations: list[Operation] = field(default_factory=list)
    snapshots: Snapshots = EMPTY
    defects: int = 0
    """How often the store was wrong."""

    @property
    def events(self) -> list[Event]:
        return list(events_of(self.snapshots))


class Simulation:
    """A few clients, each with one request under way, and a store that does them one by one."""

    def __init__(self, seed: int, defect: Defect = Defect.NONE, clients: int = 3) -> None:
        self._random = random.Random(f"{defect} {seed}")
        self._defect = defect
        self._clients = clients
        self._values = 0
        self._keys = [b"a", b"b", b"c"]
        self._late: Request | None = None
        """Acknowledged already, and to be done later."""
        self.recorded = Recorded()

    def run(self, operations: int) -> Recorded:
        """Events in the order of time: a client calls, or the store does what was called."""
        agenda: list[tuple[float, int, str, int, Request | None, float]] = []
        number = 0
        for client in range(self._clients):
            heappush(agenda, (self._pause(), number := number + 1, "call", client, None, 0.0))
        called = 0
        while agenda:
            now, _, what, client, request, call = heappop(agenda)
            if what == "call":
                if called < operations:
                    called += 1
                    doing = now + self._pause()
                    heappush(agenda, (doing, number := number + 1, "do", client, self._request(), now))
            elif what == "do":
                assert request is not None
                returned = self._do(client, request, call, now)
                heappush(
                    agenda, (returned + self._pause() / 4, number := number + 1, "call", client, None, 0.0)
                )
            else:
                assert request is not None
                self._write_late(request)
            if what == "do" and self._late is not None:
                late, self._late = self._late, None
                heappush(agenda, (now + 3 * self._pause(), number := number + 1, "late", client, late, 0.0))
        return self.recorded

    def _pause(self) -> float:
        return self._random.expovariate(1.0)

    def _value(self) -> bytes:
        self._values += 1
        return b"v%d" % self._values

    def _request(self) -> Request:
        choose = self._random.random
        key = self._random.choice(self._keys)
        if choose() < 0.35:
            return Put(key, self._value(), prev_kv=choose() < 0.3)
        if choose() < 0.5:
            revision = self._random.randint(1, len(self.recorded.snapshots)) if choose() < 0.15 else 0
            if choose() < 0.5:
                return Range(key, revision=revision)
            return Range(
                b"a", b"\0", revision, limit=self._random.choice((0, 0, 1, 2)), count_only=choose() < 0.15
            )
        if choose() < 0.35:
            return Delete(key, self._random.choice((b"", b"", b"\0")), prev_kv=choose() < 0.3)
        return Txn((self._compare(key),), self._parts(key), self._parts(key) if choose() < 0.6 else ())

    def _compare(self, key: bytes) -> Compare:
        target = self._random.choice(list(Target))
        operand: bytes | int = self._random.randint(0, 3)
        if target is Target.VALUE:
            operand = b"v%d" % max(0, self._values - self._random.randint(0, 3))
        return Compare(key, target, self._random.choice(list(Relation)), operand)

    def _parts(self, key: bytes) -> tuple[Request, ...]:
        other = self._random.choice([name for name in self._keys if name != key])
        parts: list[Request] = [Put(key, self._value())]
        if self._random.random() < 0.7:
            parts.append(self._random.choice((Put(other, self._value()), Delete(other), Range(b"a", b"\0"))))
        return tuple(parts)

    # --- the store ----------------------------------------------------------------------------

    def _do(self, client: int, request: Request, call: float, now: float) -> float:
        """Do what was called, rightly or not, and record it; returns when its client calls again."""
        recorded = self.recorded
        wrong = self._defect is not Defect.NONE and self._random.random() < 0.25
        done = self._do_wrong(request) if wrong else None
        if done is not None:
            recorded.defects += 1
            answer, revision = done
        else:
            answer, recorded.snapshots = run(request, recorded.snapshots)
            revision = len(recorded.snapshots)
        returned = now + self._pause()
        outcome = Outcome.OK
        told: Answer | Refusal | None = answer
        if isinstance(answer, Refusal):
            outcome = Outcome.REFUSED
        elif self._random.random() < 0.12:
            outcome, told, revision = Outcome.UNKNOWN, None, 0
        recorded.operations.append(
            Operation(client, call, returned, outcome, request, 0 if outcome else revision, told)
        )
        return returned

    def _do_wrong(self, request: Request) -> tuple[Answer | Refusal, int] | None:
        """None where the defect does not concern such a request."""
        recorded, defect = self.recorded, self._defect
        snapshots = recorded.snapshots
        older = snapshots[: max(1, len(snapshots) - self._random.randint(1, 3))]
        if isinstance(request, Range) and not request.revision:
            if defect is Defect.STALE_READ:
                return run(request, older)[0], len(older)
            if defect is Defect.STALE_CONTENT:
                return run(request, older)[0], len(snapshots)
        if isinstance(request, Put):
            if defect is Defect.LOST_WRITE:
                return run(request, snapshots)[0], len(snapshots) + 1
            if defect is Defect.PHANTOM:
                recorded.snapshots = run(request, snapshots)[1]
                return Refusal.OTHER, 0
            if defect is Defect.EARLY_ACKNOWLEDGEMENT and not request.prev_kv:
                self._late = request
                return run(request, snapshots)[0], len(snapshots) + 1
        if isinstance(request, Put | Txn) and defect is Defect.DOUBLE_APPLY:
            answer, recorded.snapshots = run(request, snapshots)
            revision = len(recorded.snapshots)
            recorded.snapshots = run(request, recorded.snapshots)[1]
            return answer, revision
        if isinstance(request, Txn):
            return self._wrong_txn(request, older)
        return None

    def _wrong_txn(self, request: Txn, older: Snapshots) -> tuple[Answer, int] | None:
        recorded, defect = self.recorded, self._defect
        if defect is Defect.OLD_COMPARE:
            answer, recorded.snapshots = run(request, recorded.snapshots, older)
            return answer, len(recorded.snapshots)
        if defect in (Defect.TORN, Defect.HALF) and len(request.success) == 2:
            answer, whole = run(request, recorded.snapshots)
            assert isinstance(answer, TxnAnswer)
            parts = request.success if answer.succeeded else request.failure
            for part in parts[: 1 if defect is Defect.HALF else 2]:
                recorded.snapshots = run(part, recorded.snapshots)[1]
            return answer, len(whole)
        return None

    def _write_late(self, request: Request) -> None:
        self.recorded.snapshots = run(request, self.recorded.snapshots)[1]


class RevisionModel:
    """The naive store as a model for the search: with it, the search decides by brute force what the
    check by revision decides by sorting. That the event stream is as recorded is a part of it: at the
    end somebody reads every revision."""

    def __init__(self) -> None:
        self.initial = EMPTY

    def step(self, state: Snapshots, operation: Operation) -> Iterator[Snapshots]:
        request = operation.request
        if isinstance(request, Range) and request.revision > len(state):
            return
        answer, after = run(request, state)
        if operation.outcome is Outcome.UNKNOWN or (answer, len(after)) == (
            operation.answer,
            operation.revision,
        ):
            yield after


def with_final_reads(recorded: Recorded) -> list[Operation]:
    """The operations that have a part in a search by `RevisionModel`, and the event stream as reads."""
    operations = [o for o in recorded.operations if o.outcome is not Outcome.REFUSED]
    end = max((operation.returned for operation in operations), default=0.0)
    last = len(recorded.snapshots)
    for revision in range(1, last + 1):
        pairs = recorded.snapshots[revision - 1]
        request = Range(b"a", b"\0", revision)
        answer = RangeAnswer(pairs, len(pairs))
        end += 1.0
        operations.append(Operation(99, end, end + 0.5, Outcome.OK, request, last, answer))
    return operations
