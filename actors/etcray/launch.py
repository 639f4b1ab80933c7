"""Starting a cluster: from options to a supervisor that keeps it alive.

In this order, so that whatever can be refused is refused before anything runs:
options, directory and its lock, stored cluster, run record of the same name, ports; then Ray; then the
name in that Ray; then the state file; then the supervisor, which does the rest. When a step fails, the
ones before it are undone.

A data directory remembers its cluster: name, token, members and their places. A second launch on it
continues that cluster, and options that would make it another one are refused. Gateways and their
ports are not part of it; they are what the launch says.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from etcray import ray_runtime, run_file, state_file
from etcray.errors import ClusterRunningError, OptionsError, PortInUseError
from etcray.processes import process_started
from etcray.ray_runtime import RaySession
from etcray.run_file import RunRecord
from etcray.spec import (
    RAY_NAMESPACE,
    ClusterSpec,
    GatewaySpec,
    NodePin,
    compose_members,
    derive_cluster_id,
    encode_spec,
    supervisor_actor_name,
)

NODES_ALLOWED: Final = (1, 3, 5, 7)
NODES_DEFAULT: Final = 3
GATEWAYS_MAX: Final = 32
SUPERVISOR_CONCURRENCY: Final = 16

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """What a person may choose."""

    name: str = "default"
    nodes: int | None = None
    """None: as stored, or 3 for a new cluster."""
    gateways: int = 1
    data_dir: str = "./etcray-data"
    listen: str = "127.0.0.1:2379"
    """Of the first gateway; each further one takes the next port. Port 0: the system chooses each."""
    address: str | None = None
    """Of a running Ray, or `auto`. None: the Ray that this process is connected to, or a new one."""
    dashboard: bool = False
    is_command: bool = False
    """See RunRecord."""


@dataclass(slots=True)
class Launched:
    """What the launching process holds until the cluster stops."""

    spec: ClusterSpec
    directory: Path
    lock: state_file.LaunchLock
    session: RaySession
    supervisor: Any
    record: RunRecord

    def release(self) -> None:
        """Leave Ray (our own is stopped), and let others launch on the directory. The supervisor is
        stopped already."""
        ray_runtime.leave(self.session)
        run_file.remove(self.spec.name)
        self.lock.release()


Factories = tuple[Callable[[], type[Any]], Callable[[], type[Any]]]
"""For the classes of members and gateways."""


def member_class() -> type[Any]:
    """Imported where it is needed only: it brings DuckDB with it."""
    from etcray.node import actor

    return actor.MemberActor


def gateway_class() -> type[Any]:
    """As `member_class`."""
    from etcray.gateway import actor

    return actor.GatewayActor


def launch(
    options: LaunchOptions,
    tell: Callable[[str], None] = lambda step: None,
    factories: Factories = (member_class, gateway_class),
) -> Launched:
    """Start a supervisor for the cluster; it is not ready yet when this returns.

    `tell` hears of each step that takes time. Raises ClusterError or DataDirectoryError.
    """
    host, port = check_options(options)
    directory = Path(options.data_dir).expanduser().absolute() / options.name
    state_file.make_directory(directory)
    lock = state_file.LaunchLock(directory)
    try:
        stored = state_file.load(directory, options.name)
        if stored is not None:
            check_against_stored(options, stored)
        _check_run_record(options.name, directory)
        gateways = compose_gateways(options.gateways, host, port)
        check_ports(gateways)
        record = RunRecord(
            name=options.name,
            data_directory=str(directory),
            process_id=os.getpid(),
            process_started=process_started(os.getpid()),
            is_command=options.is_command,
        )
        run_file.write(record)
        try:
            session = _open_session(options, tell)
            try:
                return _start(options, stored, gateways, directory, lock, session, record, tell, factories)
            except BaseException:
                ray_runtime.leave(session)
                raise
        except BaseException:
            run_file.remove(options.name)
            raise
    except BaseException:
        lock.release()
        raise


def _open_session(options: LaunchOptions, tell: Callable[[str], None]) -> RaySession:
    if options.address is not None or ray_runtime.is_connected():
        tell(f"joining Ray at {options.address or 'the address of this program'}")
        return ray_runtime.join(options.address or "auto")
    tell("starting Ray on this machine")
    return ray_runtime.start_own(dashboard=options.dashboard)


def _start(
    options: LaunchOptions,
    stored: ClusterSpec | None,
    gateways: tuple[GatewaySpec, ...],
    directory: Path,
    lock: state_file.LaunchLock,
    session: RaySession,
    record: RunRecord,
    tell: Callable[[str], None],
    factories: Factories,
) -> Launched:
    nodes = [] if session.is_own else living_nodes()
    if find_supervisor(options.name) is not None:
        raise ClusterRunningError(
            f"a cluster named {options.name!r} runs in this Ray already. Use another --name, "
            f"or `etcray down --name {options.name}` first"
        )
    spec = stored or _new_spec(options, directory, nodes)
    spec = msgspec.structs.replace(spec, gateways=place_gateways(gateways, nodes))
    state_file.save(directory, spec)
    record = msgspec.structs.replace(
        record,
        ray_address=session.address,
        ray_directory=session.directory,
        token_path=session.token_path,
    )
    run_file.write(record)
    tell(f"creating {len(spec.members)} members and {len(spec.gateways)} gateways")
    supervisor = create_supervisor(spec, factories)
    return Launched(spec, directory, lock, session, supervisor, record)


def create_supervisor(spec: ClusterSpec, factories: Factories) -> Any:
    """The supervisor, near the state file if it can be chosen: every part of a cluster that runs
    on several nodes is pinned, so it may live anywhere."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from etcray.supervisor import Supervisor

    here = ray.get_runtime_context().get_node_id()
    actor: Any = ray.remote(Supervisor).options(
        name=supervisor_actor_name(spec.name),
        namespace=RAY_NAMESPACE,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=SUPERVISOR_CONCURRENCY,
        enable_task_events=False,
        scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
    )
    return actor.remote(encode_spec(spec), *factories)


