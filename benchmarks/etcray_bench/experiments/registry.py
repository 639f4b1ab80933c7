"""All experiments, by name."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from etcray_bench.errors import LaboratoryError
from etcray_bench.experiments.experiment import Experiment

MODULES: Final = (
    "clients",
    "members",
    "gateways",
    "reads",
    "mixes",
    "value_size",
    "batching",
    "pipeline",
    "durability",
    "transport",
    "watchers",
    "learners",
    "keys",
    "memory",
    "history_actor",
    "failover",
    "slow_member",
    "start",
    "parts",
    "versus_etcd",
    "versus_etcd_watch",
    "versus_etcd_history",
    "history_costs",
)
"""In the order in which they are listed: the first questions first."""


def experiments() -> dict[str, Experiment]:
    """One of each, by name."""
    found: dict[str, Experiment] = {}
    for module_name in MODULES:
        module = import_module(f"etcray_bench.experiments.{module_name}")
        for thing in vars(module).values():
            if isinstance(thing, type) and issubclass(thing, Experiment) and "name" in vars(thing):
                found[thing.name] = thing()
    return found


def find(name: str) -> Experiment:
    """Raises LaboratoryError if there is none of that name."""
    known = experiments()
    if name not in known:
        raise LaboratoryError(f"there is no experiment {name!r}; there are {', '.join(known)}")
    return known[name]
