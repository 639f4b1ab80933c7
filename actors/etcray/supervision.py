"""What the supervisor decides, without doing any of it: facts and the time in, decisions out.

Each actor that is kept alive goes round in this circle:

    waiting --created--> opening --opened--> serving --died--> waiting
                            |                                     ^
                            +--died--------------------------------+
                            +--refused--> refused --(much later)--+

A first death is healed at once. An actor that keeps dying is created again after pauses that double
up to a bound, until it has served for a while. A refusal (its directory is damaged, its disk is full)
is not cured by trying: it is shown, and tried again rarely, in case somebody has repaired it.

An actor that merely does not answer is left alone: a paused or starved process still holds its
directory and may come back, and a second one beside it could only wait for the first one's lock.
Silence is shown; only an ended process, or Ray's word that the actor is dead, counts as a death.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PAUSE_FIRST_SECONDS: Final = 0.1
PAUSE_MAX_SECONDS: Final = 10.0
"""Between two attempts to create an actor that keeps dying."""

REFUSED_PAUSE_SECONDS: Final = 30.0
"""Between two attempts to open what was refused."""

STEADY_SECONDS: Final = 10.0
"""Who served so long is taken for healthy: its next death is healed at once again."""


class Phase(StrEnum):
    """Where in the circle an actor is."""

    WAITING = "waiting"
    """It does not exist; it is created when its time has come."""
    OPENING = "opening"
    """Created, and told to open."""
    SERVING = "serving"
    """It has opened."""
    REFUSED = "refused"
    """It could not be opened, for a reason that a person has to see. It does not exist."""


@dataclass(slots=True)
class Charge:
    """One actor that is kept alive. Times are monotonic seconds."""

    name: str
    phase: Phase
    since: float
    """When this phase began; also, while serving, the least time of the last answer."""
    due: float
    """When to create it, in the phases waiting and refused."""
    problem: str = ""
    deaths_in_a_row: int = 0
    """Deaths since it last was steady."""
    restarts: int = 0
    generation: int = 0
    """Counts creations; what is heard of an earlier one is no longer of interest."""
    last_answer: float = 0.0


class Supervision:
    """The circle above, for each of several actors, which come and go. Not thread-safe."""

    def __init__(self, names: Iterable[str], now: float) -> None:
        self.charges = {name: Charge(name=name, phase=Phase.WAITING, since=now, due=now) for name in names}

    def adopt(self, name: str, now: float) -> None:
        """One more to keep alive."""
        assert name not in self.charges, f"{name} is kept alive already"
        self.charges[name] = Charge(name=name, phase=Phase.WAITING, since=now, due=now)

    def dismiss(self, name: str) -> None:
        """It is not kept alive any more. What is heard of it later is nobody's news."""
        del self.charges[name]

    def due(self, now: float) -> list[Charge]:
        """Which actors to create now. Tell `created` for each that was."""
        absent = (Phase.WAITING, Phase.REFUSED)
        return [c for c in self.charges.values() if c.phase in absent and c.due <= now]

    def next_due(self) -> float | None:
        """When `due` will have something, if nothing else happens."""
        absent = (Phase.WAITING, Phase.REFUSED)
        return min((c.due for c in self.charges.values() if c.phase in absent), default=None)

    def created(self, name: str, now: float) -> int:
        """It exists and was told to open; the generation to quote in what is heard of it."""
        charge = self.charges[name]
        assert charge.phase in (Phase.WAITING, Phase.REFUSED), f"{name} created while {charge.phase}"
        if charge.generation > 0:
            charge.restarts += 1
        charge.generation += 1
        self._enter(charge, Phase.OPENING, now)
        return charge.generation

    def postponed(self, name: str, problem: str, due: float) -> None:
        """It could not be created just now; when to try again."""
        charge = self.charges[name]
        assert charge.phase in (Phase.WAITING, Phase.REFUSED), f"{name} postponed while {charge.phase}"
        charge.problem = problem
        charge.due = due

    def opened(self, name: str, now: float) -> None:
        """It serves from now on."""
        charge = self.charges[name]
        assert charge.phase is Phase.OPENING, f"{name} opened while {charge.phase}"
        charge.last_answer = now
        self._enter(charge, Phase.SERVING, now)

    def answered(self, name: str, now: float) -> None:
        """It was heard of."""
        charge = self.charges[name]
        charge.last_answer = now
        if charge.phase is Phase.SERVING and now - charge.since >= STEADY_SECONDS:
            charge.deaths_in_a_row = 0

    def died(self, name: str, problem: str, now: float) -> None:
        """Its process has ended, or will never start. Told twice, the second time changes nothing."""
        charge = self.charges[name]
        if charge.phase not in (Phase.OPENING, Phase.SERVING):
            return
        if charge.phase is Phase.SERVING and now - charge.since >= STEADY_SECONDS:
            charge.deaths_in_a_row = 0
        charge.deaths_in_a_row += 1
        charge.problem = problem
        charge.due = now + pause_after(charge.deaths_in_a_row)
        self._enter(charge, Phase.WAITING, now)

    def refused(self, name: str, problem: str, now: float) -> None:
        """It cannot be created, or it said that it cannot open, and why. The caller ends it."""
        charge = self.charges[name]
        assert charge.phase is not Phase.SERVING, f"{name} refused while {charge.phase}"
        charge.problem = problem
        charge.due = now + REFUSED_PAUSE_SECONDS
        self._enter(charge, Phase.REFUSED, now)

    def silent_seconds(self, name: str, now: float) -> float:
        """How long it has not been heard of."""
        charge = self.charges[name]
        return max(0.0, now - max(charge.last_answer, charge.since))

    def is_current(self, name: str, generation: int) -> bool:
        """Whether news of this generation still mean something."""
        charge = self.charges.get(name)
        if charge is None:
            return False
        return charge.generation == generation and charge.phase in (Phase.OPENING, Phase.SERVING)

    def _enter(self, charge: Charge, phase: Phase, now: float) -> None:
        charge.phase = phase
        charge.since = now


def pause_after(deaths_in_a_row: int) -> float:
    """Seconds until the next attempt: none after the first death, then doubling up to a bound."""
    assert deaths_in_a_row >= 1, f"{deaths_in_a_row} deaths need no pause"
    if deaths_in_a_row == 1:
        return 0.0
    return min(PAUSE_MAX_SECONDS, PAUSE_FIRST_SECONDS * 2.0 ** min(deaths_in_a_row - 2, 32))
