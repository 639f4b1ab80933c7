"""The actor that keeps a cluster alive: creates its actors, introduces them, and heals them.

It is detached and restarted by Ray (max_restarts=-1) with the arguments it was created with. All that
it knows beyond them can be found out again: which actors live (by their names in Ray), what they are
doing (by asking them). So its own death costs nothing but the time without it.

`supervision` decides; this module looks and acts. One thread does all of it; calls to actors are never
waited for, their ends come back as news through a queue. What is heard of an actor that was replaced
since is dropped by its generation.

A death, as it goes:
1. A member's process ends. Its pidfd becomes readable and wakes the loop, microseconds later. (On
   another node Ray's error from the next status call tells it, about a second later.) The other members
   and the gateways are told: if it led, they need not wait for time-outs.
2. The actor is killed in Ray's books too, which frees its name and makes calls to it fail at once.
3. A new actor of that name is created, on the node where the directory is, and told to open.
4. When it has opened, it gets the handles of all members, and all others get its handle.
If the old process is not quite gone, the directory's lock refuses the new one, which is then tried again.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import ray
from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from etcray import state_file
from etcray.node.api import MemberStatus, decode_status
from etcray.placement import check_directory, choose_node
from etcray.processes import ProcessWatch, wait_until_gone
from etcray.ray_runtime import living_nodes
from etcray.spec import (
    RAY_NAMESPACE,
    ClusterSpec,
    GatewaySpec,
    MemberSpec,
    decode_spec,
    encode_spec,
    gateway_actor_name,
    member_actor_name,
)
from etcray.status import (
    ClusterStatus,
    GatewayReport,
    MemberReport,
    SupervisorReport,
    encode_status,
)
from etcray.supervision import Charge, Phase, Supervision
from etcray_storage.errors import DataDirectoryInUseError, OperatingError
from etcray_storage.types import NOBODY, Index, MemberId, Term

STATUS_INTERVAL_SECONDS: Final = 0.5
"""Between two status calls to one actor."""

LOOP_INTERVAL_SECONDS: Final = 0.25
"""The loop comes round this often, even if nothing wakes it."""

NAME_PAUSE_SECONDS: Final = 0.05
NODE_PAUSE_SECONDS: Final = 1.0
"""Before trying again to create an actor whose name is not free yet, or whose node is away."""

STOP_CALL_SECONDS: Final = 15.0
"""A member that has not stopped by then is killed: its log has everything that it acknowledged."""

EXIT_DEFECT: Final = 70
NOTE_NAME: Final = "supervisor.log"

MEMBER_CONCURRENCY: Final = 64

ActorFactory = Callable[[], type[Any]]
"""Gives the class of an actor. A function, because importing the class is slow and is for the
supervisor's process to do."""


@dataclass(slots=True)
class _Watched:
    """What the supervisor holds of one actor, beside its `Charge`."""

    member: MemberSpec | None
    gateway: GatewaySpec | None
    ray_name: str
    place: int
    """Among the members, or among the gateways."""
    handle: Any = None
    process_id: int = 0
    ray_node: str = ""
    asked_at: float = 0.0
    is_asked: bool = False
    """A status call is under way: there is never more than one."""
    status: MemberStatus | None = None
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class _News:
    """How a call to an actor ended."""

    name: str
    generation: int
    call: str
    answer: Any
    error: BaseException | None


@dataclass(slots=True)
class _Books:
    """The current handles, by what the actors want to know them by."""

    members: dict[int, Any] = field(default_factory=dict)
    due: float | None = None
    """When to hand them out; None while everybody has them."""


