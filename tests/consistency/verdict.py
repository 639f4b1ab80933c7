"""What a check came to: counts, and violations by name.

A checker finds out *that* something is wrong; the functions here say *what*, in the words people use for
it. The name is a guide to the defect, the decision does not depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tests.consistency.history import Answer, Operation, Pair, Range, RangeAnswer, Txn, TxnAnswer, put_values
from tests.consistency.replay import Change, State, answer_of_pairs

VIOLATIONS_MAX: Final = 20
"""So many are kept; all are counted."""

LOOK_AROUND_REVISIONS: Final = 2_000
"""How far before and after its revision a wrong answer is looked for."""


class Kind(StrEnum):
    """What went wrong."""

    GAP = "gap"
    """The event stream leaves out a revision, or goes back."""
    LOST_WRITE = "lost write"
    """It was acknowledged, and is not there."""
    LOST_UPDATE = "lost update"
    """Two writes took the same revision, or a compare was answered against an older state."""
    DOUBLE_APPLY = "double apply"
    PHANTOM_WRITE = "phantom write"
    """A change that nobody asked for, or that was refused."""
    TORN_TRANSACTION = "torn transaction"
    """Only a part of it took effect, or its parts in several revisions."""
    WRONG_EVENT = "wrong event"
    """The change is there, but not as the request makes it from what was there before."""
    STALE_READ = "stale read"
    FUTURE_READ = "future read"
    """It shows what was not written yet."""
    PHANTOM_READ = "phantom read"
    """It shows what never was."""
    TORN_READ = "torn read"
    """Everything it shows was there, but never together."""
    REORDERED_WRITES = "reordered writes"
    """In another order than real time's."""
    WRONG_ANSWER = "wrong answer"
    BACKWARD_READ = "backward read"
    WRONG_REFUSAL = "wrong refusal"


@dataclass(frozen=True, slots=True)
class Violation:
    kind: Kind
    message: str
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        return "\n    ".join([f"{self.kind}: {self.message}", *map(shown, self.operations)])


@dataclass(slots=True)
class Verdict:
    """The history is strictly serializable if and only if it is `ok`."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    """The first ones found."""
    violation_count: int = 0
    applied: dict[int, int] = field(default_factory=dict)
    """By operation of unknown outcome that was found to be executed: its revision."""

    @property
    def ok(self) -> bool:
        return self.violation_count == 0

    @property
    def kinds(self) -> set[Kind]:
        return {violation.kind for violation in self.violations}

    def add(self, named: tuple[Kind, str], *operations: Operation) -> None:
        self.violation_count += 1
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(*named, operations))

    def describe(self) -> str:
        lines = [f"{self.violation_count} violations; {dict(self.counts)}"]
        return "\n".join(lines + [str(violation) for violation in self.violations])


def shown(thing: object) -> str:
    text = str(thing)
    return text if len(text) <= 1_000 else f"{text[:1_000]}... ({len(text)} characters)"


def name_events(
    operation: Operation, revision: int, due: list[Change], changes: list[Change]
) -> tuple[Kind, str]:
    """The revision does not hold what its operation changes."""
    message = f"revision {revision} should be {shown(due)}, but is {shown(changes)}"
    wanted, found = _marks(due), _marks(changes)
    if not wanted & found:
        return Kind.LOST_UPDATE, message
    if wanted != found and isinstance(operation.request, Txn):
        return Kind.TORN_TRANSACTION, message
    return Kind.WRONG_EVENT, message


def name_misplaced(
    operation: Operation, revision: int, values: set[bytes], there: set[bytes]
) -> tuple[Kind, str]:
    """Values of an answered operation are in another revision than it was told; `there` are those
    that its own revision has."""
    message = f"made revision {operation.revision}, but its value is in {revision}"
    due = _values_of_branch(operation)
    if due <= there:
        return Kind.DOUBLE_APPLY, f"{message} too"
    if there & due or len(values) < len(due):
        return Kind.TORN_TRANSACTION, message
    return Kind.REORDERED_WRITES, message


def _values_of_branch(operation: Operation) -> set[bytes]:
    request, answer = operation.request, operation.answer
    if isinstance(request, Txn) and isinstance(answer, TxnAnswer):
        parts = request.success if answer.succeeded else request.failure
        return {value for part in parts for value in put_values(part)}
    return set(put_values(request))


def _marks(changes: Iterable[Change]) -> set[tuple[bytes, bytes | None]]:
    return {(key, None if pair is None else pair[1]) for key, pair in changes}


def name_write_answer(operation: Operation, due: Answer) -> tuple[Kind, str]:
    """What it changed is right, or nothing was to be changed; what it answered is wrong."""
    message = f"should have answered {shown(due)}"
    answer = operation.answer
    if isinstance(answer, TxnAnswer) and isinstance(due, TxnAnswer) and answer.succeeded != due.succeeded:
        return Kind.LOST_UPDATE, message
    return Kind.WRONG_ANSWER, message


def name_read(state: State, operation: Operation) -> tuple[Kind, str]:
    """A read that does not show the state of its revision. `state` has the whole history."""
    request, answer = operation.request, operation.answer
    assert isinstance(request, Range), f"{request} is not a read"
    if not isinstance(answer, RangeAnswer):
        return Kind.WRONG_ANSWER, "the answer is not one to a read"
    at = request.revision or operation.revision
    due = _read_at(state, request, at)
    message = f"at revision {at} it is {shown(due)}"
    for pair in answer.pairs:
        if _pair_of(state, pair) != pair:
            return Kind.PHANTOM_READ, f"{pair} never was; {message}"
    for before in range(at - 1, max(0, at - LOOK_AROUND_REVISIONS), -1):
        if _read_at(state, request, before) == answer:
            return Kind.STALE_READ, f"this was so at revision {before}; {message}"
    for after in range(at + 1, min(state.revision, at + LOOK_AROUND_REVISIONS) + 1):
        if _read_at(state, request, after) == answer:
            return Kind.FUTURE_READ, f"this was so only at revision {after}; {message}"
    return Kind.TORN_READ, message


def _pair_of(state: State, pair: Pair) -> Pair | None:
    return state.get_at(pair[0], pair[3])


def _read_at(state: State, request: Range, revision: int) -> RangeAnswer:
    return answer_of_pairs(request, state.pairs_at(request.key, request.range_end, revision))


def name_order(
    before: Operation, before_position: int, after: Operation, after_position: int
) -> tuple[Kind, str]:
    """`before` returned before `after` was called, but has the higher position."""
    message = (
        f"returned at {before.returned:.6f} with revision {before_position // 2}, "
        f"then called at {after.call:.6f} and at revision {after_position // 2}"
    )
    if after_position % 2:
        return Kind.STALE_READ, message
    return (Kind.FUTURE_READ if before_position % 2 else Kind.REORDERED_WRITES), message
