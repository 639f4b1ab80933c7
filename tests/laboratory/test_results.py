"""A results file has everything that was measured, and says what it is."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from etcray_bench.results.environment import describe_environment
from etcray_bench.results.reading import parse_source, read_newest, read_runs, read_source
from etcray_bench.results.records import Plan
from etcray_bench.results.schema import SCHEMA_VERSION
from etcray_bench.results.store import ResultsError, ResultsWriter
from tests.laboratory.synthetic import ENVIRONMENT, killed, plan, point, sample, write_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.duckdb"


def test_what_is_written_is_read_back(path: Path) -> None:
    asked = plan("clients", {"workload": ("put",), "clients": (1, 64)}, etcd="3.5", quick=True)
    writer = ResultsWriter.begin(path, asked, ENVIRONMENT)
    points = [
        point({"workload": "put", "clients": 1}, [sample(500, 1.5), sample(510, 1.25), killed(250.0)]),
        point({"workload": "put", "clients": 64}, [sample(900)], 'LoadError: it\'s said "no" ✗'),
        point({"workload": "range", "clients": 64}, [], "SystemFailedError: no start"),
    ]
    writer.add_points(points[:1])
    writer.add_points(points[1:])
    (unfinished,) = read_runs(path)
    assert unfinished.finished_at is None
    writer.finish()
    (run,) = read_runs(path)
    assert run.finished_at is not None
    assert run.plan == asked
    assert run.environment == ENVIRONMENT
    assert list(run.points) == points


def test_any_tool_that_knows_duckdb_can_ask_the_file(path: Path) -> None:
    write_run(path, "clients", [{"clients": 1}, {"clients": 8}], lambda each: [sample(100), sample(300)])
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute(
            "SELECT (variables->>'clients')::INTEGER, system, median(requests_per_second), count(*) "
            "FROM measurements WHERE experiment = 'clients' GROUP BY ALL ORDER BY 1"
        ).fetchall()
    assert rows == [(1, "etcray", 200.0, 2), (8, "etcray", 200.0, 2)]


def test_a_run_that_was_not_finished_is_gone_on_with(path: Path) -> None:
    asked = plan("clients", {"clients": (1, 8)})
    first = ResultsWriter.begin(path, asked, ENVIRONMENT)
    assert not first.is_resumed
    first.add_points([point({"clients": 1}, [sample(100)])])

    again = ResultsWriter.begin(path, asked, ENVIRONMENT)
    assert again.is_resumed
    assert again.run_id == first.run_id
    assert again.done == {'{"clients":1}'}
    again.add_points([point({"clients": 8}, [sample(200)])])
    again.finish()
    (run,) = read_runs(path)
    assert [each.variables["clients"] for each in run.points] == [1, 8]

    assert not ResultsWriter.begin(path, asked, ENVIRONMENT).is_resumed, "a finished run is over"


@pytest.mark.parametrize("difference", ["plan", "source", "wish"])
def test_a_run_of_something_else_is_not_gone_on_with(path: Path, difference: str) -> None:
    asked = plan("clients", {"clients": (1, 8)})
    ResultsWriter.begin(path, asked, ENVIRONMENT)
    other: Plan = plan("clients", {"clients": (1, 16)}) if difference == "plan" else asked
    environment = replace(ENVIRONMENT, commit="fedcba") if difference == "source" else ENVIRONMENT
    second = ResultsWriter.begin(path, other, environment, fresh=difference == "wish")
    assert not second.is_resumed
    assert second.left_behind == (1 if difference == "source" else None)
    assert second.run_id == 2


def test_a_file_of_a_newer_version_is_refused_with_a_reason(path: Path) -> None:
    write_run(path, "clients", [{"clients": 1}], lambda each: [sample(100)])
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE schema_version SET version = version + 1")
    with pytest.raises(ResultsError, match=f"version {SCHEMA_VERSION + 1}.*newer etcray"):
        read_runs(path)
    with pytest.raises(ResultsError, match="newer etcray"):
        ResultsWriter.begin(path, plan("clients", {"clients": (1,)}), ENVIRONMENT)


def test_files_that_are_something_else_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no results file"):
        read_runs(path)
    path.write_text("not a database, but long enough to be looked at" * 100)
    with pytest.raises(ResultsError, match="cannot be opened"):
        read_runs(path)
    other = tmp_path / "other.duckdb"
    with duckdb.connect(str(other)) as connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")
    with pytest.raises(ResultsError, match="not one of results"):
        ResultsWriter.begin(other, plan("clients", {"clients": (1,)}), ENVIRONMENT)
    with duckdb.connect(str(other)) as connection:
        assert connection.execute("SHOW TABLES").fetchall() == [("mine",)]


def test_the_newest_run_of_each_experiment_is_shown_or_the_one_that_is_named(path: Path) -> None:
    write_run(path, "clients", [{"clients": 1}], lambda each: [sample(100)])
    write_run(path, "members", [{"members": 1}], lambda each: [sample(300)])
    write_run(path, "clients", [{"clients": 1}], lambda each: [sample(200)])
    ResultsWriter.begin(path, plan("clients", {"clients": (9,)}), ENVIRONMENT)  # has no points yet
    assert [(run.run_id, run.experiment) for run in read_newest(path)] == [(2, "members"), (3, "clients")]
    assert [run.run_id for run in read_source(f"{path}#1")] == [1]
    with pytest.raises(ResultsError, match="no run 7"):
        read_source(f"{path}#7")
    with pytest.raises(ResultsError, match="no points"):
        read_source(f"{path}#4")
    assert parse_source("a#b.duckdb") == (Path("a#b.duckdb"), None)


def test_two_sweeps_may_write_to_one_file(path: Path) -> None:
    writers = [ResultsWriter.begin(path, plan(name, {"clients": (1,)}), ENVIRONMENT) for name in "ab"]

    def write(writer: ResultsWriter) -> None:
        for number in range(5):
            writer.add_points([point({"clients": number}, [sample(100)])])

    threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(run.points) for run in read_runs(path)] == [5, 5]


def test_the_environment_names_what_figures_depend_on() -> None:
    found = describe_environment()
    assert {"python", "ray", "duckdb", "etcray"} <= found.versions.keys()
    assert found.commit
    assert found.cpu_model
    assert found.cpus >= 1
    assert found.memory_bytes > 2**20
