"""A member whose state is not what the log says: an alarm names it, and nothing is written any more.

The checker of the simulation would notice it at the next entry. Here it looks away from that one member,
and the product has to notice.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from etcray.raft.ready import Role
from etcray_storage.proto.rpc_pb2 import CORRUPT
from tests.simulation.checker import ObservedMachine, ObservedRaft
from tests.simulation.hosts import Host
from tests.simulation.profiles import SLOWER_ROUNDS, profile_named
from tests.simulation.simulation import Simulation, machine_of, raft_of, simulation_over
from tests.simulation.substitution import substituted

CLUSTERS = 8
QUIET_SECONDS = 2.0


def diverge(simulation: Simulation, host: Host) -> int:
    """Change what the member holds in memory; the index from which on its state is another one."""
    machine = machine_of(host)
    simulation.checker.diverged.add(host.id)
    machine._clock.advance(machine._clock.time_ms + 600_000)
    return int(machine.applied_index) + 1


@pytest.mark.parametrize("seed", range(CLUSTERS))
def test_a_member_that_silently_diverges_is_named_within_a_heartbeat(seed: int) -> None:
    profile = profile_named("calm")
    with substituted(ObservedRaft, ObservedMachine, profile.raft_limits) as replacements:
        for name, value in SLOWER_ROUNDS.items():
            replacements.limit(name, value)
        simulation = Simulation(seed, profile, random.Random(seed))
        try:
            _find(simulation, random.Random(seed))
        finally:
            simulation_over(simulation)


def _find(simulation: Simulation, chance: random.Random) -> None:
    world = simulation.world
    simulation.begin()
    world.run(until=1.0 + QUIET_SECONDS)
    (leader,) = simulation.leaders()
    hosts = list(simulation.hosts.hosts.values())
    odd = chance.choice([host for host in hosts if host is not leader])
    others = [host for host in hosts if host is not odd]
    diverges_at = diverge(simulation, odd)

    def applied_everywhere() -> bool:
        return all(simulation.applied_index(host) >= diverges_at for host in hosts)

    def named() -> bool:
        return all(machine_of(host).alarms == ((odd.id, CORRUPT),) for host in others)

    _run_until(simulation, applied_everywhere, 5.0)
    assert raft_of(leader).state.role is Role.LEADER
    began = world.now
    _run_until(simulation, named, 5.0)
    timing = simulation.hosts.spec.timing
    # A heartbeat of the odd one's own, a round for the alarm's entry, one until everybody has heard of it.
    assert world.now - began <= 3 * timing.heartbeat_ms / 1000 + SLOWER_ROUNDS["LOG_TIP_SYNC_SECONDS"]
    revision = simulation.checker.revision
    world.run(until=world.now + 1.0)
    assert simulation.checker.revision == revision, "something was written although the cluster is corrupt"


def _run_until(simulation: Simulation, is_done: Callable[[], bool], seconds_max: float) -> None:
    world = simulation.world
    deadline = world.now + seconds_max
    while not is_done():
        assert world.now < deadline, simulation.describe()
        world.run(until=world.now + 0.01)
