"""What can come of a proposal or a read other than an answer. Nothing was done in either case."""

from __future__ import annotations

from etcray_storage.types import MemberId


class NotLeaderError(Exception):
    """Only the leader takes proposals and reads. `leader` is whom this member believes to lead."""

    def __init__(self, leader: MemberId) -> None:
        super().__init__(f"not the leader; the leader is {leader or 'unknown'}")
        self.leader = leader


class ProposalDroppedError(Exception):
    """Too many bytes are proposed and not yet committed. Try again after a pause."""
