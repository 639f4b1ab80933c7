"""The cluster's spec as the supervisor keeps it: changed here, and written where it will be looked for.

`cluster.json` in the cluster's directory, on the node where the launcher put it, is replaced at once and
atomically. Every member's directory gets a copy, so that a cluster can be started again from the members'
disks alone; the highest version is the newest. A supervisor that Ray restarts is given the spec of its
first day, and finds the newest one the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from etcray import ray_runtime, state_file
from etcray.spec import (
    ClusterSpec,
    Founder,
    MemberSpec,
    cluster_directory,
    decode_spec,
    encode_spec,
    member_actor_name,
)
from etcray.supervisor.watched import WatchedMember
from etcray_storage.errors import DataDirectoryError

COPIES_SECONDS: Final = 5.0
"""How long a restarted supervisor waits for members to show it their copies."""


class Book:
    """Holds the spec. Not thread-safe."""

    def __init__(self, spec: ClusterSpec) -> None:
        self.spec = spec
        self._copied: dict[str, int] = {}
        """Version of the copy that a member was given."""

    def find_newest(self) -> None:
        """After a restart: what is here on disk, and what living members hold."""
        directory = Path(cluster_directory(self.spec))
        with suppress(DataDirectoryError):  # A damaged file is for the next launch to complain of.
            stored = state_file.load(directory, self.spec.name)
            if stored is not None:
                self._take(stored)
        prefix = member_actor_name(self.spec.name, "")
        calls = []
        for name in ray_runtime.actor_names(prefix):
            handle = ray_runtime.find_actor(name)
            if handle is not None:
                calls.append(
                    handle.__ray_call__.remote(read_copy, str(directory / name.removeprefix(prefix)))
                )
        for copy in ray_runtime.wait_for(calls, COPIES_SECONDS):
            if copy:
                self._take(decode_spec(copy))

    def _take(self, found: ClusterSpec) -> None:
        """Gateways and what they serve are the launch's; a stored spec has those of the same launch, or
        of an older one."""
        if found.age > self.spec.age and found.cluster_id == self.spec.cluster_id:
            self.spec = msgspec.structs.replace(found, gateways=self.spec.gateways)

    def add(self, member: MemberSpec) -> None:
        """Before its actor is created: a member without an entry here would be lost at a restart."""
        self._change(members=(*self.spec.members, member))

    def remove(self, name: str) -> None:
        self._change(members=tuple(member for member in self.spec.members if member.name != name))
        self._copied.pop(name, None)

    def opened(self, name: str) -> None:
        """It has a directory now, which must never be empty again."""
        members = tuple(
            msgspec.structs.replace(member, joining=False) if member.name == name else member
            for member in self.spec.members
        )
        if members != self.spec.members:
            self._change(members=members)

    def formed(self) -> None:
        """All founders have opened."""
        if not self.spec.formed:
            self._change(formed=True)

    def _change(self, **changes: Any) -> None:
        founders: tuple[Founder, ...] = self.spec.first_members
        self.spec = msgspec.structs.replace(
            self.spec, version=self.spec.version + 1, founders=founders, **changes
        )
        directory = Path(cluster_directory(self.spec))
        if (directory / state_file.FILE_NAME).exists():
            state_file.save(directory, self.spec)

    def copy_to(self, member: WatchedMember, call: Callable[..., None]) -> None:
        """Give a serving member the newest copy, unless it was given that."""
        if self._copied.get(member.name, -1) < self.spec.version:
            self._copied[member.name] = self.spec.version
            call(
                member,
                "copy",
                member.handle.__ray_call__,
                write_copy,
                member.spec.data_directory,
                encode_spec(self.spec),
            )

    def copy_failed(self, name: str) -> None:
        """It has to be given again: also to a member that was created anew."""
        self._copied.pop(name, None)


def write_copy(_actor: object, directory: str, encoded: bytes) -> None:
    """Runs inside a member's actor."""
    state_file.save(Path(directory), decode_spec(encoded))


def read_copy(_actor: object, directory: str) -> bytes:
    """Runs inside a member's actor; empty if it has none."""
    spec = state_file.read(Path(directory))
    return encode_spec(spec) if spec is not None else b""
