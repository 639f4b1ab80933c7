"""The tables that users see, as views and macros over the store's rows. Their names are a contract.

Everything but `key_text` is computed when it is asked for: a column that nobody selects costs nothing. A
condition on the key or its text reaches the Parquet files, through views, groups and windows, because each
of them is grouped or partitioned by both.

`kv` and its relatives first find each key's newest revision, and then fetch those rows by a join; DuckDB
passes the smallest and largest key of the first to the second's scan. The other way, `arg_max` of every
column, takes as long, and holds all values in memory until the end is known.

Making the views takes 60 ms, which is more than most queries. So only those are made that a query names.

A revision that is asked for is checked where it is used: `store.known_revision` gives it back, or raises.
The message begins with a marker by which the sandbox tells it from other errors.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Final

from etcray_storage.history.parts import COLUMNS, KEY_TEXT, quoted_list
from etcray_storage.history.rows import Gap

RETENTION_MARK: Final = "etcray history: "

TABLES: Final = {
    "history": "every revision of every key",
    "history_with_previous": "history, with what the key held before",
    "kv": "all keys now",
    "leases": "leases now",
    "members": "members of the cluster now",
    "compactions": "compactions of the members, as far as they were noticed",
}
"""Views, with what SHOW TABLES says about them."""

TABLE_FUNCTIONS: Final = {
    "kv_at(revision)": "all keys at a revision",
    "kv_as_of(timestamp)": "all keys at a time",
    "changes(from_revision, to_revision)": "keys whose state differs between two revisions",
    "history_of(key)": "every revision of one key, given as text or blob",
    "prefixes(depth)": "keys, bytes and writes per prefix of so many '/'-separated parts",
}

_PAIR_COLUMNS: Final = """key, value, key_text, {value_text} AS value_text,
    {value_json} AS value_json, main AS mod_revision, sub AS sub_revision,
    create_revision, version, lease{op}, {committed_at} AS committed_at, author"""


NAMES: Final = frozenset({*TABLES, *(name.partition("(")[0] for name in TABLE_FUNCTIONS)})


def _text(column: str) -> str:
    return f"try(decode({column}))"


def _json(column: str) -> str:
    return f"try_cast(try(decode({column})) AS JSON)"


def _columns(op: bool) -> str:
    return _PAIR_COLUMNS.format(
        value_text=_text("value"),
        value_json=_json("value"),
        committed_at="make_timestamptz(time_ms * 1000)",
        op=", CASE WHEN tombstone THEN 'delete' ELSE 'put' END AS op" if op else "",
    )


def statements(names: Set[str], parts: Sequence[str], position: int, gaps: Sequence[Gap]) -> list[str]:
    """What makes the tables of these names, in order, over these part files and the relations
    `store.tail`, `store.lease_rows`, `store.member_rows` and `store.compaction_rows`. Names that are none
    of ours are passed over."""
    made = {
        "history": f"CREATE VIEW history AS SELECT {_columns(op=True)} FROM store.rows",
        "history_with_previous": _HISTORY_WITH_PREVIOUS,
        **_states(position),
        "changes": _CHANGES,
        "history_of": _HISTORY_OF,
        "prefixes": _PREFIXES,
        **_SIDES,
    }
    wanted = names | ({"kv"} if "leases" in names else set())
    return [
        _rows(parts),
        *_revisions(position, gaps),
        *(statement for name, statement in made.items() if name in wanted),
    ]


def _rows(parts: Sequence[str]) -> str:
    tail = f"SELECT {COLUMNS}, {KEY_TEXT} FROM store.tail"
    if not parts:
        return f"CREATE VIEW store.rows AS {tail}"
    sealed = (
        f"SELECT {COLUMNS}, key_text FROM read_parquet({quoted_list(list(parts))}, hive_partitioning = false)"
    )
    return f"CREATE VIEW store.rows AS {sealed} UNION ALL {tail}"


def _revisions(position: int, gaps: Sequence[Gap]) -> list[str]:
    """Macros that give back a revision whose state is known, or raise."""
    lost = "".join(f"WHEN r BETWEEN {gap.first} AND {gap.last} THEN error({_refusal(gap)})\n" for gap in gaps)
    lost_times = "".join(
        f"WHEN r BETWEEN {gap.first - 1} AND {gap.last} THEN error({_refusal(gap)})\n" for gap in gaps
    )
    future = f"'{RETENTION_MARK}revision ' || r || ' is in the future: the newest is {position}'"
    below = f"'{RETENTION_MARK}there is no revision ' || r || ': the first one is 1'"
    return [
        f"""CREATE MACRO store.known_revision(r) AS CASE
            WHEN r > {position} THEN error({future})
            WHEN r < 1 THEN error({below})
            {lost} ELSE r END""",
        f"""CREATE MACRO store.known_time_revision(r) AS CASE
            {lost_times} WHEN true THEN r END""",
    ]


def _refusal(gap: Gap) -> str:
    return (
        f"'{RETENTION_MARK}the state at revision ' || r || ' is not kept: revisions {gap.first} to "
        f"{gap.last} were forgotten, ask for {gap.last + 1} or later'"
    )


def _newest(at: str) -> str:
    """Each key's row at a revision, if it was there."""
    return f"""(SELECT key, key_text, max(main) AS main FROM store.rows WHERE main <= {at}
        GROUP BY key, key_text HAVING NOT arg_max(tombstone, main))
        JOIN (SELECT * EXCLUDE (key_text) FROM store.rows) USING (key, main)"""


