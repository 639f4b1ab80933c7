"""`etcray history restore KEY@REVISION`: an old value as a new write.

The write is a transaction that compares the key's newest revision with the one that was looked at, so
that a change in between is never overwritten: the command then says so and has done nothing.
"""

from __future__ import annotations

from typing import Any

from etcray.cli.kv import At
from etcray.cli.output import print_json
from etcray.cli.sql import Asked, ask
from etcray.cli.tables import text_of
from etcray.client import Client, Delete, ModRevision, Put
from etcray.errors import CommandFailedError, OptionsError


def restore(key_at_revision: str, at: At, *, dry_run: bool, delete: bool, as_json: bool) -> None:
    """Raises OptionsError, CommandFailedError if the key changed meanwhile, or EtcrayError."""
    key, revision = parse(key_at_revision)
    with at.client() as client:
        value = _value_at(client, key, revision)
        if value is None and not delete:
            raise CommandFailedError(
                f"{text_of(key)} did not exist at revision {revision}; --delete deletes it again"
            )
        now = client.get(key)
        done = {"key": text_of(key), "from_revision": revision, "deleted": value is None}
        if dry_run:
            _tell({**done, "dry_run": True}, value, as_json, "would be")
            return
        seen = now.mod_revision if now is not None else 0
        operation: Put | Delete = Delete(key) if value is None else Put(key, value)
        result = client.txn().compare(ModRevision(key) == seen).then(operation).commit()
        if not result.succeeded:
            raise CommandFailedError(
                f"{text_of(key)} was changed after revision {seen}, meanwhile: nothing was written. Look at "
                "it with `etcray log`, then try again"
            )
        _tell({**done, "revision": result.revision}, value, as_json, "is")


def parse(text: str) -> tuple[bytes, int]:
    """KEY@REVISION; the key may contain @. Raises OptionsError."""
    key, separator, revision = text.rpartition("@")
    if not separator or not key or not revision.isdecimal() or int(revision) < 1:
        raise OptionsError(f"KEY@REVISION is needed, as /config/size@42, not {text!r}")
    return key.encode(), int(revision)


def _value_at(client: Client, key: bytes, revision: int) -> bytes | None:
    asked = Asked(stale=False, rows_max=1, timeout_seconds=client.timeout)
    rows = ask(client, f"SELECT value FROM kv_at({revision}) WHERE key = ?", [key], asked).fetchall()
    return bytes(rows[0][0]) if rows else None


def _tell(done: dict[str, Any], value: bytes | None, as_json: bool, verb: str) -> None:
    if as_json:
        print_json({**done, "value": None if value is None else text_of(value)})
        return
    what = (
        "deleted"
        if value is None
        else f"what it was at revision {done['from_revision']}: {text_of(value)[:200]}"
    )
    print(f"{done['key']} {verb} {what}")
