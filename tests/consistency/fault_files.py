"""How a tester tells running actors what to suffer: by files in a folder that an environment variable names.

    cut-<sender>-<recipient>    while it is there, calls from one to the other are lost: the ids of members in
                                hex, gateways as `gateway0`. A call between members, or one whose file is
                                empty, fails at once; one whose file says `silent` fails when it is over
    slow-<process>              while it is there, each sync of that process takes as many more milliseconds
    broken-<process>            while it is there, that process's syncs and its writes at an offset fail
    clock-<member>              while it is there, that member's clock runs at the rate that it says
    snapshots                   what members write: a byte for each piece of a snapshot that they sent

Cut from A to B alone, A's calls do not reach B; but B's answers ride on those calls, so with a cut from B
to A alone, A's calls reach B and their answers are lost. Both files make a partition.

Another variable names a mistake of `tests.simulation.mutants` that every member is to make.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

FAULTS_VARIABLE: Final = "ETCRAY_TESTING_FAULTS"
MISTAKE_VARIABLE: Final = "ETCRAY_TESTING_MISTAKE"

ENTRIES_KEPT: Final = 300
"""Of a faulty member's log behind its flushed index; the product keeps `limits.LOG_CATCH_UP_ENTRIES`."""

SILENT: Final = "silent"

LOOK_SECONDS: Final = 0.02
"""How often somebody who waits looks whether a fault is over."""


def member_place(member: int) -> str:
    return f"{member:x}"


def gateway_place(index: int) -> str:
    return f"gateway{index}"


def cut_file(directory: Path, sender: str, recipient: str) -> Path:
    return directory / f"cut-{sender}-{recipient}"


def slow_file(directory: Path, process_id: int) -> Path:
    return directory / f"slow-{process_id}"


def broken_file(directory: Path, process_id: int) -> Path:
    return directory / f"broken-{process_id}"


def clock_file(directory: Path, member: int) -> Path:
    return directory / f"clock-{member:x}"


def snapshots_file(directory: Path) -> Path:
    return directory / "snapshots"


def count_snapshots(directory: Path) -> int:
    """Pieces of snapshots that members have sent to each other."""
    file = snapshots_file(directory)
    return file.stat().st_size if file.exists() else 0


async def pass_or_raise(file: Path, error: type[Exception]) -> None:
    """Raises the error if this file cuts the way, at once or, if it is silent, when that is over."""
    try:
        is_silent = file.read_text() == SILENT
    except FileNotFoundError:
        return
    while is_silent and file.exists():
        await asyncio.sleep(LOOK_SECONDS)
    raise error(f"{file} exists, or did when the call was made")
