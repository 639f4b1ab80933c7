"""The processes of a simulated cluster: members that die and come back, and who brings them back.

`Hosts` does what the supervisor does in production: it starts a member's process on its directory, tells
all members how to call each other, and reports deaths, each with a delay. Real are: everything in
`etcray.node.Member`. A host outlives its processes; its disk outlives it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from etcray.node.member import Member
from etcray.spec import ClusterSpec, MemberSpec, Timing, derive_cluster_id, derive_member_id
from etcray_storage.errors import OperatingError, StorageCorruptError, StorageFatalError, StorageFullError
from etcray_storage.types import MemberId
from tests.simulation import files
from tests.simulation.disk import Disk
from tests.simulation.network import Network
from tests.simulation.primitives import the
from tests.simulation.scheduler import Killed, Process, World

EXCHANGE_SECONDS = 0.5
CHUNK_SECONDS = 5.0


class MemberProcess(Process):
    """A member's process, with a wall clock that may be wrong."""

    def __init__(self, world: World, host: Host) -> None:
        super().__init__(world, host.name, host.clock_rate)
        self.host = host
        self.member: Member | None = None
        """Once it is open."""
        self.is_being_introduced = False
        self.is_introduction_due = False
        """Something has changed meanwhile."""

    def wall_seconds(self) -> float:
        return 1.7e9 + self.world.now + self.host.wall_offset


class Host:
    """Where a member lives."""

    def __init__(self, name: str, member: MemberId, disk: Disk) -> None:
        self.name = name
        self.id = member
        self.disk = disk
        self.process: MemberProcess | None = None
        self.clock_rate = 1.0
        self.wall_offset = 0.0
        self.is_quarantined = False
        """Its disk is damaged or gone: it is not started again."""
        self.is_retired = False
        """It was removed from the cluster."""
        self.is_wiped = False
        """Its disk was replaced by an empty one."""
        self.was_listed = False
        """It was in the membership once."""
        self.is_leaving = False
        self.joining = False
        """It has not opened its directory yet, and may begin with an empty one."""
        self.has_opened = False
        self.restarts = 0

    @property
    def is_open(self) -> bool:
        process = self.process
        return process is not None and not process.is_dead and process.member is not None


class Channel:
    """How one member calls another: bound to one process, as an actor's handle is."""

    def __init__(self, hosts: Hosts, source: str, target: MemberProcess) -> None:
        self._hosts = hosts
        self._source = source
        self._target = target

    def exchange(self, envelope: bytes) -> bytes:
        process = the.process
        assert isinstance(process, MemberProcess), "only members call members"
        self._hosts.on_envelope(process.host, process, envelope)
        return self._call(self._exchange(envelope), EXCHANGE_SECONDS)

    def _exchange(self, envelope: bytes) -> Callable[[Member], bytes]:
        def run(member: Member) -> bytes:
            reply = member.exchange(envelope)
            self._hosts.on_envelope(self._target.host, self._target, reply)
            return reply

        return run

    def snapshot_chunk(self, chunk: bytes) -> bytes:
        return self._call(lambda member: member.receive_snapshot_chunk(chunk), CHUNK_SECONDS)

    def _call(self, call: Callable[[Member], bytes], timeout_seconds: float) -> bytes:
        target = self._target
        self._hosts.world.note(target.name.encode())
        reply: bytes = self._hosts.network.call(
            self._source,
            target.name,
            target,
            lambda: call(open_member(target)),
            timeout_seconds,
        )
        return reply


def open_member(process: MemberProcess) -> Member:
    if process.member is None:
        raise RuntimeError(f"{process.name} is not open")
    return process.member


