"""What must be true of one member after every step, whatever came in.

Tests and simulations keep an `Invariants` beside each `Raft` and call `check` after every call. What
must be true between members (one leader a term, matching logs) is checked by the simulator.
"""

from __future__ import annotations

from etcray.raft.progress import ProgressState
from etcray.raft.raft import Raft
from etcray.raft.ready import Role
from etcray.raft.state import Leadership, State
from etcray_storage.types import NOBODY, Index


class Invariants:
    """Checks of a state, and of what may change from one state to the next. Begin a new one when
    the member restarts: it may forget its commit index, its role and what was not durable."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._before = raft.status()
        _check_state(raft.state)

    def check(self) -> None:
        _check_state(self._raft.state)
        self._check_delta()

    def _check_delta(self) -> None:
        before, now = self._before, self._raft.status()
        assert now.term >= before.term, f"term fell from {before.term} to {now.term}"
        assert now.commit >= before.commit, f"commit fell from {before.commit} to {now.commit}"
        assert now.applied >= before.applied, f"applied fell from {before.applied} to {now.applied}"
        assert now.first_index >= before.first_index, "the log's first index fell"
        if now.term == before.term:
            assert before.vote in (NOBODY, now.vote), f"vote {before.vote} -> {now.vote} in term {now.term}"
            if before.role is now.role is Role.LEADER:
                self._check_leader_delta()
        self._before = now

    def _check_leader_delta(self) -> None:
        before, now = self._before, self._raft.status()
        assert now.last_index >= before.last_index, "a leader removed entries from its log (5.3)"
        if now.commit > before.commit:
            reached = {peer.member for peer in now.peers if peer.match_index >= now.commit}
            if now.stable_index >= now.commit:
                reached.add(now.member)
            voters = now.membership.voters
            assert 2 * len(reached.intersection(voters)) > len(voters), (
                f"commit {now.commit} is reached by {sorted(reached)} only, of {voters}"
            )
        known = {old.member: old for old in before.peers}
        for new in now.peers:
            old = known.get(new.member, new)
            assert new.match_index >= old.match_index, (
                f"match of {new.member} fell from {old.match_index} to {new.match_index}"
            )


def _check_state(state: State) -> None:
    log = state.log
    assert log.base_index <= log.stable_index <= log.handed_index <= log.last_index, (
        f"base {log.base_index}, stable {log.stable_index}, handed {log.handed_index}, last {log.last_index}"
    )
    assert log.base_index <= state.applied <= min(state.commit, log.stable_index), (
        f"applied {state.applied}, commit {state.commit}, stable {log.stable_index}"
    )
    assert state.commit <= log.last_index, f"commit {state.commit}, last {log.last_index}"
    assert log.term(log.last_index) == log.last_term, f"last term {log.last_term} is not the log's"
    assert log.last_term <= state.term, f"entry of term {log.last_term} in term {state.term}"
    changes = state.log.changes
    assert list(changes) == sorted(changes), f"changes {list(changes)} are out of order"
    assert not changes or log.base_index < changes[0] <= changes[-1] <= log.last_index, (
        f"changes {list(changes)} of a log with {log.base_index + 1}..{log.last_index}"
    )
    assert len(changes) < 2 or changes[-2] <= state.commit, (
        f"of the changes {list(changes)} more than the last are not committed, commit {state.commit}"
    )
    assert state.is_voter == (state.member in state.membership.voters), "is_voter is not the membership's"
    assert (state.leading is not None) == (state.role is Role.LEADER), f"role {state.role}"
    if state.role is Role.CANDIDATE:
        assert state.vote == state.member, f"candidate that voted for {state.vote}"
    if state.role in (Role.CANDIDATE, Role.PRE_CANDIDATE):
        assert state.leader == NOBODY, f"{state.role} with leader {state.leader}"
        assert state.is_voter, "a member that is no voter campaigns"
        assert not state.newest_committed_change(), f"campaigns before change {changes[0]} is applied"
    if state.leading is not None:
        _check_leading(state, state.leading)


def _check_leading(state: State, leading: Leadership) -> None:
    log = state.log
    assert state.leader == state.vote == state.member, f"leads, but follows {state.leader}"
    assert log.term(leading.first_index) in (state.term, None), "the term was not opened by its leader"
    assert leading.uncommitted_bytes == sum(size for _, size in leading.uncommitted), (
        f"{leading.uncommitted_bytes} uncommitted bytes are not the sum"
    )
    members = set(state.membership.voters + state.membership.learners)
    assert set(leading.progress) == members - {state.member}, f"progress of {sorted(leading.progress)}"
    assert bool(leading.removed_at) == (not state.is_voter), f"removed at {leading.removed_at}, leads"
    assert not leading.removed_at or leading.transfer is not None, "was removed and does not hand over"
    for peer, progress in leading.progress.items():
        assert progress.match_index < progress.next_index <= Index(log.last_index + 1), (
            f"{peer}: match {progress.match_index}, next {progress.next_index}, last {log.last_index}"
        )
        assert progress.read_sequence_echoed <= progress.read_sequence_sent <= leading.reads.sequence, (
            f"{peer}: echoed {progress.read_sequence_echoed}, sent {progress.read_sequence_sent}"
        )
        if progress.state is ProgressState.PROBE and progress.match_index == log.last_index:
            assert progress.next_index == log.last_index + 1, f"{peer}: probes a log that is all there"
