"""The exact check: each kind of violation by name, right histories pass, and brute force agrees."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.consistency.history import (
    Answer,
    Compact,
    CompactAnswer,
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
from tests.consistency.random_histories import Defect, RevisionModel, Simulation, with_final_reads
from tests.consistency.revision_checker import check_revisions
from tests.consistency.search_checker import Finding, search
from tests.consistency.verdict import Kind, Verdict

SEEDS = 300


def did(
    call: float, returned: float, request: Request, revision: int, answer: Answer | None = None
) -> Operation:
    if answer is None:
        answer = PutAnswer()
    return Operation(0, call, returned, Outcome.OK, request, revision, answer)


def lost(call: float, request: Request) -> Operation:
    """Its answer never came."""
    return Operation(0, call, call + 1, Outcome.UNKNOWN, request)


def refused(call: float, returned: float, request: Request, why: Refusal = Refusal.OTHER) -> Operation:
    return Operation(0, call, returned, Outcome.REFUSED, request, 0, why)


def seen(*pairs: Pair) -> RangeAnswer:
    return RangeAnswer(pairs, len(pairs))


def put_event(revision: int, key: bytes, value: bytes, created: int = 0, version: int = 1) -> Event:
    return Event(revision, key, value, created or revision, version)


A1: Pair = (b"a", b"1", 2, 2, 1)
A2: Pair = (b"a", b"2", 2, 3, 2)
TWO_PUTS = [put_event(2, b"a", b"1"), put_event(3, b"a", b"2", 2, 2)]
FIRST = did(0, 1, Put(b"a", b"1"), 2)
SECOND = did(2, 3, Put(b"a", b"2"), 3)
BOTH = Txn((), (Put(b"a", b"1"), Put(b"b", b"2")))
BOTH_ANSWERS = TxnAnswer(True, (PutAnswer(), PutAnswer()))
IF_FIRST = Compare(b"a", Target.VALUE, Relation.EQUAL, b"1")


def kinds(operations: Sequence[Operation], events: Sequence[Event]) -> set[Kind]:
    return check_revisions(operations, events).kinds


def assert_right(operations: Sequence[Operation], events: Sequence[Event]) -> Verdict:
    verdict = check_revisions(operations, events)
    assert verdict.ok, verdict.describe()
    return verdict


def test_overlapping_reads_may_show_either_state() -> None:
    assert_right([FIRST, SECOND, did(2.5, 9, Range(b"a"), 2, seen(A1))], TWO_PUTS)
    assert_right([FIRST, SECOND, did(2.5, 2.6, Range(b"a"), 3, seen(A2))], TWO_PUTS)


def test_equal_times_count_as_concurrent() -> None:
    assert_right([FIRST, SECOND, did(3, 4, Range(b"a"), 2, seen(A1))], TWO_PUTS)


def test_a_read_that_says_an_older_revision_is_stale() -> None:
    assert kinds([FIRST, SECOND, did(4, 5, Range(b"a"), 2, seen(A1))], TWO_PUTS) == {Kind.STALE_READ}


def test_a_read_that_shows_an_older_state_is_stale() -> None:
    assert kinds([FIRST, SECOND, did(4, 5, Range(b"a"), 3, seen(A1))], TWO_PUTS) == {Kind.STALE_READ}


def test_a_read_must_not_show_what_was_written_after_it_returned() -> None:
    assert kinds([FIRST, SECOND, did(1.2, 1.5, Range(b"a"), 3, seen(A2))], TWO_PUTS) == {Kind.FUTURE_READ}


def test_a_read_must_not_show_what_never_was() -> None:
    ghost: Pair = (b"a", b"9", 2, 3, 2)
    assert kinds([FIRST, SECOND, did(4, 5, Range(b"a"), 3, seen(ghost))], TWO_PUTS) == {Kind.PHANTOM_READ}


def test_a_read_must_not_mix_states() -> None:
    events = [put_event(2, b"a", b"1"), put_event(3, b"a", b"2", 2, 2), put_event(4, b"b", b"3")]
    mixed = did(6, 7, Range(b"a", b"\0"), 4, seen(A1, (b"b", b"3", 4, 4, 1)))
    assert kinds([FIRST, SECOND, did(4, 5, Put(b"b", b"3"), 4), mixed], events) == {Kind.TORN_READ}


def test_count_limit_and_more_are_checked() -> None:
    events = [put_event(2, b"a", b"1"), put_event(2, b"b", b"2")]
    write = did(0, 1, BOTH, 2, BOTH_ANSWERS)
    assert_right([write, did(2, 3, Range(b"a", b"c", limit=1), 2, RangeAnswer((A1,), 2, True))], events)
    assert_right([write, did(2, 3, Range(b"a", b"\0", count_only=True), 2, RangeAnswer((), 2))], events)
    wrong = did(2, 3, Range(b"a", b"c", limit=1), 2, RangeAnswer((A1,), 1, False))
    assert kinds([write, wrong], events) == {Kind.TORN_READ}


def test_a_read_of_the_past_shows_the_past() -> None:
    assert_right([FIRST, SECOND, did(4, 5, Range(b"a", revision=2), 3, seen(A1))], TWO_PUTS)
    assert kinds([FIRST, SECOND, did(4, 5, Range(b"a", revision=2), 3, seen(A2))], TWO_PUTS)


def test_an_acknowledged_write_that_is_not_there_is_lost() -> None:
    assert kinds([FIRST, SECOND], TWO_PUTS[:1]) == {Kind.LOST_WRITE}


def test_two_writes_cannot_have_made_one_revision() -> None:
    other = did(0, 1, Put(b"b", b"9"), 2)
    assert kinds([FIRST, other], TWO_PUTS[:1]) == {Kind.LOST_UPDATE}


def test_two_swaps_from_one_value_cannot_both_succeed() -> None:
    def swap(call: float, value: bytes, revision: int) -> Operation:
        request = Txn((IF_FIRST,), (Put(b"a", value),))
        return did(call, call + 9, request, revision, TxnAnswer(True, (PutAnswer(),)))

    events = [put_event(2, b"a", b"1"), put_event(3, b"a", b"2", 2, 2), put_event(4, b"a", b"3", 2, 3)]
    assert kinds([FIRST, swap(2, b"2", 3), swap(2, b"3", 4)], events) == {Kind.LOST_UPDATE}


def test_a_write_that_took_effect_twice_is_named() -> None:
    again = [put_event(2, b"a", b"1"), put_event(3, b"a", b"1", 2, 2)]
    assert kinds([FIRST], again) == {Kind.DOUBLE_APPLY}
    assert kinds([lost(0, Put(b"a", b"1"))], again) == {Kind.DOUBLE_APPLY}


def test_a_change_that_nobody_asked_for_is_a_phantom() -> None:
    assert kinds([FIRST], [*TWO_PUTS]) == {Kind.PHANTOM_WRITE}
    assert kinds([FIRST], [TWO_PUTS[0], Event(3, b"a", None)]) == {Kind.PHANTOM_WRITE}


def test_a_refused_write_must_not_take_effect() -> None:
    assert kinds([FIRST, refused(2, 3, Put(b"a", b"2"))], TWO_PUTS) == {Kind.PHANTOM_WRITE}


@pytest.mark.parametrize(
    "events",
    [
        [put_event(2, b"a", b"1")],
        [put_event(2, b"a", b"1"), put_event(3, b"b", b"2")],
    ],
    ids=["a part is missing", "a part comes later"],
)
def test_a_torn_transaction_is_named(events: list[Event]) -> None:
    assert Kind.TORN_TRANSACTION in kinds([did(0, 1, BOTH, 2, BOTH_ANSWERS)], events)


def test_writes_must_not_be_in_another_order_than_real_time() -> None:
    late, early = did(0, 1, Put(b"a", b"2"), 3), did(2, 3, Put(b"a", b"1"), 2)
    assert kinds([late, early], TWO_PUTS) == {Kind.REORDERED_WRITES}


def test_a_write_in_another_revision_than_told_is_reordered() -> None:
    events = [put_event(2, b"b", b"7"), put_event(3, b"a", b"1")]
    told_too_early = did(0, 1, Put(b"a", b"1"), 2)
    assert Kind.REORDERED_WRITES in kinds([told_too_early, lost(0, Put(b"b", b"7"))], events)


def test_versions_and_create_revisions_must_follow() -> None:
    assert kinds([FIRST, SECOND], [TWO_PUTS[0], put_event(3, b"a", b"2", 3, 1)]) == {Kind.WRONG_EVENT}


def test_a_stream_with_a_hole_proves_nothing() -> None:
    assert kinds([FIRST], [put_event(2, b"a", b"1"), put_event(4, b"a", b"2", 2, 2)]) == {Kind.GAP}


def test_previous_pairs_are_checked() -> None:
    put = Put(b"a", b"2", prev_kv=True)
    assert_right([FIRST, did(2, 3, put, 3, PutAnswer(A1))], TWO_PUTS)
    assert kinds([FIRST, did(2, 3, put, 3, PutAnswer())], TWO_PUTS) == {Kind.WRONG_ANSWER}


# --- unknown outcomes ---------------------------------------------------------------------------


def test_an_unanswered_write_may_have_been_done_or_not() -> None:
    assert assert_right([FIRST, lost(2, Put(b"a", b"2"))], TWO_PUTS).applied == {1: 3}
    assert assert_right([FIRST, lost(2, Put(b"a", b"2"))], TWO_PUTS[:1]).applied == {}


def test_an_unanswered_write_may_be_done_long_after_its_client_gave_up() -> None:
    late = lost(0, Put(b"a", b"2"))
    read = did(50, 51, Range(b"a"), 2, seen(A1))
    assert_right([did(5, 6, Put(b"a", b"1"), 2), late, read], TWO_PUTS)


def test_an_unanswered_write_must_not_be_done_before_it_was_called() -> None:
    read = did(2, 3, Range(b"a"), 3, seen(A2))
    assert kinds([FIRST, read, lost(4, Put(b"a", b"2"))], TWO_PUTS) == {Kind.FUTURE_READ}


def test_unanswered_deletes_are_found_without_a_value() -> None:
    events = [put_event(2, b"a", b"1"), Event(3, b"a", None), put_event(4, b"a", b"2"), Event(5, b"a", None)]
    again = did(4, 5, Put(b"a", b"2"), 4)
    one, other = lost(2, Delete(b"a")), lost(2, Delete(b"a", b"\0"))
    assert assert_right([FIRST, again, one, other], events).counts["unknown_applied"] == 2
    assert kinds([FIRST, again, one], events) == {Kind.PHANTOM_WRITE}


def test_unanswered_deletes_are_given_to_those_who_were_called_in_time() -> None:
    """Of two, only the first may have done what a read saw before the second was called; the search for
    who did what must not give it away to the later revision."""
    events = [put_event(2, b"a", b"1"), Event(3, b"a", None), put_event(4, b"a", b"2"), Event(5, b"a", None)]
    again, saw_none = did(5, 6, Put(b"a", b"2"), 4), did(3, 4, Range(b"a"), 3, seen())
    early, late = lost(2, Delete(b"a")), lost(7, Delete(b"a"))
    assert_right([late, early, FIRST, again, saw_none], events)
    assert kinds([late, lost(7, Delete(b"a")), FIRST, again, saw_none], events) == {Kind.PHANTOM_WRITE}


def test_of_several_unanswered_deletes_the_latest_that_was_in_time_is_taken() -> None:
    events = [put_event(2, b"a", b"1"), Event(3, b"a", None, received=6.0)]
    old, new, too_late = lost(2, Delete(b"a")), lost(5, Delete(b"a")), lost(7, Delete(b"a"))
    assert assert_right([FIRST, old, new, too_late], events).applied == {2: 3}


# --- serializable reads, compaction -------------------------------------------------------------


def stale(call: float, returned: float, revision: int, answer: RangeAnswer, source: int = 0) -> Operation:
    request = Range(b"a", serializable=True)
    return Operation(1, call, returned, Outcome.OK, request, revision, answer, source)


def test_a_serializable_read_may_be_stale_but_not_wrong() -> None:
    assert_right([FIRST, SECOND, stale(8, 9, 2, seen(A1))], TWO_PUTS)
    assert kinds([FIRST, SECOND, stale(8, 9, 2, seen(A2))], TWO_PUTS) == {Kind.FUTURE_READ}
    assert kinds([FIRST, SECOND, stale(1.2, 1.4, 3, seen(A2))], TWO_PUTS) == {Kind.FUTURE_READ}


def test_one_member_never_goes_back_in_time() -> None:
    reads = [stale(8, 9, 3, seen(A2), 5), stale(10, 11, 2, seen(A1), 5)]
    assert kinds([FIRST, SECOND, *reads], TWO_PUTS) == {Kind.BACKWARD_READ}
    others = [stale(8, 9, 3, seen(A2), 5), stale(10, 11, 2, seen(A1), 6)]
    assert_right([FIRST, SECOND, *others], TWO_PUTS)


def test_what_is_compacted_is_refused_and_nothing_else() -> None:
    compacted = did(4, 5, Compact(3), 3, CompactAnswer())
    past = Range(b"a", revision=2)
    assert_right([FIRST, SECOND, compacted, refused(6, 7, past, Refusal.COMPACTED)], TWO_PUTS)
    read = did(6, 7, past, 3, seen(A1))
    assert kinds([FIRST, SECOND, compacted, read], TWO_PUTS) == {Kind.WRONG_REFUSAL}
    early = refused(2, 3, past, Refusal.COMPACTED)
    assert kinds([FIRST, SECOND, compacted, early], TWO_PUTS) == {Kind.WRONG_REFUSAL}


def test_a_revision_that_somebody_saw_is_not_in_the_future() -> None:
    too_far = Range(b"a", revision=3)
    assert_right([FIRST, SECOND, refused(1.2, 9, too_far, Refusal.FUTURE_REVISION)], TWO_PUTS)
    late = refused(4, 5, too_far, Refusal.FUTURE_REVISION)
    assert kinds([FIRST, SECOND, late], TWO_PUTS) == {Kind.WRONG_REFUSAL}


# --- brute force --------------------------------------------------------------------------------


def test_deletes_and_their_counts_are_checked() -> None:
    events = [put_event(2, b"a", b"1"), Event(3, b"a", None)]
    assert_right([FIRST, did(2, 3, Delete(b"a", prev_kv=True), 3, DeleteAnswer(1, (A1,)))], events)
    assert kinds([FIRST, did(2, 3, Delete(b"a"), 3, DeleteAnswer(2))], events) == {Kind.WRONG_ANSWER}
    nothing = did(4, 5, Delete(b"a"), 2, DeleteAnswer(0))
    assert kinds([FIRST, nothing], events[:1]) == {Kind.LOST_UPDATE}


@pytest.mark.parametrize("defect", list(Defect), ids=lambda defect: defect.name.lower())
def test_brute_force_agrees_on_every_random_history(defect: Defect) -> None:
    """The search with a model that knows revisions decides by the definition."""
    wrong = 0
    for seed in range(SEEDS):
        recorded = Simulation(seed, defect).run(10)
        verdict = check_revisions(recorded.operations, recorded.events)
        finding = search(RevisionModel(), with_final_reads(recorded))
        assert finding is not Finding.UNDECIDED
        assert verdict.ok == (finding is Finding.LEGAL), f"seed {seed}: {finding}\n{verdict.describe()}"
        wrong += not verdict.ok
    assert wrong == 0 if defect is Defect.NONE else wrong >= SEEDS // 30


EXPECTED = {
    Defect.STALE_READ: {Kind.STALE_READ},
    Defect.STALE_CONTENT: {Kind.STALE_READ},
    Defect.LOST_WRITE: {Kind.LOST_WRITE, Kind.LOST_UPDATE},
    Defect.DOUBLE_APPLY: {Kind.DOUBLE_APPLY},
    Defect.EARLY_ACKNOWLEDGEMENT: {Kind.REORDERED_WRITES},
    Defect.PHANTOM: {Kind.PHANTOM_WRITE},
    Defect.TORN: {Kind.TORN_TRANSACTION},
    Defect.HALF: {Kind.TORN_TRANSACTION},
    Defect.OLD_COMPARE: {Kind.LOST_UPDATE},
}


@pytest.mark.parametrize("defect", list(EXPECTED), ids=lambda defect: defect.name.lower())
def test_a_broken_store_is_caught_by_name(defect: Defect) -> None:
    named: set[Kind] = set()
    for seed in range(SEEDS):
        recorded = Simulation(seed, defect).run(30)
        named |= check_revisions(recorded.operations, recorded.events).kinds
    assert EXPECTED[defect] <= named
