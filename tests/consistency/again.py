"""Checks a history again that a campaign has kept.

python -m tests.consistency.again FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.consistency.campaign import load_history
from tests.consistency.mix import EVERYTHING
from tests.consistency.revision_checker import check_revisions
from tests.consistency.search_checker import check_windows


def main() -> int:
    operations, events = load_history(Path(sys.argv[1]))
    verdict = check_revisions(operations, events)
    report = check_windows(operations, events, verdict.applied, EVERYTHING)
    print(verdict.describe())
    print(f"{report.windows} windows, {report.undecided} undecided, {len(report.illegal)} illegal")
    for window in report.illegal:
        print(f"the window from {window.start} on has no legal order")
    return 0 if verdict.ok and report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
