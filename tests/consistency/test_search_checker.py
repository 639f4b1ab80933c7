"""The search without revisions: what it catches, what it cannot see, and windows of long histories."""

from __future__ import annotations

import msgspec
import pytest

from tests.consistency.history import (
    Answer,
    Compare,
    Event,
    Operation,
    Outcome,
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
)
from tests.consistency.mix import EVERYTHING
from tests.consistency.plain_model import PlainModel
from tests.consistency.random_histories import Defect, Simulation
from tests.consistency.revision_checker import check_revisions
from tests.consistency.search_checker import Finding, check_windows, search, settle, windows

SEEDS = 300
NOTHING = RangeAnswer((), 0)


def did(call: float, returned: float, request: Request, answer: Answer | None = None) -> Operation:
    return Operation(0, call, returned, Outcome.OK, request, 0, answer or PutAnswer())


def seen(*values: tuple[bytes, bytes]) -> RangeAnswer:
    """What is known to be there, each put once. Revisions are nonsense on purpose."""
    return RangeAnswer(tuple((key, value, 99, 98, 1) for key, value in values), len(values))


def finding(*operations: Operation) -> Finding:
    return search(PlainModel(NOTHING, operations), operations)


PUT = did(0, 1, Put(b"a", b"1"))
BOTH = Txn((), (Put(b"a", b"1"), Put(b"b", b"2")))
BOTH_ANSWERS = TxnAnswer(True, (PutAnswer(), PutAnswer()))


def test_a_read_may_overlap_a_write() -> None:
    assert finding(PUT, did(0.5, 2, Range(b"a"), NOTHING)) is Finding.LEGAL
    assert finding(PUT, did(0.5, 2, Range(b"a"), seen((b"a", b"1")))) is Finding.LEGAL


def test_a_stale_read_is_caught() -> None:
    assert finding(PUT, did(2, 3, Range(b"a"), NOTHING)) is Finding.ILLEGAL


def test_a_lost_update_is_caught() -> None:
    def swap(value: bytes) -> Operation:
        compare = Compare(b"a", Target.VALUE, Relation.EQUAL, b"1")
        return did(2, 9, Txn((compare,), (Put(b"a", value),)), TxnAnswer(True, (PutAnswer(),)))

    assert finding(PUT, swap(b"2")) is Finding.LEGAL
    assert finding(PUT, swap(b"2"), swap(b"3")) is Finding.ILLEGAL


def test_a_double_apply_is_caught_by_the_version() -> None:
    twice = RangeAnswer(((b"a", b"1", 0, 0, 2),), 1)
    assert finding(PUT, did(2, 3, Range(b"a"), twice)) is Finding.ILLEGAL


def test_a_phantom_is_caught() -> None:
    assert finding(PUT, did(2, 3, Range(b"b"), seen((b"b", b"7")))) is Finding.ILLEGAL


def test_reordered_writes_are_caught() -> None:
    later = did(2, 3, Put(b"b", b"2"))
    only_later = did(0, 9, Range(b"a", b"\0"), seen((b"b", b"2")))
    assert finding(PUT, later, only_later) is Finding.ILLEGAL


def test_a_torn_transaction_is_caught() -> None:
    half = did(0, 9, Range(b"a", b"\0"), seen((b"a", b"1")))
    assert finding(did(0, 1, BOTH, BOTH_ANSWERS), half) is Finding.ILLEGAL


def test_an_unanswered_write_is_done_or_not_but_not_undone() -> None:
    unknown = Operation(1, 0, 1, Outcome.UNKNOWN, Put(b"a", b"1"))
    there, gone = did(2, 3, Range(b"a"), seen((b"a", b"1"))), did(4, 5, Range(b"a"), NOTHING)
    assert finding(unknown, there) is Finding.LEGAL
    assert finding(unknown, gone) is Finding.LEGAL
    assert finding(unknown, there, gone) is Finding.ILLEGAL


def test_a_search_that_takes_too_long_says_so() -> None:
    puts = [did(0, 100, Put(b"a", b"%d" % number)) for number in range(9)]
    never = did(101, 102, Range(b"a"), seen((b"a", b"7")))
    assert search(PlainModel(NOTHING, [*puts, never]), [*puts, never], 50) is Finding.UNDECIDED
    assert finding(*puts, never) is Finding.ILLEGAL


@pytest.mark.parametrize("defect", list(Defect), ids=lambda defect: defect.name.lower())
def test_what_the_search_refuses_the_exact_check_refuses_too(defect: Defect) -> None:
    """The other way round need not hold: the search does not see what only revisions show."""
    illegal = 0
    for seed in range(SEEDS):
        recorded = Simulation(seed, defect, clients=4).run(14)
        verdict = check_revisions(recorded.operations, recorded.events)
        operations = settle(recorded.operations, recorded.events, verdict.applied)
        found = search(PlainModel(NOTHING, operations), operations)
        assert found is not Finding.UNDECIDED
        if found is Finding.ILLEGAL:
            assert not verdict.ok, f"seed {seed}"
            illegal += 1
    if defect is Defect.NONE:
        assert illegal == 0
    elif defect is not Defect.TORN:  # Nobody can see a moment between two parts that no read hits.
        assert illegal > 0


def test_a_window_begins_where_one_read_of_everything_was_alone() -> None:
    pair: Pair = (b"a", b"1", 2, 2, 1)
    shown = RangeAnswer((pair,), 1)
    operations = [
        PUT,
        did(2, 3, EVERYTHING, shown),
        did(4, 5, Put(b"b", b"2")),
        did(4.5, 5.5, EVERYTHING, shown),
        did(6, 7, Put(b"c", b"3")),
    ]
    found = list(windows(operations, EVERYTHING, 2))
    assert [(window.start, len(window.operations)) for window in found] == [(3, 2)]
    assert found[0].operations[0].outcome is Outcome.OK or found[0].operations[0].returned > 4.5
    assert [operation.outcome for operation in found[0].operations] == [Outcome.UNKNOWN, Outcome.UNKNOWN]


def test_a_violation_in_a_window_is_found_and_in_its_right_twin_is_not() -> None:
    operations = [PUT, did(2, 3, EVERYTHING, seen((b"a", b"1"))), did(4, 5, Range(b"a"), seen((b"a", b"1")))]
    operations.append(did(6, 7, Range(b"b"), NOTHING))
    assert check_windows(operations, [], {}, EVERYTHING).ok
    operations[2] = msgspec.structs.replace(operations[2], answer=NOTHING)
    report = check_windows(operations, [], {}, EVERYTHING)
    assert [window.start for window in report.illegal] == [3]


def test_an_unanswered_write_ends_when_its_event_comes_and_is_nothing_without_one() -> None:
    done, never = (Operation(1, 0, 1, Outcome.UNKNOWN, Put(b"a", value)) for value in (b"1", b"2"))
    settled = settle([done, never], [Event(2, b"a", b"1", 2, 1, 0.7)], {})
    assert [(operation.request, operation.returned) for operation in settled] == [(Put(b"a", b"1"), 0.7)]
