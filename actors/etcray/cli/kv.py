"""get, put, del and txn: options to requests, results to output.

The options of one command are read in one place, whether they come from the shell or from a line of a
transaction: `*_from` take what typer parsed, by the parameter names of the commands in `main`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from etcray.cli.output import pair_lines, print_json, print_lines, result_json, result_lines
from etcray.cli.txn_grammar import parse_condition, split_operation
from etcray.client import Client, Delete, Put, Range
from etcray.client.compare import Condition
from etcray.client.requests import DeleteOptions, Operation, PutOptions, RangeOptions, SortTarget
from etcray.errors import OptionsError

Parameters = Mapping[str, Any]

LEASE_MAX: Final = 2**63 - 1

_SORT_TARGETS: Final[dict[str, SortTarget]] = {
    "KEY": "key",
    "VERSION": "version",
    "CREATE": "create",
    "MODIFY": "mod",
    "VALUE": "value",
}


class At:
    """Which cluster a command talks to."""

    def __init__(self, parameters: Parameters) -> None:
        self._endpoints: str = parameters["endpoints"]
        self._timeout: float = parameters["command_timeout"]

    def client(self) -> Client:
        """Raises OptionsError if the endpoints are none."""
        try:
            return Client(self._endpoints, timeout=self._timeout)
        except ValueError as error:
            raise OptionsError(f"--endpoints: {error}") from error


class Shown(NamedTuple):
    """What of the pairs `get` prints."""

    keys_only: bool
    count_only: bool
    values_only: bool
    as_json: bool


class RangeArguments(NamedTuple):
    key: bytes
    range_end: bytes | None
    options: RangeOptions


class PutArguments(NamedTuple):
    key: bytes
    value: bytes
    options: PutOptions


class DeleteArguments(NamedTuple):
    key: bytes
    range_end: bytes | None
    options: DeleteOptions


# --- commands ---------------------------------------------------------------------------------


def get(arguments: RangeArguments, shown: Shown, at: At) -> None:
    with at.client() as client:
        result = client.range(arguments.key, arguments.range_end, **arguments.options)
    if shown.as_json:
        print_json(result_json(result))
    elif shown.count_only:
        print_lines([b"%d" % result.count])
    elif shown.values_only:
        print_lines([pair.value for pair in result.kvs])
    else:
        print_lines([line for pair in result.kvs for line in pair_lines(pair)])


def put(arguments: PutArguments, at: At, *, as_json: bool) -> None:
    with at.client() as client:
        result = client.put(arguments.key, arguments.value, **arguments.options)
    print_json(result_json(result)) if as_json else print_lines(result_lines(result))


def delete(arguments: DeleteArguments, at: At, *, as_json: bool) -> None:
    with at.client() as client:
        result = client.delete(arguments.key, arguments.range_end, **arguments.options)
    print_json(result_json(result)) if as_json else print_lines(result_lines(result))


def txn(interactive: bool, at: At, *, as_json: bool) -> None:
    lines = (line.rstrip("\r\n") for line in sys.stdin)
    prompts = ("compares:", "success requests (get, put, del):", "failure requests (get, put, del):")
    sections: list[list[str]] = []
    for prompt in prompts:
        if interactive:
            print(prompt, file=sys.stderr)
        sections.append(_section(lines))
    conditions = [_condition(line) for line in sections[0]]
    success = [operation_from(line) for line in sections[1]]
    failure = [operation_from(line) for line in sections[2]]
    with at.client() as client:
        result = client.txn().compare(*conditions).then(*success).otherwise(*failure).commit()
    print_json(result_json(result)) if as_json else print_lines(result_lines(result))


# --- options to requests ----------------------------------------------------------------------


def range_from(parameters: Parameters) -> RangeArguments:
    """Raises OptionsError for options that exclude each other."""
    range_end = range_end_of(parameters)
    if parameters["keys_only"] and parameters["count_only"]:
        raise OptionsError("--keys-only and --count-only exclude each other")
    if parameters["print_value_only"] and (parameters["keys_only"] or parameters["count_only"]):
        raise OptionsError("--print-value-only leaves nothing to print with --keys-only or --count-only")
    options = RangeOptions(
        prefix=parameters["prefix"],
        from_key=parameters["from_key"],
        revision=parameters["rev"],
        limit=parameters["limit"],
        keys_only=parameters["keys_only"],
        count_only=parameters["count_only"],
        sort=_SORT_TARGETS[str(parameters["sort_by"])],
        descending=parameters["order"] == "DESCEND",
        serializable=parameters["consistency"] == "s",
    )
    return RangeArguments(key_of(parameters), range_end, options)


def put_from(parameters: Parameters, *, standard_input: bool) -> PutArguments:
    """A missing value is read from standard input, if that may be. Raises OptionsError."""
    lease = lease_id_from(parameters["lease"])
    if lease and parameters["ignore_lease"]:
        raise OptionsError("--lease and --ignore-lease exclude each other")
    text: str | None = parameters["value"]
    if parameters["ignore_value"]:
        if text is not None:
            raise OptionsError("--ignore-value keeps the value: leave VALUE out")
        value = b""
    elif text is not None:
        value = os.fsencode(text)
    elif standard_input:
        value = sys.stdin.buffer.read()
    else:
        raise OptionsError("put needs a KEY and a VALUE")
    options = PutOptions(
        lease=lease,
        prev_kv=parameters["prev_kv"],
        ignore_value=parameters["ignore_value"],
        ignore_lease=parameters["ignore_lease"],
    )
    return PutArguments(key_of(parameters), value, options)


def lease_id_from(text: str) -> int:
    """Raises OptionsError."""
    try:
        lease = int(text, 16)
    except ValueError as error:
        raise OptionsError(f"a lease is a hexadecimal number, not {text!r}") from error
    if not 0 <= lease <= LEASE_MAX:
        raise OptionsError(f"a lease is from 0 to {LEASE_MAX:x}, not {text}")
    return lease


def delete_from(parameters: Parameters) -> DeleteArguments:
    """Raises OptionsError for options that exclude each other."""
    options = DeleteOptions(
        prefix=parameters["prefix"], from_key=parameters["from_key"], prev_kv=parameters["prev_kv"]
    )
    return DeleteArguments(key_of(parameters), range_end_of(parameters), options)


def operation_from(line: str) -> Operation:
    """One line of a transaction. Raises OptionsError."""
    from typer.exceptions import TyperException
    from typer.main import get_group

    from etcray.cli.main import app

    try:
        verb, *words = split_operation(line)
    except ValueError as error:
        raise OptionsError(f"{line!r}: {error}") from error
    if verb not in ("get", "put", "del"):
        raise OptionsError(f"{line!r}: an operation is get, put or del")
    try:
        parameters = get_group(app).commands[verb].make_context(verb, words).params
    except TyperException as error:
        raise OptionsError(f"{line!r}: {error}") from error
    if verb == "put":
        key, value, put_options = put_from(parameters, standard_input=False)
        return Put(key, value, **put_options)
    if verb == "get":
        key, range_end, range_options = range_from(parameters)
        return Range(key, range_end, **range_options)
    key, range_end, delete_options = delete_from(parameters)
    return Delete(key, range_end, **delete_options)


def key_of(parameters: Parameters) -> bytes:
    """Raises OptionsError for an empty key that does not mean all keys."""
    key = os.fsencode(parameters["key"])
    if not key and not (parameters.get("prefix") or parameters.get("from_key")):
        raise OptionsError("an empty KEY means all keys, with --prefix or --from-key")
    return key


def range_end_of(parameters: Parameters) -> bytes | None:
    """Raises OptionsError for two ways to say the end."""
    text: str | None = parameters["range_end"]
    if (text is not None) + parameters["prefix"] + parameters["from_key"] > 1:
        raise OptionsError("RANGE_END, --prefix and --from-key exclude each other")
    return None if text is None else os.fsencode(text)


def _condition(line: str) -> Condition:
    try:
        return parse_condition(line)
    except ValueError as error:
        raise OptionsError(f"{line!r}: {error}") from error


def _section(lines: Iterator[str]) -> list[str]:
    section: list[str] = []
    for line in lines:
        if not line.strip():
            break
        section.append(line)
    return section
