"""A key-value store without revisions: values, and how often each key was put since it was created.

What an answer says about revisions is not looked at. A compare of a create or mod revision other than
with 0 cannot be decided here, so its result is taken as told; where nobody was told, both are possible.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TypeAlias

from tests.consistency.history import (
    Answer,
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
from tests.consistency.replay import related

Held: TypeAlias = tuple[bytes, int] | None
"""Value and version; None without the key."""

Plain: TypeAlias = tuple[Held, ...]
"""By the place of its key among all keys."""

Told: TypeAlias = Answer | Refusal | None


class PlainModel:
    """The model of one window."""

    def __init__(self, shown: RangeAnswer, operations: Sequence[Operation]) -> None:
        names = {pair[0] for pair in shown.pairs}
        for operation in operations:
            names.update(_names(operation.request))
        self._names = sorted(names)
        self._place = {name: place for place, name in enumerate(self._names)}
        held: list[Held] = [None] * len(self._names)
        for pair in shown.pairs:
            held[self._place[pair[0]]] = (pair[1], pair[4])
        self.initial: Plain = tuple(held)

    def step(self, state: Plain, operation: Operation) -> Iterator[Plain]:
        told = operation.answer if operation.outcome is Outcome.OK else None
        request = operation.request
        if not isinstance(request, Txn):
            held = list(state)
            if self._execute(held, request, told):
                yield tuple(held)
            return
        assert told is None or isinstance(told, TxnAnswer), f"a transaction was answered with {told}"
        for succeeded in self._results(state, request, told):
            held = list(state)
            parts = request.success if succeeded else request.failure
            answers: Sequence[Told] = [None] * len(parts) if told is None else told.answers
            if len(answers) == len(parts) and all(
                self._execute(held, part, answer) for part, answer in zip(parts, answers, strict=True)
            ):
                yield tuple(held)

    def _results(self, state: Plain, txn: Txn, told: TxnAnswer | None) -> set[bool]:
        """How the compares may have come out, as far as that is in accord with what was told."""
        each = [self._holds(compare, state[self._place[compare.key]]) for compare in txn.compares]
        possible = {all(combination) for combination in product(*each)}
        return possible if told is None else possible & {told.succeeded}

    @staticmethod
    def _holds(compare: Compare, held: Held) -> set[bool]:
        if compare.target is Target.VALUE:
            return {held is not None and related(held[0], compare.relation, compare.operand)}
        if compare.target is Target.VERSION or held is None:
            return {related(held[1] if held else 0, compare.relation, compare.operand)}
        if compare.operand == 0:
            return {compare.relation in (Relation.NOT_EQUAL, Relation.GREATER)}
        return {False, True}

    def _execute(self, held: list[Held], request: Request, told: Told) -> bool:
        """Do it; whether it answers what was told, if anything was."""
        if isinstance(request, Put):
            place = self._place[request.key]
            before = held[place]
            held[place] = (request.value, before[1] + 1 if before else 1)
            if told is None:
                return True
            assert isinstance(told, PutAnswer), f"a put was answered with {told}"
            return not request.prev_kv or _without_revisions(told.previous) == before
        if isinstance(request, Delete):
            return self._delete(held, request, told)
        assert isinstance(request, Range), f"{request} has no place in a window"
        return told is None or self._reads(held, request, told)

    def _delete(self, held: list[Held], request: Delete, told: Told) -> bool:
        places = [p for p in self._places(request.key, request.range_end) if held[p] is not None]
        gone = [(self._names[place], held[place]) for place in places]
        for place in places:
            held[place] = None
        if told is None:
            return True
        assert isinstance(told, DeleteAnswer), f"a delete was answered with {told}"
        if told.deleted != len(gone):
            return False
        return not request.prev_kv or [(p[0], _without_revisions(p)) for p in told.previous] == gone

    def _reads(self, held: list[Held], request: Range, told: Told) -> bool:
        if request.revision:
            return True  # The past is not known here.
        assert isinstance(told, RangeAnswer), f"a read was answered with {told}"
        found = [p for p in self._places(request.key, request.range_end) if held[p] is not None]
        if told.count != len(found):
            return False
        if request.count_only:
            return not told.pairs
        more = bool(request.limit) and len(found) > request.limit
        due = [(self._names[p], held[p]) for p in (found[: request.limit] if more else found)]
        return told.more == more and [(p[0], _without_revisions(p)) for p in told.pairs] == due

    def _places(self, key: bytes, range_end: bytes) -> range:
        first = bisect_left(self._names, key)
        if not range_end:
            return range(first, first + (key in self._place))
        last = len(self._names) if range_end == b"\0" else bisect_left(self._names, range_end)
        return range(first, last)


def _without_revisions(pair: Pair | None) -> Held:
    return None if pair is None else (pair[1], pair[4])


def _names(request: Request) -> Iterator[bytes]:
    if isinstance(request, Txn):
        for compare in request.compares:
            yield compare.key
        for part in (*request.success, *request.failure):
            yield from _names(part)
    elif isinstance(request, Put):
        yield request.key
