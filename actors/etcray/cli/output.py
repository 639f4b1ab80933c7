"""What commands print: bytes as they are, or JSON."""

from __future__ import annotations

import base64
import sys
from typing import Any

import msgspec

from etcray.client.results import (
    DeleteResult,
    KeyValue,
    OperationResult,
    PutResult,
    RangeResult,
    TxnResult,
)


def print_json(content: Any) -> None:
    """One JSON value on one line."""
    sys.stdout.write(msgspec.json.encode(content).decode() + "\n")
    sys.stdout.flush()


def print_lines(lines: list[bytes]) -> None:
    """Each line's bytes unchanged, with a newline after it."""
    sys.stdout.buffer.write(b"".join(line + b"\n" for line in lines))
    sys.stdout.buffer.flush()


def pair_json(pair: KeyValue) -> dict[str, Any]:
    """A pair as JSON; see the package for bytes that are not UTF-8."""
    return {
        **bytes_json("key", pair.key),
        **bytes_json("value", pair.value),
        "create_revision": pair.create_revision,
        "mod_revision": pair.mod_revision,
        "version": pair.version,
        "lease": f"{pair.lease:x}",
    }


def bytes_json(name: str, data: bytes) -> dict[str, str | None]:
    """One key or value as JSON; see the package for bytes that are not UTF-8."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(data).decode()}


def result_json(result: OperationResult) -> dict[str, Any]:
    """Any result as JSON."""
    match result:
        case PutResult():
            previous = pair_json(result.prev_kv) if result.prev_kv else None
            return {"revision": result.revision, "prev_kv": previous}
        case RangeResult():
            pairs = [pair_json(pair) for pair in result.kvs]
            return {"revision": result.revision, "count": result.count, "more": result.more, "kvs": pairs}
        case DeleteResult():
            pairs = [pair_json(pair) for pair in result.prev_kvs]
            return {"revision": result.revision, "deleted": result.deleted, "prev_kvs": pairs}
        case TxnResult():
            responses = [result_json(response) for response in result.responses]
            return {"revision": result.revision, "succeeded": result.succeeded, "responses": responses}


def result_lines(result: OperationResult) -> list[bytes]:
    """Any result as etcdctl prints it."""
    match result:
        case PutResult():
            return [b"OK", *(pair_lines(result.prev_kv) if result.prev_kv else [])]
        case RangeResult():
            return [line for pair in result.kvs for line in pair_lines(pair)]
        case DeleteResult():
            return [b"%d" % result.deleted, *(line for pair in result.prev_kvs for line in pair_lines(pair))]
        case TxnResult():
            lines = [b"SUCCESS" if result.succeeded else b"FAILURE"]
            for response in result.responses:
                lines += [b"", *result_lines(response)]
            return lines


def pair_lines(pair: KeyValue) -> list[bytes]:
    """The key, and the value below it."""
    return [pair.key, pair.value]
