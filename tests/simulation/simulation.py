"""One run from one seed: a cluster, its clients, what goes wrong, and what must be true.

Three phases. With faults: everything is checked at every step (`checker`). Healing: the faults end, and
within a bound of virtual time every client has its answer and all members are in the same state. In the end
the history of the clients is checked as a whole (`tests.consistency`).
"""

from __future__ import annotations

import functools
import gc
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from etcray.raft.ready import Role
from etcray.spec import Timing
from etcray_storage.proto.kv_pb2 import KeyValue
from tests.consistency.history import Delete, DeleteAnswer, Event, Operation, Txn, TxnAnswer
from tests.consistency.history import Outcome as Status
from tests.consistency.revision_checker import check_revisions
from tests.simulation import files
from tests.simulation.checker import Checker, ObservedMachine, ObservedRaft, watching
from tests.simulation.clients import Client, Record
from tests.simulation.controller import Controller
from tests.simulation.faults import Faults
from tests.simulation.gateway import Gateway
from tests.simulation.hosts import Host, Hosts, make_spec
from tests.simulation.network import Network
from tests.simulation.primitives import the
from tests.simulation.profiles import SLOWER_ROUNDS, Profile, draw_profile
from tests.simulation.scheduler import Process, World
from tests.simulation.substitution import Replacements, substituted
from tests.simulation.watchers import Watcher

HEAL_SECONDS_MAX = 60.0
"""Of virtual time: a bound that has nothing to do with a good figure, only with being stuck for ever."""

Mutant = Callable[[Replacements], None]


class Outcome(NamedTuple):
    seed: int
    profile: str
    trace: int
    """The same for the same seed, in every process."""
    counts: Counter[str]


