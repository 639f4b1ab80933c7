"""From a stopped cluster that lost its majority to one that goes on with a single member.

The order decides what a crash leaves: the cluster file first, durably. It then names a new epoch, and the
chosen member alone; the member's directory still belongs to the epoch before, so nothing starts on it. The
same call again finds the epoch ahead of the directory, and finishes.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from etcray import state_file
from etcray.errors import OptionsError
from etcray.spec import ClusterSpec, MemberSpec, NodePin, derive_cluster_id, peer_url
from etcray_storage import recover
from etcray_storage.errors import DataDirectoryError
from etcray_storage.machine.members import Member
from etcray_storage.recover import Loss, Survivor
from etcray_storage.types import ClusterId


@dataclass(frozen=True, slots=True)
class Prospect:
    """What can be done, and what it may cost."""

    cluster: ClusterSpec
    survivors: tuple[Survivor, ...]
    """Every member's directory that was found here, usable or not."""
    chosen: Survivor
    loss: Loss


class Recovery:
    """Holds the cluster's lock from `open` to `close`: nobody starts it meanwhile."""

    def __init__(self, directory: Path, name: str) -> None:
        """Raises DataDirectoryError if there is no such cluster, ClusterRunningError if it runs."""
        self._directory = directory
        if not directory.is_dir():
            raise OptionsError(
                f"there is no cluster {name!r} in {directory.parent}. Choose another --data-dir"
            )
        self._lock = state_file.LaunchLock(directory)
        try:
            spec = state_file.load(directory, name)
            if spec is None:
                raise OptionsError(f"there is no cluster {name!r} in {directory.parent}")
            self._spec = spec
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Idempotent."""
        self._lock.release()

    def look(self) -> Prospect:
        """Find out who knows most. Raises DataDirectoryError if nobody can be used."""
        spec = self._spec
        paths = sorted(path.parent for path in self._directory.glob("*/identity.json"))
        survivors = tuple(
            recover.survey(path, self._cluster_ids(), _founders(spec))
            for path in paths
            if state_file.ASIDE not in path.name
        )
        chosen = recover.choose(list(survivors))
        if chosen is None:
            reasons = (
                "; ".join(f"{survivor.name}: {survivor.problem}" for survivor in survivors) or "none is there"
            )
            raise DataDirectoryError(
                f"no member's directory in {self._directory} can be used ({reasons}). Bring one here from "
                "another machine, or restore one from a copy"
            )
        return Prospect(spec, survivors, chosen, recover.loss_of(chosen, list(survivors)))

    def carry_out(self, prospect: Prospect) -> ClusterSpec:
        """Make the chosen survivor the only member; the others' directories are set aside. The cluster as
        it is to be launched."""
        chosen = prospect.chosen
        spec = self._in_new_epoch(chosen)
        state_file.save(self._directory, spec)
        founders = _founders(self._spec)
        old = self._cluster_ids()[chosen.epoch]
        recover.make_sole_member(chosen.path, old, spec.cluster_id, spec.name, founders)
        state_file.save(chosen.path, spec)
        for survivor in prospect.survivors:
            if survivor.path != chosen.path:
                state_file.set_aside(survivor.path)
        return spec

    def _in_new_epoch(self, chosen: Survivor) -> ClusterSpec:
        old = self._spec
        epoch = old.epoch + 1
        if old.epoch > chosen.epoch and [member.id for member in old.members] == [chosen.member_id]:
            return old  # Begun before, and not finished.
        known = next((member for member in old.members if member.id == chosen.member_id), None)
        member = MemberSpec(
            id=chosen.member_id,
            name=chosen.name,
            data_directory=str(chosen.path),
            pin=_pin_here(known.pin if known is not None else old.members[0].pin),
        )
        return msgspec.structs.replace(
            old,
            cluster_id=derive_cluster_id(old.name, old.token, epoch),
            epoch=epoch,
            version=old.version + 1,
            formed=True,
            members=(member,),
        )

    def _cluster_ids(self) -> list[ClusterId]:
        """Those of all epochs up to now, by epoch."""
        spec = self._spec
        return [derive_cluster_id(spec.name, spec.token, epoch) for epoch in range(spec.epoch + 1)]


def _founders(spec: ClusterSpec) -> list[Member]:
    return [
        Member(founder.id, founder.name, (peer_url(spec.name, founder.name),), ())
        for founder in spec.first_members
    ]


def _pin_here(pin: NodePin | None) -> NodePin | None:
    """The directory is on this machine, wherever it was before."""
    if pin is None or pin.hostname == socket.gethostname():
        return pin
    return NodePin(hostname=socket.gethostname(), address="")
