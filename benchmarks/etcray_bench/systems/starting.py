"""Starts what a spec says."""

from __future__ import annotations

from pathlib import Path

from etcray_bench.systems.etcd_system import EtcdSystem
from etcray_bench.systems.etcray_system import EtcraySystem
from etcray_bench.systems.spec import ETCD, SystemSpec
from etcray_bench.systems.system import System


def start(spec: SystemSpec, directory: Path, *, etcd: Path | None = None, address: str = "") -> System:
    """Returns once it serves. `etcd` is the program, for a spec of etcd. Raises SystemFailedError."""
    if spec.system == ETCD:
        assert etcd is not None, "a spec of etcd, and no program for it"
        return EtcdSystem(spec, directory, etcd)
    return EtcraySystem(spec, directory, address)
