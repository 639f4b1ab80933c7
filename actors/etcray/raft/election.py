"""Elections: pre-vote, vote, and who may get one (paper 5.2, 5.4.1; thesis 4.2.3, 9.6).

A member whose election timeout runs out first asks whether it *would* be elected. That changes no
term anywhere, so a member that was cut off cannot depose a leader when it returns. Only with a
majority of pre-votes does it take the next term and campaign in earnest.

Vote requests leave only after the candidate's vote for itself is durable. So whoever wins with the
answers has a durable vote of its own, and a candidate that crashes cannot vote again in the term.
"""

from __future__ import annotations

from etcray.raft import leader, quorum
from etcray.raft.messages import PreVoteRequest, PreVoteResponse, TimeoutNow, VoteRequest, VoteResponse
from etcray.raft.quorum import VoteResult
from etcray.raft.ready import Role
from etcray.raft.state import State
from etcray_storage.types import NOBODY, Index, MemberId, Term


def tick(state: State) -> None:
    """Begin an election when the timeout of a follower or of an earlier election has run out."""
    if state.now < state.election_deadline:
        return
    state.campaign_wanted_at = Index(0)
    if not state.is_voter or state.installing is not None:
        state.draw_election_timeout()
    elif state.newest_committed_change():
        # Not by the old membership: see membership.py. Applying takes no time worth waiting for.
        state.election_deadline = state.now + state.config.heartbeat_s
    else:
        _become_pre_candidate(state)


def handle_timeout_now(state: State, message: TimeoutNow) -> None:
    """The leader wants this member to succeed it: no pre-vote, and voters do not protect the leader.
    If the log does not end where the leader thinks, this is late: the leader has gone on."""
    if state.leading is not None or state.leader not in (NOBODY, message.sender):
        return
    if message.last_index == state.log.last_index:
        state.campaign_wanted_at = state.log.last_index
        campaign_if_wanted(state)


def campaign_if_wanted(state: State) -> None:
    """Follow the leader's wish, now or once the membership that it may depend on is applied."""
    wanted_at = state.campaign_wanted_at
    if not wanted_at or wanted_at != state.log.last_index or state.installing is not None:
        return
    if state.is_voter and not state.newest_committed_change():
        _become_candidate(state, transfer=True)


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


def _become_candidate(state: State, transfer: bool) -> None:
    assert transfer or state.role is Role.PRE_CANDIDATE, f"candidate without a pre-vote, from {state.role}"
    assert state.leading is None, "a leader does not campaign"
    state.become_follower(Term(state.term + 1), NOBODY)
    state.role = Role.CANDIDATE
    state.grant_vote(state.member)
    state.votes = {state.member: True}
    for voter in _other_voters(state):
        state.send_after_sync(
            VoteRequest(state.member, voter, state.term, state.log.last_index, state.log.last_term, transfer)
        )
    _count_votes(state)


def _other_voters(state: State) -> list[MemberId]:
    return [voter for voter in state.membership.voters if voter != state.member]


def handle_pre_vote_request(state: State, message: PreVoteRequest) -> None:
    """Says whether this member would vote in the term after the current one, and promises nothing."""
    granted = state.log.is_up_to_date(message.last_index, message.last_term)
    answer_pre_vote(state, message.sender, granted)


def answer_pre_vote(state: State, candidate: MemberId, granted: bool) -> None:
    commit_term = state.log.term(state.commit)
    assert commit_term is not None, f"no term for the committed entry {state.commit}"
    state.send(PreVoteResponse(state.member, candidate, state.term, granted, state.commit, commit_term))


def handle_vote_request(state: State, message: VoteRequest) -> None:
    """Whether the candidate is a voter as far as this member knows does not matter: one of the two may
    not know the newest membership yet. The candidate counts by the one that it has applied."""
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
    if state.role is Role.PRE_CANDIDATE and not _learns_of_change(state, message):
        state.votes.setdefault(message.sender, message.granted)
        _count_pre_votes(state)


def _learns_of_change(state: State, message: PreVoteResponse) -> bool:
    """Whether this election is over because of what else the voter says: a change of membership in
    this member's log is committed. Nobody but the voter may know:

    1. Of two members the leader is removed. The other one has the entry, and has acknowledged it.
    2. The leader applies it and crashes before anybody hears of the commit. It was removed, so it
       will not campaign; but its log is longer, so it will not vote for the other one either.
    3. The other one goes by both, and cannot win. All it lacks is to know what the first one knows.
    """
    if all(not state.commit < change <= message.commit for change in state.log.changes):
        return False
    if not state.log.matches(message.commit, message.commit_term):
        return False
    state.commit_to(message.commit)
    state.become_follower(state.term, NOBODY)
    return True


def handle_vote_response(state: State, message: VoteResponse) -> None:
    if state.role is Role.CANDIDATE:
        state.votes.setdefault(message.sender, message.granted)
        _count_votes(state)


def _count_pre_votes(state: State) -> None:
    result = quorum.count_votes(state.membership.voters, state.votes)
    if result is VoteResult.WON:
        _become_candidate(state, transfer=False)
    elif result is VoteResult.LOST:
        state.become_follower(state.term, NOBODY)


def _count_votes(state: State) -> None:
    result = quorum.count_votes(state.membership.voters, state.votes)
    if result is VoteResult.WON:
        leader.become_leader(state)
    elif result is VoteResult.LOST:
        state.become_follower(state.term, NOBODY)
