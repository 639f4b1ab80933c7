"""The layers between a stranger's SQL and everything else, each on its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from etcray_storage.history.allow_list import RefusedError, check
from etcray_storage.history.confinement import NO_THREADS
from etcray_storage.history.manifest import PARTS
from etcray_storage.history.messages import Query
from etcray_storage.history.pool import QueryPool
from etcray_storage.history.rows import empty_sides
from etcray_storage.history.store import HistoryStore
from etcray_storage.query_engine import Failure, Parser, QueryEngine, QueryFailedError, failed
from tests.history.model import Model, open_store, rows_of

READS = [
    "SELECT * FROM kv WHERE key_text LIKE '/a/%' ORDER BY 1 LIMIT 3",
    "WITH a AS (SELECT 1 AS x), b AS (SELECT x FROM a) SELECT * FROM b",
    "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t WHERE a < 5) SELECT sum(a) FROM t",
    "SELECT op, count(*) FILTER (WHERE version > 1) FROM history GROUP BY ALL HAVING count(*) > 0",
    "SELECT key, row_number() OVER w FROM history WINDOW w AS (PARTITION BY key ORDER BY mod_revision)",
    "FROM kv_at(5) SELECT key_text UNION ALL SELECT 'x' EXCEPT SELECT 'y'",
    "SELECT value_json->>'$.n', [x + 1 FOR x IN [1, 2]], {'a': 1}, now(), INTERVAL 1 DAY FROM kv",
    "SELECT * FROM kv a LEFT JOIN history b USING (key) WHERE EXISTS (SELECT 1 FROM leases) OR a.version > 0",
    "DESCRIBE SELECT * FROM kv",
    "SUMMARIZE kv",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT unnest(range(3)), CASE WHEN true THEN 1 END, CAST('1' AS INTEGER), 'x' SIMILAR TO 'y'",
]

REFUSED = [
    "WITH x AS (INSERT INTO history VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM history RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE history SET version = 1 RETURNING *) SELECT * FROM x",
    "WITH x AS (COPY kv TO '/tmp/x') SELECT * FROM x",
    "SELECT * FROM (WITH x AS (COPY kv TO '/tmp/x') SELECT * FROM x)",
    "SELECT * FROM '/etc/passwd'",
    'WITH "/etc/passwd" AS (SELECT * FROM "/etc/passwd") SELECT 1',
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('kv')",
    "SELECT * FROM json_execute_serialized_sql('{}')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT (SELECT max(content) FROM read_text('/etc/passwd'))",
    "SELECT current_setting('memory_limit')",
    "SELECT getenv('HOME')",
    "SELECT * FROM store.rows",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM memory.store.tail",
    "SELECT * FROM a WHERE EXISTS (WITH a AS (SELECT 1) SELECT * FROM a)",
    "COPY kv TO '/tmp/x'",
    "ATTACH ':memory:' AS x",
    "SET threads = 4",
    "PRAGMA version",
    "CALL pragma_version()",
    "INSTALL httpfs",
    "SHOW DATABASES",
]


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    parser = Parser()
    yield parser
    parser.close()


@pytest.mark.parametrize("sql", READS)
def test_the_allow_list_lets_queries_through(parser: Parser, sql: str) -> None:
    assert not check(parser.tree(sql)).lists_tables


@pytest.mark.parametrize("sql", REFUSED)
def test_the_allow_list_refuses_all_else(parser: Parser, sql: str) -> None:
    with pytest.raises(RefusedError):
        check(parser.tree(sql))


def test_the_allow_list_says_which_tables_are_named(parser: Parser) -> None:
    found = check(parser.tree("WITH kv AS (SELECT * FROM History) SELECT * FROM kv, KV_AT(3)"))
    assert found.names == {"history", "kv_at"}


def test_a_deep_statement_is_judged_or_refused_but_ends_nothing(parser: Parser) -> None:
    for depth in (50, 500, 5_000):
        sql = "SELECT " + "(" * depth + "1" + ")" * depth
        with suppress(RefusedError, QueryFailedError):
            assert check(parser.tree(sql)).names == frozenset()


# --- the locked instance, without the allow-list -------------------------------------------------
@pytest.fixture
def engine(tmp_path: Path) -> Iterator[QueryEngine]:
    part = tmp_path / "part.parquet"
    pa.parquet.write_table(pa.table({"a": [1, 2, 3]}), part)
    (tmp_path / "secret.txt").write_text("secret")
    made = [f"CREATE VIEW v AS SELECT * FROM read_parquet('{part}')"]
    engine = QueryEngine({"tail": pa.table({"b": [9]})}, made, [str(part)], 128, 1_000)
    yield engine
    engine.close()


def run(engine: QueryEngine, sql: str) -> list[dict[str, object]]:
    try:
        found: list[dict[str, object]] = engine.run(sql, [], 1_000).read_all().to_pylist()
    except Exception as e:
        raise failed(e) from e
    return found


def test_the_locked_instance_reads_its_part_and_its_relations(engine: QueryEngine) -> None:
    assert run(engine, "SELECT sum(a)::INT AS s FROM v") == [{"s": 6}]
    assert run(engine, "SELECT * FROM store.tail") == [{"b": 9}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('{dir}/secret.txt')",
        "SELECT * FROM '{dir}/secret.txt'",
        "SELECT * FROM glob('{dir}/*')",
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY v TO '{dir}/out.csv'",
        "WITH x AS (COPY v TO '{dir}/out.csv') SELECT * FROM x",
        "ATTACH '{dir}/new.duckdb' AS new",
        "EXPORT DATABASE '{dir}/export'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET memory_limit = '10GB'",
        "SET allowed_paths = ['/etc/passwd']",
        "RESET lock_configuration",
        "CREATE PERSISTENT SECRET s (TYPE http)",
        "SELECT * FROM secret_of_the_caller",
    ],
)
def test_the_locked_instance_denies_what_the_allow_list_would(
    engine: QueryEngine, tmp_path: Path, sql: str
) -> None:
    secret_of_the_caller = pa.table({"a": [1]})
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(QueryFailedError):
        run(engine, sql.format(dir=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert secret_of_the_caller.num_rows == 1


@pytest.mark.parametrize(
    ("sql", "failure"),
    [
        ("SELECT count(*) FROM range(1000000) a, range(1000000) b", Failure.INTERRUPTED),
        ("SELECT list(r) FROM range(1000000000) t(r)", Failure.OUT_OF_MEMORY),
        ("SELECT * FROM nothing", Failure.INVALID),
    ],
)
def test_the_locked_instance_has_limits_of_its_own(engine: QueryEngine, sql: str, failure: Failure) -> None:
    with pytest.raises(QueryFailedError) as raised:
        run(engine, sql)
    assert raised.value.failure in (failure, Failure.INTERRUPTED)


# --- the confined process, without DuckDB --------------------------------------------------------
CONFINED = """
import ctypes, os, resource, signal, socket, sys
from pathlib import Path
from etcray_storage.history.confinement import confine
readable = Path(sys.argv[1])
import subprocess
confine(readable, 256)
def attempt(what):
    try:
        what()
    except BaseException as e:
        return type(e).__name__
    return "done"
