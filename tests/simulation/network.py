"""The network: calls between hosts that are lost, late, doubled, held back, or answered into the void.

A call is a request that runs in the target's process and a reply that comes back; both legs suffer on
their own. A caller learns of a dead process quickly, slowly or never, as it is with real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcray.node.peers import PeerUnreachableError
from tests.simulation.primitives import the
from tests.simulation.scheduler import Process, World

Deliver = Callable[[], None]


class Network:
    def __init__(self, world: World) -> None:
        self._world = world
        self.loss = 0.0
        self.duplication = 0.0
        self.delay_seconds = 0.0006
        self.long_delay_chance = 0.0
        self.long_delay_seconds = 0.5
        self.blocked: set[tuple[str, str]] = set()
        """(from, to): whatever is sent there is lost."""
        self._clogged: dict[tuple[str, str], list[Deliver]] = {}
        """(from, to): whatever arrives there is held back, in its order."""
        self.sent = 0
        self.lost = 0

    def send(self, source: str, target: str, deliver: Deliver) -> None:
        """Have the hub call `deliver` once, twice or never."""
        world, random = self._world, self._world.rng.random
        self.sent += 1
        if (source, target) in self.blocked or (self.loss and random() < self.loss):
            self.lost += 1
            return
        world.after(self._delay(), lambda: self._arrive(source, target, deliver))
        if self.duplication and random() < self.duplication:
            world.after(self._delay() + random() * 0.1, lambda: self._arrive(source, target, deliver))

    def _delay(self) -> float:
        random = self._world.rng.random
        delay = self.delay_seconds * (0.3 + random())
        if self.long_delay_chance and random() < self.long_delay_chance:
            delay += random() * self.long_delay_seconds
        return delay

    def _arrive(self, source: str, target: str, deliver: Deliver) -> None:
        held = self._clogged.get((source, target))
        if held is not None:
            held.append(deliver)
        elif (source, target) in self.blocked:
            self.lost += 1
        else:
            deliver()

    def clog(self, source: str, target: str) -> None:
        self._clogged.setdefault((source, target), [])

    def unclog(self, source: str, target: str) -> None:
        for deliver in self._clogged.pop((source, target), []):
            self._world.after(self._delay(), deliver)

    def heal(self) -> None:
        self.blocked.clear()
        for source, target in sorted(self._clogged):
            self.unclog(source, target)
        self.loss = self.duplication = self.long_delay_chance = 0.0

    # --- calls ------------------------------------------------------------------------------------

    def cast(
        self,
        source: str,
        target: str,
        process: Process | None,
        work: Callable[[], Any],
        on_reply: Callable[[Any], None],
    ) -> None:
        """Run `work` in a process; the hub calls `on_reply` with what it returned, or with None if
        the call failed. Perhaps never, perhaps several times."""

        def reply(value: Any) -> None:
            self.send(target, source, lambda: on_reply(value))

        def arrive() -> None:
            if process is None or process.is_dead:
                if self._world.chance(0.6):
                    reply(None)
                return
            process.spawn(lambda: self._run(work, reply), "call")

        self.send(source, target, arrive)

    @staticmethod
    def _run(work: Callable[[], Any], reply: Callable[[Any], None]) -> None:
        try:
            value = work()
        except RuntimeError:  # not open, or closing
            value = None
        reply(value)

    def call(
        self,
        source: str,
        target: str,
        process: Process | None,
        work: Callable[[], Any],
        timeout_seconds: float,
    ) -> Any:
        """The same for a task, which waits. Raises PeerUnreachableError."""
        task = the.task
        answers: list[Any] = []
        is_over = False

        def on_reply(value: Any) -> None:
            if not is_over and not answers:
                answers.append(value)
                self._world.wake(task)

        self.cast(source, target, process, work, on_reply)
        self._world.park(timeout_seconds)
        is_over = True
        if not answers or answers[0] is None:
            raise PeerUnreachableError(f"{target} does not answer")
        return answers[0]
