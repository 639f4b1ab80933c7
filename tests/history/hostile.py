"""Statements that want more than to read the history: a corpus to run against the pool.

`@STORE`, `@PART`, `@TAIL`, `@SECRET` and `@OUT` stand for paths: the store's directory, one of its parts, its
tail, a file beside it, and a file that does not exist. Each statement is on the list because of one trick;
the groups are named after where it comes in.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.history.hostile_statements import (
    FILES,
    HARMLESS_STATEMENTS,
    INTERNALS,
    SEVERAL,
    STATEMENTS,
    TRICKS,
)

REFUSED: Final = frozenset({"refused"})
INVALID: Final = frozenset({"invalid"})
REJECTED: Final = REFUSED | INVALID
"""Where the parser gives up before the allow-list looks, or the binder after it did: both ran nothing."""
OUT_OF_TIME: Final = frozenset({"timeout"})
OUT_OF_MEMORY: Final = frozenset({"out_of_memory"})
STOPPED: Final = frozenset({"timeout", "out_of_memory", "too_many_rows"})
HARMLESS: Final = frozenset({""})
BOUNDED: Final = STOPPED | HARMLESS | REJECTED
"""Costly things that some version of DuckDB does well: they may end in any way, as long as they end."""


class Hostile(NamedTuple):
    group: str
    sql: str
    expected: frozenset[str]
    """Codes of which the answer has one."""


WRITES: Final = (
    "INSERT INTO history VALUES (1) RETURNING *",
    "INSERT INTO store.tail SELECT * FROM store.tail RETURNING *",
    "DELETE FROM history RETURNING *",
    "DELETE FROM store.tail USING kv RETURNING *",
    "UPDATE history SET value = 'x' RETURNING *",
    "MERGE INTO history USING kv ON history.key = kv.key WHEN MATCHED THEN DELETE RETURNING *",
    "COPY kv TO '@OUT'",
    "COPY (SELECT 1) TO '@OUT.parquet' (FORMAT parquet)",
    "COPY (SELECT 1) TO '@PART' (FORMAT parquet, USE_TMP_FILE false)",
    "COPY (SELECT 1) TO '@TAIL' (FORMAT csv, USE_TMP_FILE false)",
    "COPY (SELECT 1) TO '@TAIL.wal' (FORMAT csv, USE_TMP_FILE false)",
    "COPY history FROM '@SECRET'",
)
"""What a common table expression may hold in DuckDB; the type of the whole is SELECT."""

WRAPPINGS: Final = (
    "WITH x AS ({0}) SELECT * FROM x",
    "WITH x AS MATERIALIZED ({0}) SELECT 1",
    "WITH RECURSIVE x AS ({0}) SELECT * FROM x",
    "SELECT (WITH x AS ({0}) SELECT count(*) FROM x)",
    "SELECT * FROM kv WHERE EXISTS (WITH x AS ({0}) SELECT 1 FROM x)",
    "SELECT * FROM kv, LATERAL (WITH x AS ({0}) SELECT * FROM x) y",
    "WITH a AS (WITH x AS ({0}) SELECT * FROM x) SELECT * FROM a",
    "SELECT 1 UNION ALL (WITH x AS ({0}) SELECT 1 FROM x)",
    "EXPLAIN ANALYZE {0}",
    "DESCRIBE {0}",
    "{0}",
)


SLOW: Final = """
SELECT count(*) FROM range(1000000000) a, range(1000000000) b
SELECT count(*) FROM history a, history b, history c, history d, history e, history f
WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t
WITH RECURSIVE t(a) AS (SELECT 1 UNION SELECT (a + 1) % 1000003 FROM t) SELECT count(*) FROM t, t u, t v, t w
SELECT max(hash(a) ^ hash(b)) FROM range(10000000000) t(a), range(10000000000) u(b)
SELECT sum(list_sum(range(a))) FROM range(1000000, 9000000) t(a)
SELECT count(*) FROM range(100000000) t(a) WHERE regexp_matches(repeat(chr(97), 2000) || a, '(a?){900}a{900}')
SELECT max(levenshtein(repeat('a', 20000), repeat('b', 20000) || a)) FROM range(100000) t(a)
SELECT sum(factorial((a % 30)::INTEGER)) FROM range(100000000000) t(a)
SELECT list_reduce(range(100000000), lambda x, y: hash(x) % 7 + y % 7)
SELECT count(*) FROM kv_at(2), range(1000000000), history_with_previous, range(1000000000)
EXPLAIN ANALYZE SELECT count(*) FROM range(1000000000) a, range(1000000000) b
SELECT DISTINCT a % 3 FROM range(100000000000) t(a)
"""
"""More than the time that they get."""

HUGE: Final = """
SELECT list(a) FROM range(10000000000) t(a)
SELECT string_agg(repeat('x', 1000000), '') FROM range(100000)
WITH RECURSIVE t AS (SELECT 'x' AS a UNION ALL SELECT a || a FROM t) SELECT max(len(a)) FROM t
SELECT a, count(*) FROM range(10000000000) t(a) GROUP BY a
SELECT * FROM range(1000000000) t(a) ORDER BY hash(a)
SELECT repeat('x', 4000000000)
SELECT repeat(repeat('x', 100000), 100000)
SELECT lpad('x', 2000000000, 'ab')
SELECT range(1000000000)
SELECT list_transform(range(100000000), lambda x: repeat('y', 1000))
SELECT array_resize([1], 2000000000, 1)
SELECT flatten(list_transform(range(20000), lambda x: range(100000)))
SELECT unnest(range(10000000000))
SELECT * FROM range(10000000000000)
SELECT * FROM generate_series(1, 10000000000000) LIMIT 9223372036854775807
SELECT * FROM history a, history b, history c, history d
SELECT json_group_array(repeat('x', 10000)) FROM range(1000000)
SELECT histogram(a) FROM range(1000000000) t(a)
SELECT map(range(30000000), range(30000000))
SELECT replace(repeat('a', 10000000), 'a', repeat('b', 10000))
SELECT printf('%2000000000d', 1)
SELECT format('{:>2000000000}', 'x')
SELECT bitstring('1', 2000000000)
SELECT * FROM (SELECT unnest(range(100000000)) AS a) t JOIN (SELECT unnest(range(100000000)) AS b) u ON a = b
SELECT quantile_cont(a, 0.5) FROM range(1000000000) t(a)
SELECT lag(a, 5) OVER (ORDER BY hash(a)) FROM range(1000000000) t(a)
SELECT regexp_replace(repeat('a', 1000000), 'a', repeat('b', 10000), 'g')
SELECT json_merge_patch(a::JSON, a::JSON) FROM (SELECT '[' || repeat('1,', 100000000) || '1]' AS a)
SELECT from_json(repeat('[', 1000000), '["JSON"]')
"""
"""More than the memory that they get, or more rows."""


def generated() -> list[Hostile]:
    """Bombs that are long themselves."""
    columns = ", ".join(f"repeat('{number}', 100000) AS c{number}" for number in range(300))
    cases = ", ".join("a" * 50 for _ in range(900))
    return [
        Hostile("nesting", "SELECT " + "(" * 900 + "1" + ")" * 900, BOUNDED),
        Hostile("nesting", "SELECT " + "(" * 20_000 + "1" + ")" * 20_000, REJECTED),
        Hostile("nesting", "SELECT " + "-" * 30_001 + "1", REJECTED | HARMLESS),
        Hostile("nesting", "SELECT " + "NOT " * 10_000 + "true", BOUNDED),
        Hostile("nesting", "SELECT " + "[" * 5_000 + "]" * 5_000, BOUNDED),
        Hostile("nesting", "SELECT " + "1+" * 20_000 + "1", BOUNDED),
        Hostile("nesting", "SELECT " + "abs(" * 5_000 + "1" + ")" * 5_000, BOUNDED),
        Hostile("nesting", "SELECT * FROM " + "(SELECT * FROM " * 900 + "kv" + ")" * 900, BOUNDED),
        Hostile("nesting", "SELECT 1" + " UNION ALL SELECT 1" * 3_000, BOUNDED),
        Hostile("nesting", "WITH " + ", ".join(doublings(40)) + " SELECT count(*) FROM d40", BOUNDED),
        Hostile("nesting", "SELECT '" + "[" * 60_000 + "'::JSON", REJECTED | HARMLESS),
        Hostile("nesting", "SELECT NULL::" + "STRUCT(a " * 2_000 + "INTEGER" + ")" * 2_000, BOUNDED),
        Hostile("length", "SELECT '" + "x" * 100_000 + "'", REFUSED),
        Hostile("length", f"SELECT 1 IN ({', '.join(map(str, range(9_000)))})", BOUNDED),
        Hostile("length", f"SELECT key FROM kv WHERE key_text IN ({cases!r})", BOUNDED),
        Hostile("length", f"SELECT {columns} FROM range(100000)", STOPPED),
        Hostile("length", "SELECT " + ", ".join(["*"] * 900) + " FROM history_with_previous", BOUNDED),
        Hostile("length", "FROM " + ", ".join(f"kv k{number}" for number in range(200)), BOUNDED),
        Hostile("length", "SELECT * FROM kv" + " NATURAL JOIN kv" * 300, BOUNDED),
        Hostile("length", "VALUES " + ", ".join(["(1)"] * 12_000), BOUNDED),
        Hostile("length", "SELECT 1 " * 6_000, REJECTED),
        Hostile("length", ";" * 60_000, REJECTED),
        Hostile("length", "SELECT 1;" * 6_000, REFUSED),
    ]


def doublings(count: int) -> list[str]:
    """Common table expressions, each twice the one before."""
    doubled = [f"d{n} AS (FROM d{n - 1} UNION ALL FROM d{n - 1})" for n in range(1, count + 1)]
    return ["d0 AS (SELECT 1)", *doubled]


def corpus() -> list[Hostile]:
    """All of it, quick ones first."""
    writes = [
        Hostile("writes", wrapping.format(write), REJECTED) for wrapping in WRAPPINGS for write in WRITES
    ]
    lists = (
        ("statements", STATEMENTS, REJECTED),
        ("several", SEVERAL, REJECTED),
        ("files", FILES, REJECTED),
        ("internals", INTERNALS, REJECTED),
        ("tricks", TRICKS, REJECTED),
        ("harmless", HARMLESS_STATEMENTS, HARMLESS),
        ("slow", SLOW, STOPPED),
        ("huge", HUGE, STOPPED | INVALID),
    )
    listed = [Hostile(group, sql, expected) for group, text, expected in lists for sql in lines(text)]
    return [*writes, *listed, *generated()]


def lines(text: str) -> list[str]:
    """One statement on each line, with Python's escapes in it."""
    return [line.encode().decode("unicode_escape") for line in text.splitlines() if line]
