"""The members' side: newest events in memory, and the past from the tables."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from etcray.node.event_ring import EventRing
from etcray_storage.mvcc.rows import Change


def entry(first: int, revisions: int, changes_each: int = 1, size: int = 10) -> list[Change]:
    return [
        Change(main, b"key%d" % n, b"p" * size, b"")
        for main in range(first, first + revisions)
        for n in range(changes_each)
    ]


def mains(changes: list[Change]) -> list[int]:
    return [change.main for change in changes]


def test_poll_behind_the_floor_is_told_that_it_missed_something() -> None:
    ring = EventRing(10, 4)
    ring.append(entry(11, 2), 12, 5)
    found = ring.wait_for(9, 1000, 0.0)
    assert found is not None
    assert (found.revision, found.compact_revision, found.missed, found.changes) == (12, 5, True, [])


def test_poll_of_a_member_that_lags_behind_is_refused() -> None:
    assert EventRing(10, -1).wait_for(11, 1000, 0.0) is None


def test_poll_without_news_answers_empty_at_the_same_position() -> None:
    found = EventRing(10, -1).wait_for(10, 1000, 0.01)
    assert found is not None
    assert (found.revision, found.missed, found.changes) == (10, False, [])


def test_waiting_poll_is_woken_by_an_event_and_by_the_end() -> None:
    ring = EventRing(1, -1)
    answers: list[object] = []
    acts: list[Callable[[], None]] = [lambda: ring.append(entry(2, 1), 2, -1), ring.close]
    for act in acts:
        waiter = threading.Thread(target=lambda: answers.append(ring.wait_for(len(answers) + 1, 1000, 30.0)))
        waiter.start()
        act()
        waiter.join(10)
        assert not waiter.is_alive()
    assert answers[0] == (2, -1, False, entry(2, 1))
    assert answers[1] is None


def test_a_revision_is_never_cut_however_large_it_is() -> None:
    ring = EventRing(1, -1)
    ring.append(entry(2, 3, changes_each=5, size=1000), 4, -1)
    found = ring.wait_for(1, 1, 0.0)
    assert found is not None
    assert (found.revision, mains(found.changes)) == (2, [2] * 5)


def test_installed_snapshot_leaves_nothing_from_before() -> None:
    ring = EventRing(1, -1)
    ring.append(entry(2, 3), 4, -1)
    ring.reset(50, 40)
    found = ring.wait_for(4, 1000, 0.0)
    assert found is not None
    assert (found.revision, found.compact_revision, found.missed) == (50, 40, True)
    ring.append(entry(51, 1), 51, 40)
    found = ring.wait_for(50, 1000, 0.0)
    assert found is not None
    assert mains(found.changes) == [51]


def test_old_events_are_dropped_at_either_bound() -> None:
    by_revisions = EventRing(1, -1, revisions_max=10)
    by_bytes = EventRing(1, -1, bytes_max=10_000)
    for first in range(2, 202, 2):
        for ring in (by_revisions, by_bytes):
            ring.append(entry(first, 2, size=500), first + 1, -1)
    assert by_revisions._floor == 201 - 10
    assert by_bytes._bytes <= 10_000
    assert by_bytes._floor > 180


@given(
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), max_size=30),
    after=st.integers(1, 100),
    bytes_max=st.integers(1, 3000),
    revisions_max=st.integers(1, 60),
)
def test_polls_in_turn_bring_everything_above_the_floor_once(
    sizes: list[tuple[int, int]], after: int, bytes_max: int, revisions_max: int
) -> None:
    ring = EventRing(1, -1, revisions_max=revisions_max)
    truth: list[Change] = []
    revision = 1
    for revisions, changes_each in sizes:
        changes = entry(revision + 1, revisions, changes_each)
        revision += revisions
        ring.append(changes, revision, -1)
        truth += changes
    position = after
    came: list[Change] = []
    while True:
        found = ring.wait_for(position, bytes_max, 0.0)
        if after > revision:
            assert found is None
            return
        assert found is not None
        if found.missed:
            assert position == after < ring._floor
            return
        came += found.changes
        if found.revision == position:
            break
        position = found.revision
    assert came == [change for change in truth if change.main > after]
    assert position == revision
