"""Changes of membership: one member at a time, in effect when they are applied (as etcd).

A change is an entry of kind MEMBERSHIP. The driver applies it like any other and reports the membership
that results; from then on this member counts by it. Members apply at different moments, so for a while
some go by the old membership and some by the new one. That is safe, because they differ by one member,
so that any majority of one shares a voter with any majority of the other. Two changes at once would
not be: a member that has missed both could be elected by voters that took no part in what the others
have committed since. So nobody may ever be two changes behind and decide something:

1. A leader proposes a change only when it has applied every earlier one. A new leader does not know
   what of its log is committed, so it waits until its no-op is applied, and with it all that came
   before. (Also the cure for the flaw of the thesis's single-server changes, found in 2015.)
2. So whoever sends the entry of a change knows that every earlier change is committed, and says so in
   the same message. Whoever stores it stores the commit index with it, in one record: no restart
   can separate them. **In every log, at most the last change is not known to be committed.**
3. Nobody campaigns while it knows of a committed change that it has not applied. So whoever has the
   entry of a change in its log, and is elected, counts by the change before it, or by it.
4. A candidate that lacks the entry of the second change is refused by all who have it, because their
   logs are newer; and they are a majority of the membership after the first change, with which its
   own shares a voter.

Nobody asks whether a candidate or a leader is a member as far as the receiver knows: a member that
joins knows none of them, and one that is behind knows the wrong ones. Removed members cannot use that:
their log is older than that of those who removed them, and who hears a leader does not answer them.

When a change becomes known as committed, the commit index is saved by a record of its own, before that
is acknowledged. Otherwise, all could forget it in a crash, and elect by a membership some of whose members
are gone for good: the one that remains of two would wait for ever for the vote of the other.
"""

from __future__ import annotations

from etcray.raft import election, leader
from etcray.raft.errors import DropReason, ProposalDroppedError
from etcray.raft.state import Leadership, State
from etcray_storage.types import Index, Membership


def check_proposal(state: State, leading: Leadership) -> None:
    """Raises ProposalDroppedError if no change may be proposed now."""
    if state.log.changes:
        message = f"the change of membership in entry {state.log.changes[0]} is not applied yet"
        raise ProposalDroppedError(DropReason.MEMBERSHIP, message)
    if state.applied < leading.first_index:
        message = f"what came before this leader's entry {leading.first_index} is not applied yet"
        raise ProposalDroppedError(DropReason.MEMBERSHIP, message)


def applied(state: State, index: Index, membership: Membership) -> None:
    """The oldest change that was handed out is applied. `membership` is the old one if it was refused."""
    changes = state.log.changes
    if index <= state.log.base_index:
        return  # A snapshot that covers it was installed meanwhile.
    assert index in tuple(changes)[:1], f"change {index} reported, of {list(changes)}"
    assert index <= state.applied, f"change {index} reported, handed out to {state.applied}"
    changes.popleft()
    if membership != state.membership:
        state.adopt(membership)
        if state.leading is not None:
            leader.membership_adopted(state, state.leading, index)
    election.campaign_if_wanted(state)
