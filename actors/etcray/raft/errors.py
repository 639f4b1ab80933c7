"""What can come of a call other than an answer. Nothing was done in either case."""

from __future__ import annotations

from enum import StrEnum

from etcray_storage.types import MemberId


class NotLeaderError(Exception):
    """Only the leader takes proposals, reads and transfers; not one that was removed and is about to
    step down. `leader` is whom this member believes to lead."""

    def __init__(self, leader: MemberId) -> None:
        super().__init__(f"not the leader; the leader is {leader or 'unknown'}")
        self.leader = leader


class DropReason(StrEnum):
    BYTES = "bytes"
    """Too many bytes are proposed and not yet committed. Try again after a pause."""
    TRANSFER = "transfer"
    """Leadership is being handed over. It takes one election timeout at most: try again then, or
    once there is a new leader."""
    MEMBERSHIP = "membership"
    """An earlier change of membership is not applied yet, or it is not known yet whether there is
    one. Only changes of membership are dropped for this. Try again after a pause."""


class ProposalDroppedError(Exception):
    """The proposal did not enter the log. `reason` says what to wait for."""

    def __init__(self, reason: DropReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TransferRefusedError(Exception):
    """Leadership cannot be handed to this member, or not now; the message says why."""
