"""The leader's deadlines, with a clock of the test's own, over any number of leaders."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcray.node.lessor import LeaseAtStart, Lessor, checkpoint_interval_seconds
from etcray_storage.limits import (
    LEASE_CHECKPOINT_SECONDS_MAX,
    LEASE_EXPIRY_RETRY_SECONDS,
    LEASE_ROUND_SECONDS,
)

EXTEND_SECONDS = 0.6


def test_a_lease_ends_after_its_ttl_and_not_before() -> None:
    lessor = Lessor()
    lessor.granted(7, 10, now=100.0)
    assert lessor.expired(109.99, 10) == []
    assert lessor.remaining_seconds(7, 109.5) == 0.5
    assert lessor.expired(110.0, 10) == [7]


def test_a_renewal_begins_the_ttl_anew() -> None:
    lessor = Lessor()
    lessor.granted(7, 10, now=100.0)
    assert lessor.renew(7, 109.0) == 10
    assert lessor.expired(118.9, 10) == []
    assert lessor.expired(119.0, 10) == [7]


def test_a_lease_whose_time_is_over_cannot_be_renewed_even_before_its_end_is_applied() -> None:
    lessor = Lessor()
    lessor.granted(7, 10, now=100.0)
    assert lessor.renew(7, 110.0) == 0
    assert lessor.expired(110.0, 10) == [7]
    assert lessor.renew(7, 110.1) == 0
    assert lessor.remaining_seconds(7, 110.1) == 0.0
    lessor.revoked(7)
    assert lessor.renew(7, 110.2) == 0
    assert lessor.remaining_seconds(7, 110.2) is None


def test_an_end_that_is_not_applied_is_proposed_again() -> None:
    lessor = Lessor()
    lessor.granted(7, 10, now=0.0)
    assert lessor.expired(10.0, 10) == [7]
    assert lessor.expired(9.9 + LEASE_EXPIRY_RETRY_SECONDS, 10) == []
    assert lessor.expired(10.0 + LEASE_EXPIRY_RETRY_SECONDS, 10) == [7]


def test_ends_come_in_bounded_pieces_the_longest_overdue_first() -> None:
    lessor = Lessor()
    for lease in range(1, 2501):
        lessor.granted(lease, 10, now=lease / 1000)
    assert [len(lessor.expired(20.0, 1000)) for _ in range(4)] == [1000, 1000, 500, 0]
    assert lessor.expired(20.0 + LEASE_EXPIRY_RETRY_SECONDS, 3) == [1, 2, 3]


def test_leases_with_many_keys_end_in_smaller_pieces_but_never_in_none() -> None:
    lessor = Lessor()
    for lease in range(1, 6):
        lessor.granted(lease, 10, now=lease / 1000)
    keys = {1: 5000, 2: 400, 3: 600, 4: 1, 5: 5000}
    pieces = [lessor.expired(20.0, 1000, keys.__getitem__, 1000) for _ in range(5)]
    assert pieces == [[1], [2, 3], [4], [5], []]


def test_a_revoked_lease_that_is_granted_again_has_only_its_new_deadline() -> None:
    lessor = Lessor()
    lessor.granted(7, 10, now=0.0)
    lessor.granted(7, 10, now=5.0)
    assert lessor.expired(10.0, 10) == []
    assert lessor.expired(15.0, 10) == [7]


def test_leases_that_are_gone_leave_nothing_behind() -> None:
    lessor = Lessor()
    for lease in range(1, 20_001):
        lessor.granted(lease, 1_000_000, now=0.0)
        lessor.revoked(lease)
    assert len(lessor) == 0
    assert len(lessor._deadlines) + len(lessor._checkpoints) < 1000


def test_a_client_that_renews_every_third_of_the_ttl_never_causes_a_checkpoint() -> None:
    lessor = Lessor()
    lessor.granted(7, 12, now=0.0)
    for step in range(1, 400):
        now = step * LEASE_ROUND_SECONDS
        assert lessor.checkpoints_due(now, 10) == []
        if step % 16 == 0:
            assert lessor.renew(7, now) == 12


def test_a_long_lease_is_recorded_every_five_minutes() -> None:
    lessor = Lessor()
    lessor.granted(7, 86_400, now=0.0)
    recorded = [now for now in range(3_601) if lessor.checkpoints_due(float(now), 10)]
    assert recorded == list(range(300, 3_601, int(LEASE_CHECKPOINT_SECONDS_MAX)))


def test_what_is_recorded_is_what_was_promised_without_the_new_leaders_extension() -> None:
    lessor = Lessor()
    lessor.promote([LeaseAtStart(7, 16, 16_000)], 100.0, EXTEND_SECONDS)
    assert lessor.checkpoints_due(101.9, 10) == []
    assert lessor.checkpoints_due(102.0, 10) == [(7, 14_001)]
    assert lessor.expired(116.5, 10) == []
    assert lessor.expired(100.0 + 16 + EXTEND_SECONDS, 10) == [7]


def test_a_lowered_lease_stays_lowered_until_the_newest_checkpoint_is_made_up_for() -> None:
    lessor = Lessor()
    lessor.promote([LeaseAtStart(7, 16, 5_000)], 0.0, EXTEND_SECONDS)
    first = lessor.lowered(7)
    assert first != 0
    assert lessor.checkpoints_due(2.0, 10) == [(7, 3_001)]
    lessor.raised(7, first)
    second = lessor.lowered(7)
    assert second not in (0, first)
    lessor.raised(7, second)
    assert lessor.lowered(7) == 0


def test_a_new_leadership_knows_only_what_it_was_told() -> None:
    lessor = Lessor()
    lessor.granted(7, 10, now=0.0)
    lessor.promote([LeaseAtStart(8, 10, 10_000)], 5.0, EXTEND_SECONDS)
    assert (lessor.renew(7, 5.0), lessor.renew(8, 5.0)) == (0, 10)
    lessor.demote()
    assert lessor.renew(8, 5.0) == 0
    assert lessor.expired(100.0, 10) == []
    assert lessor.checkpoints_due(100.0, 10) == []


# --- over leader changes ------------------------------------------------------------------------


@dataclass
class Told:
    """What clients were promised about a lease, and what the docstring promises about its end."""

    ttl_seconds: int
    until: float
    """It must live until then."""
    renewed_at: float
    changes: int = 0
    """Leader changes since."""
    leaderless_seconds: float = 0.0

    def ends_by(self) -> float:
        bound = self.renewed_at + self.ttl_seconds + EXTEND_SECONDS + LEASE_ROUND_SECONDS
        if self.changes:
            interval = checkpoint_interval_seconds(self.ttl_seconds)
            bound += min(self.ttl_seconds / 2, LEASE_CHECKPOINT_SECONDS_MAX) + self.leaderless_seconds
            bound += self.changes * (interval + LEASE_ROUND_SECONDS + 0.001)
        return bound + 0.001


@dataclass
class Cluster:
    """A log that agrees on (TTL, remaining) of each lease, and whoever leads."""

    now: float = 1000.0
    lessor: Lessor = field(default_factory=Lessor)
    log: dict[int, tuple[int, int]] = field(default_factory=dict)
    told: dict[int, Told] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)

    def grant(self, lease: int, ttl_seconds: int) -> None:
        if lease not in self.log:
            self.log[lease] = (ttl_seconds, ttl_seconds * 1000)
            self.lessor.granted(lease, ttl_seconds, self.now)
            self.told[lease] = Told(ttl_seconds, self.now + ttl_seconds, self.now)

    def renew(self, lease: int, dies_before_commit: bool = False) -> None:
        ttl_seconds = self.lessor.renew(lease, self.now)
        if not ttl_seconds:
            assert lease not in self.log or self.now >= self.told[lease].until
            return
        assert ttl_seconds == self.log[lease][0]
        number = self.lessor.lowered(lease)
        if number:
            if dies_before_commit:
                # Nobody was told; the lease may live on as if this had counted, until the next leader.
                self.told[lease].renewed_at = self.now
                self.change_leader(0.0)
                return
            self.log[lease] = (ttl_seconds, ttl_seconds * 1000)
            self.lessor.raised(lease, number)
        self.told[lease] = Told(ttl_seconds, self.now + ttl_seconds, self.now)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + LEASE_ROUND_SECONDS)
            self.do_round()

    def do_round(self, dies_before_commit: bool = False) -> None:
        ended = self.lessor.expired(self.now, 100)
        due = self.lessor.checkpoints_due(self.now, 100)
        if dies_before_commit:
            self.change_leader(0.0)
            return
        for lease in ended:
            told = self.told.pop(lease)
            assert self.now >= told.until, f"lease {lease} ended {told.until - self.now} s early"
            del self.log[lease]
            self.ended[lease] = self.now
            self.lessor.revoked(lease)
        for lease, remaining_ms in due:
            self.log[lease] = (self.log[lease][0], remaining_ms)
        for lease, told in self.told.items():
            assert self.now <= told.ends_by(), f"lease {lease} lives {self.now - told.ends_by()} s too long"

    def change_leader(self, leaderless_seconds: float) -> None:
        self.now += leaderless_seconds
        for told in self.told.values():
            told.changes += 1
            told.leaderless_seconds += leaderless_seconds
        self.lessor = Lessor()
        self.lessor.promote(
            [LeaseAtStart(lease, ttl, remaining) for lease, (ttl, remaining) in self.log.items()],
            self.now,
            EXTEND_SECONDS,
        )


TTLS = {1: 2, 2: 6, 3: 10, 4: 60}
phases = st.tuples(
    st.sampled_from([0.1, 0.7, 1.3, 3.5, 5.3, 8.0, 35.0]),
    st.sampled_from(["nobody", "all", "all", "die"]),
    st.sampled_from(["stay", "change", "die"]),
    st.floats(0.0, 5.0),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(phases, min_size=2, max_size=12))
def test_no_lease_ends_early_and_each_ends_in_the_stated_time(
    script: list[tuple[float, str, str, float]],
) -> None:
    """Phases: time passes, leases are renewed or not, the leader changes or not. A leader may die
    between deciding something and getting it into the log."""
    cluster = Cluster()
    for seconds, renews, then, leaderless_seconds in script:
        for lease, ttl_seconds in TTLS.items():
            cluster.grant(lease, ttl_seconds)
        cluster.pass_time(seconds)
        for lease in TTLS if renews != "nobody" else ():
            cluster.renew(lease, dies_before_commit=renews == "die")
        if then == "change":
            cluster.change_leader(leaderless_seconds)
        elif then == "die":
            cluster.now += LEASE_ROUND_SECONDS
            cluster.do_round(dies_before_commit=True)
    cluster.pass_time(max((told.ends_by() - cluster.now for told in cluster.told.values()), default=0.0))
    assert not cluster.log


@pytest.mark.parametrize("ttl_seconds", [2, 3, 10, 60, 3600])
def test_a_lease_ends_although_the_leader_changes_twice_in_every_ttl(ttl_seconds: int) -> None:
    cluster = Cluster()
    cluster.grant(1, ttl_seconds)
    told = cluster.told[1]
    for _ in range(40):
        cluster.pass_time(ttl_seconds / 2)
        if 1 in cluster.ended:
            break
        cluster.change_leader(0.3)
    assert told.until <= cluster.ended[1] <= told.ends_by()
    assert cluster.ended[1] - told.renewed_at < 6 * ttl_seconds
