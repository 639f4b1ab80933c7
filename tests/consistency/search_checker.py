"""A second opinion that never looks at a revision: search for a legal order (Wing and Gong 1993, Lowe 2017).

The history becomes a list of calls and returns by time. An operation may be taken next if no other one
returned before it was called and if the model, in the state reached so far, answers what its client was
told. Taken operations leave the list; when the list begins with a return, the last choice was wrong and
is undone. A set of operations taken and the state it led to are tried once only. Lost answers have no
return: they may be taken at any time, or never.

This is exponential in the number of operations that overlap, so it is done for windows: each begins at
a moment when nothing was under way and one client read everything, which gives the model's first state,
and ends after some number of calls. What has not returned then counts as not answered.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from operator import attrgetter
from typing import Final, Protocol, TypeVar

import msgspec

from tests.consistency.history import (
    Compact,
    Event,
    Operation,
    Outcome,
    Range,
    RangeAnswer,
    is_serializable,
    put_values,
)
from tests.consistency.plain_model import PlainModel

STEPS_MAX: Final = 400_000
"""After so many attempts a search is given up, undecided."""

WINDOW_OPERATIONS: Final = 150


class Finding(Enum):
    LEGAL = "legal"
    ILLEGAL = "illegal"
    UNDECIDED = "undecided"


StateT = TypeVar("StateT", bound=Hashable)


class Model(Protocol[StateT]):
    """The store that the history should be one of."""

    @property
    def initial(self) -> StateT: ...

    def step(self, state: StateT, operation: Operation) -> Iterable[StateT]:
        """The states that the operation may lead to with the answer it got; none if it cannot have
        got that answer. If its outcome is unknown, with any answer."""
        ...


class _Entries:
    """Calls and returns in the order of time, as a doubly linked list. Entry 0 is its head."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        times: list[tuple[float, int, int]] = []
        for index, operation in enumerate(operations):
            times.append((operation.call, 0, index))
            if operation.outcome is Outcome.OK:
                times.append((operation.returned, 1, index))
        times.sort()
        self.operation = [-1] + [index for _, _, index in times]
        self.is_call = [False] + [kind == 0 for _, kind, _ in times]
        count = len(self.operation)
        self.after = [*range(1, count), 0]
        self._before = [count - 1, *range(count - 1)]
        self._return = [0] * len(operations)
        """By operation: its return's entry, 0 if there is none."""
        for entry in range(1, count):
            if not self.is_call[entry]:
                self._return[self.operation[entry]] = entry

    def take(self, entry: int) -> bool:
        """Remove a call and its return; True if it has one."""
        self._unlink(entry)
        back = self._return[self.operation[entry]]
        if back:
            self._unlink(back)
        return back != 0

    def put_back(self, entry: int) -> bool:
        back = self._return[self.operation[entry]]
        if back:
            self._link(back)
        self._link(entry)
        return back != 0

    def _unlink(self, entry: int) -> None:
        before, after = self._before[entry], self.after[entry]
        self.after[before], self._before[after] = after, before

    def _link(self, entry: int) -> None:
        self.after[self._before[entry]] = self._before[self.after[entry]] = entry


def search(model: Model[StateT], operations: Sequence[Operation], steps_max: int = STEPS_MAX) -> Finding:
    """Whether some order of the operations respects real time and the model."""
    entries = _Entries(operations)
    unanswered = sum(operation.outcome is Outcome.OK for operation in operations)
    state, taken = model.initial, 0
    tried: set[tuple[int, StateT]] = set()
    stack: list[tuple[int, StateT, int, Iterator[StateT]]] = []
    entry, steps = entries.after[0], 0
    while unanswered:
        if entry and entries.is_call[entry]:
            steps += 1
            if steps > steps_max:
                return Finding.UNDECIDED
            index = entries.operation[entry]
            choices = iter(model.step(state, operations[index]))
            following = _untried(choices, taken | 1 << index, tried)
            if following is None:
                entry = entries.after[entry]
                continue
            stack.append((entry, state, taken, choices))
            state, taken = following, taken | 1 << index
            unanswered -= entries.take(entry)
            entry = entries.after[0]
            continue
        if not stack:
            return Finding.ILLEGAL
        entry, state, taken, choices = stack.pop()
        index = entries.operation[entry]
        following = _untried(choices, taken | 1 << index, tried)
        if following is not None:
            stack.append((entry, state, taken, choices))
            state, taken = following, taken | 1 << index
            entry = entries.after[0]
        else:
            unanswered += entries.put_back(entry)
            entry = entries.after[entry]
    return Finding.LEGAL


