"""The numbers that a member's consensus runs with."""

from __future__ import annotations

import msgspec

from etcray_storage import limits
from etcray_storage.types import MemberId


class RaftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All times are seconds of the clock whose readings the caller passes as `now`."""

    member: MemberId
    election_s: float
    """A follower campaigns after a random time in [election_s, 2 * election_s) without a leader;
    a leader steps down after `election_s` without a majority."""
    heartbeat_s: float
    """A peer that was sent nothing for this long is sent an empty append."""
    append_bytes_max: int = limits.APPEND_BYTES_MAX
    appends_in_flight_max: int = limits.APPENDS_IN_FLIGHT_MAX
    appends_in_flight_bytes_max: int = limits.APPENDS_IN_FLIGHT_BYTES_MAX
    uncommitted_bytes_max: int = limits.UNCOMMITTED_BYTES_MAX
    apply_bytes_max: int = limits.APPLY_BYTES_MAX
    log_cache_bytes: int = limits.LOG_CACHE_BYTES
    snapshot_report_s: float = limits.SNAPSHOT_REPORT_SECONDS_MAX

    def __post_init__(self) -> None:
        assert self.member > 0, f"member {self.member} is nobody"
        assert 0 < self.heartbeat_s < self.election_s, (
            f"heartbeat {self.heartbeat_s} s must be shorter than election timeout {self.election_s} s"
        )
        assert self.appends_in_flight_max >= 1, f"window of {self.appends_in_flight_max} messages"
