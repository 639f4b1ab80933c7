"""What goes wrong, one method a fault. Each ends by itself after a while; `heal` ends them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.hosts import Host, MemberProcess, open_member

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class Faults:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._hosts = simulation.hosts
        self._network = simulation.network
        self.counts: Counter[str] = Counter()
        self._is_over = False
        profile = simulation.profile
        self._names = list(profile.faults)
        self._weights = list(profile.faults.values())
        self._seconds = profile.fault_seconds
        self._interval = 1 / profile.faults_per_second if profile.faults_per_second else 0.0

    def start(self) -> None:
        if self._names and self._interval:
            self._schedule()

    def _schedule(self) -> None:
        self._world.after(self._world.rng.random() * 2 * self._interval, self._strike)

    def _strike(self) -> None:
        if self._is_over:
            return
        (name,) = self._world.rng.choices(self._names, self._weights)
        self.counts[name] += 1
        self._world.note(name.encode())
        getattr(self, name)()
        self._schedule()

    def heal(self) -> None:
        """Nothing goes wrong from now on."""
        self._is_over = True
        self._network.heal()
        self._hosts.end_zombies()
        self._hosts.restart_seconds = 0.5
        for host in self._hosts.hosts.values():
            disk = host.disk
            disk.is_full = False
            disk.fails_next = disk.crashes_next = 0
            disk.slow_until = 0.0
            if host.process is not None and host.process.is_paused:
                host.process.resume()

    # --- who and how long -------------------------------------------------------------------------

    def _later(self, seconds: float, end: Callable[[], None]) -> None:
        def unless_over() -> None:
            if not self._is_over:
                end()

        self._world.after(seconds * (0.2 + self._world.rng.random()), unless_over)

    def _any(self) -> Host:
        host: Host = self._world.pick(list(self._hosts.hosts.values()))
        return host

    def _leader(self) -> Host:
        leaders = self._simulation.leaders()
        return leaders[-1] if leaders else self._any()

    # --- processes --------------------------------------------------------------------------------

    def crash(self) -> None:
        self._hosts.crash(self._any())

    def crash_leader(self) -> None:
        self._hosts.crash(self._leader())

    def crash_all(self) -> None:
        for host in self._hosts.hosts.values():
            self._hosts.crash(host)

    def crash_long(self) -> None:
        """Away for long enough to need a snapshot."""
        before = self._hosts.restart_seconds
        self._hosts.restart_seconds = 6.0
        self._hosts.crash(self._any())
        self._later(0.001, lambda: setattr(self._hosts, "restart_seconds", before))

    def crash_at_write(self) -> None:
        host = self._any()
        host.disk.crashes_next = 1 + int(self._world.rng.random() * 6)

    def crash_all_at_write(self) -> None:
        for host in self._hosts.hosts.values():
            host.disk.crashes_next = 1 + int(self._world.rng.random() * 4)

    def pause(self) -> None:
        """SIGSTOP, or a very long pause of any other cause."""
        process = self._any().process
        if process is not None and not process.is_dead and not process.is_paused:
            process.pause()
            self._later(self._seconds, lambda: self._resume(process))

    def _resume(self, process: MemberProcess) -> None:
        if process.is_paused and not process.is_dead:
            process.resume()

    def zombie(self) -> None:
        before = list(self._hosts.zombies)
        self._hosts.make_zombie(self._any())
        for process in self._hosts.zombies:
            if process not in before:
                self._later(3.0, process.exit)

    def suspect(self) -> None:
        """Somebody reports a death that did not happen."""
        dead = self._any()
        for host in self._hosts.hosts.values():
            if host.is_open and host is not dead and host.process is not None:
                process = host.process
                process.spawn(lambda p=process: open_member(p).member_died(dead.id), "member_died")  # type: ignore[misc]

    def crash_gateway(self) -> None:
        self._simulation.crash_gateway()

    def jump_wall_clock(self) -> None:
        self._any().wall_offset += (self._world.rng.random() - 0.5) * 7200

    # --- membership -------------------------------------------------------------------------------

    def add_member(self) -> None:
        if len(self._simulation.controller.membership.voters) < 6:
            self._simulation.controller.add_learner()

    def promote_member(self) -> None:
        learners = self._simulation.controller.membership.learners
        if learners:
            self._simulation.controller.promote(self._world.pick(learners))

    def remove_member(self) -> None:
        """Anybody, also the leader; whether it may be is for the real rules to say."""
        membership = self._simulation.controller.membership
        if len(membership.voters) > 2 or self._world.chance(0.1):
            self._simulation.controller.remove(self._world.pick((*membership.voters, *membership.learners)))

    def remove_leader(self) -> None:
        if len(self._simulation.controller.membership.voters) > 2:
            self._simulation.controller.remove(self._leader().id)

    def change_burst(self) -> None:
        """Several changes are asked for in the same moment."""
        self.promote_member()
        self.remove_member()
        self.add_member()

    def transfer(self) -> None:
        self._simulation.controller.transfer()

    # --- network ----------------------------------------------------------------------------------

    def _block(self, pairs: list[tuple[str, str]]) -> None:
        self._network.blocked.update(pairs)
        self._later(self._seconds, lambda: self._network.blocked.difference_update(pairs))

    def _names_of(self) -> list[str]:
        return [host.name for host in self._hosts.hosts.values()]

    def cut_off(self) -> None:
        self._cut_off(self._any().name)

    def cut_off_leader(self) -> None:
        self._cut_off(self._leader().name)

    def _cut_off(self, name: str) -> None:
        """From the other members; gateways may reach it or not."""
        others = [other for other in self._names_of() if other != name]
        if self._world.chance(0.5):
            others += [gateway.name for gateway in self._simulation.gateways]
        self._block([(name, other) for other in others] + [(other, name) for other in others])

    def cut_some(self) -> None:
        """A partial partition: some pairs do not hear each other."""
        names = self._names_of()
        pairs = []
        for one in names:
            for other in names:
                if one < other and self._world.chance(0.4):
                    pairs += [(one, other), (other, one)]
        self._block(pairs)

    def cut_one_way(self) -> None:
        one = self._any().name
        others = [other for other in self._names_of() if other != one and self._world.chance(0.7)]
        if self._world.chance(0.5):
            self._block([(one, other) for other in others])
        else:
            self._block([(other, one) for other in others])

    def cut_gateway(self) -> None:
        gateway = self._world.pick(self._simulation.gateways)
        host = self._any()
        pair = (gateway.name, host.name)
        self._block([pair if self._world.chance(0.5) else (pair[1], pair[0])])

    def swizzle(self) -> None:
        """Hold back everything to some members, one after the other, then let it come in another order."""
        names = self._names_of()
        chosen = [name for name in names if self._world.chance(0.6)]
        for position, target in enumerate(chosen):
            self._world.after(position * 0.2, lambda t=target: self._clog(t, names))  # type: ignore[misc]
        self._world.rng.shuffle(chosen)
        for position, target in enumerate(chosen):
            self._world.after(1.0 + position * 0.3, lambda t=target: self._unclog(t, names))  # type: ignore[misc]

    def _clog(self, target: str, names: list[str]) -> None:
        if not self._is_over:
            for source in names:
                self._network.clog(source, target)

    def _unclog(self, target: str, names: list[str]) -> None:
        for source in names:
            self._network.unclog(source, target)

    # --- disks ------------------------------------------------------------------------------------

    def fail_write(self) -> None:
        self._any().disk.fails_next = 1 + int(self._world.rng.random() * 8)

    def _breakable(self) -> Host | None:
        """A member whose disk may be lost: a minority of the voters, and each of them only once."""
        hosts = [self._hosts.hosts[voter] for voter in self._simulation.controller.membership.voters]
        broken = [host for host in hosts if host.is_quarantined or host.disk.is_damaged or host.is_wiped]
        if not hosts or 2 * (len(broken) + 1) >= len(hosts):
            return None
        sound = [host for host in hosts if host not in broken and host.is_open]
        return self._world.pick(sound) if sound else None

    def flip_bit(self) -> None:
        """In a record of the log, or in the tables: found at the next start, or by the slow check."""
        host = self._breakable()
        if host is None:
            return
        log = host.disk.log
        if log.entries and self._world.chance(0.7):
            log.damaged_index = self._world.pick(log.entries).index
        else:
            host.disk.tables.is_damaged = True
        self._later(1.0, lambda: self._hosts.crash(host))

    def lose_disk(self) -> None:
        """The process ends, and the directory is empty when it comes back."""
        host = self._breakable()
        if host is not None:
            host.is_wiped = True
            self._hosts.crash(host)
            self._world.after(0.0, host.disk.wipe)

    def fill_disk(self) -> None:
        disk = self._any().disk
        disk.is_full = True
        self._later(2.0, lambda: setattr(disk, "is_full", False))

    def slow_disk(self) -> None:
        disk = self._any().disk
        disk.slow_until = self._world.now + 3 * self._world.rng.random()
