"""CPU seconds and memory of groups of processes, from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

Groups = Mapping[str, Sequence[int]]
"""A name for each group and the ids of its processes."""

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(process_id: int) -> float:
    """User and system time of one process, all its threads included; 0 once it is gone."""
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # The second field, the program's name in parentheses, may contain anything.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def sample(groups: Groups) -> dict[str, float]:
    return {name: sum(cpu_seconds(process_id) for process_id in ids) for name, ids in groups.items()}


def resident_bytes(process_id: int) -> int:
    """What a process has in memory and shares with no other; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{process_id}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES


def sample_memory(groups: Groups) -> dict[str, int]:
    return {name: sum(resident_bytes(process_id) for process_id in ids) for name, ids in groups.items()}
