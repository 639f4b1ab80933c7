"""Runs seeds from the command line.

python -m tests.simulation --seeds 1000 [--from 0] [--jobs 2] [--profile lossy]
python -m tests.simulation --seed 17            # one seed again, with its counts
python -m tests.simulation --seeds 100000 --ray # over all CPUs of the Ray cluster of this machine
python -m tests.simulation --seeds 1000 --ray local       # of a Ray of its own; or of the one at HOST:PORT

While it runs, a line says how far it is; a run that was ended goes on with --from the number in it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from etcray import ray_runtime
from tests.simulation.profiles import PROFILES, profile_named
from tests.simulation.simulation import run_seed

CHUNK_SEEDS = 25
"""Seeds that a worker runs before it reports."""

PROGRESS_SECONDS = 30.0
"""Between two lines that say how far a run is."""


class Report(NamedTuple):
    """What a piece of the seeds came to."""

    seeds: int
    counts: Counter[str]
    profiles: Counter[str]
    failures: list[str]
    cpu_seconds: float


def run_seeds(seeds: Iterable[int], profile: str = "") -> Report:
    """Run them one after the other; a failure does not end the rest."""
    began = time.process_time()
    number, counts, profiles = 0, Counter[str](), Counter[str]()
    failures = []
    for seed in seeds:
        number += 1
        try:
            outcome = run_seed(seed, profile_named(profile) if profile else None)
        except Exception as error:
            notes = "\n".join(getattr(error, "__notes__", []))
            failures.append(f"seed {seed}: {type(error).__name__}: {error}\n{notes}")
        else:
            counts += outcome.counts
            profiles[outcome.profile] += 1
    return Report(number, counts, profiles, failures, time.process_time() - began)


def _add_up(reports: Iterable[Report], began: float, first: int) -> Report:
    """All of them as one, with failures and progress printed as they come, in the order of the seeds."""
    total = Report(0, Counter(), Counter(), [], 0.0)
    told = began
    for report in reports:
        total = Report(
            total.seeds + report.seeds,
            total.counts + report.counts,
            total.profiles + report.profiles,
            total.failures + report.failures,
            total.cpu_seconds + report.cpu_seconds,
        )
        for failure in report.failures:
            print(failure, flush=True)
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"... {_describe(total, began)}; next --from {first + total.seeds}", flush=True)
    return total


def _describe(total: Report, began: float) -> str:
    return (
        f"{total.seeds} seeds, {len(total.failures)} failed, {time.monotonic() - began:.0f} s, "
        f"{60 * total.seeds / max(total.cpu_seconds, 0.001):.0f} a minute of one core"
    )


def _chunks(first: int, count: int) -> Iterator[range]:
    for start in range(first, first + count, CHUNK_SEEDS):
        yield range(start, min(start + CHUNK_SEEDS, first + count))


def _on_processes(first: int, count: int, jobs: int, profile: str) -> Iterator[Report]:
    with ProcessPoolExecutor(jobs) as pool:
        chunks = list(_chunks(first, count))
        yield from pool.map(run_seeds, chunks, [profile] * len(chunks))


def _on_ray(first: int, count: int, profile: str, address: str) -> Iterator[Report]:
    import ray

    session = ray_runtime.start_own() if address == "local" else ray_runtime.join(address)
    try:
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
        task: Any = ray.remote(run_seeds).options(runtime_env=environment)
        for report in [task.remote(chunk, profile) for chunk in _chunks(first, count)]:
            yield ray.get(report)
    finally:
        ray_runtime.leave(session)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="run this one and show what happened in it")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--ray", nargs="?", const="auto", metavar="ADDRESS", help="as tasks of a Ray cluster")
    parser.add_argument("--profile", default="", choices=["", *(profile.name for _, profile in PROFILES)])
    options = parser.parse_args()
    if options.seed is not None:
        profile = profile_named(options.profile) if options.profile else None
        outcome = run_seed(options.seed, profile)
        print(f"seed {outcome.seed}: {outcome.profile}, trace {outcome.trace:016x}")
        print("\n".join(f"{count:8} {what}" for what, count in sorted(outcome.counts.items())))
        return 0
    began = time.monotonic()
    if options.ray:
        reports = _on_ray(options.first, options.seeds, options.profile, options.ray)
    else:
        reports = _on_processes(options.first, options.seeds, options.jobs, options.profile)
    total = _add_up(reports, began, options.first)
    print("\n".join(f"{count:10} {what}" for what, count in sorted(total.counts.items())))
    print(", ".join(f"{name} {count}" for name, count in sorted(total.profiles.items())))
    print(_describe(total, began))
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
