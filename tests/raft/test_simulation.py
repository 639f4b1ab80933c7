"""Hundreds of random schedules, each checked after every step; see simulate.py."""

from __future__ import annotations

from .simulate import run_seed


def test_random_schedule_is_safe_and_heals(simulation_seeds: range) -> None:
    committed = reads = 0
    for seed in simulation_seeds:
        simulation = run_seed(seed)
        committed += len(simulation.checker.committed) - 1
        reads += simulation.checker.reads_answered
    assert committed >= 3 * len(simulation_seeds), "the schedules hinder every commit: they test nothing"
    assert reads >= len(simulation_seeds), "the schedules hinder every read: they test nothing"
