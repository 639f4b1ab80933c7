"""How many seeds: `pytest tests/simulation --seeds 5000 --from-seed 1000`."""

from __future__ import annotations

import pytest

SEEDS = 1000

GROUP = 25
"""Seeds of one test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=SEEDS, help="seeds of the whole-cluster simulation")
    parser.addoption("--from-seed", type=int, default=0, help="the first of them")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "simulated_seeds" in metafunc.fixturenames:
        count = metafunc.config.getoption("--seeds", SEEDS)
        first = metafunc.config.getoption("--from-seed", 0)
        starts = range(first, first + count, GROUP)
        groups = [range(start, min(start + GROUP, first + count)) for start in starts]
        metafunc.parametrize("simulated_seeds", groups, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
