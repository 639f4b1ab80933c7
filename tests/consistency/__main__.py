"""Fault campaigns on real clusters.

    python -m tests.consistency --operations 100000 --seed 1 --campaigns 3 --output results.jsonl

Each campaign has a cluster, a seed and a history of its own. Ends with 1 if one of them is not right.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.consistency.campaign import FAULTS, Plan, describe, run_campaign
from tests.simulation.mutants import MUTANTS


def show(told: str) -> None:
    print(f"  at operation {told}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.consistency", description="fault campaigns")
    parser.add_argument("--operations", type=int, default=20_000, help="at least, in each campaign")
    parser.add_argument("--rounds", type=int, default=3, help="of all kinds of faults, at least")
    parser.add_argument("--seed", type=int, default=1, help="of the first campaign")
    parser.add_argument("--campaigns", type=int, default=1)
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"some of {','.join(FAULTS)}")
    parser.add_argument("--clients", type=int, default=512)
    parser.add_argument("--rest", type=int, default=5_000, help="calls between two windows for the search")
    parser.add_argument("--mistake", default="", choices=["", *MUTANTS], help="that all members make")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--transport", default="ray", choices=["ray", "direct"])
    parser.add_argument("--output", type=Path, help="a JSON line for each campaign is added to this file")
    arguments = parser.parse_args()
    faults = [kind for kind in arguments.faults.split(",") if kind]
    unknown = set(faults) - set(FAULTS)
    if unknown:
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}")
    ok = True
    for seed in range(arguments.seed, arguments.seed + arguments.campaigns):
        plan = Plan(
            seed=seed,
            operations=arguments.operations,
            rounds=arguments.rounds,
            faults=faults,
            clients=arguments.clients,
            nodes=arguments.nodes,
            transport=arguments.transport,
            rest_operations=arguments.rest,
            mistake=arguments.mistake,
        )
        result = run_campaign(plan, arguments.output, tell=show)
        print(describe(result), flush=True)
        ok = ok and result.ok
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
