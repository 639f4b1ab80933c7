"""Majorities. Nothing here knows what is counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TypeVar

from etcray_storage.types import MemberId

Number = TypeVar("Number", int, float)


class VoteResult(Enum):
    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def majority(voters: int) -> int:
    """The smallest number of voters such that two such sets always share one."""
    assert voters >= 1, f"no majority of {voters} voters"
    return voters // 2 + 1


def reached_by_majority(values: Iterable[Number]) -> Number:
    """The largest number that a majority of the values has reached. One value a voter."""
    ascending = sorted(values)
    return ascending[(len(ascending) - 1) // 2]


def count_votes(voters: Sequence[MemberId], votes: Mapping[MemberId, bool]) -> VoteResult:
    """Votes of others than the voters do not count; a missing vote may still come."""
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    needed = majority(len(voters))
    if granted >= needed:
        return VoteResult.WON
    if granted + (len(voters) - granted - refused) < needed:
        return VoteResult.LOST
    return VoteResult.PENDING
