"""Where an actor has to live: on the machine that has its directory or its port. Pure but for one look
at a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etcray.spec import MemberSpec, NodePin
from etcray_storage.errors import DataDirectoryError


def choose_node(pin: NodePin, nodes: Sequence[dict[str, Any]], place: int) -> str:
    """The id of a living Ray node on the pinned machine. Several nodes may run on one machine: there
    the actors take turns, by their place among their kind. Raises LookupError if there is none."""
    here = [n for n in nodes if n["NodeManagerHostname"] == pin.hostname]
    exact = [n for n in here if n["NodeManagerAddress"] == pin.address] or here
    if not exact:
        raise LookupError(f"no living Ray node on {pin.hostname} ({pin.address}), where the data is")
    ids = sorted(str(node["NodeID"]) for node in exact)
    return ids[place % len(ids)]


def check_directory(member: MemberSpec) -> None:
    """For a member that has had a directory: raises DataDirectoryError if that is gone or empty. The
    member would forget for whom it voted, and what it promised to keep."""
    path = Path(member.data_directory)
    if not path.is_dir() or not any(path.iterdir()):
        raise DataDirectoryError(
            f"the data of {member.name} in {path} is gone. It must not start empty: restore the directory"
        )
