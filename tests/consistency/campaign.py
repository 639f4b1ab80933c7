"""One history of a real cluster under faults, and what the checkers say about it."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from tests.consistency.dumps import Dumps
from tests.consistency.faults import Faults
from tests.consistency.history import Event, Operation, is_serializable
from tests.consistency.mix import EVERYTHING
from tests.consistency.recorder import Clients, Truth
from tests.consistency.revision_checker import check_revisions
from tests.consistency.running import RunningCluster
from tests.consistency.search_checker import check_windows

FAULTS: Final = (
    "kill",
    "majority",
    "pause",
    "cut",
    "gateway-cut",
    "deposed",
    "clock",
    "slow-disk",
    "broken-disk",
    "gateway",
    "supervisor",
    "gcs",
    "compaction",
    "snapshot",
    "membership",
)
SLOW_FAULTS: Final = frozenset({"gcs", "membership", "supervisor", "snapshot"})
"""It takes long until they are over: they are in every `SLOW_ROUNDS`th round only."""
SLOW_ROUNDS: Final = 3

CALM_SECONDS: Final = 1.0
"""Between a healed fault and the next one."""


Tell = Callable[[str], None]
"""Hears of each fault when it is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    seed: int
    operations: int
    """At least."""
    rounds: int = 1
    """At least so many of all kinds of faults; the first one has every kind."""
    faults: Sequence[str] = FAULTS
    clients: int = 32
    nodes: int = 3
    gateways: int = 2
    rest_operations: int = 1_000
    """Calls between two moments of rest, at each of which a window for the search begins."""
    transport: str = "ray"
    """How members and gateways talk."""
    mistake: str = ""
    """That the members make, by its name in `tests.simulation.mutants`: it has to be found."""


@dataclass(slots=True)
class Result:
    """Figures of one campaign, as they are written down."""

    seed: int
    transport: str
    ok: bool = False
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    """What clients saw, by text."""
    told: list[str] = field(default_factory=list)
    """Each fault, in order."""
    revisions: int = 0
    watch_breaks: int = 0
    snapshots: int = 0
    """Pieces of snapshots that lagging members were sent."""
    comparisons: int = 0
    """After faults, and of the whole history in the end: so often the members' dumps were compared."""
    differing: list[str] = field(default_factory=list)
    """After what they were not the same, byte for byte."""
    members_agree: bool = False
    violations: list[str] = field(default_factory=list)
    windows: int = 0
    window_operations: int = 0
    windows_undecided: int = 0
    windows_illegal: int = 0
    check_seconds: float = 0.0
    problem: str = ""
    """Why it could not be carried through."""


class Campaign:
    """Runs one plan on a cluster of its own."""

    def __init__(self, plan: Plan, directory: Path, tell: Tell) -> None:
        self.plan = plan
        self._tell = tell
        self.result = Result(plan.seed, plan.transport)
        self.cluster = RunningCluster(directory, plan.nodes, plan.gateways, plan.mistake, plan.transport)
        self.clients = Clients(self.cluster.endpoints, plan.seed, plan.clients)
        self.truth = Truth(self.cluster.endpoints)
        self.faults = Faults(self.cluster, self.clients, self.truth, plan.seed)
        self.dumps = Dumps(self.cluster, self.clients, self.faults)
        self._random = random.Random(f"campaign {plan.seed}")
        self._round = 0
        self._rested = 0

    async def run(self) -> None:
        began = time.monotonic()
        try:
            await asyncio.to_thread(self.cluster.start)
            await self.clients.open()
            self.truth.open()
            await self._storm()
            await self._settle()
        finally:
            await self.clients.close()
            await self.truth.close()
            await asyncio.to_thread(self.cluster.stop)
            self.result.seconds = round(time.monotonic() - began, 1)
            self.result.errors = dict(self.clients.errors.most_common(20))
            self.result.watch_breaks = self.truth.breaks
            self.result.snapshots = self.faults.snapshots
            self.result.comparisons = self.dumps.comparisons
            self.result.differing = self.dumps.differing

    async def _storm(self) -> None:
        """Clients go on without end while one fault follows the other."""
        self.clients.run()
        began = time.monotonic()
        done: Counter[str] = Counter()
        try:
            while self.clients.issued < self.plan.operations or self._round < self.plan.rounds:
                for kind in self._next_round():
                    if self.clients.issued >= self.plan.operations and self._round > self.plan.rounds:
                        break
                    await asyncio.sleep(CALM_SECONDS)
                    await self._rest()
                    at = self.clients.issued
                    told = f"{at}, {time.monotonic() - began:.0f} s: {await self.faults.do(kind)}"
                    self.result.told.append(told)
                    self._tell(told)
                    if kind == "compaction":  # which members may have applied, or not yet
                        await self.faults.healed()
                    else:
                        await self.dumps.compare(told)
                    done[kind] += 1
        finally:
            self.result.faults = dict(done)
        self.clients.stop()
        await self.clients.idle()

    def _next_round(self) -> list[str]:
        self._round += 1
        kinds = [k for k in self.plan.faults if k not in SLOW_FAULTS or self._round % SLOW_ROUNDS == 1]
        self._random.shuffle(kinds)
        return kinds

    async def _rest(self) -> None:
        """Between two faults: with one under way, all clients would stand still until it is over."""
        if self.clients.issued >= self._rested + self.plan.rest_operations:
            self._rested = self.clients.issued
            await self.clients.rest()

    async def _settle(self) -> None:
        """After the storm: the truth has everything, and all members hold the same."""
        await self.dumps.compare_all("in the end")
        await self.truth.reached(self.dumps.revision)
        self.result.members_agree = not self.dumps.differing
        self.result.revisions = self.dumps.revision

    def check(self) -> None:
        """Both checkers, on what was recorded."""
        began = time.monotonic()
        result = self.result
        operations = name_sources(self.clients.operations, self.faults.restarts)
        verdict = check_revisions(operations, self.truth.events)
        report = check_windows(operations, self.truth.events, verdict.applied, EVERYTHING)
        result.counts = dict(verdict.counts)
        result.violations = [str(violation) for violation in verdict.violations]
        result.windows, result.window_operations = report.windows, report.operations
        result.windows_undecided = report.undecided
        result.windows_illegal = len(report.illegal)
        result.check_seconds = round(time.monotonic() - began, 1)
        result.ok = verdict.ok and report.ok and result.members_agree and not result.problem

    def save_history(self, path: Path) -> None:
        """For `python -m tests.consistency.again FILE`."""
        operations = name_sources(self.clients.operations, self.faults.restarts)
        path.write_bytes(pickle.dumps((operations, self.truth.events)))


