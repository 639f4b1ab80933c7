"""An etcray in a process of its own, see `host`."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from etcray_bench.load import Load, LoadResult, Part, conclude, prepare
from etcray_bench.processes import private_bytes, use_of
from etcray_bench.results.records import RoleUse
from etcray_bench.systems.hosted import HostedProcess
from etcray_bench.systems.spec import SystemSpec
from etcray_bench.systems.system import System, SystemFailedError

STOP_SECONDS_MAX: Final = 60.0
LAUNCH_DELAY_SECONDS: Final = 3.0
"""Generators are told so long before to begin: they have to connect first."""


class EtcraySystem(System):
    """Raises SystemFailedError if it does not start."""

    def __init__(self, spec: SystemSpec, directory: Path, address: str = "") -> None:
        super().__init__(spec)
        self._address = address
        self._roles: dict[str, list[int]] = {}
        self._status: dict[str, Any] = {}
        self._killed = 0
        """The process that was killed last. The status tells of it until the supervisor has noticed."""
        directory.mkdir(parents=True, exist_ok=True)
        arguments = [json.dumps({**asdict(spec), "data_dir": str(directory / "data"), "address": address})]
        environment = {"ETCRAY_RUN_DIR": str(directory / "run")}
        self._host = HostedProcess(
            "etcray_bench.systems.host", arguments, environment, directory / "host.log"
        )
        try:
            self.endpoints = tuple(self._host.hear()["endpoints"])
            self.look()
        except BaseException:
            self.stop()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """See `host`. Raises SystemFailedError with the host's reason."""
        return self._host.ask(do, **arguments)

    def status(self) -> dict[str, Any]:
        """As `etcray status --json`."""
        found: dict[str, Any] = self.ask("status")["status"]
        return found

    # --- observed ---------------------------------------------------------------------------------

    def look(self) -> None:
        heard = self.ask("status")
        status = self._status = heard["status"]
        members = status["members"]
        leader = [m["process_id"] for m in members if m["role"] == "leader"]
        roles = {
            "leader": leader,
            "followers": [m["process_id"] for m in members if m["process_id"] not in leader],
            "gateway": [gateway["process_id"] for gateway in status["gateways"]],
            "history": [status["history"]["process_id"]] if status["history"] else [],
            "supervisor": [status["supervisor"]["process_id"]],
            "ray": heard["ray"],
        }
        self._roles = {role: [p for p in processes if p] for role, processes in roles.items() if processes}

    def usage(self) -> Mapping[str, RoleUse]:
        if not self._address:
            return {role: use_of(processes) for role, processes in self._roles.items()}
        found = self.ask("usage", roles=self._roles)["usage"]
        return {role: RoleUse(**use) for role, use in found.items()}

    def private_bytes(self) -> Mapping[str, int]:
        return {role: sum(map(private_bytes, processes)) for role, processes in self._roles.items()}

    def member_processes(self) -> Sequence[int]:
        return [member["process_id"] for member in self.status()["members"]]

    # --- hurt -------------------------------------------------------------------------------------

    def kill_leader(self) -> float:
        leaders = [m for m in self.status()["members"] if m["role"] == "leader" and m["process_id"]]
        if not leaders:
            raise SystemFailedError("there is no leader to be killed")
        victim = max(leaders, key=lambda member: member["term"])
        self._killed = victim["process_id"]
        at = time.perf_counter()
        if self._address:
            self.ask("kill", process_id=victim["process_id"], node=victim["ray_node"])
        else:
            os.kill(victim["process_id"], signal.SIGKILL)
        return at

    def begin_healing(self) -> None:
        """The supervisor does."""

    def is_whole(self) -> bool:
        status = self.status()
        members = status["members"]
        leaders = {member["leader"] for member in members}
        newest = [m["silent_seconds"] < 1.0 and m["process_id"] != self._killed for m in members]
        serving = all(member["phase"] == "serving" and member["ready"] for member in members)
        return bool(status["ready"]) and serving and all(newest) and len(leaders) == 1 and 0 not in leaders

    def slow(self, role: str, *, disk_ms: float, peer_ms: float) -> None:
        self.ask("slow", role=role, disk_ms=disk_ms, peer_ms=peer_ms)

    # --- loaded -----------------------------------------------------------------------------------

    def run_distributed(self, load: Load) -> tuple[LoadResult, list[Mapping[str, RoleUse]]] | None:
        if not self._address:
            return None
        prepared = prepare(load)
        self.ask("warm")
        start_at = time.time() + LAUNCH_DELAY_SECONDS
        message = base64.b64encode(pickle.dumps((load, prepared, start_at))).decode()
        self.ask("generate", load=message)
        edges = []
        for at in (start_at + load.warmup_seconds, start_at + load.warmup_seconds + load.seconds):
            time.sleep(max(0.0, at - time.time()))
            edges.append(self.usage())
        parts: list[Part] = pickle.loads(base64.b64decode(self.ask("collect")["parts"]))
        return conclude(load, prepared, parts), edges

    @property
    def generator_nodes(self) -> int:
        """How many nodes drive the load."""
        return int(self.ask("nodes")["nodes"])

    # --- ended ------------------------------------------------------------------------------------

    def stop(self) -> None:
        if not self._host.end_input(STOP_SECONDS_MAX):
            os.killpg(self._host.process.pid, signal.SIGKILL)  # Ray's processes die with it
        self._host.close()
