"""Keeps actors alive: creates them, has them open, introduces them to each other, asks how they are, and
buries them. `supervision` decides; this looks and acts.

One thread does all of it; calls to actors are never waited for, their ends come back as news through a
queue. What is heard of an actor that was replaced since is dropped by its generation.

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

import queue
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from etcray import ray_runtime
from etcray.placement import choose_node
from etcray.processes import ProcessWatch, wait_until_gone
from etcray.ray_runtime import Failure, failure_of, problem_of
from etcray.spec import ClusterSpec
from etcray.supervision import Charge, Phase, Supervision
from etcray.supervisor.watched import (
    ActorFactory,
    Handles,
    Known,
    Watched,
    WatchedHistory,
    WatchedMember,
    member_id_of,
    members_of,
)
from etcray.tuning import Transport
from etcray_storage.errors import DataDirectoryInUseError, OperatingError, StorageCorruptError
from etcray_storage.types import NOBODY

STATUS_INTERVAL_SECONDS: Final = 0.5
"""Between two status calls to one actor."""

LOOP_INTERVAL_SECONDS: Final = 0.25
"""The loop comes round this often, even if nothing wakes it."""

NAME_PAUSE_SECONDS: Final = 0.05
NODE_PAUSE_SECONDS: Final = 1.0
"""Before trying again to create an actor whose name is not free yet, or whose node is away."""

STOP_CALL_SECONDS: Final = 15.0
"""A member that has not stopped by then is killed: its log has everything that it acknowledged."""

Classes = dict[type[Watched], ActorFactory]


@dataclass(frozen=True, slots=True)
class News:
    """How a call to an actor ended."""

    name: str
    generation: int
    call: str
    answer: Any
    error: BaseException | None


class Keeper:
    """Not thread-safe, but for `wake`."""

    def __init__(
        self,
        watched: Iterable[Watched],
        classes: Classes,
        cluster: Callable[[], ClusterSpec],
        on_news: Callable[[News], None],
    ) -> None:
        """`cluster` gives the spec as it is now. `on_news` hears of the calls made with `call` by others,
        and of "open", after the keeper itself."""
        self.watched: dict[str, Watched] = {one.name: one for one in watched}
        self.supervision = Supervision(self.watched, time.monotonic())
        self.node: Final = ray_runtime.own_node()
        self._classes = classes
        self._cluster = cluster
        self._on_news = on_news
        self._processes = ProcessWatch()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._introduction = 0
        """Raised whenever there is somebody else to know of; whoever was introduced at a lower number has yet
        to be told."""

    # --- what there is ------------------------------------------------------------------------

    def find_living(self) -> None:
        """Take over what a supervisor before this one created. `open` tells whether it is of use:
        it returns at once where it was called before."""
        for watched in self.watched.values():
            handle = ray_runtime.find_actor(watched.ray_name)
            if handle is not None:
                watched.handle = handle
                self._begin(watched)

    def adopt(self, watched: Watched) -> None:
        """One more; it is created at the next turn."""
        self.watched[watched.name] = watched
        self.supervision.adopt(watched.name, time.monotonic())
        handle = ray_runtime.find_actor(watched.ray_name)
        if handle is not None:
            watched.handle = handle
            self._begin(watched)

    def dismiss(self, name: str) -> None:
        """Let it close its files, for a moment, and end it; it is not watched any more."""
        watched = self.watched.pop(name)
        self.supervision.dismiss(name)
        self._processes.forget(name)
        self.stop([watched], 2.0)

    def stop(self, group: list[Watched], seconds: float = STOP_CALL_SECONDS) -> None:
        """Stop them cleanly, together, and end their processes."""
        living = [watched for watched in group if watched.handle is not None]
        ray_runtime.wait_for([watched.handle.stop.remote() for watched in living], seconds)
        for watched in living:
            ray_runtime.end_actor(watched.handle)
        wait_until_gone([w.process_id for w in living if w.process_id and w.is_placed_on(self.node)], 5.0)
        for watched in living:
            watched.handle = None

    def serving(self) -> list[Watched]:
        """Those that have opened and are not known to be dead."""
        charges = self.supervision.charges
        return [one for name, one in self.watched.items() if charges[name].phase is Phase.SERVING]

    def is_serving(self, watched: Watched) -> bool:
        return self.supervision.charges[watched.name].phase is Phase.SERVING

    # --- the loop -----------------------------------------------------------------------------

    def turn(self) -> None:
        """Do what is due, without waiting for anything."""
        now = time.monotonic()
        for charge in self.supervision.due(now):
            self._create(charge)
        self._introduce(now)
        for name, watched in self.watched.items():
            self._ask(name, watched, now)

    def wait(self) -> None:
        """Until there is something to do; then hear what happened."""
        next_due = self.supervision.next_due()
        pause = LOOP_INTERVAL_SECONDS
        if next_due is not None:
            pause = min(pause, next_due - time.monotonic())
        for name in self._processes.wait(pause):
            self._on_death(self.watched[name], f"process {self.watched[name].process_id} ended")
        while not self._news.empty():
            self._hear(self._news.get())

    def wake(self) -> None:
        """End a `wait` early. From any thread."""
        self._processes.wake()

    def _create(self, charge: Charge) -> None:
        watched = self.watched[charge.name]
        now = time.monotonic()
        try:
            watched.handle = self._new_actor(watched)
        except ValueError as error:
            # 1. An actor died; 2. it was killed in Ray's books, too; 3. but its name is free only
            # when Ray's control service has dealt with that, which may be a moment later.
            self.supervision.postponed(charge.name, str(error), now + NAME_PAUSE_SECONDS)
            return
        except LookupError as error:
            self.supervision.postponed(charge.name, str(error), now + NODE_PAUSE_SECONDS)
            return
        except OperatingError as error:
            self._refused(watched, error)
            return
        except Exception as error:
            traceback.print_exc()
            self.supervision.refused(charge.name, f"{type(error).__name__}: {error}", now)
            return
        self._begin(watched)

    def _new_actor(self, watched: Watched) -> Any:
        """Raises ValueError if Ray still has an actor of that name, LookupError if the node where it
        belongs is away, QuarantinedError if its directory is gone."""
        cluster = self._cluster()
        node = self._place(watched)
        if node == self.node:
            watched.check(cluster)
        return ray_runtime.create_actor(
            self._classes[type(watched)](),
            watched.arguments(cluster),
            name=watched.ray_name,
            node=node,
            options=watched.options,
        )

    def _place(self, watched: Watched) -> str:
        """The id of the Ray node where the actor has to live. Raises LookupError."""
        if watched.pin is None:
            return self.node
        try:
            node = choose_node(watched.pin, ray_runtime.living_nodes(), place=watched.place)
        except LookupError:
            if isinstance(watched, WatchedMember) and watched.gone_since is None:
                watched.gone_since = time.monotonic()
            raise
        if isinstance(watched, WatchedMember):
            watched.gone_since = None
        return node

    def _begin(self, watched: Watched) -> None:
        """An actor exists: know it, learn where it runs, and have it open."""
        watched.forget_process()
        watched.ray_node = ""
        generation = self.supervision.created(watched.name, time.monotonic())
        self._send(watched, generation, "locate", watched.handle.__ray_call__, ray_runtime.locate)
        self._send(watched, generation, "open", watched.handle.open)

    def introduce_soon(self) -> None:
        """There is another member, or one less."""
        self._introduction += 1

    def _introduce(self, now: float) -> None:
        """Give everybody who serves the handles of all members and of the history, after each change, and one
        introduction at a time.

        A member that opens later makes this due when it does, so it is not left out."""
        serving = self.serving()
        untold = [
            watched
            for watched in serving
            if watched.introduced < self._introduction
            and not watched.introductions_awaited
            and watched.introduce_after <= now
        ]
        if not untold:
            return
        known_members = members_of(self.watched)
        members: Handles = {m.spec.id: m.handle for m in known_members if m.handle is not None}
        streams = None
        if self._cluster().tuning.transport is Transport.DIRECT:
            streams = {int(m.spec.id): m.stream for m in known_members if m.stream is not None}
        history = next((w.handle for w in serving if isinstance(w, WatchedHistory)), None)
        known = Known(members, streams, history)
        for watched in untold:
            watched.introduced = self._introduction
            introductions = watched.introductions(known)
            watched.introductions_awaited = len(introductions)
            for method, told in introductions:
                self.call(watched, "introduce", method, told)

    def _ask(self, name: str, watched: Watched, now: float) -> None:
        is_time = now - watched.asked_at >= STATUS_INTERVAL_SECONDS
        if self.supervision.charges[name].phase is Phase.SERVING and is_time and not watched.is_asked:
            watched.asked_at = now
            watched.is_asked = True
            self.call(watched, "status", watched.handle.status)

    def call(self, watched: Watched, call: str, method: Any, *arguments: Any) -> None:
        """Call an actor; how it ends comes back as news."""
        self._send(watched, self.supervision.charges[watched.name].generation, call, method, *arguments)

    def _send(self, watched: Watched, generation: int, call: str, method: Any, *arguments: Any) -> None:
        name = watched.name

        def on_end(future: Any) -> None:
            error = future.exception()
            answer = None if error is not None else future.result()
            self._news.put(News(name, generation, call, answer, error))
            self._processes.wake()

        method.remote(*arguments).future().add_done_callback(on_end)

    # --- news ---------------------------------------------------------------------------------

    def _hear(self, news: News) -> None:
        if not self.supervision.is_current(news.name, news.generation):
            return
        watched = self.watched[news.name]
        if news.call == "status":
            watched.is_asked = False
        elif news.call == "introduce":
            watched.introductions_awaited -= 1
        if news.error is not None:
            self._on_error(news, watched, news.error)
        elif news.call == "locate":
            watched.process_id, watched.ray_node = news.answer
            is_here = watched.is_placed_on(self.node)
            if is_here and not self._processes.watch(news.name, watched.process_id):
                self._on_death(watched, f"process {watched.process_id} ended")
        elif news.call == "open":
            watched.opened(news.answer)
            watched.has_opened = True
            self.supervision.opened(news.name, time.monotonic())
            self.introduce_soon()
        else:
            if news.call == "status":
                self._answered(watched, news.answer)
            self.supervision.answered(news.name, time.monotonic())
        self._on_news(news)

    def _answered(self, watched: Watched, status: Any) -> None:
        stream = watched.stream if isinstance(watched, WatchedMember) else None
        watched.answered(status)
        if isinstance(watched, WatchedMember) and watched.stream != stream:
            self.introduce_soon()  # it listens for other hosts now, too

    def _on_error(self, news: News, watched: Watched, error: BaseException) -> None:
        problem = problem_of(error)
        charge = self.supervision.charges[news.name]
        failure = failure_of(error)
        if failure is Failure.DEAD:
            self._on_death(watched, problem)
        elif failure is Failure.RAISED and news.call == "open":
            cause = getattr(error, "cause", error)
            if isinstance(error, OperatingError) and not isinstance(error, DataDirectoryInUseError):
                self._refused(watched, cause)
            else:
                self.supervision.died(news.name, f"{type(cause).__name__}: {cause}", time.monotonic())
            self._bury(watched)
        elif news.call == "open":
            # Unavailable: it may be back in a moment. What was asked of it has to be asked again.
            self._on_death(watched, problem)
        else:
            charge.problem = problem if failure is Failure.UNAVAILABLE else f"{news.call}: {problem}"
            if news.call == "introduce":
                watched.introduced = 0
                watched.introduce_after = time.monotonic() + LOOP_INTERVAL_SECONDS

    def _refused(self, watched: Watched, error: BaseException) -> None:
        """It cannot open. A damaged or lost disk is for the membership to deal with."""
        if isinstance(watched, WatchedMember) and isinstance(error, StorageCorruptError):
            watched.is_quarantined = True
        self.supervision.refused(watched.name, f"{type(error).__name__}: {error}", time.monotonic())

    def _on_death(self, watched: Watched, problem: str) -> None:
        self.supervision.died(watched.name, problem, time.monotonic())
        member = member_id_of(watched)
        if member != NOBODY:
            # First of all: if it led, the others elect the next leader, and the gateways look for it,
            # while its own calls have not even failed yet.
            for other in self.serving():
                self.call(other, "tell", other.handle.member_died, member)
        if watched.is_let_go:
            self.introduce_soon()
        self._bury(watched)

    def _bury(self, watched: Watched) -> None:
        self._processes.forget(watched.name)
        ray_runtime.end_actor(watched.handle)
        watched.forget_process()
