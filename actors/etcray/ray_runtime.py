"""Ray, as etcray needs it: a local one of our own, or one that runs already.

Our own Ray listens on the loopback interface only, asks for an authentication token that lies in its
private directory, has no dashboard unless asked, and runs its workers at normal priority (Ray's default
is nice 15, which starves members beside anything else). Its settings are environment variables that it
reads when it is imported, so they are set before. Whatever the user has set already is left alone.

Its directory is a new one in the system's temporary directory, not in the data directory: Ray puts Unix
sockets there, whose paths may have at most 107 bytes. It goes away when Ray is stopped.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from etcray.errors import RayError
from etcray.processes import descendants, wait_until_gone
from etcray.spec import RAY_NAMESPACE

OBJECT_STORE_BYTES: Final = 200 * 1024 * 1024
"""Only what is larger than `INLINE_BYTES` passes through it: ranges with much in them, several appends."""
INLINE_BYTES: Final = 4 * 1024 * 1024
"""An argument or an answer of up to this size travels in the call's own message; every usual batch does."""

REACH_SECONDS: Final = 5.0
SOCKET_PATH_MAX: Final = 107
SESSION_PATH_LENGTH: Final = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.12345")

_OWN_SETTINGS: Final = {
    "RAY_worker_niceness": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own processes run with the jemalloc that it brings along, and pass it on to workers if asked to.
    "RAY_LD_PRELOAD_ON_WORKERS": "1",
    # Ray's 100 KiB are less than a batch of 400 puts. With 155 kB a call takes 2.9 ms by the object store,
    # 1.2 without.
    "RAY_max_direct_call_object_size": str(INLINE_BYTES),
    # Ray kills workers when the machine's memory runs out, whoever uses it: supervisor first.
    "RAY_memory_monitor_refresh_ms": "0",
    # For the workers, what `_loopback` is for this process.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_AUTH_SETTINGS: Final = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True, slots=True)
class RaySession:
    """This process's connection to Ray, and whose Ray it is."""

    address: str
    is_own: bool
    """Started by this process for this cluster, and stopped with it."""
    is_shared: bool = False
    """The program was connected to Ray before, so the connection is not ours to end."""
    directory: str = ""
    """Of our own Ray."""
    token_path: str = ""
    """Of our own Ray, unless the user's settings say otherwise."""


def start_own(*, dashboard: bool = False) -> RaySession:
    """Start a Ray on this machine and connect to it. Raises RayError.

    Ray gives its own processes half a minute, which may be too short for a machine that is busy with
    something else: then what has come of it is ended, and it is started once more."""
    directory = _new_directory()
    try:
        return _start_in(directory, dashboard)
    except RayError as error:
        _end_processes_of(directory)
        if _TOO_SLOW not in str(error):
            raise
    directory = _new_directory()
    try:
        return _start_in(directory, dashboard)
    except RayError:
        _end_processes_of(directory)
        raise


_TOO_SLOW: Final = "timed out during startup"


def _end_processes_of(directory: Path) -> None:
    """Those of a Ray that did not come up: children of this process, told by their command lines."""
    for process_id in descendants(os.getpid()):
        with suppress(OSError):
            if os.fsencode(directory) in Path(f"/proc/{process_id}/cmdline").read_bytes():
                os.kill(process_id, signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)


def _start_in(directory: Path, dashboard: bool) -> RaySession:
    os.environ.update({k: v for k, v in _OWN_SETTINGS.items() if k not in os.environ})
    token_path = _write_token(directory)
    import ray

    _forget_cached_token()
    try:
        with _loopback():
            ray.init(
                address="local",
                include_dashboard=dashboard,
                log_to_driver=False,
                logging_level=logging.ERROR,
                num_cpus=max(2, os.cpu_count() or 2),
                object_store_memory=OBJECT_STORE_BYTES,
                namespace=RAY_NAMESPACE,
                _temp_dir=str(directory),
            )
    except Exception as error:
        raise RayError(f"Ray could not be started on this machine: {error}") from error
    return RaySession(
        address=connected_address(), is_own=True, directory=str(directory), token_path=token_path
    )


def join(address: str, token_path: str = "") -> RaySession:
    """Connect to a running Ray: `auto`, or its HOST:PORT. In a process that is connected already, as
    in a Ray task, that connection is used if it is the same Ray. Raises RayError."""
    if token_path:
        if _is_token_useless():
            raise RayError(
                "the cluster's Ray asks for a token, and this program imported ray without one. Set "
                "RAY_AUTH_MODE=token in its environment, or connect before `import ray`"
            )
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = token_path
    import ray

    if ray.is_initialized():
        current = connected_address()
        if address not in ("auto", current):
            raise RayError(
                f"this process is connected to the Ray at {current}, not to the one at {address}. "
                "Use another process for it, or ray.shutdown() first"
            )
        return RaySession(address=current, is_own=False, is_shared=True)
    _forget_cached_token()
    _check_reachable(address)
    at_home = is_loopback(address.rpartition(":")[0])
    try:
        with _loopback() if at_home else nullcontext():
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, namespace=RAY_NAMESPACE
            )
    except Exception as error:
        raise RayError(f"cannot join Ray at {address!r}: {error}. Is it running? Try `ray status`") from error
    return RaySession(address=connected_address(), is_own=False)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    return host in ("localhost", "::1") or host.startswith("127.")


