"""Members and gateways whose calls can be cut while they run, members with slow clocks and short logs.

The classes below take the place of `MemberActor` and `GatewayActor` through the factories that a launch
takes, so the product knows nothing of them. What they suffer is said by files, see `fault_files`. A
gateway's way to a member and the members' ways to each other are cut apart from each other, so that a leader
may be cut off from its peers while some gateway still reaches it, and it alone.

Where members talk by streams, these are cut in place of the calls (`faulty_streams`).

Importing this module makes logs short, so that a member that was away for seconds needs a snapshot. That
changes a limit of the whole process, so only a cluster's own processes may import it.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
from ray.exceptions import RayError

from etcray_storage import limits
from tests.consistency.fault_files import (
    ENTRIES_KEPT,
    FAULTS_VARIABLE,
    LOOK_SECONDS,
    MISTAKE_VARIABLE,
    clock_file,
    cut_file,
    gateway_place,
    member_place,
    pass_or_raise,
    snapshots_file,
)

limits.LOG_CATCH_UP_ENTRIES = ENTRIES_KEPT  # type: ignore[misc]

from etcray.gateway.actor import GatewayActor  # noqa: E402 - after the limit
from etcray.node import opened  # noqa: E402
from etcray.node.actor import MemberActor  # noqa: E402
from etcray.spec import ClusterSpec  # noqa: E402
from tests.consistency.faulty_streams import (  # noqa: E402
    make_gateway_streams_faulty,
    make_member_streams_faulty,
)


class CutError(RayError):
    """A test has cut this link."""


class FaultyMember(MemberActor):
    """A real member behind links that can be cut, by a clock that can be slow or fast."""

    def __init__(self, spec: bytes, member_name: str) -> None:
        super().__init__(spec, member_name)
        members = msgspec.msgpack.decode(spec, type=ClusterSpec).members
        self._id = next(member.id for member in members if member.name == member_name)
        self._faults = Path(os.environ[FAULTS_VARIABLE])
        vars(opened)["time"] = FaultyClock(clock_file(self._faults, self._id))
        make_member_streams_faulty(self._faults, self._id)
        _plant(os.environ.get(MISTAKE_VARIABLE, ""))

    def set_peers(self, handles: dict[int, Any]) -> None:
        """As its parent's, with a link in between."""
        super().set_peers(
            {peer: Link(handle, self._faults, self._id, peer) for peer, handle in handles.items()}
        )


def _plant(mistake: str) -> None:
    if mistake:
        from tests.simulation.mutants import MUTANTS
        from tests.simulation.substitution import Replacements

        MUTANTS[mistake].plant(Replacements())


class FaultyClock:
    """Stands for the module `time` where a member is put together."""

    time_ns = staticmethod(time.time_ns)

    def __init__(self, file: Path) -> None:
        self._file = file
        self._real = self._shown = self._looked = time.monotonic()
        self._rate = 1.0
        self._mutex = threading.Lock()

    def monotonic(self) -> float:
        """Never goes back, whatever its rate was."""
        with self._mutex:
            now = time.monotonic()
            self._shown += (now - self._real) * self._rate
            self._real = now
            if now >= self._looked + LOOK_SECONDS:
                self._looked = now
                try:
                    self._rate = float(self._file.read_text() or 1.0)
                except FileNotFoundError:
                    self._rate = 1.0
            return self._shown


class Link:
    """Stands for a member's actor handle where only these two methods are called."""

    def __init__(self, handle: Any, faults: Path, sender: int, recipient: int) -> None:
        here, other = member_place(sender), member_place(recipient)
        there, back = cut_file(faults, here, other), cut_file(faults, other, here)
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


class FaultyGateway(GatewayActor):
    """A real gateway behind links to members that can be cut."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        make_gateway_streams_faulty(Path(os.environ[FAULTS_VARIABLE]), self._spec.index)

    async def set_members(self, handles: dict[int, Any]) -> None:
        faults = Path(os.environ[FAULTS_VARIABLE])
        here = gateway_place(self._spec.index)
        await super().set_members(
            {member: GatewayLink(handle, faults, here, member) for member, handle in handles.items()}
        )


class GatewayLink:
    """Stands for a member's actor handle in a gateway."""

    def __init__(self, handle: Any, faults: Path, gateway: str, member: int) -> None:
        self._handle = handle
        self._there = cut_file(faults, gateway, member_place(member))
        self._back = cut_file(faults, member_place(member), gateway)

    def __getattr__(self, method: str) -> GatewayLinkMethod:
        return GatewayLinkMethod(getattr(self._handle, method), self._there, self._back)


class GatewayLinkMethod:
    """One method of a handle."""

    def __init__(self, method: Any, there: Path, back: Path) -> None:
        self._method = method
        self._there = there
        self._back = back

    async def remote(self, *arguments: bytes) -> Any:
        await pass_or_raise(self._there, CutError)
        answer = await self._method.remote(*arguments)
        await pass_or_raise(self._back, CutError)
        return answer


def faulty_member_class() -> type[Any]:
    """For `Cluster.launch_with`."""
    return FaultyMember


def faulty_gateway_class() -> type[Any]:
    """For `Cluster.launch_with`."""
    return FaultyGateway
