"""Members whose calls to each other can be cut while they run, and whose logs are short.

The class below takes the place of `MemberActor` through the factories that a launch takes, so the product
knows nothing of it. Which links are cut is said by files, see `fault_files`. Only members are cut off from
members: gateways go on to reach everybody, an old leader too.

Importing this module makes logs short, so that a member that was away for seconds needs a snapshot. That
changes a limit of the whole process, so only a member's own process may import it, and the process that
launches the cluster.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from ray.exceptions import RayError

from etcray_storage import limits
from tests.consistency.fault_files import ENTRIES_KEPT, FAULTS_VARIABLE, cut_file, snapshots_file

limits.LOG_CATCH_UP_ENTRIES = ENTRIES_KEPT  # type: ignore[misc]

from etcray.node.actor import MemberActor  # noqa: E402 - after the limit
from etcray.spec import ClusterSpec  # noqa: E402


class CutError(RayError):
    """A test has cut this link."""


class FaultyMember(MemberActor):
    """A real member behind links that can be cut."""

    def __init__(self, spec: bytes, member_name: str) -> None:
        super().__init__(spec, member_name)
        members = msgspec.msgpack.decode(spec, type=ClusterSpec).members
        self._id = next(member.id for member in members if member.name == member_name)
        self._faults = Path(os.environ[FAULTS_VARIABLE])

    def set_peers(self, handles: dict[int, Any]) -> None:
        """As its parent's, with a link in between."""
        super().set_peers(
            {peer: Link(handle, self._faults, self._id, peer) for peer, handle in handles.items()}
        )


class Link:
    """Stands for a member's actor handle where only these two methods are called."""

    def __init__(self, handle: Any, faults: Path, sender: int, recipient: int) -> None:
        there, back = cut_file(faults, sender, recipient), cut_file(faults, recipient, sender)
        self.exchange = LinkMethod(handle.exchange, there, back)
        self.snapshot_chunk = LinkMethod(handle.snapshot_chunk, there, back, snapshots_file(faults))


class LinkMethod:
    """One method of a handle."""

    def __init__(self, method: Any, there: Path, back: Path, tally: Path | None = None) -> None:
        self._method = method
        self._tally = tally
        self._there = str(there)
        self._back = str(back)

    def remote(self, argument: bytes) -> Any:
        if os.path.exists(self._there):
            raise CutError(f"{self._there} exists")
        reference = self._method.remote(argument)
        if self._tally is not None:
            with self._tally.open("ab") as file:
                file.write(b".")
        if os.path.exists(self._back):
            raise CutError(f"{self._back} exists")
        return reference


def faulty_member_class() -> type[Any]:
    """For `Cluster.launch_with`."""
    return FaultyMember