def _states(position: int) -> dict[str, str]:
    columns = _columns(op=False)
    at_time = """(SELECT coalesce(max(main), 1) FROM store.rows
        WHERE time_ms <= epoch_ms("timestamp"::TIMESTAMPTZ))"""
    return {
        "kv": f"CREATE VIEW kv AS SELECT {columns} FROM {_newest(str(position))}",
        "kv_at": f"""CREATE MACRO kv_at(revision) AS TABLE SELECT {columns}
            FROM {_newest("store.known_revision(revision::BIGINT)")}""",
        "kv_as_of": f"""CREATE MACRO kv_as_of("timestamp") AS TABLE SELECT {columns}
            FROM {_newest(f"store.known_time_revision({at_time})")}""",
    }


_HISTORY_WITH_PREVIOUS: Final = f"""CREATE VIEW history_with_previous AS
    SELECT {_columns(op=True)},
        CASE WHEN known THEN before_value END AS previous_value,
        CASE WHEN known THEN {_text("before_value")} END AS previous_value_text,
        CASE WHEN known THEN before_main END AS previous_mod_revision
    FROM (SELECT *,
            lag(value) OVER before AS before_value,
            lag(main) OVER before AS before_main,
            NOT lag(tombstone) OVER before AND (tombstone OR lag(version) OVER before = version - 1) AS known
        FROM store.rows WINDOW before AS (PARTITION BY key, key_text ORDER BY main))"""
"""A put whose version does not follow the row before it had another one before, in a gap: that is unknown."""

_CHANGES: Final = f"""CREATE MACRO changes(from_revision, to_revision) AS TABLE
    WITH touched AS (
        SELECT DISTINCT key FROM store.rows
        WHERE main > least(store.known_revision(from_revision::BIGINT),
                           store.known_revision(to_revision::BIGINT))
          AND main <= greatest(from_revision::BIGINT, to_revision::BIGINT)),
    old_mains AS (
        SELECT key, max(main) AS main FROM store.rows SEMI JOIN touched USING (key)
        WHERE main <= from_revision::BIGINT GROUP BY key),
    new_mains AS (
        SELECT key, max(main) AS main FROM store.rows SEMI JOIN touched USING (key)
        WHERE main <= to_revision::BIGINT GROUP BY key),
    old_rows AS (
        SELECT key, key_text, value, main
        FROM store.rows SEMI JOIN old_mains USING (key, main) WHERE NOT tombstone),
    new_rows AS (
        SELECT key, key_text, value, main
        FROM store.rows SEMI JOIN new_mains USING (key, main) WHERE NOT tombstone)
    SELECT key, coalesce(o.key_text, n.key_text) AS key_text,
        CASE WHEN o.main IS NULL THEN 'added' WHEN n.main IS NULL THEN 'removed' ELSE 'changed' END AS change,
        o.value AS old_value, n.value AS new_value,
        {_text("o.value")} AS old_value_text, {_text("n.value")} AS new_value_text,
        o.main AS old_mod_revision, n.main AS new_mod_revision
    FROM old_rows o FULL JOIN new_rows n USING (key)
    WHERE o.main IS DISTINCT FROM n.main"""

_HISTORY_OF: Final = f"""CREATE MACRO history_of(name) AS TABLE SELECT {_columns(op=True)} FROM store.rows
    WHERE key = CASE WHEN typeof(name) = 'BLOB' THEN name::BLOB ELSE encode(name::VARCHAR) END
    ORDER BY main"""

_PREFIXES: Final = """CREATE MACRO prefixes(depth) AS TABLE
    WITH named AS (
        SELECT key, value, tombstone, main,
            coalesce(nullif(regexp_extract(key_text, '^/?([^/]*/){' || depth::INTEGER || '}'), ''),
                     key_text) AS prefix
        FROM store.rows),
    newest AS (
        SELECT prefix, octet_length(key) AS key_bytes, count(*) AS writes,
            arg_max(octet_length(value), main) AS value_bytes, arg_max(tombstone, main) AS gone
        FROM named GROUP BY prefix, key)
    SELECT prefix,
        count(*) FILTER (WHERE NOT gone) AS keys,
        coalesce(sum(key_bytes + value_bytes) FILTER (WHERE NOT gone), 0)::BIGINT AS bytes,
        sum(writes)::BIGINT AS writes
    FROM newest GROUP BY prefix ORDER BY prefix"""

_SIDES: Final = {
    "leases": """CREATE VIEW leases AS
        SELECT id, ttl_seconds, remaining_ms, coalesce(attached.keys, 0) AS keys
        FROM store.lease_rows
        LEFT JOIN (SELECT lease AS id, count(*) AS keys FROM kv WHERE lease <> 0 GROUP BY lease) attached
        USING (id)""",
    "members": "CREATE VIEW members AS SELECT * FROM store.member_rows",
    "compactions": """CREATE VIEW compactions AS
        SELECT revision, make_timestamptz(time_ms * 1000) AS compacted_at FROM store.compaction_rows""",
}
