"""Which statements may run: a check of the syntax tree, by what is allowed.

In DuckDB a statement that is a SELECT to every client can delete, copy and write files, because a common
table expression may hold any of them; and a table's name may be a file's. So the tree is walked to its
last leaf, and whatever is not known here is refused: kinds of query, of table, of expression, and names of
tables and functions. A new version of DuckDB brings new ones, and they are refused until they are looked at.

The tree is the JSON that DuckDB's `json_serialize_sql` makes. This module is pure: text in, verdict out.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from etcray_storage.history.functions import FUNCTIONS, TABLE_FUNCTIONS
from etcray_storage.history.schema import TABLES

QUERY_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})

TABLE_NODES: Final = frozenset({"EMPTY", "SUBQUERY", "JOIN", "EXPRESSION_LIST", "COLUMN_DATA"})
"""Beside BASE_TABLE, TABLE_FUNCTION and SHOW_REF, which name something."""

MODIFIERS: Final = frozenset({
    "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER", "ORDER_MODIFIER",
    "ORDER_DEFAULT", "ASCENDING", "DESCENDING", "ORDER_ASCENDING", "ORDER_DESCENDING",
})  # fmt: skip

EXPRESSIONS: Final = frozenset({
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT",
    "LAMBDA", "LAMBDA_REF", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE",
})  # fmt: skip
"""Beside FUNCTION and WINDOW, which name something."""

_CTE_NAME: Final = re.compile(r"[^\W\d]\w*")
"""A letter first, no dots or slashes: a name like this cannot be a file's."""

_LISTINGS: Final = frozenset({'"tables"', "__show_tables_expanded"})


class RefusedError(Exception):
    """The statement is not allowed; the message says what is."""


class Allowed(NamedTuple):
    """A statement that may run."""

    names: frozenset[str]
    """Tables and table functions that it names, in lower case."""
    lists_tables: bool
    """It is SHOW TABLES."""


def check(tree: str) -> Allowed:
    """Judge a statement by its tree. Raises RefusedError."""
    try:
        parsed = msgspec.json.decode(tree)
    except (msgspec.DecodeError, RecursionError) as e:
        raise RefusedError("the statement is nested too deeply") from e
    if parsed.get("error"):
        raise RefusedError(
            "only queries can be run here: SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES "
            f"and EXPLAIN ({parsed.get('error_message', '')})"
        )
    statements = parsed["statements"]
    if len(statements) != 1:
        raise RefusedError(f"one statement at a time: these are {len(statements)}")
    return _Walk().statement(statements[0]["node"])


class _Walk:
    """One walk over one tree, on a stack of its own: a deep tree must not be able to end the process."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._stack: list[tuple[Any, frozenset[str]]] = []
        """What is still to be looked at, with the names of the common table expressions that it sees."""

    def statement(self, node: dict[str, Any]) -> Allowed:
        listing = node.get("from_table", {})
        if listing.get("type") == "SHOW_REF" and listing.get("table_name") in _LISTINGS:
            return Allowed(frozenset(), lists_tables=True)
        self._stack.append((node, frozenset()))
        while self._stack:
            value, scope = self._stack.pop()
            if isinstance(value, dict):
                self._node(value, scope)
            elif isinstance(value, list):
                self._stack += [(item, scope) for item in value]
        return Allowed(frozenset(self._names), lists_tables=False)

    def _node(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        kind = node.get("type")
        if "class" in node:
            self._expression(node)
        elif kind == "BASE_TABLE":
            self._base_table(node, scope)
        elif kind == "TABLE_FUNCTION":
            self._table_function(node, scope)
            return
        elif kind == "SHOW_REF":
            if node["show_type"] not in ("DESCRIBE", "SUMMARY") or node["table_name"]:
                raise RefusedError("of SHOW, only SHOW TABLES can be run here")
        elif isinstance(kind, str) and kind not in QUERY_NODES | TABLE_NODES | MODIFIERS:
            raise RefusedError(
                f"{kind} is not allowed: queries only read here; use SELECT, with joins and set operations"
            )
        if kind == "RECURSIVE_CTE_NODE":
            scope = scope | {_cte_name(node["cte_name"])}
        if "cte_map" in node:
            scope = self._common_tables(node["cte_map"]["map"], scope)
        self._stack += [(value, scope) for key, value in node.items() if key != "cte_map"]

    def _common_tables(self, entries: list[dict[str, Any]], scope: frozenset[str]) -> frozenset[str]:
        """Each sees those before it, and the query sees all."""
        for entry in entries:
            self._stack.append((entry["value"], scope))
            scope = scope | {_cte_name(entry["key"])}
        return scope

    def _expression(self, node: dict[str, Any]) -> None:
        kind = node["class"]
        if kind in ("FUNCTION", "WINDOW"):
            name = node["function_name"].lower()
            _check_unqualified(node, name, ("", "main"))
            if name not in FUNCTIONS:
                raise RefusedError(
                    f"the function {name} is not allowed: it does more than compute, or is not known"
                )
        elif kind not in EXPRESSIONS:
            raise RefusedError(f"{kind} is not allowed in an expression")

    def _base_table(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        name = node["table_name"].lower()
        _check_unqualified(node, name, ("",))
        if name in scope:
            return
        if name not in TABLES:
            raise RefusedError(
                f"there is no table {node['table_name']}: the tables are {', '.join(sorted(TABLES))}"
            )
        self._names.add(name)

    def _table_function(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        function = node["function"]
        name = function.get("function_name", "").lower()
        _check_unqualified(function, name, ("",))
        if function.get("class") != "FUNCTION" or name not in TABLE_FUNCTIONS:
            raise RefusedError(
                f"the table function {name} is not allowed: use one of {', '.join(sorted(TABLE_FUNCTIONS))}"
            )
        self._names.add(name)
        for part in (function, node):
            self._stack += [(value, scope) for key, value in part.items() if key != "function"]


def _cte_name(name: str) -> str:
    if not _CTE_NAME.fullmatch(name):
        raise RefusedError(
            f"{name!r} is no name for a common table expression here: use letters, digits and _"
        )
    return name.lower()


def _check_unqualified(node: dict[str, Any], name: str, schemas: tuple[str, ...]) -> None:
    """DuckDB writes a qualified name twice: in fields, and as a path."""
    catalog = node.get("catalog_name", "") or node.get("catalog", "")
    schema = node.get("schema_name", "") or node.get("schema", "")
    path = node.get("qualified_name", {}).get("path", [])
    if catalog or schema not in schemas or len(path) > 1 + bool(schema) or node.get("at_clause"):
        raise RefusedError(f"name {name} alone, without a catalog or schema or version")
