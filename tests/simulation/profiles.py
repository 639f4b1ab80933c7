"""Kinds of runs: which faults, how often, and how small the limits are. A seed draws one."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Profile:
    name: str
    seconds: float = 8.0
    """Of virtual time with clients and faults; then everything heals."""
    members: tuple[int, ...] = (3, 3, 3, 5)
    """Drawn from these."""
    clients: int = 4
    gateways: int = 1
    watchers: int = 1
    keys: int = 5
    think_seconds: float = 0.08
    lease_share: float = 0.08
    compact_share: float = 0.02
    faults_per_second: float = 1.0
    faults: dict[str, float] = field(default_factory=dict)
    """Weights by the name of a method of `faults.Faults`."""
    fault_seconds: float = 1.5
    """How long a fault lasts, about."""
    restart_seconds: float = 1.0
    """A process that died is started again within this."""
    loss: float = 0.0
    duplication: float = 0.0
    long_delay_chance: float = 0.0
    long_delay_seconds: float = 0.5
    clock_rates: tuple[float, ...] = (1.0,)
    wall_seconds: float = 0.0
    """Wall clocks are wrong by up to this."""
    write_seconds: tuple[float, ...] = (0.0005, 0.002)
    election_ms: int = 600
    heartbeat_ms: int = 100
    delay_seconds: float = 0.0006
    limits: dict[str, float] = field(default_factory=dict)
    raft_limits: dict[str, float] = field(default_factory=dict)
    ends_leases: bool = False
    """Wait in the end until every lease has ended by itself."""


_SMALL_LOG: dict[str, float] = {"LOG_CATCH_UP_ENTRIES": 15, "SNAPSHOT_CHUNK_BYTES": 700}

PROFILES: tuple[tuple[float, Profile], ...] = (
    (1, Profile("calm", seconds=4, faults_per_second=0.0, clients=6, watchers=2)),
    (
        3,
        Profile(
            "lossy",
            loss=0.05,
            duplication=0.08,
            long_delay_chance=0.03,
            faults={"cut_off": 3, "cut_some": 3, "cut_one_way": 3, "swizzle": 2, "suspect": 1},
            raft_limits={"append_bytes_max": 300, "appends_in_flight_max": 3},
        ),
    ),
    (
        4,
        Profile(
            "crashy",
            faults_per_second=1.5,
            duplication=0.02,
            faults={
                "crash": 4,
                "crash_at_write": 5,
                "crash_all": 1,
                "pause": 2,
                "cut_off": 2,
                "crash_gateway": 1,
            },
        ),
    ),
    (
        2,
        Profile(
            "gateways",
            gateways=2,
            clients=6,
            watchers=0,
            duplication=0.1,
            loss=0.03,
            long_delay_chance=0.05,
            faults={"crash_gateway": 3, "crash": 2, "cut_gateway": 4, "pause": 2, "cut_off": 2},
            limits={"SESSIONS_MAX": 6, "SESSION_ANSWERS_MAX": 4},
        ),
    ),
    (
        3,
        Profile(
            "disks",
            faults={
                "fail_write": 3,
                "fill_disk": 2,
                "slow_disk": 3,
                "crash_at_write": 3,
                "crash": 1,
                "cut_off": 1,
            },
            write_seconds=(0.0005, 0.003, 0.02),
        ),
    ),
    (
        3,
        Profile(
            "snapshots",
            seconds=9,
            compact_share=0.05,
            long_delay_chance=0.02,
            faults={"crash": 3, "crash_long": 4, "cut_off": 3, "crash_at_write": 4, "pause": 1},
            limits=_SMALL_LOG | {"EVENT_RING_REVISIONS": 12},
            raft_limits={"append_bytes_max": 500, "log_cache_bytes": 4000},
        ),
    ),
    (
        2,
        Profile(
            "storm",
            seconds=5,
            clients=5,
            think_seconds=0.04,
            heartbeat_ms=20,
            election_ms=60,
            delay_seconds=0.008,
            write_seconds=(0.002, 0.01, 0.02),
            faults_per_second=4.0,
            faults={
                "crash_at_write": 5,
                "crash_all_at_write": 2,
                "crash_leader": 1,
                "cut_off_leader": 3,
                "suspect": 4,
            },
            restart_seconds=0.04,
            fault_seconds=0.3,
            long_delay_chance=0.08,
            long_delay_seconds=0.15,
            duplication=0.05,
            raft_limits={"append_bytes_max": 50, "appends_in_flight_max": 2},
        ),
    ),
    (
        3,
        Profile(
            "membership",
            seconds=8,
            members=(3, 3, 5, 2, 1),
            faults_per_second=2.0,
            faults={
                "add_member": 3,
                "promote_member": 4,
                "remove_member": 2,
                "remove_leader": 1,
                "change_burst": 3,
                "transfer": 2,
                "crash": 2,
                "crash_at_write": 1,
                "cut_off": 2,
                "pause": 1,
            },
            fault_seconds=1.0,
            long_delay_chance=0.02,
            duplication=0.03,
        ),
    ),
    (
        2,
        Profile(
            "replacement",
            seconds=7,
            members=(3, 3, 5),
            faults={
                "flip_bit": 4,
                "lose_disk": 3,
                "crash": 2,
                "cut_off": 1,
                "transfer": 1,
                "crash_at_write": 1,
            },
            limits=_SMALL_LOG,
            write_seconds=(0.0005, 0.02),
            raft_limits={"snapshot_report_s": 0.2},
        ),
    ),
    (
        2,
        Profile(
            "clocks",
            clock_rates=(0.5, 0.7, 1.0, 1.4, 2.0),
            wall_seconds=5000.0,
            lease_share=0.2,
            faults={"pause": 4, "cut_off": 2, "crash": 2, "jump_wall_clock": 2, "zombie": 2},
        ),
    ),
    (
        2,
        Profile(
            "leases",
            clock_rates=(0.8, 1.0, 1.25),
            lease_share=0.5,
            clients=3,
            seconds=9,
            ends_leases=True,
            faults={"crash_leader": 4, "cut_off_leader": 3, "pause": 2},
        ),
    ),
    (
        2,
        Profile(
            "zombies",
            faults={"zombie": 4, "pause": 2, "crash": 2, "cut_off": 2, "cut_one_way": 1},
            long_delay_chance=0.05,
            duplication=0.05,
        ),
    ),
)


SLOWER_ROUNDS: dict[str, float] = {"LOG_TIP_SYNC_SECONDS": 0.25}
"""How often threads look whether there is something to do: less often than in production, because that
is what a seed costs most for. Deadlines are met as before."""


def draw_profile(rng: random.Random) -> Profile:
    weights = [weight for weight, _ in PROFILES]
    ((_, profile),) = rng.choices(PROFILES, weights)
    return profile


def profile_named(name: str) -> Profile:
    return next(profile for _, profile in PROFILES if profile.name == name)
