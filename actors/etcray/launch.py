"""Starting a cluster: from options to a supervisor that keeps it alive.

In this order, so that whatever can be refused is refused before anything runs:
options, directory and its lock, stored cluster, run record of the same name, ports; then Ray; then the
name in that Ray; then the state file; then the supervisor, which does the rest. When a step fails, the
ones before it are undone.

A data directory remembers its cluster: name, token, members and their places. A second launch on it
continues that cluster, and options that would make it another one are refused. Gateways and their
ports are not part of it; they are what the launch says. On a Ray of several machines each of them may
remember: the newest of what they remember is continued, so that no machine is needed for a cold start.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from etcray import ray_runtime, run_file, state_file
from etcray.errors import ClusterRunningError, OptionsError, PortInUseError
from etcray.placement import pin_of, spread
from etcray.processes import process_started
from etcray.ray_runtime import RaySession
from etcray.run_file import RunRecord
from etcray.spec import (
    HISTORY_NAME,
    RAY_NAMESPACE,
    ClusterSpec,
    GatewaySpec,
    HistorySpec,
    NodePin,
    compose_members,
    derive_cluster_id,
    encode_spec,
    supervisor_actor_name,
)
from etcray.tuning import DEFAULT_TUNING, WRITTEN_WARNING, Durability, tuned

NODES_ALLOWED: Final = (1, 3, 5, 7)
NODES_DEFAULT: Final = 3
GATEWAYS_MAX: Final = 32
SUPERVISOR_CONCURRENCY: Final = 16
COPIES_SECONDS: Final = 30.0
"""How long other machines may take to say what their directories hold."""

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
    replace_after: float | None = None
    """Seconds after which a member whose Ray node is gone is replaced; 0: never. None: as stored, or 60."""
    history: bool = True
    """With the history actor, which answers SQL."""
    history_retention_seconds: int | None = None
    """What it may forget: rows that are older; None keeps all."""
    history_retention_revisions: int | None = None
    """All but so many of the newest revisions."""
    history_retention_bytes: int | None = None
    """What is more than so much on disk."""
    transport: str | None = None
    """`ray` or `direct`. None: as stored, or the default of `Tuning`. So are the next two."""
    durability: str | None = None
    """`synced` or `written`."""
    tune: Mapping[str, int] = field(default_factory=dict)
    """Numbers of `Tuning`, by name; those that are left out stay."""
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


Factories = tuple[Callable[[], type[Any]], Callable[[], type[Any]], Callable[[], type[Any]]]
"""For the classes of members, gateways and the history."""


def member_class() -> type[Any]:
    """Imported where it is needed only: it brings DuckDB with it."""
    from etcray.node import actor

    return actor.MemberActor


def gateway_class() -> type[Any]:
    """As `member_class`."""
    from etcray.gateway import actor

    return actor.GatewayActor


def history_class() -> type[Any]:
    """As `member_class`."""
    from etcray.history import actor

    return actor.HistoryActor


FACTORIES: Final[Factories] = (member_class, gateway_class, history_class)


def launch(
    options: LaunchOptions,
    tell: Callable[[str], None] = lambda step: None,
    factories: Factories = FACTORIES,
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
    stored = _newest_anywhere(options.name, directory, stored, nodes)
    if stored is not None:
        check_against_stored(options, stored)
    if find_supervisor(options.name) is not None:
        raise ClusterRunningError(
            f"a cluster named {options.name!r} runs in this Ray already. Use another --name, "
            f"or `etcray down --name {options.name}` first"
        )
    spec = stored or _new_spec(options, directory, nodes)
    after = spec.replace_after_seconds if options.replace_after is None else options.replace_after
    spec = msgspec.structs.replace(
        spec,
        gateways=place_gateways(gateways, nodes),
        history=compose_history(options, spec, directory),
        replace_after_seconds=after,
        tuning=tuned(spec.tuning, options.transport, options.durability, options.tune),
        founders=spec.first_members,
        version=spec.version + 1,
    )
    state_file.save(directory, spec)
    record = msgspec.structs.replace(
        record,
        ray_address=session.address,
        ray_directory=session.directory,
        token_path=session.token_path,
    )
    run_file.write(record)
    history_too = ", and the history" if spec.history is not None else ""
    gateway_word = "gateway" if len(spec.gateways) == 1 else "gateways"
    if spec.tuning.durability is Durability.WRITTEN:
        tell(WRITTEN_WARNING)
    tell(f"creating {len(spec.members)} members, {len(spec.gateways)} {gateway_word}{history_too}")
    supervisor = create_supervisor(spec, factories)
    return Launched(spec, directory, lock, session, supervisor, record)


def create_supervisor(spec: ClusterSpec, factories: Factories) -> Any:
    """The supervisor, near the state file if it can be chosen: every part of a cluster that runs
    on several nodes is pinned, so it may live anywhere."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from etcray.supervisor.actor import Supervisor

    actor: Any = ray.remote(Supervisor).options(
        name=supervisor_actor_name(spec.name),
        namespace=RAY_NAMESPACE,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=SUPERVISOR_CONCURRENCY,
        enable_task_events=False,
        scheduling_strategy=NodeAffinitySchedulingStrategy(ray_runtime.own_node(), soft=True),
    )
    return actor.remote(encode_spec(spec), *factories)


