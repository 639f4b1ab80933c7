"""The tester's tester: mistakes that are planted must be found."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.profiles import profile_named
from tests.simulation.simulation import run_seed

SEEDS_MAX = 80


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_finds_the_mistake(name: str) -> None:
    planted = MUTANTS[name]
    profile = profile_named(planted.profile)
    for seed in range(SEEDS_MAX):
        try:
            run_seed(seed, profile, planted.plant)
        except (AttributeError, NameError, TypeError):
            raise  # the mistake could not be planted
        except Exception:
            return
    pytest.fail(f"{SEEDS_MAX} seeds of {planted.profile} did not notice: {name}")
