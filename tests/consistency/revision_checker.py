"""Strict serializability, decided exactly, by the revisions that the answers carry.

Whoever answers says at which revision. That is a claim, and it can be checked in O(n log n):

1. Every write gets the position 2*r, where r is the revision that it made; every other operation (a read,
   a delete of nothing, a failed compare) gets 2*r + 1, where r is the revision of its answer's header.
2. The revisions of the writes are 2, 3, 4 ... without a gap, each made by exactly one operation, and the
   event stream holds exactly what that operation changes when it is replayed at its place.
3. Replayed in the order of positions, every operation answers what its client was told.
4. Real time is respected: whatever returned before another was called has no higher position.

If all of it holds, the order by position is the strictly serial order, so the history is right; and a
store that lies about revisions cannot satisfy 2 and 3, so a right history is never refused.

Writes of unknown outcome are looked for in the event stream by their unique values: found once, they
are writes whose return is at infinity; never, they were not executed, or changed nothing. A deletion leaves
no value. So a revision of deletions that nobody was told of is assigned to one of the unknown operations
that would have changed just that, called early enough; that is a matching, and if there is one, it is found.

**Serializable reads** promise less: the answer is the state at its revision, with no write in it that was
called only after the read had returned; and answers of one `source` (one member between two starts) never
go back in time. Nothing is promised across members.

**Compaction** makes no revision. A read below an acknowledged compaction must be refused, and is refused
for that reason only if such a compaction was called.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from math import inf
from operator import attrgetter
from typing import Final

from tests.consistency.assignment import assign
from tests.consistency.history import (
    Compact,
    Event,
    Operation,
    Outcome,
    Range,
    RangeAnswer,
    Refusal,
    did_write,
    is_serializable,
    may_delete,
    put_values,
)
from tests.consistency.replay import Change, FutureRevisionError, State, execute
from tests.consistency.verdict import (
    Kind,
    Verdict,
    name_events,
    name_misplaced,
    name_order,
    name_read,
    name_write_answer,
    shown,
)

NOWHERE: Final = -1
FIRST_REVISION: Final = 2


def check_revisions(operations: Sequence[Operation], events: Iterable[Event]) -> Verdict:
    """The operations in any order; the complete event stream in its own. Neither is kept or changed."""
    return RevisionCheck(operations).run(events)


class RevisionCheck:
    """One history on its way to a verdict. Indices are into `operations`."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self.verdict = Verdict()
        self._state = State()
        self._position = array("q", [NOWHERE]) * len(operations)
        self._writer: dict[int, int] = {}
        """By revision: the operation that was told it made it, or that was found to have."""
        self._others: list[int] = []
        """Answered operations that made no revision."""
        self._by_value: dict[bytes, int] = {}
        """Who wanted to put a value, for operations that were not answered with OK."""
        self._unmarked: list[int] = []
        """Operations of unknown outcome that may have written without leaving a value."""
        self._orphans: list[tuple[int, float, list[int]]] = []
        """Revisions of deletions that nobody was told of, when each was delivered, and who may have made
        it."""
        self._wrong_reads: list[int] = []
        self._refused: list[int] = []
        self._callers_until = array("d", [-inf, -inf])
        """By revision: the latest call of a write up to it. What returned earlier cannot know it."""

        self._answered: tuple[list[float], list[int]] | None = None
        """Made when it is needed, which is rarely: see `_heights`."""

    def run(self, events: Iterable[Event]) -> Verdict:
        self._sort_out()
        self._replay(events)
        for index in self._wrong_reads:
            operation = self._operations[index]
            self.verdict.add(name_read(self._state, operation), operation)
        self._assign_orphans()
        self._check_real_time()
        self._check_serializable()
        self._check_compaction()
        self.verdict.counts["unknown_applied"] = len(self.verdict.applied)
        return self.verdict

    # --- who is who ---------------------------------------------------------------------------

    def _sort_out(self) -> None:
        counts = self.verdict.counts
        counts["operations"] = len(self._operations)
        for index, operation in enumerate(self._operations):
            if operation.outcome is Outcome.OK:
                if did_write(operation.request, operation.answer):
                    self._claim(index, operation)
                else:
                    self._others.append(index)
                continue
            for value in put_values(operation.request):
                self._by_value[value] = index
            if operation.outcome is Outcome.REFUSED:
                self._refused.append(index)
            else:
                counts["unknown"] += 1
                if may_delete(operation.request):
                    self._unmarked.append(index)
        counts["writes"], counts["reads"] = len(self._writer), len(self._others)
        counts["refused"] = len(self._refused)
        operations = self._operations
        self._others.sort(key=lambda index: operations[index].revision)

    def _claim(self, index: int, operation: Operation) -> None:
        other = self._writer.setdefault(operation.revision, index)
        if other != index:
            self.verdict.add(
                (Kind.LOST_UPDATE, f"two writes were told that they made revision {operation.revision}"),
                self._operations[other],
                operation,
            )

    # --- replay -------------------------------------------------------------------------------

    def _replay(self, events: Iterable[Event]) -> None:
        """Revision by revision; after each, the reads that were answered there."""
        waiting = iter(self._others)
        held = self._read_at(1, next(waiting, None), waiting)
        for revision, piece in groupby(events, key=attrgetter("revision")):
            if revision != self._state.revision + 1:
                self.verdict.add(
                    (Kind.GAP, f"the stream goes from revision {self._state.revision} to {revision}")
                )
                return
            self._write(revision, list(piece))
            held = self._read_at(revision, held, waiting)
        self._check_end(held, waiting)

    def _read_at(self, revision: int, held: int | None, waiting: Iterator[int]) -> int | None:
        """Check every operation whose answer is of this revision; returns the first of a later one."""
        operations, state = self._operations, self._state
        while held is not None and operations[held].revision <= revision:
            operation = operations[held]
            self._position[held] = 2 * operation.revision + 1
            try:
                answer, changes = execute(state, operation.request, revision + 1)
            except FutureRevisionError as error:
                self.verdict.add((Kind.FUTURE_READ, str(error)), operation)
            else:
                if changes:
                    self.verdict.add(
                        (
                            Kind.LOST_UPDATE,
                            f"answered as if nothing were to be done, but {shown(changes)} was",
                        ),
                        operation,
                    )
                elif answer != operation.answer:
                    if isinstance(answer, RangeAnswer):
                        self._wrong_reads.append(held)
                    else:
                        self.verdict.add(name_write_answer(operation, answer), operation)
            held = next(waiting, None)
        return held

    def _write(self, revision: int, piece: list[Event]) -> None:
        changes: list[Change] = [
            (e.key, None if e.value is None else (e.key, e.value, e.create_revision, revision, e.version))
            for e in piece
        ]
        index = self._writer.get(revision)
        if index is None:
            index = self._find_writer(revision, changes, piece[0].received)
        latest = self._callers_until[-1]
        if index is not None:
            operation = self._operations[index]
            self._position[index] = 2 * revision
            latest = max(latest, operation.call)
            self._check_write(operation, revision, changes)
        self._callers_until.append(latest)
        self._state.apply(revision, changes)
        self.verdict.counts["revisions"] += 1
        self.verdict.counts["events"] += len(changes)

    def _check_write(self, operation: Operation, revision: int, changes: list[Change]) -> None:
        try:
            answer, due = execute(self._state, operation.request, revision)
        except FutureRevisionError as error:
            self.verdict.add((Kind.FUTURE_READ, str(error)), operation)
            return
        if not _same(due, changes):
            self.verdict.add(name_events(operation, revision, due, changes), operation)
        elif operation.outcome is Outcome.OK and answer != operation.answer:
            self.verdict.add(name_write_answer(operation, answer), operation)

    def _find_writer(self, revision: int, changes: list[Change], received: float) -> int | None:
        """Who made a revision that nobody was told of."""
        values = [pair[1] for _, pair in changes if pair is not None]
        if not values:
            self._orphans.append((revision, received or inf, list(self._candidates(revision, changes))))
            return None
        index = next((self._by_value[value] for value in values if value in self._by_value), None)
        if index is None:
            self.verdict.add(*self._explain_unasked(revision, values))
            return None
        operation = self._operations[index]
        if operation.outcome is Outcome.REFUSED:
            self.verdict.add(
                (Kind.PHANTOM_WRITE, f"it was refused, but its value is in revision {revision}"), operation
            )
            return None
        if self._position[index] != NOWHERE:
            before = self._position[index] // 2
            self.verdict.add(
                (Kind.DOUBLE_APPLY, f"it took effect in revision {before} and again in {revision}"), operation
            )
            return None
        self._writer[revision] = index
        self.verdict.applied[index] = revision
        return index

    def _candidates(self, revision: int, changes: list[Change]) -> Iterator[int]:
        for index in self._unmarked:
            if self._position[index] == NOWHERE:
                _, due = execute(self._state, self._operations[index].request, revision)
                if _same(due, changes):
                    yield index

    def _explain_unasked(
        self, revision: int, values: list[bytes]
    ) -> tuple[tuple[Kind, str], *tuple[Operation, ...]]:
        """Only now are the values of answered operations looked at: this happens once, if ever."""
        for operation in self._operations:
            if operation.outcome is Outcome.OK and set(values) & set(put_values(operation.request)):
                there = {
                    pair[1]
                    for pair in self._state.pairs_at(b"\0", b"\0", operation.revision)
                    if pair[3] == operation.revision
                }
                return name_misplaced(operation, revision, set(values), there), operation
        return ((Kind.PHANTOM_WRITE, f"revision {revision} has {values}, which nobody put"),)

    def _check_end(self, held: int | None, waiting: Iterator[int]) -> None:
        """Nobody may have been told of a revision that the stream does not have."""
        last = self._state.revision
        while held is not None:
            operation = self._operations[held]
            self._position[held] = 2 * operation.revision + 1
            self.verdict.add(
                (Kind.FUTURE_READ, f"answered at revision {operation.revision}; the last one is {last}"),
                operation,
            )
            held = next(waiting, None)
        for revision, index in self._writer.items():
            if revision > last or revision < FIRST_REVISION:
                self._position[index] = 2 * revision
                self.verdict.add(
                    (Kind.LOST_WRITE, f"acknowledged at revision {revision}; the last one is {last}"),
                    self._operations[index],
                )

    # --- deletions of unknown outcome -----------------------------------------------------------

    def _assign_orphans(self) -> None:
        if not self._orphans:
            return
        operations = self._operations
        deadlines = self._deadlines([revision for revision, *_ in self._orphans])
        possible: dict[int, list[int]] = {}
        for (revision, received, candidates), deadline in zip(self._orphans, deadlines, strict=True):
            in_time = [i for i in candidates if operations[i].call <= min(deadline, received)]
            # Who was called last is the likeliest: most are executed soon, or never.
            possible[revision] = sorted(in_time, key=lambda i: operations[i].call, reverse=True)
        found = assign(possible)
        for revision in possible:
            index = found.get(revision)
            if index is None:
                self.verdict.add(
                    (Kind.PHANTOM_WRITE, f"revision {revision} deletes what nobody wanted to delete then")
                )
            else:
                self._position[index] = 2 * revision
                self._writer[revision] = index
                self.verdict.applied[index] = revision

    def _deadlines(self, revisions: list[int]) -> list[float]:
        """For each, ascending: when the first operation at it or after it had returned."""
        answered = sorted(
            (self._position[index], operation.returned)
            for index, operation in enumerate(self._operations)
            if operation.outcome is Outcome.OK
            and self._position[index] != NOWHERE
            and not is_serializable(operation.request)
        )
        deadlines: list[float] = []
        earliest = inf
        for revision in reversed(revisions):
            while answered and answered[-1][0] >= 2 * revision:
                earliest = min(earliest, answered.pop()[1])
            deadlines.append(earliest)
        return deadlines[::-1]

    # --- real time ----------------------------------------------------------------------------

    def _check_real_time(self) -> None:
        """In the order of calls: nothing that had returned by then is at a higher position."""
        operations, position = self._operations, self._position
        placed = [
            index
            for index, operation in enumerate(operations)
            if position[index] != NOWHERE and not is_serializable(operation.request)
        ]
        by_call = sorted(placed, key=lambda index: operations[index].call)
        by_return = [index for index in placed if operations[index].outcome is Outcome.OK]
        by_return.sort(key=lambda index: operations[index].returned)
        next_return, highest, highest_index = 0, NOWHERE, NOWHERE
        for index in by_call:
            call = operations[index].call
            while next_return < len(by_return) and operations[by_return[next_return]].returned < call:
                earlier = by_return[next_return]
                if position[earlier] > highest:
                    highest, highest_index = position[earlier], earlier
                next_return += 1
            if highest > position[index]:
                before = operations[highest_index]
                self.verdict.add(
                    name_order(before, highest, operations[index], position[index]), before, operations[index]
                )

    def _check_serializable(self) -> None:
        operations = self._operations
        by_source: dict[int, list[int]] = {}
        for index in self._others:
            operation = operations[index]
            if not is_serializable(operation.request):
                continue
            self.verdict.counts["serializable"] += 1
            revision = operation.revision
            latest = self._callers_until[revision] if revision < len(self._callers_until) else -inf
            if latest > operation.returned:
                self.verdict.add(
                    (Kind.FUTURE_READ, f"it saw revision {revision} before all writes up to it were called"),
                    operation,
                )
            if operation.source:
                by_source.setdefault(operation.source, []).append(index)
        for answered in by_source.values():
            by_return = sorted(answered, key=lambda index: operations[index].returned)
            answered.sort(key=lambda index: operations[index].call)
            next_return, highest = 0, by_return[0]
            for index in answered:
                call = operations[index].call
                while operations[by_return[next_return]].returned < call:
                    if operations[by_return[next_return]].revision > operations[highest].revision:
                        highest = by_return[next_return]
                    next_return += 1
                before = operations[highest]
                if before.returned < call and before.revision > operations[index].revision:
                    self.verdict.add(
                        (
                            Kind.BACKWARD_READ,
                            f"one member answered at {before.revision}, then at an older one",
                        ),
                        before,
                        operations[index],
                    )

    # --- compaction ---------------------------------------------------------------------------

    def _check_compaction(self) -> None:
        """Reads of the past are answered or refused as the compactions allow; so are compactions."""
        operations = self._operations
        compactions = [
            operation
            for operation in operations
            if isinstance(operation.request, Compact) and operation.outcome is not Outcome.REFUSED
        ]
        done = sorted((o.returned, o.request.revision) for o in compactions if o.outcome is Outcome.OK)  # type: ignore[union-attr]
        called = sorted((o.call, o.request.revision) for o in compactions)  # type: ignore[union-attr]
        done_times, done_heights = _heights(done)
        called_times, called_heights = _heights(called)
        for operation in operations:
            request = operation.request
            if not isinstance(request, Range | Compact) or request.revision <= 0:
                continue
            lowest = request.revision if isinstance(request, Range) else request.revision - 1
            if operation.outcome is Outcome.OK and not is_serializable(request):
                if _height(done_times, done_heights, operation.call) > lowest:
                    self.verdict.add(
                        (Kind.WRONG_REFUSAL, "it was answered though it was compacted"), operation
                    )
            elif operation.answer is Refusal.COMPACTED:
                if _height(called_times, called_heights, operation.returned) <= lowest:
                    self.verdict.add((Kind.WRONG_REFUSAL, "nobody had compacted that far"), operation)
            elif operation.answer is Refusal.FUTURE_REVISION and not is_serializable(request):
                self._check_future(operation, request.revision)

    def _check_future(self, operation: Operation, revision: int) -> None:
        """Refused as not there yet: no answer of that revision had returned before the call."""
        if self._answered is None:
            self._answered = _heights(
                sorted((o.returned, o.revision) for o in self._operations if o.outcome is Outcome.OK)
            )
        if _height(*self._answered, operation.call) >= revision:
            self.verdict.add((Kind.WRONG_REFUSAL, f"revision {revision} was there"), operation)


def _same(due: list[Change], changes: list[Change]) -> bool:
    """In any order: that of one revision's events is a matter of watches, not of this check. A key is
    changed once in a revision, so nothing but keys is ever compared by sorting."""
    return due == changes or sorted(due) == sorted(changes)


def _heights(times: list[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """When, and how high the highest was by then."""
    heights: list[int] = []
    for _, revision in times:
        heights.append(max(revision, heights[-1] if heights else 0))
    return [time for time, _ in times], heights


def _height(times: list[float], heights: list[int], before: float) -> int:
    place = bisect_left(times, before)
    return heights[place - 1] if place else 0