print(*(attempt(eval("lambda: " + what)) for what in sys.argv[2:]), flush=True)
"""


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        ("(readable / 'part').read_text()", "done"),
        ("(readable / 'part').write_text('x')", "PermissionError"),
        ("os.truncate(readable / 'part', 0)", "PermissionError"),
        ("os.unlink(readable / 'part')", "PermissionError"),
        ("(readable / 'new').write_text('x')", "PermissionError"),
        ("(readable.parent / 'manifest').read_text()", "PermissionError"),
        ("open('/etc/passwd')", "PermissionError"),
        ("open('/proc/1/environ').read()", "PermissionError"),
        ("subprocess.run(['/bin/true'])", "PermissionError"),
        ("socket.create_connection(('127.0.0.1', 9))", "PermissionError"),
        ("os.kill(os.getppid(), 0)", "PermissionError"),
        ("bytearray(1 << 30)", "MemoryError"),
        ("[open(readable / 'part') for _ in range(1000)][0]", "OSError"),
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))", "ValueError"),
    ],
)
def test_the_confined_process_reads_its_parts_and_does_nothing_else(
    tmp_path: Path, attempt: str, outcome: str
) -> None:
    (tmp_path / PARTS).mkdir()
    part = tmp_path / PARTS / "part"
    part.write_text("content")
    part.chmod(0o400)
    (tmp_path / "manifest").write_text("content")
    arguments = [sys.executable, "-c", CONFINED, str(tmp_path / PARTS), attempt]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=os.environ | NO_THREADS)
    assert done.stdout.split() == [outcome], done.stderr
    assert part.read_text() == "content"


def test_a_confined_process_has_no_capabilities_and_small_limits(tmp_path: Path) -> None:
    what = "print(open('/proc/self/status').read(), open('/proc/self/limits').read())"
    arguments = [sys.executable, "-c", CONFINED, str(tmp_path), what]
    environment = os.environ | NO_THREADS
    told = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment).stdout
    assert "CapEff:\t0000000000000000" in told
    assert "NoNewPrivs:\t1" in told
    assert [line.split()[-3:-1] for line in told.splitlines() if line.startswith("Max file size")] == [
        ["0", "0"]
    ]


# --- all of it ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HistoryStore, QueryPool]]:
    model = Model()
    for number in range(60):
        model.change({b"/a/%d" % (number % 5): b"%d" % number})
    store = open_store(tmp_path_factory.mktemp("history"))
    store.append(model.batch(1, 30))
    store.seal()
    store.append(model.batch(30, 61))
    pool = QueryPool(store.directory, workers=1)
    yield store, pool
    pool.close()
    store.close()


@pytest.mark.parametrize("sql", READS)
def test_a_worker_answers_queries(served: tuple[HistoryStore, QueryPool], sql: str) -> None:
    store, pool = served
    snapshot = store.snapshot()
    answer = pool.run(Query("reads", sql), snapshot, empty_sides())
    snapshot.release()
    assert answer.revision == 61
    assert len(rows_of(answer)) == answer.rows


@pytest.mark.parametrize("sql", REFUSED)
def test_a_worker_refuses_all_else(served: tuple[HistoryStore, QueryPool], sql: str) -> None:
    store, pool = served
    snapshot = store.snapshot()
    answer = pool.run(Query("refused", sql), snapshot, empty_sides())
    snapshot.release()
    assert answer.error_code in ("refused", "invalid"), answer
    assert answer.error_message
