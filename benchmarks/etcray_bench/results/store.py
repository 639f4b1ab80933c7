"""Writing a results file: begin or resume a run, add a point, end the run."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb

from etcray_bench.errors import LaboratoryError
from etcray_bench.results.records import Environment, Plan, Point, Sample, canonical
from etcray_bench.results.schema import SCHEMA_VERSION, TABLES

LOCK_SECONDS_MAX: Final = 15.0
"""Another process may have the file open for as long."""


class ResultsError(LaboratoryError):
    """A results file cannot be used. The message says what to do."""


def now() -> datetime:
    """UTC without its zone, as it is stored."""
    return datetime.now(UTC).replace(tzinfo=None)


@contextmanager
def opened(path: Path, *, writing: bool = False) -> Generator[duckdb.DuckDBPyConnection]:
    """The file, for a short time; it is made if it is to be written and not there. Raises ResultsError."""
    if not writing and not path.exists():
        raise ResultsError(f"there is no results file {path}. `etcray experiment run` makes one")
    connection = _connect(path, writing)
    try:
        _check_version(connection, path, writing)
        yield connection
    finally:
        connection.close()


def _connect(path: Path, writing: bool) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + LOCK_SECONDS_MAX
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return duckdb.connect(str(path), read_only=not writing)
        except duckdb.Error as error:
            text = str(error).lower()
            if ("lock" in text or "already attached" in text) and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise ResultsError(f"{path} cannot be opened: {str(error).splitlines()[0]}") from error
        except OSError as error:
            raise ResultsError(f"{path} cannot be made: {error.strerror}") from error


def _check_version(connection: duckdb.DuckDBPyConnection, path: Path, writing: bool) -> None:
    tables = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
    if not tables and writing:
        connection.begin()
        connection.execute(TABLES)
        connection.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
        connection.commit()
        return
    if "schema_version" not in tables:
        raise ResultsError(f"{path} is a DuckDB file, but not one of results. Choose another --results")
    (version,) = connection.execute("SELECT version FROM schema_version").fetchone() or (0,)
    if version > SCHEMA_VERSION:
        raise ResultsError(
            f"{path} has version {version} of the schema, and this etcray knows {SCHEMA_VERSION}. "
            "Use a newer etcray, or another --results"
        )
    if version < SCHEMA_VERSION:
        raise ResultsError(
            f"{path} has version {version} of the schema, which this etcray ({SCHEMA_VERSION}) does not "
            "read any more. Use the commit that its runs name, or another --results"
        )


class ResultsWriter:
    """One run in one file. Made by `begin`."""

    def __init__(
        self,
        path: Path,
        run_id: int,
        done: Sequence[str],
        *,
        is_resumed: bool,
        left_behind: int | None = None,
    ) -> None:
        self.path = path
        self.run_id = run_id
        self.left_behind = left_behind
        """A run of the same plan that was not finished, and is not gone on with: the source has changed."""
        self.done = set(done)
        """The canonical variables of points that the run has already, whether they failed or not."""
        self.is_resumed = is_resumed

    @classmethod
    def begin(cls, path: Path, plan: Plan, environment: Environment, *, fresh: bool = False) -> ResultsWriter:
        """Go on with the newest run of this plan and this source that was not finished; else, or if it is to
        be `fresh`, begin one."""
        with opened(path, writing=True) as connection:
            if not fresh:
                found = connection.execute(
                    "SELECT run_id FROM runs WHERE plan = ? AND commit = ? AND finished_at IS NULL "
                    "ORDER BY run_id DESC LIMIT 1",
                    [plan.encode(), environment.commit],
                ).fetchone()
                if found is not None:
                    rows = connection.execute(
                        "SELECT variables::VARCHAR FROM points WHERE run_id = ?", [found[0]]
                    ).fetchall()
                    done = [canonical(json.loads(row[0])) for row in rows]
                    return cls(path, int(found[0]), done, is_resumed=True)
                older = connection.execute(
                    "SELECT max(run_id) FROM runs WHERE plan = ? AND finished_at IS NULL", [plan.encode()]
                ).fetchone()
            connection.begin()
            (run_id,) = _one(connection, "SELECT coalesce(max(run_id), 0) + 1 FROM runs")
            _insert_run(connection, run_id, plan, environment)
            connection.commit()
        left_behind = None if fresh or older is None else older[0]
        return cls(path, run_id, (), is_resumed=False, left_behind=left_behind)

    def add_points(self, points: Iterable[Point]) -> None:
        """All or none of them."""
        points = list(points)
        with opened(self.path, writing=True) as connection:
            connection.begin()
            (first,) = _one(
                connection, f"SELECT coalesce(max(point_id), -1) + 1 FROM points WHERE run_id = {self.run_id}"
            )
            for number, point in enumerate(points, start=int(first)):
                self._insert_point(connection, number, point)
            connection.commit()
        self.done.update(canonical(point.variables) for point in points)

    def finish(self) -> None:
        with opened(self.path, writing=True) as connection:
            connection.execute("UPDATE runs SET finished_at = ? WHERE run_id = ?", [now(), self.run_id])

    def _insert_point(self, connection: duckdb.DuckDBPyConnection, point_id: int, point: Point) -> None:
        row = [
            self.run_id,
            point_id,
            canonical(point.variables),
            point.error,
            point.started_at,
            point.finished_at,
            point.load_average,
        ]
        _insert(connection, "points", [row])
        for repetition, sample in enumerate(point.samples):
            _insert_sample(connection, (self.run_id, point_id, repetition), sample)


def _insert_run(
    connection: duckdb.DuckDBPyConnection, run_id: int, plan: Plan, environment: Environment
) -> None:
    row = [
        run_id,
        plan.experiment,
        plan.encode(),
        now(),
        None,
        environment.commit,
        environment.cpu_model,
        environment.cpus,
        environment.memory_bytes,
        environment.kernel,
        environment.load_average,
        json.dumps(dict(environment.versions)),
        environment.ray_nodes,
    ]
    _insert(connection, "runs", [row])


def _insert_sample(connection: duckdb.DuckDBPyConnection, ids: tuple[int, int, int], sample: Sample) -> None:
    latency = [sample.latency_ms.get(share) for share in ("p50", "p90", "p99", "p999", "max")]
    row = [
        *ids,
        sample.system,
        sample.seconds,
        sample.requests,
        sample.failures,
        sample.first_failure,
        sample.requests_per_second,
        *latency,
        sample.generator_cpu_seconds,
        sample.log_entries,
        sample.histogram,
        sample.started_at,
    ]
    _insert(connection, "samples", [row])
    roles = [
        [*ids, role, use.processes, use.cpu_seconds, use.resident_bytes] for role, use in sample.roles.items()
    ]
    _insert(connection, "roles", roles)
    slices = [
        [*ids, each.at_seconds, each.slice_seconds, each.requests, each.failures, each.latency_ms_max]
        for each in sample.series
    ]
    _insert(connection, "series", slices)
    _insert(connection, "events", [[*ids, each.at_seconds, each.name, each.detail] for each in sample.events])
    _insert(connection, "figures", [[*ids, name, value] for name, value in sample.figures.items()])


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Statement by statement costs about a millisecond a row, so all rows go into one."""
    if rows:
        each = f"({', '.join('?' * len(rows[0]))})"
        values = [value for row in rows for value in row]
        connection.execute(f"INSERT INTO {table} VALUES {', '.join([each] * len(rows))}", values)


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int]:
    found = connection.execute(query).fetchone()
    assert found is not None, f"no row for {query}"
    return (int(found[0]),)
