"""A store that is nothing but its changes, replayed: what each request must have answered.

It keeps a list of versions for each key, never copies of the whole state, so a read at any revision is
a bisection per key, and a million changes fit in memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TypeAlias

from tests.consistency.history import (
    Answer,
    Compact,
    CompactAnswer,
    Compare,
    Delete,
    DeleteAnswer,
    Pair,
    Put,
    PutAnswer,
    Range,
    RangeAnswer,
    Relation,
    Request,
    Target,
    Txn,
    TxnAnswer,
    is_in_range,
)

Change: TypeAlias = tuple[bytes, Pair | None]
"""A key and the pair that it has now; None if it was deleted."""


class FutureRevisionError(Exception):
    """A read at a revision that the store did not have yet."""


class State:
    """All revisions up to `revision`."""

    def __init__(self) -> None:
        self.revision = 1
        self._live: dict[bytes, Pair] = {}
        self._names: list[bytes] = []
        """Keys of `_live`, sorted."""
        self._known: list[bytes] = []
        """Keys of `_versions`, sorted: every key that ever was."""
        self._versions: dict[bytes, tuple[list[int], list[Pair | None]]] = {}
        """By key: the revisions that changed it, ascending, and what it was from then on."""

    def get(self, key: bytes) -> Pair | None:
        return self._live.get(key)

    def get_at(self, key: bytes, revision: int) -> Pair | None:
        versions = self._versions.get(key)
        if versions is None:
            return None
        place = bisect_right(versions[0], revision)
        return versions[1][place - 1] if place else None

    def pairs(self, key: bytes, range_end: bytes) -> list[Pair]:
        live = self._live
        if not range_end:
            pair = live.get(key)
            return [] if pair is None else [pair]
        return [live[name] for name in _between(self._names, key, range_end)]

    def pairs_at(self, key: bytes, range_end: bytes, revision: int) -> list[Pair]:
        names = _between(self._known, key, range_end) if range_end else [key]
        found = (self.get_at(name, revision) for name in names)
        return [pair for pair in found if pair is not None]

    def apply(self, revision: int, changes: list[Change]) -> None:
        for key, pair in changes:
            versions = self._versions.get(key)
            if versions is None:
                versions = self._versions[key] = ([], [])
                insort(self._known, key)
            versions[0].append(revision)
            versions[1].append(pair)
            if pair is not None:
                if key not in self._live:
                    insort(self._names, key)
                self._live[key] = pair
            elif self._live.pop(key, None) is not None:
                del self._names[bisect_left(self._names, key)]
        self.revision = revision


def _between(names: list[bytes], key: bytes, range_end: bytes) -> list[bytes]:
    first = bisect_left(names, key)
    return names[first:] if range_end == b"\0" else names[first : bisect_left(names, range_end)]


def execute(state: State, request: Request, revision: int) -> tuple[Answer, list[Change]]:
    """What the request answers on this state, and what it changes if `revision` is the next one.
    The state stays as it is. Raises FutureRevisionError."""
    if isinstance(request, Put):
        before = state.get(request.key)
        return PutAnswer(before if request.prev_kv else None), [_put(request, before, revision)]
    if isinstance(request, Range):
        return _read(state, request, {}), []
    if isinstance(request, Delete):
        gone = state.pairs(request.key, request.range_end)
        return _deleted(request, gone), [(pair[0], None) for pair in gone]
    if isinstance(request, Compact):
        return CompactAnswer(), []
    changes: dict[bytes, Pair | None] = {}
    answer = _execute_txn(state, request, revision, changes)
    return answer, list(changes.items())


def _execute_txn(state: State, txn: Txn, revision: int, changes: dict[bytes, Pair | None]) -> TxnAnswer:
    """Compares, those of nested transactions too, look at the state before the whole transaction;
    reads see the writes before them."""
    succeeded = all(holds(compare, state.get(compare.key)) for compare in txn.compares)
    answers: list[Answer] = []
    for part in txn.success if succeeded else txn.failure:
        if isinstance(part, Put):
            before = changes[part.key] if part.key in changes else state.get(part.key)
            answers.append(PutAnswer(before if part.prev_kv else None))
            changes[part.key] = _put(part, before, revision)[1]
        elif isinstance(part, Delete):
            gone = _merged(state.pairs(part.key, part.range_end), part.key, part.range_end, changes)
            answers.append(_deleted(part, gone))
            changes.update((pair[0], None) for pair in gone)
        elif isinstance(part, Range):
            answers.append(_read(state, part, changes))
        else:
            assert isinstance(part, Txn), f"{part} inside a transaction"
            answers.append(_execute_txn(state, part, revision, changes))
    return TxnAnswer(succeeded, tuple(answers))


def _put(request: Put, before: Pair | None, revision: int) -> Change:
    if before is None:
        return request.key, (request.key, request.value, revision, revision, 1)
    return request.key, (request.key, request.value, before[2], revision, before[4] + 1)


def _deleted(request: Delete, gone: list[Pair]) -> DeleteAnswer:
    return DeleteAnswer(len(gone), tuple(gone) if request.prev_kv else ())


def _read(state: State, request: Range, changes: dict[bytes, Pair | None]) -> RangeAnswer:
    if request.revision > state.revision:
        raise FutureRevisionError(f"revision {request.revision} asked of a store at {state.revision}")
    if request.revision > 0 and request.revision < state.revision:
        found = state.pairs_at(request.key, request.range_end, request.revision)
    else:
        found = state.pairs(request.key, request.range_end)
        if changes and not request.revision:
            found = _merged(found, request.key, request.range_end, changes)
    return answer_of_pairs(request, found)


def answer_of_pairs(request: Range, found: list[Pair]) -> RangeAnswer:
    if request.count_only:
        return RangeAnswer((), len(found))
    if request.limit and len(found) > request.limit:
        return RangeAnswer(tuple(found[: request.limit]), len(found), True)
    return RangeAnswer(tuple(found), len(found))


def _merged(found: list[Pair], key: bytes, range_end: bytes, changes: dict[bytes, Pair | None]) -> list[Pair]:
    """The pairs as the transaction sees them after its own changes."""
    merged = [pair for pair in found if pair[0] not in changes]
    merged += [p for name, p in changes.items() if p is not None and is_in_range(name, key, range_end)]
    merged.sort()
    return merged


def holds(compare: Compare, pair: Pair | None) -> bool:
    """With no key, everything is 0, but the value compares to nothing."""
    held: bytes | int
    if compare.target is Target.VALUE:
        if pair is None:
            return False
        held = pair[1]
    elif pair is None:
        held = 0
    else:
        held = pair[{Target.VERSION: 4, Target.CREATE: 2, Target.MOD: 3}[compare.target]]
    return related(held, compare.relation, compare.operand)


def related(held: bytes | int, relation: Relation, operand: bytes | int) -> bool:
    if relation is Relation.EQUAL:
        return held == operand
    if relation is Relation.NOT_EQUAL:
        return held != operand
    if isinstance(held, bytes):
        assert isinstance(operand, bytes), f"{held!r} is compared with {operand!r}"
        return held > operand if relation is Relation.GREATER else held < operand
    assert isinstance(operand, int), f"{held} is compared with {operand!r}"
    return held > operand if relation is Relation.GREATER else held < operand
