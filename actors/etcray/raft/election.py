"""Elections: pre-vote, vote, and who may get one (paper 5.2, 5.4.1; thesis 4.2.3, 9.6).

A member whose election timeout runs out first asks whether it *would* be elected. That changes no
term anywhere, so a member that was cut off cannot depose a leader when it returns. Only with a
majority of pre-votes does it take the next term and campaign in earnest.

Vote requests leave only after the candidate's vote for itself is durable. So whoever wins with the
answers has a durable vote of its own, and a candidate that crashes cannot vote again in the term.
"""

from __future__ import annotations

from etcray.raft import leader, quorum
from etcray.raft.messages import PreVoteRequest, PreVoteResponse, VoteRequest, VoteResponse
from etcray.raft.quorum import VoteResult
from etcray.raft.ready import Role
from etcray.raft.state import State
from etcray_storage.types import NOBODY, MemberId, Term


def tick(state: State) -> None:
    """Begin an election when the timeout of a follower or of an earlier election has run out."""
    if state.now < state.election_deadline:
        return
    if not state.is_voter or state.installing is not None:
        state.draw_election_timeout()
        return
    _become_pre_candidate(state)


def leader_suspected(state: State) -> None:
    """There are signs that the leader is dead: do not wait for the timeout, and help others who
    have come to the same conclusion. A sign of life of the leader undoes this.

    The others are often told at the same moment, so here chance would split votes: they take turns,
    a heartbeat apart. Whose log is behind wastes its turn only."""
    survivors = [voter for voter in state.membership.voters if voter != state.leader]
    state.leader = NOBODY
    if state.member in survivors:
        turn = survivors.index(state.member) + state.rng.random() / 10
        soon = state.now + turn * state.config.heartbeat_s
        state.election_deadline = min(state.election_deadline, soon)


def _become_pre_candidate(state: State) -> None:
    assert state.leading is None, "a leader does not campaign"
    state.role = Role.PRE_CANDIDATE
    state.leader = NOBODY
    state.votes = {state.member: True}
    state.draw_election_timeout()
    for voter in _other_voters(state):
        state.send(PreVoteRequest(state.member, voter, state.term, state.log.last_index, state.log.last_term))
    _count_pre_votes(state)


def _become_candidate(state: State) -> None:
    assert state.role is Role.PRE_CANDIDATE, f"candidate without a pre-vote, from {state.role}"
    state.become_follower(Term(state.term + 1), NOBODY)
    state.role = Role.CANDIDATE
    state.grant_vote(state.member)
    state.votes = {state.member: True}
    for voter in _other_voters(state):
        state.send_after_sync(
            VoteRequest(state.member, voter, state.term, state.log.last_index, state.log.last_term)
        )
    _count_votes(state)


def _other_voters(state: State) -> list[MemberId]:
    return [voter for voter in state.membership.voters if voter != state.member]


def handle_pre_vote_request(state: State, message: PreVoteRequest) -> None:
    """Says whether this member would vote in the term after the current one, and promises nothing."""
    if message.sender not in state.membership.voters:
        return
    granted = state.log.is_up_to_date(message.last_index, message.last_term)
    state.send(PreVoteResponse(state.member, message.sender, state.term, granted))


def handle_vote_request(state: State, message: VoteRequest) -> None:
    if message.sender not in state.membership.voters:
        return
    granted = (
        state.vote in (NOBODY, message.sender)
        and state.leader == NOBODY
        and state.log.is_up_to_date(message.last_index, message.last_term)
    )
    if granted:
        state.grant_vote(message.sender)
        state.draw_election_timeout()
    state.send_after_sync(VoteResponse(state.member, message.sender, state.term, granted))


def handle_pre_vote_response(state: State, message: PreVoteResponse) -> None:
    if state.role is Role.PRE_CANDIDATE:
        state.votes.setdefault(message.sender, message.granted)
        _count_pre_votes(state)


def handle_vote_response(state: State, message: VoteResponse) -> None:
    if state.role is Role.CANDIDATE:
        state.votes.setdefault(message.sender, message.granted)
        _count_votes(state)


def _count_pre_votes(state: State) -> None:
    result = quorum.count_votes(state.membership.voters, state.votes)
    if result is VoteResult.WON:
        _become_candidate(state)
    elif result is VoteResult.LOST:
        state.become_follower(state.term, NOBODY)


def _count_votes(state: State) -> None:
    result = quorum.count_votes(state.membership.voters, state.votes)
    if result is VoteResult.WON:
        leader.become_leader(state)
    elif result is VoteResult.LOST:
        state.become_follower(state.term, NOBODY)
