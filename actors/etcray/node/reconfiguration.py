"""May this change of members go into the log now? etcd's rules, which need the leader's view.

What can be decided from the replicated state (an unknown member, a URL that is taken, one learner too
many) the state machine decides when it applies the entry. What is left are rules that protect the quorum,
and nobody but the leader knows who is alive and how far a learner is:

- A voter may be added, or a learner promoted, if the members that have started would still be a quorum
  afterwards. (Exception: to one started member a second may be added, or no cluster could ever grow.)
- A voter may be added if all voters are connected; one that is down already costs a fault that the
  cluster was built to tolerate, and a larger quorum would make that worse.
- A voter may be removed if the rest that has started is a quorum; and if the rest that is connected is one,
  unless the voter that goes is itself not connected: then it takes nothing away.
- A learner may be promoted if it holds nearly all of the leader's log: a voter that lags far behind would
  stall the cluster as soon as its vote is needed.

Learners come and go freely. `etcd` calls the first three strict-reconfig-check, which is on by default
and cannot be turned off here. Where etcd asks for five seconds of connection, here the leader must have
heard the member within two election timeouts: that is what decides whether it would lose its quorum.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from etcray_storage import errors
from etcray_storage.commands import (
    CommandKind,
    decode_member_add,
    decode_member_promote,
    decode_member_remove,
)
from etcray_storage.errors import EtcdError
from etcray_storage.limits import PROMOTE_MATCH_PERCENT
from etcray_storage.machine.members import Member
from etcray_storage.types import Index, MemberId


class LeaderView(NamedTuple):
    """What a leader knows when it is asked for a change of members."""

    leader: MemberId
    members: Sequence[Member]
    last_index: Index
    match_index: Mapping[MemberId, Index]
    """How much of the leader's log each other member is known to hold."""
    connected: frozenset[MemberId]
    """Who was heard lately; the leader itself included."""

    def voters(self) -> list[Member]:
        return [member for member in self.members if not member.is_learner]


def objection(kind: int, request: bytes, view: LeaderView) -> EtcdError | None:
    """Why the change must not be proposed; None if there is no reason against it. Bytes that are no
    request are let through: the state machine answers them."""
    check = _CHECKS.get(kind)
    if check is None:
        return None
    try:
        return check(request, view)
    except msgspec.DecodeError:
        return None


def _to_add(request: bytes, view: LeaderView) -> EtcdError | None:
    if decode_member_add(request).is_learner:
        return None
    voters = view.voters()
    started = sum(voter.is_started for voter in voters)
    grown = len(voters) + 1
    if started < _quorum(grown) and not (started == 1 and grown == 2):
        return errors.MEMBER_NOT_ENOUGH_STARTED
    if not all(voter.id in view.connected for voter in voters):
        return errors.UNHEALTHY
    return None


def _to_promote(request: bytes, view: LeaderView) -> EtcdError | None:
    member = decode_member_promote(request).id
    if not any(learner.id == member and learner.is_learner for learner in view.members):
        return None
    if view.match_index.get(member, 0) * 100 < view.last_index * PROMOTE_MATCH_PERCENT:
        return errors.LEARNER_NOT_READY
    voters = view.voters()
    started = 1 + sum(voter.is_started for voter in voters)
    if started < _quorum(len(voters) + 1):
        return errors.MEMBER_NOT_ENOUGH_STARTED
    return None


def _to_remove(request: bytes, view: LeaderView) -> EtcdError | None:
    member = decode_member_remove(request).id
    voters = view.voters()
    rest = [voter for voter in voters if voter.id != member]
    if len(rest) == len(voters):
        return None
    if not rest or sum(voter.is_started for voter in rest) < _quorum(len(rest)):
        return errors.MEMBER_NOT_ENOUGH_STARTED
    if member not in view.connected:
        return None
    if sum(voter.id in view.connected for voter in rest) < _quorum(len(rest)):
        return errors.UNHEALTHY
    return None


def _quorum(voters: int) -> int:
    return voters // 2 + 1


_CHECKS: Mapping[int, Callable[[bytes, LeaderView], EtcdError | None]] = {
    CommandKind.MEMBER_ADD: _to_add,
    CommandKind.MEMBER_PROMOTE: _to_promote,
    CommandKind.MEMBER_REMOVE: _to_remove,
}