def find_supervisor(name: str) -> Any:
    """The handle of a cluster's supervisor in the connected Ray, or None."""
    import ray

    try:
        return ray.get_actor(supervisor_actor_name(name), namespace=RAY_NAMESPACE)
    except ValueError:
        return None


def living_nodes() -> list[NodePin]:
    """The machines of the connected Ray, this one first, the others in a fixed order."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    nodes = sorted(
        ray_runtime.living_nodes(),
        key=lambda node: (node["NodeID"] != here, node["NodeManagerHostname"], node["NodeManagerAddress"]),
    )
    return [
        NodePin(hostname=node["NodeManagerHostname"], address=node["NodeManagerAddress"]) for node in nodes
    ]


def _new_spec(options: LaunchOptions, directory: Path, nodes: list[NodePin]) -> ClusterSpec:
    token = secrets.token_hex(16)
    count = options.nodes or NODES_DEFAULT
    pins: list[NodePin | None] = [nodes[i % len(nodes)] if nodes else None for i in range(count)]
    return ClusterSpec(
        name=options.name,
        token=token,
        cluster_id=derive_cluster_id(options.name, token),
        members=compose_members(options.name, token, str(directory), pins),
        gateways=(),
    )


# --- checks -----------------------------------------------------------------------------------


def check_options(options: LaunchOptions) -> tuple[str, int]:
    """The host and port to listen on. Raises OptionsError."""
    if not _NAME.fullmatch(options.name):
        raise OptionsError(
            f"{options.name!r} cannot be a cluster's name: use up to 63 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    if options.nodes is not None and options.nodes not in NODES_ALLOWED:
        raise OptionsError(f"--nodes is one of {', '.join(map(str, NODES_ALLOWED))}, not {options.nodes}")
    if not 1 <= options.gateways <= GATEWAYS_MAX:
        raise OptionsError(f"--gateways is from 1 to {GATEWAYS_MAX}, not {options.gateways}")
    return parse_listen(options.listen, options.gateways)


def parse_listen(listen: str, gateways: int) -> tuple[str, int]:
    """HOST:PORT, where an IPv6 host is in brackets. Raises OptionsError."""
    host, colon, port_text = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port_text.isdecimal():
        raise OptionsError(f"--listen is HOST:PORT, as 127.0.0.1:2379, not {listen!r}")
    port = int(port_text)
    if port + gateways - 1 > 65535:
        raise OptionsError(f"--listen {listen}: {gateways} gateways need ports up to {port + gateways - 1}")
    return host, port


def check_against_stored(options: LaunchOptions, stored: ClusterSpec) -> None:
    """Raises OptionsError if the options ask for other members than are stored."""
    if options.nodes is not None and options.nodes != len(stored.members):
        raise OptionsError(
            f"the cluster {stored.name!r} in {Path(options.data_dir).absolute()} has {len(stored.members)} "
            f"members, --nodes {options.nodes} asks for {options.nodes}. Leave --nodes out, or choose "
            "another --data-dir or --name for a new cluster"
        )


def compose_gateways(count: int, host: str, port: int) -> tuple[GatewaySpec, ...]:
    """Gateways on consecutive ports, or each on one that the system chooses. It is chosen here, not
    by the gateway: one that is created again must come back where its clients look for it."""
    ports = range(port, port + count) if port else _free_ports(count, host)
    return tuple(GatewaySpec(index=index, host=host, port=port) for index, port in enumerate(ports))


def _free_ports(count: int, host: str) -> list[int]:
    """Ports that are free now, all different. Raises OptionsError for a host that is not ours."""
    with ExitStack() as probes:
        found = []
        for _ in range(count):
            probe = probes.enter_context(socket.socket(_family(host), socket.SOCK_STREAM))
            try:
                probe.bind((host, 0))
            except OSError as error:
                raise OptionsError(f"cannot listen on {host}: {error.strerror or error}") from error
            found.append(int(probe.getsockname()[1]))
        return found


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def place_gateways(gateways: tuple[GatewaySpec, ...], nodes: list[NodePin]) -> tuple[GatewaySpec, ...]:
    """On a Ray of several machines: one after the other, unless they listen on a loopback address,
    which is of use on the launcher's machine only. `nodes` is empty for a Ray of our own."""
    if not nodes:
        return gateways
    return tuple(
        msgspec.structs.replace(
            gateway, pin=nodes[0 if ray_runtime.is_loopback(gateway.host) else gateway.index % len(nodes)]
        )
        for gateway in gateways
    )


def check_ports(gateways: tuple[GatewaySpec, ...]) -> None:
    """Raises PortInUseError if a gateway could not listen now, OptionsError if it never could."""
    for gateway in gateways:
        with socket.socket(_family(gateway.host), socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((gateway.host, gateway.port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortInUseError(
                        f"another process listens on {gateway.host}:{gateway.port}. Stop it, or choose "
                        "other ports with --listen HOST:PORT"
                    ) from error
                raise OptionsError(
                    f"cannot listen on {gateway.host}:{gateway.port}: {error.strerror or error}"
                ) from error


def _check_run_record(name: str, directory: Path) -> None:
    """Commands find clusters by name, so a user runs only one of a name; and a launcher that was
    killed could not remove what it left."""
    record = run_file.read(name)
    if record is None:
        return
    if record.launcher_lives and record.process_id != os.getpid():
        raise ClusterRunningError(
            f"a cluster named {name!r} is running already, launched by process {record.process_id}, with "
            f"its data in {record.data_directory}. Use another --name, or `etcray down --name {name}` first"
        )
    ray_runtime.remove_directory(record.ray_directory)
    run_file.remove(name)