class Supervisor:
    """The Ray actor. Its calls run in other threads than its loop and only touch what is locked."""

    def __init__(self, spec: bytes, member_class: ActorFactory, gateway_class: ActorFactory) -> None:
        self._spec: ClusterSpec = decode_spec(spec)
        self._member_class = member_class
        self._gateway_class = gateway_class
        self._node_id: str = ray.get_runtime_context().get_node_id()
        self._watched = _watched_of(self._spec)
        self._supervision = Supervision(self._watched, time.monotonic())
        self._books = _Books()
        self._opened_once: set[str] = set()
        self._processes = ProcessWatch()
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._stop_lock = threading.Lock()
        self._report = self._make_report()
        self._thread = threading.Thread(target=self._run, name="supervision", daemon=True)
        self._thread.start()

    # --- calls --------------------------------------------------------------------------------

    def status(self) -> bytes:
        """The encoded ClusterStatus."""
        return encode_status(self._report)

    def stop(self) -> None:
        """Stop gateways, then members, each cleanly, and end their processes. Idempotent. The
        supervisor does nothing any more then, and is for the caller to kill."""
        with self._stop_lock:
            self._stopping.set()
            self._processes.wake()
            self._thread.join()
            gateways = [w for w in self._watched.values() if w.gateway is not None and w.handle is not None]
            members = [w for w in self._watched.values() if w.member is not None and w.handle is not None]
            self._stop_all(gateways)
            self._stop_all(members)

    def _stop_all(self, group: list[_Watched]) -> None:
        ends = [w.handle.stop.remote() for w in group]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=STOP_CALL_SECONDS)
        for watched in group:
            ray.kill(watched.handle, no_restart=True)
        wait_until_gone([w.process_id for w in group if w.process_id and self._is_here(w)], 5.0)
        for watched in group:
            watched.handle = None

    # --- the loop -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._find_living()
            while not self._stopping.is_set():
                self._turn()
        except BaseException:
            # Ray restarts the supervisor, which finds everything as it is. Going on with state
            # that broke an assertion would be worse, and a silent thread death the worst.
            self._leave_note(traceback.format_exc())
            os._exit(EXIT_DEFECT)

    def _leave_note(self, text: str) -> None:
        """Where a person looks for it: Ray's own log files go away with its session."""
        directory = Path(self._spec.members[0].data_directory).parent
        if directory.is_dir():
            with (directory / NOTE_NAME).open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} supervisor {os.getpid()} ends\n{text}\n")

    def _turn(self) -> None:
        now = time.monotonic()
        for charge in self._supervision.due(now):
            self._create(charge)
        self._introduce(now)
        for name, watched in self._watched.items():
            self._ask(name, watched, now)
        self._report = self._make_report()
        next_due = self._supervision.next_due()
        pause = LOOP_INTERVAL_SECONDS if next_due is None else min(LOOP_INTERVAL_SECONDS, next_due - now)
        for name in self._processes.wait(pause):
            self._on_death(name, f"process {self._watched[name].process_id} ended")
        while not self._news.empty():
            self._on_news(self._news.get())

    def _find_living(self) -> None:
        """Take over what a supervisor before this one created. `open` tells whether it is of use:
        it returns at once where it was called before."""
        for name, watched in self._watched.items():
            try:
                watched.handle = ray.get_actor(watched.ray_name, namespace=RAY_NAMESPACE)
            except ValueError:
                continue
            self._begin(name, watched)

    def _create(self, charge: Charge) -> None:
        watched = self._watched[charge.name]
        now = time.monotonic()
        try:
            watched.handle = self._new_actor(charge.name, watched)
        except ValueError as error:
            # 1. An actor died; 2. it was killed in Ray's books, too; 3. but its name is free only
            # when Ray's control service has dealt with that, which may be a moment later.
            self._supervision.postponed(charge.name, str(error), now + NAME_PAUSE_SECONDS)
            return
        except LookupError as error:
            self._supervision.postponed(charge.name, str(error), now + NODE_PAUSE_SECONDS)
            return
        except OperatingError as error:
            self._supervision.refused(charge.name, str(error), now)
            return
        except Exception as error:
            traceback.print_exc()
            self._supervision.refused(charge.name, f"{type(error).__name__}: {error}", now)
            return
        self._begin(charge.name, watched)

    def _begin(self, name: str, watched: _Watched) -> None:
        """An actor exists: know it, learn where it runs, and have it open."""
        watched.process_id, watched.ray_node, watched.is_asked = 0, "", False
        if watched.member is not None:
            self._books.members[watched.member.id] = watched.handle
        generation = self._supervision.created(name, time.monotonic())
        self._call(name, generation, "locate", watched.handle.__ray_call__, _locate)
        self._call(name, generation, "open", watched.handle.open)

    def _new_actor(self, name: str, watched: _Watched) -> Any:
        """Raises ValueError if Ray still has an actor of that name, LookupError if the node where it
        belongs is away, DataDirectoryError if its directory is gone."""
        formed = self._spec.formed or name in self._opened_once
        place = self._place(watched)
        if formed and watched.member is not None and place == self._node_id:
            check_directory(watched.member)
        options: dict[str, Any] = {
            "name": watched.ray_name,
            "namespace": RAY_NAMESPACE,
            "lifetime": "detached",
            "num_cpus": 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            "enable_task_events": False,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place, soft=False),
        }
        spec = encode_spec(msgspec.structs.replace(self._spec, formed=formed))
        if watched.member is not None:
            options["max_concurrency"] = MEMBER_CONCURRENCY
            member_class = ray.remote(self._member_class()).options(**options)
            return member_class.remote(spec, watched.member.name)
        assert watched.gateway is not None, f"{name} is neither member nor gateway"
        return ray.remote(self._gateway_class()).options(**options).remote(spec, watched.gateway.index)

    def _place(self, watched: _Watched) -> str:
        """The id of the Ray node where the actor has to live."""
        part = watched.member or watched.gateway
        if part is None or part.pin is None:
            return self._node_id
        return choose_node(part.pin, living_nodes(), place=watched.place)

    def _introduce(self, now: float) -> None:
        """Give everybody who serves the handles of all members, once after each change.

        A member that opens later makes the books due when it does, so it is not left out."""
        if self._books.due is None or self._books.due > now:
            return
        self._books.due = None
        for name, watched in self._watched.items():
            charge = self._supervision.charges[name]
            if charge.phase is not Phase.SERVING:
                continue
            method = watched.handle.set_peers if watched.member else watched.handle.set_members
            self._call(name, charge.generation, "introduce", method, dict(self._books.members))

    def _ask(self, name: str, watched: _Watched, now: float) -> None:
        charge = self._supervision.charges[name]
        is_time = now - watched.asked_at >= STATUS_INTERVAL_SECONDS
        if charge.phase is Phase.SERVING and is_time and not watched.is_asked:
            watched.asked_at = now
            watched.is_asked = True
            self._call(name, charge.generation, "status", watched.handle.status)

    def _call(self, name: str, generation: int, call: str, method: Any, *arguments: Any) -> None:
        """Call an actor; how it ends comes back as news."""

        def on_end(future: Any) -> None:
            error = future.exception()
            answer = None if error is not None else future.result()
            self._news.put(_News(name, generation, call, answer, error))
            self._processes.wake()

        method.remote(*arguments).future().add_done_callback(on_end)

    # --- news ---------------------------------------------------------------------------------

    def _on_news(self, news: _News) -> None:
        if not self._supervision.is_current(news.name, news.generation):
            return
        watched = self._watched[news.name]
        if news.call == "status":
            watched.is_asked = False
        if news.error is not None:
            self._on_error(news, watched, news.error)
        elif news.call == "locate":
            watched.process_id, watched.ray_node = news.answer
            if self._is_here(watched) and not self._processes.watch(news.name, watched.process_id):
                self._on_death(news.name, f"process {watched.process_id} ended")
        elif news.call == "open":
            self._on_open(news, watched)
        else:
            if news.call == "status" and watched.member is not None:
                watched.status = decode_status(news.answer)
            self._supervision.answered(news.name, time.monotonic())

    def _on_open(self, news: _News, watched: _Watched) -> None:
        if watched.member is not None:
            watched.status = decode_status(news.answer)
        else:
            watched.endpoint = news.answer
        now = time.monotonic()
        self._supervision.opened(news.name, now)
        self._opened_once.add(news.name)
        self._books.due = now
        if not self._spec.formed and self._opened_once >= {member.name for member in self._spec.members}:
            self._remember_formed()

    def _on_error(self, news: _News, watched: _Watched, error: BaseException) -> None:
        """Ray's errors first: a task error has the class of the actor's own exception as well."""
        problem = (str(error).strip() or type(error).__name__).splitlines()
        now = time.monotonic()
        if isinstance(error, ActorDiedError | ActorUnschedulableError):
            self._on_death(news.name, problem[0])
        elif isinstance(error, RayActorError):
            # Unavailable: it may be back in a moment. What was asked of it has to be asked again.
            self._supervision.charges[news.name].problem = problem[0]
            if news.call == "open":
                self._on_death(news.name, problem[0])
            elif news.call == "introduce":
                self._books.due = now + LOOP_INTERVAL_SECONDS
        elif news.call == "open":
            cause = getattr(error, "cause", error)
            problem_text = f"{type(cause).__name__}: {cause}"
            is_lasting = isinstance(error, OperatingError) and not isinstance(error, DataDirectoryInUseError)
            if is_lasting:
                self._supervision.refused(news.name, problem_text, now)
            else:
                self._supervision.died(news.name, problem_text, now)
            self._remove(watched, news.name)
        else:
            self._supervision.charges[news.name].problem = f"{news.call}: {problem[-1]}"
            if news.call == "introduce":
                self._books.due = now + LOOP_INTERVAL_SECONDS

    def _on_death(self, name: str, problem: str) -> None:
        watched = self._watched[name]
        self._supervision.died(name, problem, time.monotonic())
        if watched.member is not None:
            self._tell_of_death(watched.member.id)
        self._remove(watched, name)

    def _tell_of_death(self, member: MemberId) -> None:
        """First of all: if the member led, the others elect the next leader, and the gateways look
        for it, while its own calls have not even failed yet."""
        for name, watched in self._watched.items():
            charge = self._supervision.charges[name]
            if charge.phase is Phase.SERVING:
                self._call(name, charge.generation, "tell", watched.handle.member_died, member)

    def _remove(self, watched: _Watched, name: str) -> None:
        self._processes.forget(name)
        ray.kill(watched.handle, no_restart=True)
        watched.process_id, watched.is_asked, watched.status = 0, False, None

    def _remember_formed(self) -> None:
        self._spec = msgspec.structs.replace(self._spec, formed=True)
        directory = Path(self._spec.members[0].data_directory).parent
        if (directory / state_file.FILE_NAME).exists():
            state_file.save(directory, self._spec)

    def _is_here(self, watched: _Watched) -> bool:
        """Whether the actor runs on this node, where its process can be seen."""
        return watched.ray_node == self._node_id

    # --- the report ---------------------------------------------------------------------------

    def _make_report(self) -> ClusterStatus:
        now = time.monotonic()
        members = [
            self._member_report(name, w, w.member, now) for name, w in self._watched.items() if w.member
        ]
        gateways = [
            self._gateway_report(name, w, w.gateway, now) for name, w in self._watched.items() if w.gateway
        ]
        leader = find_leader(members)
        serving = all(gateway.phase == Phase.SERVING for gateway in gateways)
        return ClusterStatus(
            name=self._spec.name,
            cluster_id=self._spec.cluster_id,
            ready=leader != NOBODY and serving,
            leader=leader,
            endpoints=tuple(gateway.endpoint for gateway in gateways if gateway.endpoint),
            members=tuple(members),
            gateways=tuple(gateways),
            supervisor=SupervisorReport(process_id=os.getpid(), ray_node=self._node_id),
        )

    def _member_report(self, name: str, watched: _Watched, member: MemberSpec, now: float) -> MemberReport:
        status = watched.status
        return MemberReport(
            **self._actor_report(name, watched, now),
            id=member.id,
            role=status.role if status else "unknown",
            term=status.term if status else Term(0),
            leader=status.leader if status else NOBODY,
            commit_index=status.commit_index if status else Index(0),
            applied_index=status.applied_index if status else Index(0),
            revision=status.revision if status else 0,
            ready=status.ready if status else False,
            data_directory=member.data_directory,
            size_bytes=status.size_bytes if status else 0,
        )

    def _gateway_report(
        self, name: str, watched: _Watched, gateway: GatewaySpec, now: float
    ) -> GatewayReport:
        endpoint = watched.endpoint or f"{gateway.host}:{gateway.port}"
        return GatewayReport(**self._actor_report(name, watched, now), index=gateway.index, endpoint=endpoint)

    def _actor_report(self, name: str, watched: _Watched, now: float) -> dict[str, Any]:
        """The fields that members' and gateways' reports have in common."""
        charge = self._supervision.charges[name]
        return {
            "name": name,
            "phase": str(charge.phase),
            "problem": charge.problem,
            "restarts": charge.restarts,
            "silent_seconds": round(self._supervision.silent_seconds(name, now), 3),
            "process_id": watched.process_id,
            "ray_node": watched.ray_node,
        }


def find_leader(members: Sequence[MemberReport]) -> MemberId:
    """Whom a majority of the serving members takes for the leader in the highest term, and who
    says so itself; or nobody."""
    leaders = [m for m in members if m.phase == Phase.SERVING and m.role == "leader"]
    if not leaders:
        return NOBODY
    newest = max(leaders, key=lambda member: member.term)
    followers = [m for m in members if m.phase == Phase.SERVING and m.leader == newest.id]
    return newest.id if len(followers) * 2 > len(members) else NOBODY


def _locate(_actor: object) -> tuple[int, str]:
    """Runs inside any actor: its process and its Ray node."""
    return os.getpid(), str(ray.get_runtime_context().get_node_id())


def _watched_of(spec: ClusterSpec) -> dict[str, _Watched]:
    members = {
        member.name: _Watched(
            member=member, gateway=None, ray_name=member_actor_name(spec.name, member.name), place=place
        )
        for place, member in enumerate(spec.members)
    }
    gateways = {
        f"gateway{gateway.index}": _Watched(
            member=None,
            gateway=gateway,
            ray_name=gateway_actor_name(spec.name, gateway.index),
            place=gateway.index,
        )
        for gateway in spec.gateways
    }
    return members | gateways
