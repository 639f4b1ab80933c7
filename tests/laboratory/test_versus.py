"""The bar of versus-etcd, and its tables: what was reached, bad rows included."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcray_bench.errors import LaboratoryError
from etcray_bench.experiments.versus_etcd import LOADS, LONG_LOADS, VersusEtcd, parse_load
from etcray_bench.report import versus
from etcray_bench.results.reading import read_runs
from etcray_bench.results.records import Run, Sample, Variables
from tests.laboratory.synthetic import killed, sample, write_run

RATES = {"put-1": 300.0, "put-64": 1000.0, "put-256": 2000.0, "range-256": 3000.0, "put-256-1M-keys": 1500.0}
FASTER = {"put-1": 0.5, "put-64": 1.9, "put-256": 2.6, "range-256": 3.5, "put-256-1M-keys": 3.2}


def samples_of(each: Variables) -> list[Sample]:
    load, is_etcd = str(each["load"]), each["system"] == "etcd"
    if load == "failover":
        return [killed(1100.0 if is_etcd else pause) for pause in (200.0, 250.0, 310.0)]
    rate = RATES[load] * (1 if is_etcd else FASTER[load])
    return [sample(rate * x, 2.0 if is_etcd else 3.0, str(each["system"])) for x in (0.9, 1.0, 1.2)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    path = tmp_path / "versus.duckdb"
    points = [
        {"load": load, "system": system} for load in (*RATES, "failover") for system in ("etcd", "etcray ray")
    ]
    write_run(path, "versus-etcd", points, samples_of)
    return read_runs(path)[0]


def test_each_line_of_the_bar_that_was_measured_passes_or_fails(run: Run) -> None:
    verdicts = {(row[0], row[1]): row[4:] for row in versus.bar_rows(run)}
    assert verdicts == {
        ("put-64", "throughput / etcd's"): ("1.90", "FAIL"),
        ("put-256", "throughput / etcd's"): ("2.60", "pass"),
        ("range-256", "throughput / etcd's"): ("3.50", "pass"),
        ("put-1", "p50 / etcd's"): ("1.50", "pass"),
        ("put-256", "p99 / etcd's"): ("1.50", "FAIL"),
        ("failover", "pause of writes, p50, ms"): ("250", "pass"),
        ("failover", "pause / etcd's"): ("0.23", "pass"),
        ("put-256-1M-keys", "throughput / that with 10,000 keys"): ("0.92", "pass"),
        ("put-256-1M-keys", "GiB resident at the leader"): ("0.29", "pass"),
    }


def test_the_readme_gets_every_row_the_bad_ones_too(run: Run) -> None:
    text = versus.markdown(run)
    for load in (*RATES, "failover"):
        assert f"| {load}" in text
    assert "FAIL (2)" in text
    assert "| 1,000 (900-1,200) | 1,900 (1,710-2,280) | 1.90 |" in text
    assert "2 cores of A Processor" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


def test_costs_are_per_request_and_per_log_entry(run: Run) -> None:
    rows = {(row[0], row[1]): row for row in versus.cost_rows(run)}
    headings = dict(zip(versus.COST_HEADINGS, rows["put-64", "etcd"], strict=True))
    # 2.5 s of CPU, 5,000 requests in 500 entries.
    assert headings["leader"] == "500 [5.00]"
    assert headings["requests per entry"] == "10.0"
    assert headings["generator"] == "100"


def test_a_load_that_failed_has_its_row(tmp_path: Path) -> None:
    from etcray_bench.results.store import ResultsWriter
    from tests.laboratory.synthetic import ENVIRONMENT, plan, point

    path = tmp_path / "failed.duckdb"
    writer = ResultsWriter.begin(path, plan("versus-etcd", {"load": ("put-64",)}), ENVIRONMENT)
    writer.add_points(
        [
            point({"load": "put-64", "system": "etcd"}, [sample(100, system="etcd")]),
            point({"load": "put-64", "system": "etcray ray"}, [], "LoadError: lost"),
        ]
    )
    (found,) = read_runs(path)
    ((*_, last),) = versus.speed_rows(found)
    assert last == "FAILED: LoadError: lost"


def test_loads_are_chosen_by_name() -> None:
    assert {parse_load(load) for load in LOADS} >= {("put", 1), ("serializable-range", 256)}
    assert parse_load("put-256-1M-keys") == ("put", 256)
    assert VersusEtcd().parse_loads("put-64, failover") == ("put-64", "failover")
    assert VersusEtcd().parse_loads("all") == (*LOADS, *LONG_LOADS)
    with pytest.raises(LaboratoryError, match="put-65"):
        VersusEtcd().parse_loads("put-65")
    known = {*LOADS, *LONG_LOADS}
    assert {demand.load for demand in versus.BAR} <= known