class Simulation:
    def __init__(self, seed: int, profile: Profile, rng: random.Random) -> None:
        self.profile = profile
        self.world = world = World(rng.getrandbits(64))
        the.world = world
        files.start()
        self.checker = watching.checker = Checker()
        self.network = Network(world)
        timing = Timing(heartbeat_ms=profile.heartbeat_ms, election_ms=profile.election_ms)
        self.hosts = Hosts(world, self.network, make_spec(rng.choice(profile.members), timing))
        self.checker.hosts = self.hosts
        self.hosts.on_envelope = self.checker.check_promises
        self.hosts.on_members = self._members_changed
        self.record = Record()
        self.gateways: list[Gateway] = []
        self._gateway_number = 0
        self.users = Process(world, "clients")
        self.clients = [
            Client(number, world, self.record, self._gateway_of(number), profile.keys)
            for number in range(1, profile.clients + 1)
        ]
        self.watchers = [Watcher(n, world, self.hosts, self.checker) for n in range(profile.watchers)]
        self._set_up(rng)
        self.controller = Controller(self)
        self.faults = Faults(self)

    def _set_up(self, rng: random.Random) -> None:
        profile = self.profile
        for host in self.hosts.hosts.values():
            host.clock_rate = rng.choice(profile.clock_rates)
            host.wall_offset = (rng.random() - 0.5) * 2 * profile.wall_seconds
            host.disk.write_seconds = rng.choice(profile.write_seconds)
        self.hosts.restart_seconds = profile.restart_seconds
        self.network.delay_seconds = profile.delay_seconds
        self.network.loss = profile.loss * rng.random() * 2
        self.network.duplication = profile.duplication * rng.random() * 2
        self.network.long_delay_seconds = profile.long_delay_seconds
        self.network.long_delay_chance = profile.long_delay_chance
        for client in self.clients:
            client.think_seconds = profile.think_seconds
            client.lease_share = profile.lease_share
            client.compact_share = profile.compact_share

    # --- gateways ---------------------------------------------------------------------------------

    def _gateway_of(self, number: int) -> Callable[[], Gateway | None]:
        def current() -> Gateway | None:
            gateway = self.gateways[number % len(self.gateways)]
            return None if gateway.is_dead else gateway

        return current

    def _new_gateway(self) -> Gateway:
        self._gateway_number += 1
        return Gateway(self.hosts, f"g{self._gateway_number}", self.checker.answered)

    def crash_gateway(self) -> None:
        position = int(self.world.rng.random() * len(self.gateways))
        gateway = self.gateways[position]
        if not gateway.is_dead:
            gateway.crash()
            self.world.after(self.world.rng.random(), lambda: self._replace_gateway(position))

    def _replace_gateway(self, position: int) -> None:
        self.gateways[position] = self._new_gateway()

    def _members_changed(self) -> None:
        for gateway in self.gateways:
            gateway.members_changed()
        self.controller.members_changed()

    # --- looking ----------------------------------------------------------------------------------

    def leaders(self) -> list[Host]:
        """Whoever believes to lead, by rising terms."""
        found = []
        for host in self.hosts.hosts.values():
            if host.is_open:
                state = raft_of(host).state
                if state.role is Role.LEADER:
                    found.append((state.term, host.name, host))
        return [host for _, _, host in sorted(found)]

    def applied_index(self, host: Host) -> int:
        return int(machine_of(host).applied_index) if host.is_open else 0

    # --- the phases -------------------------------------------------------------------------------

    def run(self) -> None:
        self.begin()
        self.controller.start()
        self.faults.start()
        self.world.run(until=1.0 + self.profile.seconds)
        self._heal()
        self._check_history()
        self._check_leases()

    def begin(self) -> None:
        """Members, then, when there is a leader, clients and watchers."""
        self.gateways += [self._new_gateway() for _ in range(self.profile.gateways)]
        for host in self.hosts.hosts.values():
            self.hosts.start(host)
        self.world.run(until=1.0)
        for client in self.clients:
            client.start(self.users)
        for watcher in self.watchers:
            watcher.start(self.users)

    def _heal(self) -> None:
        self.faults.heal()
        for client in self.clients:
            client.is_stopping = True
        self._wait_for(self._clients_are_done, "every request to be answered")
        self._wait_for(lambda: self.controller.is_done, "broken members to be replaced")
        self._wait_for(self._has_no_alarms, "alarms to end")
        self._wait_for(self._is_level, "all members to be in the same state")
        for watcher in self.watchers:
            self._wait_for(functools.partial(self._has_seen_all, watcher), "a watcher to see everything")
            watcher.is_stopping = True
        if self.profile.ends_leases:
            self._wait_for(self._has_no_leases, "every lease to end")

    def _wait_for(self, is_done: Callable[[], bool], what: str) -> None:
        world = self.world
        deadline = world.now + HEAL_SECONDS_MAX
        while not is_done():
            assert world.now < deadline, f"waited {HEAL_SECONDS_MAX} s for {what}: {self.describe()}"
            world.run(until=world.now + 0.2)

    def _members(self) -> list[Host]:
        membership = self.controller.membership
        return [self.hosts.hosts[member] for member in (*membership.voters, *membership.learners)]

    def _clients_are_done(self) -> bool:
        return not any(client.is_waiting for client in self.clients)

    def _is_level(self) -> bool:
        members = self._members()
        if not all(host.is_open for host in members):
            return False
        if {machine_of(host).applied_index for host in members} != {len(self.checker.applied) - 1}:
            return False
        for host in members:
            self.checker.compare_dump(host, machine_of(host))
        return True

    def _has_no_alarms(self) -> bool:
        """A full disk raises one, and takes it back when there is room again."""
        return not any(machine_of(host).alarms for host in self._members() if host.is_open)

    def _has_seen_all(self, watcher: Watcher) -> bool:
        return watcher.position == self.checker.revision

    def _has_no_leases(self) -> bool:
        return not any(len(machine_of(host).leases) for host in self._members())

    # --- in the end -------------------------------------------------------------------------------

    def _check_history(self) -> None:
        events = [_event_of(change) for change in self.checker.changes]
        operations = self.record.operations + [
            _lease_deletion(revision, keys) for revision, keys in self.checker.lease_deletions.items()
        ]
        verdict = check_revisions(operations, events)
        assert verdict.ok, verdict.describe()

    def _check_leases(self) -> None:
        """No leader ended a lease earlier than the fastest clock allows (one that is asked to be revoked
        may end at any time)."""
        fastest = max(host.clock_rate for host in self.hosts.hosts.values())
        for renewal in self.record.renewals:
            end = self.checker.lease_ends.get(renewal.lease)
            if end is not None and renewal.lease not in self.record.ended_leases:
                earliest = renewal.asked_at + renewal.ttl_seconds / fastest
                assert end >= earliest, (
                    f"lease {renewal.lease}: asked at {renewal.asked_at:.3f} for {renewal.ttl_seconds} s, "
                    f"ended at {end:.3f}, not before {earliest:.3f}"
                )

    def counts(self) -> Counter[str]:
        total = self.checker.counts + self.record.counts + self.faults.counts + self.hosts.counts
        total["entries"] = len(self.checker.applied) - 1
        total["slices"] = self.world.slices
        total["messages"] = self.network.sent
        total["writes lost"] = sum(host.disk.lost_writes for host in self.hosts.hosts.values())
        total["snapshots"] = sum(host.disk.installed for host in self.hosts.hosts.values())
        total["events seen"] = sum(watcher.seen for watcher in self.watchers)
        total["watchers behind"] = sum(watcher.missed for watcher in self.watchers)
        return total

    def describe(self) -> str:
        lines = [f"{self.profile.name} at {self.world.now:.3f}, {len(self.checker.applied) - 1} entries"]
        for host in self.hosts.hosts.values():
            line = f"{host.name} ({host.id:x}): open {host.is_open}, quarantined {host.is_quarantined}"
            if host.is_open:
                state = raft_of(host).state
                line += (
                    f", {state.role} of {state.leader:x} in term {state.term}, commit {state.commit}, "
                    f"applied {machine_of(host).applied_index}, "
                    f"log {state.log.base_index}..{state.log.last_index}"
                )
            lines.append(f"{line}; disk {host.disk.describe()}")
        return "\n".join(lines)