class Hosts:
    def __init__(self, world: World, network: Network, spec: ClusterSpec) -> None:
        self.world = world
        self.network = network
        self.spec = spec
        self.disks = files.disks
        self.hosts: dict[MemberId, Host] = {}
        self.zombies: list[MemberProcess] = []
        self.counts: Counter[str] = Counter()
        self.restart_seconds = 1.0
        self.on_members: Callable[[], None] = lambda: None
        """Somebody was started or stopped: gateways look again."""
        self.on_envelope: Callable[[Host, MemberProcess, bytes], None] = lambda host, process, envelope: None
        """Sees whatever leaves a member for another one."""
        for member in spec.members:
            self.add(member)

    def add(self, member: MemberSpec) -> Host:
        disk_name = member.data_directory.strip("/")
        host = Host(member.name, member.id, self.disks[disk_name])
        host.joining = member.joining
        host.disk.on_crash = lambda process: self._crash_at_write(host)
        self.hosts[member.id] = host
        return host

    # --- starting -------------------------------------------------------------------------------

    def start(self, host: Host) -> None:
        if host.is_retired or host.is_quarantined or (host.process and not host.process.is_dead):
            return
        process = MemberProcess(self.world, host)
        process.on_end = lambda ended: self._ended(host, process)
        host.process = process
        host.restarts += 1
        process.spawn(lambda: self._open(host, process), "open")

    def _open(self, host: Host, process: MemberProcess) -> None:
        member = Member(self.spec_for(host), host.name, measure_room=files.free_bytes)
        try:
            member.open()
        except StorageCorruptError:
            host.is_quarantined = True
            self.counts["quarantined"] += 1
            process.exit()
            return
        except OperatingError as error:
            process.failures.append(error)
            process.exit()
            return
        process.member = member
        host.joining = False
        host.has_opened = True
        self.world.after(self.world.rng.random() * 0.05, self.connect_all)

    def spec_for(self, host: Host) -> ClusterSpec:
        """What its actor would be created with."""
        founders = self.spec.first_members
        member = MemberSpec(
            id=host.id, name=host.name, data_directory=f"/{host.disk.name}", joining=host.joining
        )
        others = tuple(other for other in self.spec.members if other.id != host.id)
        return msgspec.structs.replace(
            self.spec,
            founders=founders,
            members=(member, *others),
            formed=all(self.hosts[founder.id].has_opened for founder in founders),
        )

    def connect_all(self) -> None:
        """Tell every member how to call every other."""
        for host in self.hosts.values():
            if host.is_open and host.process is not None:
                self._introduce(host.process)
        self.on_members()

    def _introduce(self, process: MemberProcess) -> None:
        """One at a time, as the supervisor does it: see `Watched.introductions_awaited`."""
        if process.is_being_introduced:
            process.is_introduction_due = True
            return
        channels: dict[int, Any] = {
            other.id: Channel(self, process.host.name, other.process)
            for other in self.hosts.values()
            if other.is_open and other.process is not None
        }

        def connect() -> None:
            open_member(process).connect(channels)
            process.is_being_introduced = False
            if process.is_introduction_due:
                process.is_introduction_due = False
                self._introduce(process)

        process.is_being_introduced = True
        process.spawn(connect, "connect")

    # --- ending ---------------------------------------------------------------------------------

    def crash(self, host: Host) -> None:
        """Power loss: whatever was not synced may be gone."""
        if host.process is not None and not host.process.is_dead:
            self.counts["crash"] += 1
            host.process.exit()

    def _crash_at_write(self, host: Host) -> None:
        self.counts["crash at a write"] += 1
        the.process.exit()

    def _ended(self, host: Host, process: MemberProcess) -> None:
        for error in process.failures:
            if isinstance(error, StorageCorruptError):
                host.is_quarantined = True
                self.counts["quarantined"] += 1
            elif isinstance(error, StorageFatalError | StorageFullError):
                self.counts["ended by the disk"] += 1
            elif not isinstance(error, OperatingError | Killed):
                self.world.fail(error)
        if process in self.zombies:
            self.zombies.remove(process)
            return
        host.disk.settle()
        delay = self.world.rng.random() * self.restart_seconds
        self.world.after(delay, lambda: self.start(host))
        if self.world.chance(0.4):
            self.world.after(self.world.rng.random() * 0.1, lambda: self._report_death(host))

    def _report_death(self, host: Host) -> None:
        for other in self.hosts.values():
            if other is not host and other.is_open and other.process is not None:
                process = other.process
                process.spawn(lambda p=process: open_member(p).member_died(host.id), "member_died")  # type: ignore[misc]

    def make_zombie(self, host: Host) -> None:
        """A replacement is started while the old process, which has lost its directory, goes on."""
        process = host.process
        if process is None or not host.is_open:
            return
        self.counts["zombie"] += 1
        self.zombies.append(process)
        host.disk.take_over()
        host.process = None
        self.start(host)

    def end_zombies(self) -> None:
        for process in list(self.zombies):
            process.exit()


def make_spec(count: int, timing: Timing) -> ClusterSpec:
    names = [f"m{number}" for number in range(1, count + 1)]
    return ClusterSpec(
        name="simulated",
        token="token",
        cluster_id=derive_cluster_id("simulated", "token"),
        members=tuple(
            MemberSpec(id=derive_member_id("simulated", "token", name), name=name, data_directory=f"/{name}")
            for name in names
        ),
        gateways=(),
        timing=timing,
    )
