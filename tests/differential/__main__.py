"""Runs the differential test by hand; see the package's docstring."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.differential import stores
from tests.differential.calls import Call
from tests.differential.comparison import Comparison, Difference
from tests.differential.shrinking import shrink
from tests.differential.stores import Store


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--oracle", default="3.5", help="version of an installed etcd (default: 3.5)")
    parser.add_argument(
        "--subject",
        default="member",
        help="member: one in this process (default); cluster: three on Ray; or the version of an etcd",
    )
    parser.add_argument("--shrink", action="store_true", help="find few requests that show the difference")
    parser.add_argument("--attempts", type=int, default=100, help="fresh pairs of stores for --shrink")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        oracle = stores.etcd(options.oracle, Path(directory))
        subject = _subject(options.subject, Path(directory))
        comparison = Comparison(
            subject_is_etcd=options.subject not in ("member", "cluster"),
            serializable=options.subject != "cluster",
        )
        started = time.monotonic()
        with oracle() as first, subject() as second:
            difference = comparison.generated(first, second, options.seed, options.requests)
        print(f"{comparison.tally.describe()}\n{time.monotonic() - started:.1f} s")
        if difference is None:
            print(f"seed {options.seed}: no difference")
            return 0
        print(f"seed {options.seed}, {difference.describe()}")
        if options.shrink:
            with oracle() as first:
                calls = list(comparison.recorded(first, options.seed, difference.number + 1))
            _shrink(comparison, oracle, subject, calls, options.attempts)
        return 1


def _subject(name: str, directory: Path) -> Store:
    match name:
        case "member":
            return stores.one_member()
        case "cluster":
            return stores.whole_cluster(directory)
    return stores.etcd(name, directory)


def _shrink(
    comparison: Comparison, oracle: Store, subject: Store, calls: Sequence[Call], attempts: int
) -> None:
    found: list[Difference] = []

    def differs(candidate: Sequence[Call]) -> bool:
        with oracle() as first, subject() as second:
            difference = comparison.replayed(first, second, candidate)
        if difference is not None:
            found.append(difference)
        return difference is not None

    best = shrink(calls, differs, attempts)
    print(f"\n{len(best)} requests are enough:")
    for call in best[:-1]:
        print(call)
    if found:
        print(found[-1].describe())


if __name__ == "__main__":
    sys.exit(main())
