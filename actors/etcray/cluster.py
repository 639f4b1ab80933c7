"""`Cluster`: a running cluster in the hands of a Python program."""

from __future__ import annotations

import atexit
import re
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from etcray import launch as launching
from etcray import ray_runtime, run_file
from etcray.errors import ClusterNotFoundError, MembershipError, NotReadyError, OptionsError
from etcray.processes import wait_until_gone
from etcray.ray_runtime import RaySession
from etcray.spec import HISTORY_NAME
from etcray.status import ClusterStatus, MemberReport, decode_status
from etcray.supervision import Phase
from etcray.supervisor.goals import Add, Goal, Lead, Promote, Remove, Resize, Update, encode_goal

if TYPE_CHECKING:
    from etcray.client import AsyncClient, Client
    from etcray.client.sql import Parameters, SqlResult

READY_SECONDS: Final = 60.0
STATUS_SECONDS: Final = 30.0
"""A supervisor that was killed is back well within this."""

STOP_SECONDS: Final = 60.0
CHANGE_SECONDS: Final = 120.0
"""A change of the membership that is not done by then is reported. It includes a new member's catching up."""

NODES_IN_WORDS: Final = ", ".join(map(str, launching.NODES_ALLOWED))
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

Teller = Callable[[str], None]
"""Hears of each step that takes time."""


def _silent(_step: str) -> None:
    """For whoever does not want to hear."""


