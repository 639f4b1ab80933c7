"""What following the members' revisions decides: whom to ask, for what, how soon. Pure: no clock, no I/O.

Whom: far behind, rather a member that does not lead, because bulk reads cost it real work. Close behind,
the leader: a follower learns only with the next message that an entry is committed, up to a heartbeat
later, and that long every query would wait that asks for the newest state. What the leader pays is one call
every `PACE_SECONDS`, however many revisions it brings. A member that failed is left alone for a while if
there are others.

For what: normally for the rows behind the position. If the member says that rows in between are gone, for
the *base* of its compact revision first. The pieces of a base may come from different members, because a
compaction leaves the same on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from etcray.node.api import HistoryRowsReply, HistoryRowsRequest
from etcray_storage.limits import HISTORY_FEED_BYTES, WATCH_POLL_SECONDS
from etcray_storage.types import NOBODY, MemberId

PACE_SECONDS: Final = 0.2
"""Between two calls for the newest rows, unless somebody waits for them. Measured under a steady load of
puts: each call costs 3 ms at the leader and 4.5 ms here, so at twenty a second a fifth of what a batch of
one client costs altogether."""
AVOID_SECONDS: Final = 5.0
"""A member that failed is not asked for so long, if another one is there."""
FAR_BEHIND_REVISIONS: Final = 5_000
RETRY_SECONDS_MIN: Final = 0.02
RETRY_SECONDS_MAX: Final = 1.0


class Step(Enum):
    """What to do with a reply."""

    APPEND = auto()
    """Its rows follow the position."""
    BEGIN_BASE = auto()
    """Its rows have a hole. Drop them, and begin the base of `Follower.base_revision`."""
    ADD_TO_BASE = auto()
    FINISH_BASE = auto()
    """As ADD_TO_BASE, and these were the last."""
    ABANDON_BASE = auto()
    """The base is not to be had any more: drop what there is of it, and ask again."""


class Follower:
    """The state of following. `position` is the store's, told after each change."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.base_revision = 0
        """The base that is being fetched; 0: none."""
        self.newest = position
        """What the member that answered last had."""
        self._base_through = 0
        self._members: list[MemberId] = []
        self._leader = NOBODY
        self._current = NOBODY
        self._failed_at: dict[MemberId, float] = {}
        self._failures = 0
        """In a row."""

    @property
    def lag_revisions(self) -> int:
        return max(0, self.newest - self.position)

    # --- whom to ask ------------------------------------------------------------------------------

    def set_members(self, members: Iterable[MemberId]) -> None:
        """All of them; one that was created anew is given a chance at once."""
        self._members = sorted(members)
        self._failed_at.clear()
        self._failures = 0

    def member_died(self, member: MemberId) -> None:
        """Ask others, until the members are set again."""
        self._failed_at[member] = math.inf
        if self._leader == member:
            self._leader = NOBODY

    def choose(self, now: float) -> MemberId:
        """Whom to ask next; nobody if there are no members."""
        if not self._members:
            return NOBODY
        good = [m for m in self._members if self._failed_at.get(m, -math.inf) < now - AVOID_SECONDS]
        if not good:
            self._current = min(self._members, key=lambda m: self._failed_at.get(m, -math.inf))
        elif not self._is_far_behind() and self._leader in good:
            self._current = self._leader
        else:
            others = [m for m in good if m != self._leader]
            if self._current not in others:
                self._current = (others or good)[0]
        return self._current

    def _is_far_behind(self) -> bool:
        return self.base_revision > 0 or self.lag_revisions > FAR_BEHIND_REVISIONS

    # --- for what ---------------------------------------------------------------------------------

    def request(self) -> HistoryRowsRequest:
        if self.base_revision:
            return HistoryRowsRequest(self._base_through, HISTORY_FEED_BYTES, 0.0, self.base_revision)
        return HistoryRowsRequest(self.position, HISTORY_FEED_BYTES, WATCH_POLL_SECONDS)

    def answered(self, member: MemberId, reply: HistoryRowsReply) -> Step:
        """A member answered the last request. After APPEND and FINISH_BASE set `position`."""
        self._failed_at.pop(member, None)
        self._failures = 0
        self._leader = reply.leader
        self.newest = reply.revision
        if self.base_revision:
            return self._step_of_base(reply)
        if reply.complete_from > self.position + 1:
            self.base_revision, self._base_through = reply.compact_revision, 0
            return Step.BEGIN_BASE
        return Step.APPEND

    def _step_of_base(self, reply: HistoryRowsReply) -> Step:
        if reply.complete_from > self.base_revision:
            self.base_revision = 0
            return Step.ABANDON_BASE
        self._base_through = reply.through_revision
        if reply.through_revision < self.base_revision:
            return Step.ADD_TO_BASE
        assert reply.through_revision == self.base_revision, (
            f"a base of {self.base_revision} with rows of {reply.through_revision}"
        )
        self.base_revision = 0
        return Step.FINISH_BASE

    def forget_base(self) -> None:
        """It could not be stored."""
        self.base_revision = 0

    # --- how soon ---------------------------------------------------------------------------------

    def pause(self, polled_at: float, now: float) -> float:
        """Seconds until the next call after an answer; nobody waits for rows."""
        if self.base_revision or self.lag_revisions:
            return 0.0
        return max(0.0, polled_at + PACE_SECONDS - now)

    def failed(self, member: MemberId, leader: MemberId, now: float) -> float:
        """A member gave no answer, or a refusal that names its leader. Seconds until the next call: none
        while there may be others that answer, then longer and longer."""
        self._failed_at[member] = max(now, self._failed_at.get(member, -math.inf))
        if leader not in (NOBODY, member):
            self._leader = leader
        elif self._leader == member:
            self._leader = NOBODY
        self._failures += 1
        rounds = self._failures - len(self._members)
        if rounds < 0:
            return RETRY_SECONDS_MIN
        return min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2.0 ** min(rounds, 16))
