"""`python -m tests.crash_images.record DIRECTORY SEED STEPS`: the program whose files are watched.

Limits are made small before anything reads them, so that segments are rotated, tables rewritten and
snapshots sent within a few hundred writes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from etcray_storage import limits

SMALL: Final = {
    "LOG_SEGMENT_BYTES": 24 * limits.KIB,
    "LOG_SEGMENT_ROWS": 40,
    "LOG_CATCH_UP_ENTRIES": 25,
    "FLUSH_INTERVAL_SECONDS": 0.05,
    "LOG_TIP_SYNC_SECONDS": 0.02,
}


def main() -> None:
    for name, value in SMALL.items():
        assert hasattr(limits, name), f"there is no limit {name}"
        setattr(limits, name, value)
    from tests.crash_images.workload import run

    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))


if __name__ == "__main__":
    main()
