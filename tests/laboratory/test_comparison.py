"""What is called better or worse, and what is not."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from etcray_bench.report import comparison
from etcray_bench.report.comparison import BETTER, SAME, UNKNOWN, WORSE, Row, compare
from etcray_bench.report.page import comparison_page
from etcray_bench.results.reading import read_source
from etcray_bench.results.records import Variables
from tests.laboratory.synthetic import ENVIRONMENT, sample, write_run


def row(before: tuple[float, ...], after: tuple[float, ...], measure: str = "requests_per_second") -> Row:
    return Row("clients", "clients 1", measure, before, after)


def test_ratios_are_of_medians_and_their_spread_is_the_widest_that_repetitions_admit() -> None:
    found = row((100.0, 90.0, 110.0), (200.0, 240.0, 190.0))
    assert found.ratio == 2.0
    assert found.ratio_low == pytest.approx(190 / 110)
    assert found.ratio_high == pytest.approx(240 / 90)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((100, 101, 102), (150, 151, 152), BETTER),
        ((150, 151, 152), (100, 101, 102), WORSE),
        ((100, 101, 110), (105, 120, 125), SAME),  # they overlap
        (
            (100, 104, 108),
            (109, 111, 113),
            SAME,
        ),  # they do not, but are as far from each other as from themselves
        ((100, 100, 100), (102, 102, 102), SAME),  # too little to be anybody's doing
        ((100,), (200,), UNKNOWN),
        ((100, 101), (200,), UNKNOWN),
    ],
)
def test_a_difference_has_to_be_larger_than_the_noise(
    before: tuple[float, ...], after: tuple[float, ...], verdict: str
) -> None:
    assert row(before, after).verdict == verdict


def test_of_latencies_less_is_better() -> None:
    assert row((10, 11, 12), (5, 5, 6), "latency_ms_p99").verdict == BETTER
    assert row((5, 5, 6), (10, 11, 12), "pause_ms").verdict == WORSE
    assert row((5, 5, 6), (10, 11, 12), "value_mib_per_second").verdict == BETTER
    assert row((5, 5, 6), (10, 11, 12), "member_resident_mib").verdict == WORSE


def test_two_files_are_compared_at_the_points_that_both_have(tmp_path: Path) -> None:
    before, after = tmp_path / "before.duckdb", tmp_path / "after.duckdb"
    rates = {1: 100.0, 16: 1000.0, 64: 2000.0}
    old: list[Variables] = [{"workload": "put", "clients": clients} for clients in (1, 16)]
    new: list[Variables] = [{"clients": clients, "workload": "put"} for clients in (16, 64)]
    write_run(
        before, "clients", old, lambda each: [sample(rates[int(each["clients"])] + x) for x in (0, 1, 2)]
    )
    later = replace(ENVIRONMENT, commit="fedcba", versions={**ENVIRONMENT.versions, "etcd": "3.6.0"})
    write_run(
        after,
        "clients",
        new,
        lambda each: [sample(1.5 * rates[int(each["clients"])] + x, 1.0) for x in (0, 1, 2)],
        environment=later,
    )
    found = compare(read_source(str(before)), read_source(str(after)))
    assert {(each.measure, each.verdict) for each in found.rows} == {
        ("requests_per_second", BETTER),
        ("latency_ms_p50", BETTER),
        ("latency_ms_p99", BETTER),
    }
    assert found.rows[0].ratio == pytest.approx(1501 / 1001)
    assert found.only_before == ("clients: clients 1, put",)
    assert found.only_after == ("clients: clients 64, put",)
    assert found.differences == ("commit: 0123456789ab -> fedcba", "etcd: 3.5.1 -> 3.6.0")

    summary = comparison.summary(found)
    assert "3 better, 0 worse, 0 the same" in summary
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(comparison.table(found))
    assert "1.50" in console.export_text()
    page = comparison_page(found, "before", "after")
    assert "fedcba" in page
    assert page.count("<tr class=good>") == 3


def test_two_runs_of_one_file_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "results.duckdb"
    first, second = [sample(100.0), sample(101.0)], [sample(50.0), sample(51.0)]
    write_run(path, "members", [{"members": 3}], lambda each: first)
    write_run(path, "members", [{"members": 3}], lambda each: second)
    found = compare(read_source(f"{path}#1"), read_source(f"{path}#2"))
    (rates,) = [each for each in found.rows if each.measure == "requests_per_second"]
    assert rates.verdict == WORSE
