"""A results file, read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from etcray_bench.results.records import Environment, Event, Plan, Point, RoleUse, Run, Sample, Slice
from etcray_bench.results.store import ResultsError, opened

Ids = tuple[int, ...]


def read_runs(path: Path, run_id: int | None = None) -> list[Run]:
    """All runs in the file, oldest first, or one of them. Raises ResultsError."""
    with opened(path) as connection:
        runs = [_run(connection, row) for row in _rows(connection, "runs", "run_id")]
    chosen = [run for run in runs if run_id in (None, run.run_id)]
    if run_id is not None and not chosen:
        known = ", ".join(f"{run.run_id} ({run.experiment})" for run in runs)
        raise ResultsError(f"{path} has no run {run_id}; there are {known or 'none'}")
    return chosen


def read_newest(path: Path) -> list[Run]:
    """For each experiment the newest run that has points, in the order in which they were begun."""
    newest = {run.experiment: run for run in read_runs(path) if run.points}
    return sorted(newest.values(), key=lambda run: run.run_id)


def parse_source(text: str) -> tuple[Path, int | None]:
    """`FILE` or `FILE#RUN`."""
    name, mark, number = text.rpartition("#")
    if mark and number.isdecimal():
        return Path(name), int(number)
    return Path(text), None


def read_source(text: str) -> list[Run]:
    """The newest run of each experiment of a `FILE`, or the one run of a `FILE#RUN`."""
    path, run_id = parse_source(text)
    runs = read_newest(path) if run_id is None else read_runs(path, run_id)
    if not any(run.points for run in runs):
        raise ResultsError(f"{text} has no points that were measured")
    return runs


def _rows(
    connection: duckdb.DuckDBPyConnection, table: str, order: str, run_id: int | None = None
) -> list[dict[str, Any]]:
    where = "" if run_id is None else f"WHERE run_id = {run_id}"
    cursor = connection.execute(f"SELECT * FROM {table} {where} ORDER BY {order}")
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _run(connection: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> Run:
    names = ("commit", "cpu_model", "cpus", "memory_bytes", "kernel", "load_average", "ray_nodes")
    environment = Environment(versions=json.loads(row["versions"]), **{name: row[name] for name in names})
    return Run(
        run_id=row["run_id"],
        plan=Plan.decode(row["plan"]),
        environment=environment,
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        points=_points(connection, row["run_id"]),
    )


def _points(connection: duckdb.DuckDBPyConnection, run_id: int) -> tuple[Point, ...]:
    samples = _samples(connection, run_id)
    return tuple(
        Point(
            variables=json.loads(row["variables"]),
            error=row["error"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            load_average=row["load_average"],
            samples=tuple(sample for ids, sample in samples if ids[0] == row["point_id"]),
        )
        for row in _rows(connection, "points", "point_id", run_id)
    )


def _samples(connection: duckdb.DuckDBPyConnection, run_id: int) -> list[tuple[Ids, Sample]]:
    samples: dict[Ids, Sample] = {}
    for row in _rows(connection, "samples", "point_id, repetition", run_id):
        latency = {
            name.removeprefix("latency_ms_"): value
            for name, value in row.items()
            if name.startswith("latency_ms_") and value is not None
        }
        plain = {
            name: row[name]
            for name in Sample.__dataclass_fields__
            if name in row and not name.startswith("latency_ms")
        }
        samples[_ids(row)] = Sample(latency_ms=latency, **plain)
    for ids, rows in _grouped(_rows(connection, "roles", "point_id, repetition", run_id)).items():
        roles = {row["role"]: RoleUse(**_only(row, RoleUse)) for row in rows}
        samples[ids] = replace(samples[ids], roles=roles)
    for ids, rows in _grouped(_rows(connection, "series", "at_seconds", run_id)).items():
        samples[ids] = replace(samples[ids], series=tuple(Slice(**_only(row, Slice)) for row in rows))
    for ids, rows in _grouped(_rows(connection, "events", "at_seconds", run_id)).items():
        samples[ids] = replace(samples[ids], events=tuple(Event(**_only(row, Event)) for row in rows))
    for ids, rows in _grouped(_rows(connection, "figures", "name", run_id)).items():
        samples[ids] = replace(samples[ids], figures={row["name"]: row["value"] for row in rows})
    return list(samples.items())


def _ids(row: dict[str, Any]) -> Ids:
    return row["point_id"], row["repetition"]


def _grouped(rows: Sequence[dict[str, Any]]) -> dict[Ids, list[dict[str, Any]]]:
    groups: dict[Ids, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_ids(row), []).append(row)
    return groups


def _only(row: dict[str, Any], record: type[Any]) -> dict[str, Any]:
    return {name: row[name] for name in record.__dataclass_fields__}
