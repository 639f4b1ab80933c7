"""Everything that makes one cluster differ from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ETCRAY: Final = "etcray"
ETCD: Final = "etcd"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemSpec:
    """Points of a sweep with equal specs share one cluster."""

    system: str = ETCRAY
    """Or etcd; then only `members` and the preloaded keys mean something."""
    members: int = 3
    gateways: int = 1
    learners: int = 0
    """Besides the members, added one after the other once these serve."""
    history: bool = True
    transport: str = "ray"
    """Or direct."""
    durability: str = "synced"
    """Or written."""
    tune: tuple[tuple[str, int], ...] = ()
    """Names and values of `etcray.spec.Tuning`."""
    can_be_slowed: bool = False
    purpose: str = ""
    """Clusters of different purposes are different ones, for stores that nobody else may have written to."""
    preload_keys: int = 0
    """Keys below STORE_PREFIX that are there before any load, and stay."""
    preload_value_bytes: int = 256

    @property
    def name(self) -> str:
        """For people: what differs from the defaults."""
        if self.system == ETCD:
            parts = [ETCD, f"{self.members} members"]
        else:
            parts = [ETCRAY, f"{self.members} member{'s' * (self.members > 1)}"]
            parts += [f"{self.gateways} gateways"] if self.gateways > 1 else []
            parts += [f"{self.learners} learners"] if self.learners else []
            parts += [] if self.history else ["no history"]
            parts += [self.transport] if self.transport != "ray" else []
            parts += [self.durability] if self.durability != "synced" else []
            parts += [f"{name} {value}" for name, value in self.tune]
        parts += [f"{self.preload_keys:,} keys"] if self.preload_keys else []
        return ", ".join(parts)


STORE_PREFIX: Final = "store/"
"""Of the preloaded keys; loads use another one."""
