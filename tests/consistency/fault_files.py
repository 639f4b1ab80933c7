"""How a tester tells running members what to suffer: by files in a folder that an environment variable names.

    cut-<sender>-<recipient>    while it is there, calls from one member to another fail; ids in hex
    slow-<process>              while it is there, each sync of that process takes as many more milliseconds
    snapshots                   what members write: a byte for each piece of a snapshot that they sent

Cut from A to B alone, A's calls do not reach B; but B's answers ride on those calls, so with a cut from B
to A alone, A's calls reach B and their answers are lost. Both files make a partition.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FAULTS_VARIABLE: Final = "ETCRAY_TESTING_FAULTS"

ENTRIES_KEPT: Final = 300
"""Of a faulty member's log behind its flushed index; the product keeps `limits.LOG_CATCH_UP_ENTRIES`."""


def cut_file(directory: Path, sender: int, recipient: int) -> Path:
    return directory / f"cut-{sender:x}-{recipient:x}"


def slow_file(directory: Path, process_id: int) -> Path:
    return directory / f"slow-{process_id}"


def snapshots_file(directory: Path) -> Path:
    return directory / "snapshots"


def count_snapshots(directory: Path) -> int:
    """Pieces of snapshots that members have sent to each other."""
    file = snapshots_file(directory)
    return file.stat().st_size if file.exists() else 0
