"""The campaigns are tested: real clusters whose members make a mistake, which has to be found.

Both mistakes show only while something is wrong, and only to clients of some gateway. A campaign that does
not bring that about would find real clusters right for ever.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.consistency import campaign

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("transport", ["ray", "direct"])
@pytest.mark.parametrize(
    ("mistake", "fault", "found"),
    [
        ("read without confirmation", "deposed", {"stale read"}),
        ("double apply on retry", "gateway-cut", {"double apply", "reordered writes", "phantom write"}),
    ],
)
def test_mistake_in_every_member_is_found(
    tmp_path: Path, mistake: str, fault: str, found: set[str], transport: str
) -> None:
    plan = campaign.Plan(
        seed=1,
        operations=1_000,
        rounds=5,
        faults=(fault,),
        clients=64,
        rest_operations=10_000,
        transport=transport,
        mistake=mistake,
    )
    result = campaign.run_campaign(plan, tmp_path / "results.jsonl")
    assert not result.problem
    assert result.faults[fault] >= plan.rounds
    assert {violation.partition(":")[0] for violation in result.violations} & found, result.told
