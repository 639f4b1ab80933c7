"""Every experiment is really run, at one quick point. What the figures are is not a matter of tests; that
they are there, and that the store was checked, is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from etcray_bench.etcd import find_etcd
from etcray_bench.experiments.experiment import Experiment, Settings
from etcray_bench.experiments.progress import Progress
from etcray_bench.experiments.registry import experiments
from etcray_bench.experiments.slow_member import SlowMember
from etcray_bench.experiments.sweep import Clusters, measure_batch
from etcray_bench.results.records import Point, Value
from tests.etcd_tools import etcd_program

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("laboratory")]

SMALL: dict[str, dict[str, tuple[Value, ...]]] = {
    "parts": {},
    "clients": {"clients": (4,)},
    "mixes": {"workload": ("ycsb-a",), "clients": (4,)},
    "reads": {"workload": ("range",), "clients": (4,)},
    "value-size": {"value_bytes": (1024,), "clients": (4,)},
    "gateways": {"gateways": (1,), "clients": (4,)},
    "watchers": {"watchers": (5,), "writers": (1,)},
    "versus-etcd-watch": {"watchers": (5,), "writers": (1,)},
    "versus-etcd": {"load": ("put-1",)},
    "idle-watchers": {"watchers": (200,), "system": ("etcd",)},
    "history": {"history": (True,), "clients": (4,)},
    "durability": {"durability": ("synced",), "clients": (4,)},
    "failover": {},
    "memory": {"keys": (0,)},
    "history-lag": {},
    "members": {"members": (1,), "clients": (4,)},
    "keys": {"keys": (1_000,), "clients": (4,)},
    "transport": {"transport": ("direct",), "clients": (4,)},
    "pipeline": {"appends_in_flight": (1,), "clients": (4,)},
    "batching": {"batch_requests": (16,), "batches_in_flight": (4,), "clients": (4,)},
    "history-queries": {"clients": (4,)},
    "history-rebuild": {"files": ("lost",)},
    "versus-etcd-history": {"changes": (1_500,), "question": ("most changed keys", "what changed between")},
    "learners": {"learners": (1,), "clients": (4,)},
    "slow-disk": {"role": ("follower",), "delay_ms": (20.0,), "clients": (4,)},
    "slow-peer": {"delay_ms": (20.0,), "clients": (4,)},
    "start": {"program": ("etcray up",)},
}
"""In an order in which as many as possible share the clusters that run."""


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    with Clusters(settings_in(tmp_path_factory.mktemp("laboratory")), lambda doing: None) as running:
        yield running


def settings_in(directory: Path) -> Settings:
    etcd = find_etcd() if etcd_program("3.5") is not None else None
    return Settings(
        seconds=1.2, warmup_seconds=0.2, repetitions=1, quick=True, etcd=etcd, directory=directory
    )


def run(experiment: Experiment, clusters: Clusters) -> list[Point]:
    points = experiment.points(SMALL[experiment.name], quick=True)
    if clusters.settings.etcd is None:
        points = [point for point in points if point.get("system") != "etcd"]
    with Progress() as progress:
        return measure_batch(experiment, points, settings_of(experiment, clusters), clusters, progress)


def settings_of(experiment: Experiment, clusters: Clusters) -> Settings:
    """What happens in thirds of the time needs more of it, also on a busy machine."""
    seconds = 3.0 if isinstance(experiment, SlowMember) else clusters.settings.seconds
    return replace(clusters.settings, seconds=seconds)


def test_there_is_a_point_for_every_experiment() -> None:
    assert SMALL.keys() == experiments().keys()


@pytest.mark.parametrize("name", SMALL)
def test_an_experiment_measures(name: str, clusters: Clusters) -> None:
    experiment = experiments()[name]
    for point in run(experiment, clusters):
        assert point.error == "", f"{point.name}: {point.error}"
        (sample,) = point.samples
        assert sample.failures == 0 or name == "failover", sample.first_failure
        if sample.figures:
            assert any(value > 0 for value in sample.figures.values()), sample.figures
        else:
            assert sample.requests > 0
            assert sample.latency_ms["max"] >= sample.latency_ms["p50"] > 0
            assert sample.histogram
            assert sum(each.requests for each in sample.series) == pytest.approx(
                sample.requests, rel=0.02, abs=5
            )
            assert sum(use.cpu_seconds for use in sample.roles.values()) > 0
        if name == "failover":
            assert sample.figures["pause_ms"] > 0
            assert [event.name for event in sample.events] == ["SIGKILL"]
        if name.startswith("slow-"):
            assert [event.name for event in sample.events] == ["slow", "healed"]
            assert sample.figures["before_per_second"] > 0
