"""The process in which an etcray of the laboratory is launched.

    python -m etcray_bench.systems.host SPEC

SPEC is a `SystemSpec` as JSON, with `data_dir` and `address`. It says {"endpoints": ...} once the cluster
serves, then answers one JSON line on standard input with one on standard output. At the end of its input it
stops the cluster: whoever started it needs to do nothing else, and cannot fail to.

    {"do": "status"}                                     the status, and the processes of its own Ray
    {"do": "usage", "roles": {role: processes}}          CPU and memory, read on the node of each process
    {"do": "kill", "process_id": n, "node": id}          SIGKILL, on that node
    {"do": "slow", "role": leader or follower, "disk_ms": n, "peer_ms": n}
    {"do": "nodes"}                                      how many nodes there are
    {"do": "warm"}                                       have a worker of Ray's ready on each node
    {"do": "generate", "load": pickled}                  start a load generator on each node
    {"do": "collect"}                                    wait for them, and give what they have measured
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, TextIO

import msgspec

from etcray import Cluster, ray_runtime
from etcray.launch import Factories, LaunchOptions, gateway_class, history_class, living_nodes, member_class
from etcray.spec import RAY_NAMESPACE, member_actor_name
from etcray.status import ActorReport, SupervisorReport
from etcray_bench.load import Load, Part, Prepared, run_part
from etcray_bench.processes import use_of
from etcray_bench.systems.hosted import answer_lines, own_stdout, say, say_error

NAME: Final = "laboratory"
READY_SECONDS: Final = 120.0
WARM_SECONDS_MAX: Final = 120.0
COLLECT_SECONDS_MAX: Final = 600.0


class Host:
    """Answers for one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._generators: list[Any] = []

    def answer(self, command: Mapping[str, Any]) -> dict[str, Any]:
        arguments = {name: value for name, value in command.items() if name != "do"}
        found: dict[str, Any] = getattr(self, f"do_{command['do']}")(**arguments)
        return found

    def do_status(self) -> dict[str, Any]:
        return {"status": msgspec.to_builtins(self._cluster.status()), "ray": own_ray_processes()}

    def do_usage(self, roles: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """A process id means nothing without its node, so each node is asked only for its own."""
        status = self._cluster.status()
        actors: list[ActorReport | SupervisorReport]
        actors = [*status.members, *status.gateways, status.supervisor]
        actors += [status.history] if status.history is not None else []
        tasks = {}
        for role, processes in roles.items():
            for node in {actor.ray_node for actor in actors if actor.process_id in processes}:
                own = [a.process_id for a in actors if a.ray_node == node and a.process_id in processes]
                tasks[role, node] = ray_runtime.run_on(node, use_of, own)
        import ray

        usage: dict[str, dict[str, float]] = {}
        for (role, _), reference in tasks.items():
            total = usage.setdefault(role, {"processes": 0, "cpu_seconds": 0.0, "resident_bytes": 0})
            for name, value in asdict(ray.get(reference)).items():
                total[name] += value
        return {"usage": usage}

    def do_kill(self, process_id: int, node: str) -> dict[str, Any]:
        import ray

        ray.get(ray_runtime.run_on(node, kill, process_id))
        return {}

    def do_slow(self, role: str, disk_ms: float, peer_ms: float) -> dict[str, Any]:
        """The leader, or the first of the others."""
        import ray

        members = self._cluster.status().members
        member = next(each for each in members if (each.role == "leader") == (role == "leader"))
        handle = ray.get_actor(member_actor_name(NAME, member.name), namespace=RAY_NAMESPACE)
        ray.get(handle.slow.remote(disk_ms, peer_ms))
        return {"member": member.name}

    def do_nodes(self) -> dict[str, Any]:
        return {"nodes": len(ray_runtime.living_nodes())}

    def do_warm(self) -> dict[str, Any]:
        """Ray has started a worker on each node, and that has imported the generator."""
        import ray

        nodes = [str(node["NodeID"]) for node in ray_runtime.living_nodes()]
        ray.get([ray_runtime.run_on(node, import_generator) for node in nodes], timeout=WARM_SECONDS_MAX)
        return {}

    def do_generate(self, load: str) -> dict[str, Any]:
        """One generator for each node: the load's clients are dealt out to them."""
        what, prepared, start_at = pickle.loads(base64.b64decode(load))
        nodes = [str(node["NodeID"]) for node in ray_runtime.living_nodes()]
        self._generators = [
            ray_runtime.run_on(node, generate, what, prepared, number, len(nodes), start_at)
            for number, node in enumerate(nodes)
        ]
        return {}

    def do_collect(self) -> dict[str, Any]:
        import ray

        parts = ray.get(self._generators, timeout=COLLECT_SECONDS_MAX)
        return {"parts": base64.b64encode(pickle.dumps(parts)).decode()}


def kill(process_id: int) -> None:
    """Runs in a Ray task."""
    os.kill(process_id, signal.SIGKILL)


def import_generator() -> None:
    """Runs in a Ray task: unpickling it imports this module, and with it the generator."""


def generate(load: Load, prepared: Prepared, part: int, parts: int, start_at: float) -> Part:
    """Runs in a Ray task."""
    return run_part(load, prepared, part, parts, start_at=start_at)


def own_ray_processes() -> list[int]:
    """Of a Ray that this process started: its servers, not its workers."""
    import ray._private.worker as worker

    node: Any = worker._global_node
    if node is None:
        return []
    return [info.process.pid for found in node.all_processes.values() for info in found]


def factories_of(spec: Mapping[str, Any]) -> Factories:
    if not spec["can_be_slowed"]:
        return member_class, gateway_class, history_class
    from etcray_bench.systems.slowed import slowed_member_class

    return slowed_member_class, gateway_class, history_class


def options_of(spec: Mapping[str, Any]) -> LaunchOptions:
    """On several nodes gateways listen where these can be reached; elsewhere on the loopback interface."""
    address = spec["address"]
    host = "127.0.0.1"
    if address:
        ray_runtime.join(address)
        host = living_nodes()[0].address
    return LaunchOptions(
        name=NAME,
        nodes=spec["members"],
        gateways=spec["gateways"],
        data_dir=spec["data_dir"],
        listen=f"{host}:0",
        address=address or None,
        history=spec["history"],
        transport=spec["transport"],
        durability=spec["durability"],
        tune=dict(spec["tune"]),
    )


def serve(spec: Mapping[str, Any], answers: TextIO) -> None:
    try:
        cluster = Cluster.launch_with(options_of(spec), factories=factories_of(spec))
    except Exception as error:
        say_error(answers, error)
        return
    with cluster:
        try:
            cluster.wait_ready(READY_SECONDS)
            for number in range(spec["learners"]):
                cluster.add_member(f"learner{number + 1}", learner=True)
            say(answers, {"endpoints": list(cluster.endpoints)})
        except Exception as error:
            say_error(answers, error)
            return
        answer_lines(answers, Host(cluster).answer)


def main() -> None:
    answers = own_stdout()
    # Ray's socket paths must be short, so they cannot be below any directory that a user chooses.
    with tempfile.TemporaryDirectory(
        prefix="etcray-lab-", dir="/tmp", ignore_cleanup_errors=True
    ) as directory:
        os.environ["ETCRAY_RAY_DIR"] = directory
        serve(json.loads(sys.argv[1]), answers)


if __name__ == "__main__":
    main()
