"""`pytest tests/raft --seed N` runs the simulation of one seed alone."""

from __future__ import annotations

import pytest

SEEDS = 400


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="run the Raft simulation with this seed only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "simulation_seeds" in metafunc.fixturenames:
        one = metafunc.config.getoption("--seed", None)
        groups = [range(start, start + 50) for start in range(0, SEEDS, 50)]
        if one is not None:
            groups = [range(one, one + 1)]
        metafunc.parametrize("simulation_seeds", groups, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