def free_name(status: Callable[[], ClusterStatus], seconds: float) -> str:
    """A name for a new member. The supervisor of a cluster that has just become ready may not have looked
    at its members yet. Raises MembershipError if it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not (name := status().next_name):
        if time.monotonic() > deadline:
            raise MembershipError("the supervisor does not know its members yet: is there a leader?")
        time.sleep(0.1)
    return name


class Cluster:
    """Made by `launch` or `connect`. Safe to share between threads.

    As a context manager it is stopped at the end if this program launched it, and only let go of if
    this program connected to it.
    """

    def __init__(
        self, name: str, supervisor: Any, session: RaySession, launched: launching.Launched | None
    ) -> None:
        """For `launch` and `connect`."""
        self.name = name
        self._supervisor = supervisor
        self._session: RaySession | None = session
        self._launched = launched

    @classmethod
    def launch(
        cls,
        nodes: int | None = None,
        gateways: int = 1,
        name: str = "default",
        data_dir: str = "./etcray-data",
        listen: str = "127.0.0.1:2379",
        address: str | None = None,
        *,
        replace_after: float | None = None,
        history: bool = True,
        transport: str | None = None,
        durability: str | None = None,
        tune: Mapping[str, int] | None = None,
        timeout: float = READY_SECONDS,
    ) -> Cluster:
        """Start a cluster, or start again the one that `data_dir` holds, and wait until it serves.

        `nodes` is 1, 3, 5 or 7 (3 unless a cluster is stored). Gateways listen on `listen` and the
        ports that follow; port 0 lets the system choose. Runs in the Ray at `address` ("auto" finds
        one), else in the Ray that this program is connected to, and then goes on after the program
        ends; or else in a new Ray of its own on this machine, and then ends with the program.
        A member whose Ray node is gone for `replace_after` seconds (60 unless stored otherwise; 0: never)
        is replaced on another node. With `history` (see `sql`) it keeps every revision; the cluster serves
        before its history does. `transport` ("ray" or "direct"), `durability` ("synced" or "written") and
        `tune` (numbers by name) are what `etcray.tuning` describes; what is left out stays as stored.

        Raises ClusterError (see `etcray.errors`) or DataDirectoryError; nothing is left running then.
        """
        options = launching.LaunchOptions(
            name=name,
            nodes=nodes,
            gateways=gateways,
            data_dir=data_dir,
            listen=listen,
            address=address,
            replace_after=replace_after,
            history=history,
            transport=transport,
            durability=durability,
            tune=tune or {},
        )
        cluster = cls.launch_with(options)
        try:
            cluster.wait_ready(timeout)
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def launch_with(
        cls,
        options: launching.LaunchOptions,
        *,
        tell: Callable[[str], None] = lambda step: None,
        factories: launching.Factories = launching.FACTORIES,
    ) -> Cluster:
        """As `launch`, with everything that can be chosen, and without waiting: call `wait_ready`.
        `tell` hears of each step that takes time."""
        launched = launching.launch(options, tell, factories)
        cluster = cls(options.name, launched.supervisor, launched.session, launched)
        if launched.session.is_own:
            # Registered after Ray's own, so it runs before it.
            atexit.register(cluster.stop)
        return cluster

    @classmethod
    def connect(cls, name: str = "default", address: str | None = None) -> Cluster:
        """Find a running cluster: in the Ray that this program is connected to, as in any Ray task;
        else in the Ray at `address`; else where the launcher of that name on this machine says.

        Raises ClusterNotFoundError, or RayError if Ray cannot be joined.
        """
        session = _session_for(name, address)
        supervisor = launching.find_supervisor(name)
        if supervisor is None:
            ray_runtime.leave(session)
            raise ClusterNotFoundError(
                f"no cluster named {name!r} runs in the Ray at {session.address}. "
                f"Start it with `etcray up --name {name}`, or choose another --name"
            )
        return cls(name, supervisor, session, None)

    # --- use ----------------------------------------------------------------------------------

    @property
    def endpoints(self) -> tuple[str, ...]:
        """HOST:PORT of every gateway, for any etcd client."""
        return self.status().endpoints

    def client(self, timeout: float = 5.0) -> Client:
        """A new client of this cluster. It may be sent to Ray tasks."""
        from etcray.client import Client

        return Client(list(self.endpoints), timeout=timeout)

    def async_client(self, timeout: float = 5.0) -> AsyncClient:
        """A new asyncio client of this cluster."""
        from etcray.client import AsyncClient

        return AsyncClient(list(self.endpoints), timeout=timeout)

    def sql(
        self,
        query: str,
        parameters: Parameters | None = None,
        *,
        stale: bool = False,
        timeout: float | None = None,
        rows_max: int | None = None,
    ) -> SqlResult:
        """Ask the history, through a gateway; see `Client.sql`."""
        with self.client() as client:
            return client.sql(query, parameters, stale=stale, timeout=timeout, rows_max=rows_max)

    def status(self) -> ClusterStatus:
        """The state of every part. Raises ClusterNotFoundError if the cluster was stopped."""
        import ray

        try:
            return decode_status(ray.get(self._supervisor.status.remote(), timeout=STATUS_SECONDS))
        except ray.exceptions.GetTimeoutError as error:
            raise NotReadyError(
                f"the supervisor of {self.name!r} has not answered for {STATUS_SECONDS:.0f} s"
            ) from error
        except ray.exceptions.RayError as error:
            raise ClusterNotFoundError(f"the cluster {self.name!r} does not run any more") from error

    def wait_ready(self, timeout: float = READY_SECONDS) -> ClusterStatus:
        """Wait until there is a leader and every gateway serves.

        Raises NotReadyError after `timeout` seconds, or as soon as so many members refuse to open
        that there cannot be a leader; the message has their reasons."""
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if status.ready:
                self.announce(status)
                return status
            problem = hopeless(status)
            if problem:
                raise NotReadyError(problem)
            if time.monotonic() > deadline:
                problem = describe_problems(status)
                raise NotReadyError(f"{self.name!r} is not ready after {timeout:.0f} s: {problem}")
            time.sleep(0.05)

    def announce(self, status: ClusterStatus) -> None:
        """Tell the commands of this user where the cluster serves, if this program launched it."""
        if self._launched is not None and self._launched.record.endpoints != status.endpoints:
            record = msgspec.structs.replace(self._launched.record, endpoints=status.endpoints)
            self._launched.record = record
            run_file.write(record)

    # --- members ------------------------------------------------------------------------------

    def resize(
        self, voters: int, *, timeout: float = CHANGE_SECONDS, tell: Teller = _silent
    ) -> ClusterStatus:
        """Have so many voters (1, 3, 5 or 7): members are added as learners and promoted once they have
        caught up, or removed, one after the other, while the cluster serves.

        As all changes here: waits until it is done; `tell` hears what is being done; asking again for
        what was begun goes on with it. Raises MembershipError with the reason if it cannot be, or is not
        done within `timeout` seconds."""
        if voters not in launching.NODES_ALLOWED:
            raise OptionsError(f"a cluster has {NODES_IN_WORDS} members, not {voters}")
        return self._reach(Resize(voters), timeout, tell)

    def add_member(
        self,
        name: str | None = None,
        *,
        learner: bool = False,
        timeout: float = CHANGE_SECONDS,
        tell: Teller = _silent,
    ) -> MemberReport:
        """Add a member and start it. It becomes a voter once it has caught up, unless it is to stay a
        learner. The name must be new in the life of the cluster; None chooses one."""
        name = name or free_name(self.status, timeout)
        if not NAME.fullmatch(name) or name == HISTORY_NAME:
            raise OptionsError(
                f"{name!r} cannot be a member's name: use letters, digits, '.', '_' and '-', and not "
                f"{HISTORY_NAME!r}"
            )
        if any(member.name == name for member in self.status().members):
            raise MembershipError(f"there is a member {name} already")
        status = self._reach(Add(name, learner), timeout, tell)
        return next(member for member in status.members if member.name == name)

    def remove_member(
        self, member: str | int, *, timeout: float = CHANGE_SECONDS, tell: Teller = _silent
    ) -> ClusterStatus:
        """Remove a member, by its name or id. A leader hands its leadership over first. The member's
        directory is set aside; its id and its name never come back."""
        return self._reach(Remove(self._find_member(member).id), timeout, tell)

    def promote_member(
        self, member: str | int, *, timeout: float = CHANGE_SECONDS, tell: Teller = _silent
    ) -> ClusterStatus:
        """Make a learner a voter, as soon as it has caught up."""
        found = self._find_member(member)
        if not found.learner:
            raise MembershipError(f"{found.name} is no learner, it votes already")
        return self._reach(Promote(found.id), timeout, tell)

    def update_member(
        self, member: str | int, peer_urls: Sequence[str], *, timeout: float = CHANGE_SECONDS
    ) -> ClusterStatus:
        """Other peer URLs in the member list. Members of etcray find each other through Ray, so these are
        for clients to see only."""
        return self._reach(Update(self._find_member(member).id, tuple(peer_urls)), timeout, _silent)

    def move_leader(
        self, member: str | int, *, timeout: float = CHANGE_SECONDS, tell: Teller = _silent
    ) -> ClusterStatus:
        """Have that voter lead."""
        return self._reach(Lead(self._find_member(member).id), timeout, tell)

    def _find_member(self, member: str | int) -> MemberReport:
        """By name, or by id: a number, or its hexadecimal text as etcd's tools print it."""
        members = self.status().members
        for found in members:
            if member in (found.name, found.id, f"{found.id:x}", f"0x{found.id:x}"):
                return found
        shown = f"{member:x}" if isinstance(member, int) else repr(member)
        known = ", ".join(f"{found.name} ({found.id:x})" for found in members)
        raise MembershipError(f"there is no member {shown}. The members are {known}")

    def _reach(self, goal: Goal, timeout: float, tell: Teller) -> ClusterStatus:
        import ray

        reference = self._supervisor.reach.remote(encode_goal(goal), timeout)
        deadline = time.monotonic() + timeout + STATUS_SECONDS
        told = ""
        done: list[Any] = []
        while not done and time.monotonic() < deadline:
            done, _ = ray.wait([reference], timeout=0.3)
            doing = self.status().membership
            if doing and doing != told:
                tell(doing)
                told = doing
        if not done:
            raise NotReadyError(f"no answer from the supervisor of {self.name!r} for {timeout:.0f} s")
        try:
            refusal: str = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise ClusterNotFoundError(f"the cluster {self.name!r} does not run any more") from error
        if refusal:
            raise MembershipError(refusal)
        return self.status()

    # --- end ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop every member cleanly and end all actors, whoever launched them. The data stays.
        A Ray that this program started for the cluster is stopped too. Idempotent."""
        if self._session is None:
            return
        atexit.unregister(self.stop)
        try:
            self._stop_actors()
        finally:
            session, self._session = self._session, None
            launched, self._launched = self._launched, None
            if launched is not None:
                launched.release()
            else:
                ray_runtime.leave(session)

    def close(self) -> None:
        """Let go of the cluster, which goes on. Idempotent. For a cluster in a Ray of this program's
        own there is no going on: it is stopped."""
        session = self._session
        if session is None:
            return
        if session.is_own:
            self.stop()
            return
        self._session = None
        if self._launched is not None:
            self._launched.lock.release()
            self._launched = None
        ray_runtime.leave(session)

    def _stop_actors(self) -> None:
        import ray

        supervisor_process = 0
        try:
            status = self._supervisor.status.remote()
            supervisor_process = decode_status(self._await(status, STATUS_SECONDS)).supervisor.process_id
            self._await(self._supervisor.stop.remote(), STOP_SECONDS)
        except (ray.exceptions.RayError, NotReadyError):
            pass  # Gone already, or beyond help: what follows ends it in any case.
        if not self._ray_is_lost():
            ray.kill(self._supervisor, no_restart=True)
        if supervisor_process:
            wait_until_gone([supervisor_process], 5.0)

    def _await(self, reference: Any, seconds: float) -> Any:
        """As ray.get, but does not wait for a Ray of our own that is dead. That happens: a signal to
        a whole process group, as service managers send it, ends Ray beside this process."""
        import ray

        deadline = time.monotonic() + seconds
        while not self._ray_is_lost() and time.monotonic() < deadline:
            done, _ = ray.wait([reference], timeout=0.5)
            if done:
                return ray.get(reference)
        raise NotReadyError(f"no answer from the supervisor of {self.name!r}")

    def _ray_is_lost(self) -> bool:
        return self._session is not None and self._session.is_own and not ray_runtime.own_ray_lives()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._launched is not None:
            self.stop()
        else:
            self.close()

    def __repr__(self) -> str:
        return f"Cluster({self.name!r})"


def _session_for(name: str, address: str | None) -> RaySession:
    if ray_runtime.is_connected():
        return ray_runtime.join(address or "auto")
    record = run_file.read(name)
    if address is not None:
        return ray_runtime.join(address)
    if record is None or not record.ray_address or (record.ray_directory and not record.launcher_lives):
        known = ", ".join(r.name for r in run_file.read_all() if r.launcher_lives)
        raise ClusterNotFoundError(
            f"no cluster named {name!r} runs on this machine"
            + (f" (running: {known})" if known else "")
            + f". Start it with `etcray up --name {name}`, or say where it runs with --address"
        )
    return ray_runtime.join(record.ray_address, record.token_path)


def hopeless(status: ClusterStatus) -> str:
    """Why there cannot be a leader, if members that refuse to open make that certain; else empty."""
    refused = [member for member in status.members if member.phase == Phase.REFUSED]
    if (len(status.members) - len(refused)) * 2 > len(status.members):
        return ""
    reasons = "; ".join(f"{member.name}: {member.problem}" for member in refused)
    return f"{len(refused)} of {len(status.members)} members cannot be opened: {reasons}"


def describe_problems(status: ClusterStatus) -> str:
    """What keeps the cluster from being ready, in one line."""
    parts = [
        f"{actor.name} is {actor.phase}" + (f" ({actor.problem})" if actor.problem else "")
        for actor in (*status.members, *status.gateways)
        if actor.phase != Phase.SERVING
    ]
    if not status.leader:
        parts.append("there is no leader")
    return "; ".join(parts) or "no reason is known"
