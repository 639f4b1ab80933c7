"""`python -m tests.mutants`: does every test that should notice a mistake notice it?"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

from tests.mutants.catalogue import MUTANTS, chosen, table
from tests.mutants.runner import CAUGHT, Result, check_sound, run
from tests.simulation.mutants import MUTANTS as PLANTED


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="an area, name or row")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="append results as JSON lines; mutants in it are left out",
    )
    parser.add_argument("--list", action="store_true", help="only print the table of all mutants")
    options = parser.parse_args()
    if options.list:
        print(f"{len(MUTANTS)} mutants of the source, and {len(PLANTED)} that the simulation plants.\n")
        print(table())
        return 0
    mutants = chosen(options.only)
    if options.results is not None and options.results.exists():
        lines = options.results.read_bytes().splitlines()
        done = {result.name for result in map(msgspec.json.Decoder(Result).decode, lines)}
        mutants = tuple(mutant for mutant in mutants if mutant.name not in done)
    if not mutants:
        parser.error("no mutant is left, or none of this name")
    begun = time.monotonic()
    sound = check_sound(mutants)
    if sound.exit_status != 0:
        print(sound.output)
        print("the tests do not pass on the sources as they are: nothing can be concluded")
        return 2
    print(f"{sound.passed} tests pass on the sources as they are", flush=True)

    def tell(result: Result) -> None:
        told = result.test or result.detail
        print(
            f"{result.verdict:8} {result.seconds:6.1f} s  {result.row:8} {result.name} | {told}", flush=True
        )
        if options.results is not None:
            with options.results.open("ab") as file:
                file.write(msgspec.json.encode(result) + b"\n")

    results = run(mutants, options.jobs, tell, sound)
    counts = Counter(result.verdict for result in results)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    print(f"{len(results)} mutants in {time.monotonic() - begun:.0f} s: {told}")
    return 0 if counts[CAUGHT] == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