def load_history(path: Path) -> tuple[list[Operation], list[Event]]:
    """What `save_history` wrote, in a test run of one's own."""
    loaded: tuple[list[Operation], list[Event]] = pickle.loads(path.read_bytes())
    return loaded


def name_sources(
    operations: Sequence[Operation], restarts: dict[int, list[tuple[float, float]]]
) -> list[Operation]:
    """Serializable answers come from a member; which of its incarnations it was follows from when it
    was killed. Where that is not certain, the source is left out."""

    def named(operation: Operation) -> Operation:
        if not operation.source or not is_serializable(operation.request):
            return operation
        ended = restarts.get(operation.source, [])
        at_call = sum(over < operation.call for _, over in ended)
        at_return = sum(begun < operation.returned for begun, _ in ended)
        source = hash((operation.source, at_call)) if at_call == at_return else 0
        return msgspec.structs.replace(operation, source=source)

    return [named(operation) for operation in operations]


def run_campaign(plan: Plan, output: Path | None = None, tell: Tell = lambda told: None) -> Result:
    """Run and check one plan. A history that is not right is kept beside the output."""
    with tempfile.TemporaryDirectory(prefix="etcray-campaign-", ignore_cleanup_errors=True) as directory:
        campaign = Campaign(plan, Path(directory) / "run", tell)
        try:
            uvloop.run(campaign.run())
        except Exception as error:
            campaign.result.problem = f"{type(error).__name__}: {error}"[:2_000]
            if output is not None:
                _keep_log(Path(directory), output.with_suffix(f".{plan.seed}.log"))
        campaign.check()
        result = campaign.result
        if output is not None:
            if not result.ok:
                campaign.save_history(output.with_suffix(f".{plan.seed}.history"))
            with output.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
    return result


def _keep_log(directory: Path, path: Path) -> None:
    log = directory / "run" / "cluster.log"
    if log.exists():
        path.write_bytes(log.read_bytes()[-100_000:])


def describe(result: Result) -> str:
    """A small table."""
    counts = Counter(result.counts)
    search = f"{result.windows_illegal} of {result.windows} windows illegal"
    rows = [
        ("seed", f"{result.seed}, {result.transport}"),
        ("operations", f"{counts['operations']:,} in {result.seconds} s"),
        ("of unknown outcome", f"{counts['unknown']}, {counts['unknown_applied']} of them applied"),
        ("revisions", f"{result.revisions:,}"),
        ("faults", ", ".join(f"{count} {kind}" for kind, count in sorted(result.faults.items()))),
        ("by revision", f"{len(result.violations)} violations"),
        (
            "by search",
            f"{search}, {result.windows_undecided} undecided, {result.window_operations:,} operations",
        ),
        ("checked in", f"{result.check_seconds} s"),
        ("members agree", f"{result.members_agree}, {result.comparisons} comparisons"),
        ("verdict", "ok" if result.ok else f"NOT OK {result.problem}"),
    ]
    lines = [f"{name:>20}  {value}" for name, value in rows]
    return "\n".join([*lines, *result.violations])
