"""What members say about themselves, and what the leader concludes from it.

State hashes. All members apply the same entries, so at one index they have one hash; it is a rolling one,
so members that ever differed differ from there on. Each member keeps the hashes of its newest entries,
and tells its newest with every envelope. The leader compares; a difference means that some member's
state is not what the log says: a bug, or a damaged memory or disk. Who is at fault?

1. Those who agree with the leader, and the leader, are a majority of the members: who differs is at fault.
2. Those who differ from the leader agree among each other, and are a majority: it is the leader.
3. Neither, and everybody could be compared: nobody can tell (two members, say). Then the alarm names
   member 0, as etcd's does.

Members report at different indexes, because each is where it is. But hashes that agree at an index agreed
at all before it, and hashes that differ at an index differ at all after it. So a member speaks for the
leader against another one if it agreed at or after the index where that one differed. An earlier
agreement says nothing: a member that had not come to the entry yet may differ as well.

Pure: no locks, no clock. `StateHashes.applied` runs under the lock under which entries are applied, and
the other calls on other threads: each slot of the ring is written and read as a whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import Final

from etcray.node.envelope import NO_HASH
from etcray_storage.limits import STATE_HASHES_MAX, STATE_REPORTS_MAX
from etcray_storage.types import NOBODY, Index, MemberId

Report = tuple[Index, int]
"""An applied index, and the state hash there."""

NOTHING: Final[Report] = (Index(0), NO_HASH)


class StateHashes:
    """One member's newest state hashes, by index."""

    def __init__(self) -> None:
        self._ring: list[Report] = [NOTHING] * STATE_HASHES_MAX
        self.newest: Report = NOTHING

    def applied(self, index: Index, state_hash: int) -> None:
        report = (index, state_hash)
        self._ring[index % STATE_HASHES_MAX] = report
        self.newest = report

    def at(self, index: Index) -> int:
        """NO_HASH if the entry is not applied yet, or too long ago."""
        found, state_hash = self._ring[index % STATE_HASHES_MAX]
        return state_hash if found == index else NO_HASH


class PeerReports:
    """What the other members said last. Kept by every member, used by the one that leads."""

    def __init__(self, own: StateHashes) -> None:
        self._own = own
        self._reports: dict[MemberId, deque[Report]] = {}
        self._low_on_space: frozenset[MemberId] = frozenset()

    def heard(self, member: MemberId, applied: Index, state_hash: int, low_on_space: bool) -> bool:
        """Take note of an envelope. True if it calls for a closer look at once: the hash differs."""
        if low_on_space is not (member in self._low_on_space):
            self._low_on_space = self._low_on_space ^ {member}
        if state_hash == NO_HASH:
            return False
        reports = self._reports.get(member)
        if reports is None:
            reports = self._reports[member] = deque(maxlen=STATE_REPORTS_MAX)
        if not reports or reports[-1][0] != applied:
            reports.append((applied, state_hash))
        own = self._own.at(applied)
        return own not in (NO_HASH, state_hash)

    def is_low_on_space(self, member: MemberId) -> bool:
        return member in self._low_on_space

    def forget(self, member: MemberId) -> None:
        """It was removed, or is another incarnation now, which may have been given another state."""
        self._reports.pop(member, None)
        self._low_on_space = self._low_on_space - {member}

    def odd_ones(self, leader: MemberId, members: Collection[MemberId]) -> frozenset[MemberId]:
        """Whom to raise an alarm for, by the rules above; empty if all is well or not yet clear."""
        agreed: dict[MemberId, Index] = {}
        differs: dict[MemberId, Index] = {}
        for member in members:
            if member != leader:
                self._compare(member, agreed, differs)
        if not differs:
            return frozenset()
        majority = len(members) // 2 + 1
        everywhere = max(differs.values())
        with_leader = {leader} | {member for member, index in agreed.items() if index >= everywhere}
        if len(with_leader) >= majority:
            return frozenset(differs)
        is_clear = len(with_leader) + len(differs) == len(members)
        for one in differs:
            alike = {one}
            for other in differs.keys() - {one}:
                verdict = self._alike(one, other, differs)
                is_clear &= verdict is not None
                if verdict:
                    alike.add(other)
            if len(alike) >= majority:
                return frozenset(with_leader | differs.keys()) - alike
        return frozenset({NOBODY}) if is_clear else frozenset()

    def _compare(
        self, member: MemberId, agreed: dict[MemberId, Index], differs: dict[MemberId, Index]
    ) -> None:
        """Enter the newest index at which a member agrees with this one, or the oldest at which not."""
        for index, state_hash in self._copy(member):
            own = self._own.at(index)
            if own == state_hash:
                agreed[member] = max(agreed.get(member, index), index)
            elif own != NO_HASH:
                differs[member] = min(differs.get(member, index), index)
        if member in differs:
            agreed.pop(member, None)

    def _alike(self, one: MemberId, other: MemberId, differs: Mapping[MemberId, Index]) -> bool | None:
        """Whether two that differ from this member are like each other; None if that is not known."""
        first, second = dict(self._copy(one)), dict(self._copy(other))
        newest = max(first.keys() & second.keys(), default=Index(0))
        if newest < max(differs[one], differs[other]):
            return None
        return first[newest] == second[newest]

    def _copy(self, member: MemberId) -> tuple[Report, ...]:
        """Another thread may append meanwhile; copying a deque is one step of the interpreter."""
        return tuple(self._reports.get(member, ()))
