"""What must be true between members: the properties of figure 3 of the Raft paper, and of reads."""

from __future__ import annotations

from etcray.raft.ready import Ready, Role
from etcray_storage.types import Entry, Index, MemberId, Term

from .cluster import Cluster, Member


class SafetyChecker:
    """Sees every ready of every member, and remembers everything that was ever true."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._leaders: dict[Term, MemberId] = {}
        self._entries: dict[tuple[Index, Term], tuple[bytes, Term]] = {}
        """By index and term: the data, and the term of the entry before it."""
        self.committed: list[Entry | None] = [None]
        """By index; what any member has applied. The one at 0 does not exist."""
        self._reads: dict[tuple[MemberId, Term, int], Index] = {}
        self.reads_answered = 0

    def observe(self, member: Member, ready: Ready) -> None:
        if ready.soft_state is not None and ready.soft_state.role is Role.LEADER:
            self._check_new_leader(member, ready.soft_state.term)
        if ready.record is not None:
            self._check_log_matching(member, ready.record.entries)
        for entry in ready.committed:
            self._check_applied(member, entry)
        for read in ready.read_states:
            self._check_read(member, read.token, read.index)

    def _check_new_leader(self, member: Member, term: Term) -> None:
        """Election Safety (5.2) and Leader Completeness (5.4.3)."""
        assert self._leaders.setdefault(term, member.id) == member.id, (
            f"{member.id} and {self._leaders[term]} both lead term {term}"
        )
        log = member.raft.state.log
        for entry in self.committed[log.base_index + 1 :]:
            assert entry is not None, "nothing is committed at 0"
            assert log.term(entry.index) == entry.term, (
                f"{member.id} leads term {term} without the committed {entry.index}/{entry.term}"
            )

    def _check_log_matching(self, member: Member, entries: tuple[Entry, ...]) -> None:
        """Log Matching (5.3), by induction: index and term determine an entry and the one before."""
        voters = self._cluster.membership.voters
        if voters == (member.id,):
            return  # It may crash and come back in the same term, but then nobody has seen it:
        for entry in entries:
            if len(voters) == 1:
                assert self._cluster.members[voters[0]].disk.holds(entry), f"{entry} is seen, but not durable"
            previous = member.raft.state.log.term(Index(entry.index - 1))
            assert previous is not None, f"{member.id} has {entry.index} but nothing before it"
            known = self._entries.setdefault((entry.index, entry.term), (entry.data, previous))
            assert known == (entry.data, previous), (
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
        voters = self._cluster.membership.voters
        holders = [voter for voter in voters if self._cluster.members[voter].disk.holds(entry)]
        assert 2 * len(holders) > len(voters), f"{entry.index}/{entry.term} is durable only on {holders}"

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
        voters = [self._cluster.members[voter] for voter in self._cluster.membership.voters]
        for entry in self.committed[max(1, len(self.committed) - 20) :]:
            assert entry is not None, "nothing is committed at 0"
            holders = [voter.id for voter in voters if voter.disk.holds(entry)]
            assert 2 * len(holders) > len(voters), f"{entry.index}/{entry.term} is only on {holders} now"
