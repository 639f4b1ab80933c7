"""Handing leadership over: to a member that was named, or to any, by a leader that was removed.

A leader that hands over takes no proposals, so that its successor's log can catch up with it. Once
the successor has it all, it is told to campaign (thesis 3.10). If it is not elected within an election
timeout, the leader goes on as if nothing had happened.

A leader that has applied its own removal still leads for a while, but does not count itself (thesis
4.2.2): the others must learn that the removal is committed, or the old membership may be what they
elect by, and that may need the vote of a member that nobody runs any more. So it goes on

1. until a majority of the voters that remain knows it, which takes one round trip: then it hands over to one
   of them that has its whole log;
2. or until an election timeout has passed.

Then it is a follower that never campaigns.
"""

from __future__ import annotations

from etcray.raft import quorum
from etcray.raft.errors import TransferRefusedError
from etcray.raft.messages import TimeoutNow
from etcray.raft.state import Leadership, State, Transfer
from etcray_storage.types import NOBODY, Index, MemberId


def begin(state: State, leading: Leadership, to: MemberId) -> None:
    """Raises TransferRefusedError. Asking for the same again changes nothing."""
    if to == state.member:
        raise TransferRefusedError(f"{to} leads already")
    if to not in state.membership.voters:
        raise TransferRefusedError(f"{to} is not a voter; leadership can go to {state.membership.voters}")
    if leading.transfer is not None:
        if leading.transfer.target != to:
            raise TransferRefusedError(f"leadership is on its way to {leading.transfer.target}; try later")
        return
    if state.log.changes:
        raise TransferRefusedError(
            f"entry {state.log.changes[0]} changes the membership; try when it is applied"
        )
    leading.transfer = Transfer(to, state.now + state.config.election_s)
    leading.flush_due = True


def begin_removal(state: State, leading: Leadership, index: Index) -> None:
    leading.removed_at = index
    leading.transfer = Transfer(NOBODY, state.now + state.config.election_s)


def advance(state: State, leading: Leadership) -> None:
    """Tell the successor to campaign, if there is one and it is ready."""
    transfer = leading.transfer
    if transfer is None:
        return
    if leading.removed_at:
        _advance_removal(state, leading)
    elif not transfer.is_told and _has_whole_log(state, leading, transfer.target):
        transfer.is_told = True
        _tell(state, transfer.target)


def _advance_removal(state: State, leading: Leadership) -> None:
    known = quorum.reached_by_majority([progress.known_commit for progress in leading.voter_progress])
    if known < leading.removed_at:
        return
    ready = [
        voter
        for voter in state.membership.voters
        if leading.progress[voter].known_commit >= leading.removed_at
        and _has_whole_log(state, leading, voter)
    ]
    if ready:
        _tell(state, max(ready, key=lambda voter: leading.progress[voter].heard_at))
        state.become_follower(state.term, NOBODY)


def _has_whole_log(state: State, leading: Leadership, peer: MemberId) -> bool:
    return leading.progress[peer].match_index == state.log.last_index


def _tell(state: State, successor: MemberId) -> None:
    state.send(TimeoutNow(state.member, successor, state.term, state.log.last_index))


def is_over(state: State, leading: Leadership) -> bool:
    """Give up what takes too long. Returns whether that was the end of this leadership."""
    if leading.transfer is None or state.now < leading.transfer.deadline:
        return False
    leading.transfer = None
    if leading.removed_at:
        state.become_follower(state.term, NOBODY)
    return bool(leading.removed_at)
