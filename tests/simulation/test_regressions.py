"""What the simulation has found, each as the story of a fault and a seed that still goes that way or near it.

A seed changes its meaning with every change of the source. So where it can be
done, `mutants` plants the fault again; the seeds are where to look first when a story
is in doubt.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.simulation.profiles import profile_named
from tests.simulation.simulation import run_seed

DRAWN = "drawn"
"""The profile follows from the seed."""


class Found(NamedTuple):
    story: str
    profile: str
    seed: int


FOUND = (
    Found(
        "1. The core of a lagging member accepts snapshot X; the job that installs it waits. 2. The leader "
        "asks again, and the last chunk of a newer snapshot Y takes the place of X's file. 3. The install "
        "finds no file, and the member ends.",
        "replacement",
        3,
    ),
    Found(
        "1. The flusher has the log drop old entries. 2. Before it tells the core, the leader's core asks "
        "the log for one of them, for a lagging peer. 3. It is gone, and the leader ends.",
        "snapshots",
        2022,
    ),
    Found(
        "1. A member's state is that of an installed snapshot; its log, which holds entries that are not "
        "committed, is not reset yet. 2. The flusher has the log drop what the tables cover. 3. The core "
        "never came that far, and the member ends. `tests/node/test_snapshots.py` shows it without chance.",
        DRAWN,
        103476,
    ),
    Found(
        "1. A member is stopped. 2. Another one is created anew twice, and the stopped one is told of it "
        "each time. 3. It goes on and takes the newer introduction first, then the older, and calls a "
        "process that is gone for ever. Whoever has not answered an introduction is not given the next one.",
        DRAWN,
        106249,
    ),
)


@pytest.mark.parametrize("found", FOUND, ids=lambda found: f"{found.profile}-{found.seed}")
def test_what_was_found_stays_away(found: Found) -> None:
    run_seed(found.seed, profile_named(found.profile) if found.profile is not DRAWN else None)