def _untried(choices: Iterator[StateT], taken: int, tried: set[tuple[int, StateT]]) -> StateT | None:
    for state in choices:
        if (taken, state) not in tried:
            tried.add((taken, state))
            return state
    return None


# --- windows of a long history ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """Operations after a moment of rest, and what a read of everything showed then."""

    start: float
    shown: RangeAnswer
    operations: list[Operation]


@dataclass(slots=True)
class WindowReport:
    windows: int = 0
    operations: int = 0
    undecided: int = 0
    illegal: list[Window] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.illegal


def check_windows(
    operations: Sequence[Operation],
    events: Iterable[Event],
    applied: Mapping[int, int],
    everything: Range,
    size: int = WINDOW_OPERATIONS,
) -> WindowReport:
    """Search all windows. `applied`: the revisions of deletions whose outcome their clients do not
    know (`Verdict.applied`); they leave no value by which they could be found here."""
    report = WindowReport()
    settled = settle(operations, events, applied)
    for window in windows(settled, everything, size):
        report.windows += 1
        report.operations += len(window.operations)
        finding = search(PlainModel(window.shown, window.operations), window.operations)
        if finding is Finding.UNDECIDED:
            report.undecided += 1
        elif finding is Finding.ILLEGAL:
            report.illegal.append(window)
    return report


def settle(
    operations: Sequence[Operation], events: Iterable[Event], applied: Mapping[int, int]
) -> list[Operation]:
    """What the search can use, by call. A write of unknown outcome had returned, for all that matters,
    when its event was delivered; without an event it was not executed, and is left out."""
    unknown = [index for index, operation in enumerate(operations) if operation.outcome is Outcome.UNKNOWN]
    by_value = {value: index for index in unknown for value in put_values(operations[index].request)}
    by_revision = {applied[index]: index for index in unknown if index in applied}
    delivered: dict[int, float] = {}
    for event in events:
        index = by_revision.get(event.revision, -1)
        if index < 0 and event.value is not None:
            index = by_value.get(event.value, -1)
        if index >= 0:
            delivered[index] = event.received
    settled: list[Operation] = []
    for index, operation in enumerate(operations):
        if operation.outcome is Outcome.UNKNOWN:
            if index in delivered:
                settled.append(msgspec.structs.replace(operation, returned=delivered[index]))
        elif operation.outcome is Outcome.OK and _is_of_the_present(operation):
            settled.append(operation)
    settled.sort(key=attrgetter("call"))
    return settled


def _is_of_the_present(operation: Operation) -> bool:
    request = operation.request
    if isinstance(request, Compact) or is_serializable(request):
        return False
    return not (isinstance(request, Range) and request.revision)


def windows(settled: Sequence[Operation], everything: Range, size: int) -> Iterator[Window]:
    """From each read of everything during which nothing else was under way."""
    latest_return = -inf
    for place, operation in enumerate(settled):
        if operation.request == everything and isinstance(operation.answer, RangeAnswer):
            following = settled[place + 1].call if place + 1 < len(settled) else inf
            if latest_return < operation.call and operation.returned < following:
                chosen = settled[place + 1 : place + 1 + size]
                if chosen:
                    yield Window(operation.returned, operation.answer, _cut(chosen))
        latest_return = max(latest_return, operation.returned)


def _cut(chosen: Sequence[Operation]) -> list[Operation]:
    """A history that ends with the last call: what returned later has no answer yet."""
    end = chosen[-1].call
    return [
        operation
        if operation.outcome is Outcome.OK and operation.returned <= end
        else msgspec.structs.replace(operation, outcome=Outcome.UNKNOWN)
        for operation in chosen
    ]
