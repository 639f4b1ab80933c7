"""What must be true between members: the properties of figure 3 of the Raft paper, of reads, and of
changes of membership."""

from __future__ import annotations

from etcray.raft.ready import Ready
from etcray_storage.types import Entry, EntryKind, Index, MemberId, Membership, Term

from .cluster import Cluster, Member, change_membership


class SafetyChecker:
    """Sees every ready of every member, and remembers everything that was ever true."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._leaders: dict[Term, MemberId] = {}
        self._entries: dict[tuple[Index, Term], tuple[EntryKind, bytes, Term]] = {}
        """By index and term: kind and data, and the term of the entry before it."""
        self.committed: list[Entry | None] = [None]
        """By index; what any member has applied. The one at 0 does not exist."""
        self.memberships: list[tuple[Index, Membership]] = [(Index(0), cluster.membership)]
        """All that were ever in effect, with the index from which on each was."""
        self._reads: dict[tuple[MemberId, Term, int], Index] = {}
        self.reads_answered = 0

    def observe(self, member: Member, ready: Ready) -> None:
        leading = member.raft.state.leading
        if leading is not None:
            alone = not leading.voter_progress
            if not alone or member.raft.state.log.stable_index >= leading.first_index:
                # One that is alone may lead before its vote is durable, and forget it: nobody has seen it.
                self._check_leader(member, member.raft.state.term)
        if ready.record is not None:
            self._check_log_matching(member, ready.record.entries)
        for entry in ready.committed:
            self._check_applied(member, entry)
        for read in ready.read_states:
            self._check_read(member, read.token, read.index)

    @property
    def membership(self) -> Membership:
        """The newest that is in effect anywhere."""
        return self.memberships[-1][1]

    def membership_at(self, index: Index) -> Membership:
        """What results from all changes up to this entry."""
        return next(one for since, one in reversed(self.memberships) if since <= index)

    def memberships_around(self, index: Index) -> list[Membership]:
        """Those that a leader may count by when it commits this entry: what results from the changes
        before it, or what was before the last of these."""
        return [one for since, one in self.memberships if since < index or since == 0][-2:]

    def _is_on_majority(self, entry: Entry) -> bool:
        holders = {one.id for one in self._cluster.members.values() if one.disk.holds(entry)}
        return any(
            2 * len(holders.intersection(membership.voters)) > len(membership.voters)
            for membership in self.memberships_around(entry.index)
        )

    def _check_leader(self, member: Member, term: Term) -> None:
        """Election Safety (5.2) and Leader Completeness (5.4.3)."""
        if self._leaders.get(term) == member.id:
            return
        assert self._leaders.setdefault(term, member.id) == member.id, (
            f"{member.id} and {self._leaders[term]} both lead term {term}"
        )
        counts_by = member.raft.state.membership
        assert member.id in counts_by.voters, f"{member.id} leads term {term}, but is no voter"
        assert counts_by in [one for _, one in self.memberships[-2:]], (
            f"{member.id} leads term {term} by {counts_by}, more than a change behind {self.membership}"
        )
        log = member.raft.state.log
        for entry in self.committed[log.base_index + 1 :]:
            assert entry is not None, "nothing is committed at 0"
            assert log.term(entry.index) == entry.term, (
                f"{member.id} leads term {term} without the committed {entry.index}/{entry.term}"
            )

    def _check_log_matching(self, member: Member, entries: tuple[Entry, ...]) -> None:
        """Log Matching (5.3), by induction: index and term determine an entry and the one before."""
        if member.raft.state.membership.voters == (member.id,):
            return  # It may crash and come back in the same term, but then nobody has seen it:
        voters = self._cluster.membership.voters
        for entry in entries:
            if len(voters) == 1 and len(self.memberships) == 1:
                assert self._cluster.members[voters[0]].disk.holds(entry), f"{entry} is seen, but not durable"
            previous = member.raft.state.log.term(Index(entry.index - 1))
            assert previous is not None, f"{member.id} has {entry.index} but nothing before it"
            found = (entry.kind, entry.data, previous)
            assert self._entries.setdefault((entry.index, entry.term), found) == found, (
                f"{member.id} has another {entry.index}/{entry.term} than somebody else"
            )

    def _check_applied(self, member: Member, entry: Entry) -> None:
        """State Machine Safety (5.4.3), and that what is committed is durable on a majority."""
        assert member.disk.holds(entry), f"{member.id} applies {entry.index}, which it may still lose"
        if entry.index < len(self.committed):
            assert self.committed[entry.index] == entry, (
                f"{member.id} applies {entry.index}/{entry.term}, others {self.committed[entry.index]}"
            )
            return
        assert entry.index == len(self.committed), f"{entry.index} applied, {len(self.committed)} is next"
        self.committed.append(entry)
        assert self._is_on_majority(entry), f"{entry.index}/{entry.term} is not durable on a majority"
        if entry.kind is EntryKind.MEMBERSHIP:
            self._check_change(entry)

    def _check_change(self, entry: Entry) -> None:
        """Any majority before and any majority after the change share a voter, because the
        memberships differ by one."""
        membership = change_membership(self.membership, entry.data)
        difference = set(membership.voters) ^ set(self.membership.voters)
        assert len(difference) <= 1, f"entry {entry.index} changes the voters {difference} at once"
        self.memberships.append((entry.index, membership))

    def begin_read(self, member: Member, token: int) -> None:
        """Remember what the read that has just begun must see: all that anybody may have answered."""
        self._reads[member.id, member.raft.state.term, token] = Index(len(self.committed) - 1)

    def _check_read(self, member: Member, token: int, index: Index) -> None:
        terms = [term for owner, term, one in self._reads if owner == member.id and one == token]
        lowest = self._reads.pop((member.id, max(terms), token))
        assert index >= lowest, f"{member.id} reads at {index}, {lowest} was committed before"
        self.reads_answered += 1

    def check_durable(self) -> None:
        """No crash has taken a committed entry away from a majority."""
        for entry in self.committed[max(1, len(self.committed) - 20) :]:
            assert entry is not None, "nothing is committed at 0"
            assert self._is_on_majority(entry), f"{entry.index}/{entry.term} is on no majority now"

    def check_membership(self, member: Member) -> None:
        """What a member goes by follows from what it has applied."""
        expected = self.membership_at(member.applied_index)
        assert member.membership == expected, f"{member.id} has {member.membership}, {expected} is applied"
        if not member.unapplied and member.raft.state.installing is None:
            assert member.raft.state.membership == expected, f"{member.id} goes by another than {expected}"
