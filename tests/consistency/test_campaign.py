"""A part of the long campaigns, on real clusters. The rest is run by hand: see the README of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.consistency import campaign, kill_cycles

pytestmark = pytest.mark.cluster


def test_a_history_under_faults_is_strictly_serializable(tmp_path: Path) -> None:
    faults = ("kill", "pause", "cut", "gateway", "gateway-cut", "deposed", "broken-disk", "compaction")
    plan = campaign.Plan(seed=1, operations=20_000, faults=faults, clients=128)
    result = campaign.run_campaign(plan, tmp_path / "results.jsonl")
    assert result.ok, campaign.describe(result)
    assert result.counts["operations"] >= plan.operations
    assert set(result.faults) == set(plan.faults)
    assert result.comparisons >= len(faults)
    assert result.windows > result.windows_undecided


def test_a_history_over_streams_is_strictly_serializable(tmp_path: Path) -> None:
    faults = ("kill", "pause", "cut", "gateway-cut", "deposed")
    plan = campaign.Plan(seed=2, operations=10_000, faults=faults, clients=128, transport="direct")
    result = campaign.run_campaign(plan, tmp_path / "results.jsonl")
    assert result.ok, campaign.describe(result)
    assert set(result.faults) == set(plan.faults)
    assert result.comparisons >= len(faults)


def test_members_hold_the_same_after_every_kill(tmp_path: Path) -> None:
    result = kill_cycles.run_cycles(10, seed=1, output=tmp_path / "cycles.jsonl")
    assert result.ok, kill_cycles.describe(result)
    assert result.cycles == 10
    assert result.revisions > 0
