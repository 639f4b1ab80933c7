"""Whole clusters from seeds, and that a seed is a seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.profiles import PROFILES, Profile
from tests.simulation.simulation import run_seed


def test_clusters_keep_their_promises_whatever_goes_wrong(simulated_seeds: range) -> None:
    for seed in simulated_seeds:
        run_seed(seed)


@pytest.mark.parametrize("profile", [profile for _, profile in PROFILES], ids=lambda profile: profile.name)
def test_each_profile_does_what_it_is_for(profile: Profile) -> None:
    """A fault that never strikes, or a cluster that never does anything, would test nothing."""
    counts = sum((run_seed(seed, profile).counts for seed in range(3)), start=run_seed(3, profile).counts)
    assert counts["put ok"] > 20, f"{profile.name}: {counts}"
    if profile.faults:
        assert sum(counts[fault] for fault in profile.faults) > 5, f"{profile.name}: {counts}"


_TRACES = """
from tests.simulation.profiles import PROFILES
from tests.simulation.simulation import run_seed
for number, (_, profile) in enumerate(PROFILES):
    print(profile.name, run_seed(number, profile).trace)
"""


def test_a_seed_replays_exactly_in_another_process() -> None:
    traces = [
        subprocess.run(
            [sys.executable, "-c", _TRACES],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert len(set(traces[0].split())) == 2 * len(PROFILES)