def is_connected() -> bool:
    """Whether this process is connected to a Ray. Imports nothing."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def living_nodes() -> list[dict[str, Any]]:
    """Ray's own description of every node that is alive."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def connected_address() -> str:
    """HOST:PORT of the Ray that this process is connected to."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def leave(session: RaySession) -> None:
    """Disconnect, unless the connection is the program's own; a Ray of ours is stopped, and its
    processes and files are gone when this returns."""
    if session.is_shared:
        return
    import ray

    processes = _own_processes() if session.is_own else []
    ray.shutdown()
    if session.is_own:
        wait_until_gone(processes, 10.0)
        remove_directory(session.directory)


def own_ray_lives() -> bool:
    """Whether the Ray that this process started still has all its processes. Calls into one that has
    lost them may take minutes to fail."""
    import ray._private.worker as worker

    node: Any = worker._global_node
    return node is not None and not node.dead_processes()


def remove_directory(directory: str) -> None:
    """Remove what a Ray of our own left behind; only ever a directory that `start_own` made."""
    if directory and Path(directory).name.startswith(_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


_PREFIX: Final = "etcray-ray-"


def _new_directory() -> Path:
    chosen = os.environ.get("ETCRAY_RAY_DIR") or tempfile.gettempdir()
    if len(os.fsencode(chosen)) + len(_PREFIX) + 9 + SESSION_PATH_LENGTH > SOCKET_PATH_MAX:
        chosen = "/tmp"
    try:
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=chosen))
    except OSError as error:
        raise RayError(f"cannot create a directory for Ray in {chosen}: {error.strerror}") from error


def _write_token(directory: Path) -> str:
    """Where Ray finds its token; empty if the user's own settings are in force, or if this process
    cannot use one any more."""
    if any(name in os.environ and not _is_ours(name) for name in _AUTH_SETTINGS) or _is_token_useless():
        return ""
    path = directory / "auth_token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    return str(path)


def _is_token_useless() -> bool:
    """Ray decides when it is imported whether this process shows tokens, and never again. A program
    that imported it before, with Ray's default, gets a Ray that asks for none."""
    raylet = sys.modules.get("ray._raylet")
    mode = getattr(raylet, "get_authentication_mode", None)
    return mode is not None and mode() != raylet.AuthenticationMode.TOKEN  # type: ignore[union-attr]


def _is_ours(name: str) -> bool:
    """Whether an earlier start in this process set it."""
    ours = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "")).parent.name.startswith(_PREFIX)
    return ours and name != "RAY_AUTH_TOKEN"


