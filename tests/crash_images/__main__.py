"""`python -m tests.crash_images --images 10000 --jobs 2`: any number of images, with their counts."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.crash_images.campaign import Result, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash_images")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=1_000, help="images of one workload, about")
    parser.add_argument("--steps", type=int, default=400, help="writes in each recorded workload")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the first workload; the next ones follow")
    options = parser.parse_args()
    total, seed, begun = Result(), options.seed, time.monotonic()
    while sum(total.checked.values()) < options.images:
        missing = min(options.images - sum(total.checked.values()), options.each)
        with tempfile.TemporaryDirectory() as directory:
            result = run(Path(directory), seed, options.steps, missing, options.jobs)
        for problem in result.broken:
            print(f"BROKEN seed {seed}: {problem}")
        total.add(result)
        print(
            f"seed {seed}: {sum(result.checked.values())} images of {result.boundaries} boundaries, "
            f"{sum(total.checked.values())} in {time.monotonic() - begun:.0f} s so far, "
            f"{len(total.broken)} broken",
            flush=True,
        )
        seed += 1
    _report(total, time.monotonic() - begun)
    return 1 if total.broken else 0


def _report(total: Result, seconds: float) -> None:
    print(
        f"{sum(total.checked.values())} images in {seconds:.0f} s: {total.started} started, "
        f"{sum(total.refused.values())} refused, {len(total.broken)} broken"
    )
    for kind, count in total.checked.most_common():
        print(f"  {count:7} {kind}")
    for reason, count in total.refused.most_common():
        print(f"  {count:7} {reason}")


if __name__ == "__main__":
    sys.exit(main())
