"""etcray answers as etcd does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.differential import stores
from tests.differential.comparison import Comparison
from tests.differential.meant import MEANT, UNASKED
from tests.differential.stores import Store
from tests.etcd_tools import etcd_program

SEEDS = (1, 2, 3, 4)
"""Several short histories find more than one long one: a store is never young again."""

REQUESTS = int(os.environ.get("ETCRAY_DIFFERENTIAL_REQUESTS", "20000"))
"""In all."""

CLUSTER_REQUESTS = 1_500

needs_etcd_3_5 = pytest.mark.skipif(etcd_program("3.5") is None, reason="etcd 3.5 is not installed")
needs_etcd_3_4 = pytest.mark.skipif(etcd_program("3.4") is None, reason="etcd 3.4 is not installed")


def compare(comparison: Comparison, oracle: Store, subject: Store, seed: int, requests: int) -> None:
    with oracle() as first, subject() as second:
        difference = comparison.generated(first, second, seed, requests)
    if difference is not None:
        pytest.fail(f"seed {seed}, {difference.describe()}")
    print(comparison.tally.describe())
    assert comparison.tally.requests == requests


@needs_etcd_3_5
@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_answers_as_etcd_does(seed: int, tmp_path: Path) -> None:
    requests = REQUESTS // len(SEEDS)
    compare(Comparison(), stores.etcd("3.5", tmp_path), stores.one_member(), seed, requests)


@needs_etcd_3_5
@needs_etcd_3_4
def test_two_releases_of_etcd_agree_with_each_other(tmp_path: Path) -> None:
    """So what the comparison finds is about etcray and not about the comparison."""
    comparison = Comparison(subject_is_etcd=True)
    compare(comparison, stores.etcd("3.5", tmp_path), stores.etcd("3.4", tmp_path), 5, 2_000)


@needs_etcd_3_5
@pytest.mark.cluster
def test_a_cluster_answers_as_etcd_does(tmp_path: Path) -> None:
    comparison = Comparison(serializable=False)
    compare(comparison, stores.etcd("3.5", tmp_path), stores.whole_cluster(tmp_path), 6, CLUSTER_REQUESTS)


def test_every_meant_difference_has_a_name_of_its_own_and_a_reason() -> None:
    names = [entry.name for entry in UNASKED] + [entry.name for entry in MEANT]
    reasons = [entry.reason for entry in UNASKED] + [entry.reason for entry in MEANT]
    assert len(set(names)) == len(names)
    assert all(len(reason) > 20 for reason in reasons)
