"""watch: one watch from the command line, or many that are asked for on standard input."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any, Final, NamedTuple

from etcray.cli.interrupts import until_interrupted
from etcray.cli.kv import At, Parameters, key_of, range_end_of
from etcray.cli.output import pair_json, pair_lines, print_json, print_lines
from etcray.cli.txn_grammar import split_operation
from etcray.client import (
    Client,
    EtcrayError,
    Watch,
    WatchBatch,
    WatchCancelledError,
    WatchEvent,
    WatchOptions,
)
from etcray.errors import CommandFailedError, OptionsError

_GO_ESCAPES: Final = {
    **{ord(char): f"\\{name}" for char, name in zip("\a\b\f\n\r\t\v", "abfnrtv", strict=True)},
    ord("\\"): "\\\\",
    ord('"'): '\\"',
}


class WatchArguments(NamedTuple):
    key: bytes
    range_end: bytes | None
    options: WatchOptions
    command: list[str]
    """Run for each event; empty for none."""


def arguments_from(parameters: Parameters) -> WatchArguments:
    """Raises OptionsError."""
    if parameters["key"] is None:
        raise OptionsError("watch needs a KEY, or --interactive")
    options = WatchOptions(
        prefix=parameters["prefix"],
        from_key=parameters["from_key"],
        start_revision=parameters["rev"],
        prev_kv=parameters["prev_kv"],
        progress_notify=parameters["progress_notify"],
    )
    command = parameters["command"]
    return WatchArguments(key_of(parameters), range_end_of(parameters), options, list(command or ()))


def watch(arguments: WatchArguments, at: At, *, as_json: bool) -> None:
    """Until it is interrupted. Raises the error that ended the watch."""
    with until_interrupted(), at.client() as client, _open(client, arguments) as opened:
        _follow(opened, arguments, as_json)


def interactive(at: At, *, as_json: bool) -> None:
    """Reads `watch` and `progress` from standard input until it ends. What is wrong with a line, or
    ends one watch, is said on standard error and ends nothing else."""
    with until_interrupted(), at.client() as client:
        for line in sys.stdin:
            try:
                _obey(client, line.strip(), as_json)
            except (OptionsError, EtcrayError) as error:
                print(f"Error: {error}", file=sys.stderr)


def _obey(client: Client, line: str, as_json: bool) -> None:
    from typer.exceptions import TyperException
    from typer.main import get_group

    from etcray.cli.main import app

    if not line:
        return
    try:
        verb, *words = split_operation(line)
    except ValueError as error:
        raise OptionsError(f"{line!r}: {error}") from error
    if verb == "progress":
        client.request_progress()
        return
    if verb != "watch":
        raise OptionsError(f"{line!r}: say watch or progress")
    try:
        parameters = get_group(app).commands["watch"].make_context("watch", words).params
    except TyperException as error:
        raise OptionsError(f"{line!r}: {error}") from error
    arguments = arguments_from(parameters)
    opened = _open(client, arguments)
    follower = threading.Thread(target=_follow_aside, args=(opened, arguments, as_json), daemon=True)
    follower.start()


def _open(client: Client, arguments: WatchArguments) -> Watch:
    return client.watch(arguments.key, arguments.range_end, **arguments.options)


def _follow_aside(opened: Watch, arguments: WatchArguments, as_json: bool) -> None:
    try:
        _follow(opened, arguments, as_json)
    except WatchCancelledError:
        return
    except (OptionsError, EtcrayError) as error:
        print(f"Error: {error}", file=sys.stderr)


def _follow(opened: Watch, arguments: WatchArguments, as_json: bool) -> None:
    while True:
        batch = opened.next_batch()
        assert batch is not None, "a wait without a limit came back empty"
        if as_json:
            events = [event_json(event) for event in batch.events]
            print_json({"revision": batch.header_revision, "events": events})
        elif batch.events:
            print_lines([line for event in batch.events for line in event_lines(event)])
        else:
            print_lines([b"progress notify: %d" % batch.revision])
        for event in batch.events if arguments.command else ():
            _run_command(arguments.command, event, batch)


def _run_command(command: list[str], event: WatchEvent, batch: WatchBatch) -> None:
    """With what etcdctl tells its commands, quoted as it does. Raises OptionsError if that fails."""
    environment = {
        **os.environ,
        "ETCD_WATCH_REVISION": str(batch.header_revision),
        "ETCD_WATCH_EVENT_TYPE": f'"{_type_of(event)}"',
        "ETCD_WATCH_KEY": go_quoted(event.key),
        "ETCD_WATCH_VALUE": go_quoted(event.value),
    }
    try:
        code = subprocess.run(command, env=environment, check=False).returncode
    except OSError as error:
        raise OptionsError(f"{command[0]}: {error.strerror}") from error
    if code != 0:
        raise CommandFailedError(f"the command {' '.join(command)!r} ended with exit code {code}")


def _type_of(event: WatchEvent) -> str:
    return "DELETE" if event.is_delete else "PUT"


def event_lines(event: WatchEvent) -> list[bytes]:
    """As etcdctl prints it: the type, the pair before if it was asked for, the pair."""
    before = pair_lines(event.prev_kv) if event.prev_kv else []
    return [_type_of(event).encode(), *before, *pair_lines(event.kv)]


def event_json(event: WatchEvent) -> dict[str, Any]:
    previous = pair_json(event.prev_kv) if event.prev_kv else None
    return {"type": _type_of(event), "kv": pair_json(event.kv), "prev_kv": previous}


def go_quoted(data: bytes) -> str:
    """A string as Go's %q writes it: what cannot be printed as an escape, bytes that are no text too."""
    parts = []
    for char in data.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if code in _GO_ESCAPES:
            parts.append(_GO_ESCAPES[code])
        elif 0xDC80 <= code <= 0xDCFF:
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif char.isprintable():
            parts.append(char)
        elif code < 0x80:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(parts)}"'
