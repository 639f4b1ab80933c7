"""What a running cluster can do for an experiment, whichever system it is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from etcray.client import Client, EtcrayError
from etcray_bench.load import Load, LoadResult, prepare
from etcray_bench.results.records import RoleUse
from etcray_bench.systems.spec import STORE_PREFIX, SystemSpec

HEAL_SECONDS_MAX: Final = 60.0
PRELOAD_TIMEOUT_SECONDS: Final = 30.0


class SystemFailedError(Exception):
    """A cluster did not start, or did not recover. The sweep goes on with the next point."""


class System(ABC):
    """A running cluster. `stop` ends everything that belongs to it, and is called in any case."""

    def __init__(self, spec: SystemSpec) -> None:
        self.spec = spec
        self.endpoints: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """etcd or etcray."""
        return self.spec.system

    # --- observed ---------------------------------------------------------------------------------

    @abstractmethod
    def usage(self) -> Mapping[str, RoleUse]:
        """By role: CPU seconds since the processes began, and memory now. The roles are those of the last
        `look`, so that two calls speak of the same processes."""

    @abstractmethod
    def private_bytes(self) -> Mapping[str, int]:
        """By role: the memory that its processes share with no other. Only where they run on this machine."""

    @abstractmethod
    def look(self) -> None:
        """Find out who does what now: roles change when a leader does."""

    @abstractmethod
    def member_processes(self) -> Sequence[int]:
        """Of all members."""

    def log_index(self) -> int:
        """How many entries the log has had; the difference over a load counts its batches."""
        with Client(list(self.endpoints)) as client:
            return client.status().raft_index

    # --- hurt -------------------------------------------------------------------------------------

    @abstractmethod
    def kill_leader(self) -> float:
        """SIGKILL to the process of the member that leads; returns when, by time.perf_counter()."""

    @abstractmethod
    def begin_healing(self) -> None:
        """After `kill_leader`: see to it that the member comes back, without waiting for that."""

    @abstractmethod
    def is_whole(self) -> bool:
        """Every member is there, and they have one leader."""

    def slow(self, role: str, *, disk_ms: float, peer_ms: float) -> None:
        """From now on, each sync of the leader's (or of one follower's) log, or each answer to a peer,
        takes so much longer. Only with `can_be_slowed`."""
        raise SystemFailedError(f"{self.name} cannot be slowed")

    # --- loaded -----------------------------------------------------------------------------------

    def run_distributed(self, load: Load) -> tuple[LoadResult, list[Mapping[str, RoleUse]]] | None:
        """Drive the load from all nodes, if the cluster is on several; also the usage at the beginning and
        at the end of the measured time. None: drive it from this process."""
        return None

    def preload(self) -> None:
        """Write the keys that are to be there."""
        if self.spec.preload_keys:
            prepare(
                Load(
                    endpoints=self.endpoints,
                    workload="range",
                    preload=True,
                    keys=self.spec.preload_keys,
                    value_bytes=self.spec.preload_value_bytes,
                    prefix=STORE_PREFIX,
                )
            )

    # --- begun and ended --------------------------------------------------------------------------

    def await_whole(self, seconds_max: float = HEAL_SECONDS_MAX) -> None:
        """Raises SystemFailedError if that takes too long."""
        deadline = time.monotonic() + seconds_max
        while not self.is_whole():
            if time.monotonic() > deadline:
                raise SystemFailedError(f"{self.name} was not whole again after {seconds_max:.0f} s")
            time.sleep(0.1)

    @abstractmethod
    def stop(self) -> None:
        """Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def answers(endpoint: str) -> bool:
    """Whether this server knows a leader."""
    try:
        with Client(endpoint, timeout=1.0) as client:
            return bool(client.status().leader)
    except EtcrayError:
        return False
