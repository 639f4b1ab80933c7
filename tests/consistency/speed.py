"""How long a million operations take to check, and how much memory.

    python -m tests.consistency.speed --operations 1000000

The history is made up: the mix of the campaigns, done by the replayed store, with clients that overlap.
"""

from __future__ import annotations

import argparse
import random
import resource
import time

from tests.consistency.history import Event, Operation, Outcome
from tests.consistency.mix import Mix
from tests.consistency.replay import FutureRevisionError, State, execute
from tests.consistency.revision_checker import check_revisions

CLIENTS = 32


def make_history(count: int, seed: int) -> tuple[list[Operation], list[Event]]:
    """One in a hundred operations is not answered."""
    chance, mix, state = random.Random(seed), Mix(seed), State()
    operations: list[Operation] = []
    events: list[Event] = []
    for number in range(count):
        request = mix.request(number % CLIENTS)
        try:
            answer, changes = execute(state, request, state.revision + 1)
        except FutureRevisionError:
            continue
        if changes:
            state.apply(state.revision + 1, changes)
            for key, pair in changes:
                value, created, version = (pair[1], pair[2], pair[4]) if pair else (None, 0, 0)
                events.append(Event(state.revision, key, value, created, version, number + 1.0))
        mix.learn(request, answer, state.revision)
        call, returned = number - chance.random() * CLIENTS / 2, number + chance.random() * CLIENTS / 2
        if chance.random() < 0.01:
            operations.append(Operation(number % CLIENTS, call, returned, Outcome.UNKNOWN, request))
        else:
            operations.append(
                Operation(number % CLIENTS, call, returned, Outcome.OK, request, state.revision, answer)
            )
    return operations, events


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.consistency.speed", description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    operations, events = make_history(arguments.operations, arguments.seed)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.process_time()
    verdict = check_revisions(operations, events)
    seconds = time.process_time() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert verdict.ok, verdict.describe()
    print(f"{len(operations):,} operations, {len(events):,} events: {dict(verdict.counts)}")
    print(f"checked in {seconds:.1f} s of CPU; {held:.0f} MiB held by the history, {most:.0f} MiB at most")


if __name__ == "__main__":
    main()
