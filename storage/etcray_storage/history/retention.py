"""What the history may forget, and when: whole parts, the oldest first, and never the newest.

Where parts are dropped, a base takes their place: the state at their last revision, one row for each key
that was there. So every revision from that one on can be asked for as before; an older one is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from etcray_storage.history.manifest import Part
from etcray_storage.history.rows import Gap


class Retention(msgspec.Struct, frozen=True):
    """Keep at least this; None of a kind keeps all. A part goes when any of the three says so."""

    age_seconds: int | None = None
    """Rows that are younger stay."""
    revisions: int | None = None
    """So many of the newest revisions stay."""
    bytes: int | None = None
    """The parts together, the base among them; the newest part stays, and its base, whatever their size."""


def parts_to_drop(parts: Sequence[Part], retention: Retention, position: int, now_ms: int) -> int:
    """How many of the oldest parts can go. A base alone is none: it stands for what is gone already."""
    droppable = 0
    remaining = sum(part.bytes for part in parts)
    for count, part in enumerate(parts[:-1], start=1):
        too_old = (
            retention.age_seconds is not None and part.time_ms_max < now_ms - retention.age_seconds * 1000
        )
        too_far = retention.revisions is not None and position - part.last_revision >= retention.revisions
        too_large = retention.bytes is not None and remaining > retention.bytes
        if not (part.base or too_old or too_far or too_large):
            break
        remaining -= 0 if part.base else part.bytes
        if not part.base:
            droppable = count
    return droppable


def gaps_after_cut(gaps: Sequence[Gap], cut: int) -> tuple[Gap, ...]:
    """The gaps once all before `cut` is dropped: the state at `cut` is known, unless it lies in a gap."""
    lost = max([cut - 1, *(gap.last for gap in gaps if gap.first <= cut)])
    return (Gap(1, lost), *(gap for gap in gaps if gap.first > cut))