def find_supervisor(name: str) -> Any:
    """The handle of a cluster's supervisor in the connected Ray, or None."""
    return ray_runtime.find_actor(supervisor_actor_name(name))


def living_nodes() -> list[NodePin]:
    """The machines of the connected Ray, this one first, the others in a fixed order."""
    return [pin_of(node) for node in _living_nodes_in_order()]


def _living_nodes_in_order() -> list[dict[str, Any]]:
    here = ray_runtime.own_node()
    return sorted(
        ray_runtime.living_nodes(),
        key=lambda node: (node["NodeID"] != here, node["NodeManagerHostname"], node["NodeManagerAddress"]),
    )


def _newest_anywhere(
    name: str, directory: Path, stored: ClusterSpec | None, nodes: list[NodePin]
) -> ClusterSpec | None:
    """The newest spec that this machine or any other of the Ray cluster has. The launcher may have run
    elsewhere before, and the membership may have changed while this machine was away."""
    if not nodes:
        return stored
    elsewhere = {pin_of(node): str(node["NodeID"]) for node in _living_nodes_in_order()}
    elsewhere.pop(nodes[0], None)
    tasks = [ray_runtime.run_on(node, state_file.load, directory, name) for node in elsewhere.values()]
    found = [stored, *ray_runtime.wait_for(tasks, COPIES_SECONDS)]
    return max((spec for spec in found if spec is not None), key=lambda spec: spec.age, default=None)


def _new_spec(options: LaunchOptions, directory: Path, nodes: list[NodePin]) -> ClusterSpec:
    token = secrets.token_hex(16)
    count = options.nodes or NODES_DEFAULT
    pins: list[NodePin | None] = [*spread(nodes, [], count)] if nodes else [None] * count
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
    if options.replace_after is not None and not 0 <= options.replace_after < float("inf"):
        raise OptionsError(
            f"--replace-after is a number of seconds, or 0 for never, not {options.replace_after}"
        )
    if not 1 <= options.gateways <= GATEWAYS_MAX:
        raise OptionsError(f"--gateways is from 1 to {GATEWAYS_MAX}, not {options.gateways}")
    _check_retention(options)
    tuned(DEFAULT_TUNING, options.transport, options.durability, options.tune)
    return parse_listen(options.listen, options.gateways)


def _check_retention(options: LaunchOptions) -> None:
    limits = {
        "age": options.history_retention_seconds,
        "revisions": options.history_retention_revisions,
        "bytes": options.history_retention_bytes,
    }
    for name, limit in limits.items():
        if limit is not None and limit <= 0:
            raise OptionsError(f"--history-retention-{name} is above 0, or left out to keep everything")
        if limit is not None and not options.history:
            raise OptionsError(f"--history-retention-{name} makes no sense with --no-history")


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
            f"members, --nodes {options.nodes} asks for {options.nodes}. Leave --nodes out, and use "
            f"`etcray resize {options.nodes}` once it runs; or choose another --data-dir or --name for a new "
            "cluster"
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


def compose_history(options: LaunchOptions, spec: ClusterSpec, directory: Path) -> HistorySpec | None:
    """Beside the first member, always: where its directory is. What it may forget is up to each launch."""
    if not options.history:
        return None
    return HistorySpec(
        directory=str(directory / HISTORY_NAME),
        pin=spec.members[0].pin,
        retention_seconds=options.history_retention_seconds,
        retention_revisions=options.history_retention_revisions,
        retention_bytes=options.history_retention_bytes,
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
