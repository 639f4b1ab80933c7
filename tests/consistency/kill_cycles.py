"""Members are killed, paused and restarted under load, over and over; each time all must hold the same.

    python -m tests.consistency.kill_cycles --cycles 300 --seed 1 --output cycles.jsonl

A cycle: something happens to one member, to several or to all; the cluster heals; every member dumps all
events since the last cycle and its whole state, at the same revision, and the dumps must be byte for byte
the same. At the end the whole history is dumped once more, and checked like a campaign's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from tests.consistency.campaign import Tell, name_sources
from tests.consistency.dumps import Dumps
from tests.consistency.faults import Faults
from tests.consistency.recorder import Clients, Truth
from tests.consistency.revision_checker import check_revisions
from tests.consistency.running import RunningCluster

ACTIONS: Final = ("kill", "kill", "pause", "majority")


@dataclass(slots=True)
class CycleResult:
    seed: int
    cycles: int = 0
    actions: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    operations: int = 0
    revisions: int = 0
    differing: list[str] = field(default_factory=list)
    """Cycles after which the members did not hold the same."""
    violations: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not (self.differing or self.violations or self.problem)


class KillCycles:
    """One cluster and its cycles."""

    def __init__(self, directory: Path, seed: int, clients: int, tell: Tell) -> None:
        self._tell = tell
        self.result = CycleResult(seed)
        self._random = random.Random(f"cycles {seed}")
        self._cluster = RunningCluster(directory, gateways=1)
        self.clients = Clients(self._cluster.endpoints, seed, clients)
        self.truth = Truth(self._cluster.endpoints)
        self.faults = Faults(self._cluster, self.clients, self.truth, seed)
        self.dumps = Dumps(self._cluster, self.clients, self.faults)

    async def run(self, cycles: int) -> None:
        try:
            await asyncio.to_thread(self._cluster.start)
            await self.clients.open()
            self.truth.open()
            self.clients.run()
            await self._cycle_on(cycles)
            self.clients.stop()
            await self.clients.idle()
            await self.dumps.compare_all("at the end")
            await self.truth.reached(self.dumps.revision)
        finally:
            self.result.differing = self.dumps.differing
            self.result.revisions = self.dumps.revision
            await self.clients.close()
            await self.truth.close()
            await asyncio.to_thread(self._cluster.stop)

    async def _cycle_on(self, cycles: int) -> None:
        began = time.monotonic()
        actions: Counter[str] = Counter()
        for cycle in range(1, cycles + 1):
            action = self._random.choice(ACTIONS)
            told = await self.faults.do(action)
            await self.dumps.compare(f"cycle {cycle}: {told}")
            self._tell(f"cycle {cycle}: {told}")
            actions[action] += 1
            self.result.cycles = cycle
            self.result.actions = dict(actions)
            self.result.seconds = round(time.monotonic() - began, 1)

    def check(self) -> None:
        operations = name_sources(self.clients.operations, self.faults.restarts)
        verdict = check_revisions(operations, self.truth.events)
        self.result.operations = len(operations)
        self.result.violations = [str(violation) for violation in verdict.violations]


def run_cycles(
    cycles: int,
    seed: int,
    clients: int = 32,
    output: Path | None = None,
    tell: Tell = lambda told: None,
) -> CycleResult:
    """Raises nothing: what went wrong is in the result."""
    with tempfile.TemporaryDirectory(prefix="etcray-cycles-", ignore_cleanup_errors=True) as directory:
        run = KillCycles(Path(directory) / "run", seed, clients, tell)
        try:
            uvloop.run(run.run(cycles))
        except Exception as error:
            run.result.problem = f"{type(error).__name__}: {error}"[:2_000]
        run.check()
    if output is not None:
        with output.open("a") as file:
            file.write(json.dumps(asdict(run.result) | {"ok": run.result.ok}) + "\n")
    return run.result


def describe(result: CycleResult) -> str:
    rows = [
        ("seed", result.seed),
        ("cycles", f"{result.cycles} in {result.seconds} s: {result.actions}"),
        ("operations", f"{result.operations:,}, {result.revisions:,} revisions"),
        ("members differed", f"after {len(result.differing)} cycles"),
        ("violations", len(result.violations)),
        ("verdict", "ok" if result.ok else f"NOT OK {result.problem}"),
    ]
    lines = [f"{name:>20}  {value}" for name, value in rows]
    return "\n".join([*lines, *result.differing, *result.violations])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.consistency.kill_cycles", description=__doc__)
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--output", type=Path, help="a JSON line is added to this file")
    arguments = parser.parse_args()
    result = run_cycles(arguments.cycles, arguments.seed, arguments.clients, arguments.output, print)
    print(describe(result))
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