@contextmanager
def _loopback() -> Iterator[None]:
    """While this lasts, Ray takes a loopback address at its word. Otherwise it does so only on systems
    whose firewalls ask back, and elsewhere puts the machine's outer address in its place."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes. Raises RayError."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise RayError(f"no Ray answers at {address}: {error.strerror or error}") from error


def _forget_cached_token() -> None:
    """Ray reads the token once for each process; a second Ray in one process has another one."""
    from ray import _raylet

    loader = getattr(_raylet, "AuthenticationTokenLoader", None)
    if loader is not None:
        loader.instance().reset_cache()


def _own_processes() -> list[int]:
    """The processes of the Ray that this process started, workers included."""
    import ray._private.worker as worker

    node: Any = worker._global_node
    if node is None:
        return []
    started = [info.process.pid for infos in node.all_processes.values() for info in infos]
    return sorted({*started, *(below for process_id in started for below in descendants(process_id))})


# --- actors -----------------------------------------------------------------------------------


class Failure(Enum):
    """How a call to an actor can fail."""

    DEAD = 1
    """The actor's process ended, or will never start."""
    UNAVAILABLE = 2
    """It did not answer, but may again in a moment."""
    RAISED = 3
    """Its own code raised."""


def failure_of(error: BaseException) -> Failure:
    """Ray's errors first: a task error has the class of the actor's own exception as well."""
    from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayActorError

    if isinstance(error, ActorDiedError | ActorUnschedulableError):
        return Failure.DEAD
    return Failure.UNAVAILABLE if isinstance(error, RayActorError) else Failure.RAISED


def problem_of(error: BaseException) -> str:
    """What happened, in one line. Ray's own errors begin with it; where an actor's code raised, at a call
    or when it was created, its error is the last line of a traceback."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    has_raised = failure_of(error) is Failure.RAISED or "creation task" in lines[0]
    return lines[-1] if has_raised else lines[0]


def own_node() -> str:
    """The id of the Ray node of this process."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def locate(_actor: object) -> tuple[int, str]:
    """Runs inside any actor, by `__ray_call__`: its process and its Ray node."""
    return os.getpid(), own_node()


def find_actor(name: str) -> Any:
    """The handle of a named actor of etcray's, or None."""
    import ray

    try:
        return ray.get_actor(name, namespace=RAY_NAMESPACE)
    except ValueError:
        return None


def create_actor(
    actor_class: type[Any], arguments: Sequence[Any], *, name: str, node: str, options: dict[str, Any]
) -> Any:
    """A detached actor that Ray never restarts, on that node and no other. Raises ValueError if Ray still
    has an actor of that name."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    configured: Any = ray.remote(actor_class).options(
        name=name,
        namespace=RAY_NAMESPACE,
        lifetime="detached",
        num_cpus=0,
        max_restarts=0,
        max_task_retries=0,
        enable_task_events=False,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        **options,
    )
    return configured.remote(*arguments)


def end_actor(handle: Any) -> None:
    """End its process, and free its name. Idempotent."""
    import ray

    ray.kill(handle, no_restart=True)


def wait_for(references: list[Any], seconds: float) -> list[Any]:
    """The answers that have come within so many seconds, without those that were errors."""
    import ray

    if not references:
        return []
    done, _ = ray.wait(references, num_returns=len(references), timeout=seconds)
    answers = []
    for reference in done:
        with suppress(ray.exceptions.RayError):
            answers.append(ray.get(reference))
    return answers


def run_on(node: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function on a Ray node; the reference to its answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    task: Any = ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
    return task.remote(*arguments)


def actor_names(prefix: str) -> list[str]:
    """The names of etcray's living actors that begin so."""
    import ray

    actors = ray.util.list_named_actors(all_namespaces=True)
    return sorted(
        actor["name"]
        for actor in actors
        if actor["namespace"] == RAY_NAMESPACE and actor["name"].startswith(prefix)
    )