def _open_of(host: Host) -> Any:
    assert host.process is not None, f"{host.name} is down"
    assert host.process.member is not None, f"{host.name} is down"
    return host.process.member._opened


def raft_of(host: Host) -> Any:
    return _open_of(host).driver._raft


def machine_of(host: Host) -> Any:
    return _open_of(host).applier.machine


def _event_of(change: Any) -> Event:
    main, key, pair, _ = change
    if not pair:
        return Event(main, key, None, 0, 0)
    parsed = KeyValue.FromString(pair)
    return Event(main, key, parsed.value, parsed.create_revision, parsed.version)


def _lease_deletion(revision: int, keys: list[bytes]) -> Operation:
    """The end of a lease, as if somebody had deleted its keys in one transaction, at any time."""
    deletes = tuple(Delete(key) for key in keys)
    answer = TxnAnswer(True, (DeleteAnswer(1),) * len(keys))
    return Operation(0, 0, float("inf"), Status.OK, Txn((), deletes), revision, answer)


def run_seed(seed: int, profile: Profile | None = None, mutant: Mutant | None = None) -> Outcome:
    """Run one seed. What goes wrong comes with the command that repeats it."""
    rng = random.Random(seed)
    drawn = profile or draw_profile(rng)
    with substituted(ObservedRaft, ObservedMachine, drawn.raft_limits) as replacements:
        for name, value in (SLOWER_ROUNDS | drawn.limits).items():
            replacements.limit(name, value)
        if mutant is not None:
            mutant(replacements)
        simulation = Simulation(seed, drawn, rng)
        gc.disable()  # a tenth of a seed's time; what is left over is collected between seeds
        try:
            simulation.run()
        except Exception as error:
            error.add_note(f"{simulation.describe()}\nrun again: python -m tests.simulation --seed {seed}")
            raise
        finally:
            gc.enable()
            simulation_over(simulation)
    return Outcome(seed, drawn.name, simulation.world.trace, simulation.counts())


def simulation_over(simulation: Simulation) -> None:
    """Unwind whatever still runs, so that nothing is left to the garbage collector."""
    processes = [host.process for host in simulation.hosts.hosts.values() if host.process is not None]
    for process in [*processes, *simulation.hosts.zombies, simulation.users]:
        process.on_end = lambda ended: None
        if not process.is_dead:
            process.is_dead = True
            process.unwind()
