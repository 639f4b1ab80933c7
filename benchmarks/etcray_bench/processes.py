"""CPU seconds and memory of processes, from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from etcray_bench.results.records import RoleUse

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


def private_bytes(process_id: int) -> int:
    """What a process has in memory and shares with no other; 0 once it is gone."""
    resident, shared = _memory_pages(process_id)
    return (resident - shared) * _PAGE_BYTES


def resident_bytes(process_id: int) -> int:
    """What a process has in memory, what it shares with others included; 0 once it is gone."""
    return _memory_pages(process_id)[0] * _PAGE_BYTES


def _memory_pages(process_id: int) -> tuple[int, int]:
    try:
        fields = Path(f"/proc/{process_id}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    return int(fields[1]), int(fields[2])


def use_of(processes: Sequence[int]) -> RoleUse:
    """Of all of them together, so far and now."""
    return RoleUse(
        processes=len(processes),
        cpu_seconds=sum(cpu_seconds(process_id) for process_id in processes),
        resident_bytes=sum(resident_bytes(process_id) for process_id in processes),
    )
