"""lock and elect: held while a command runs, or until Ctrl-C. They queue with etcdctl's."""

from __future__ import annotations

import os
import subprocess
from typing import Final

import typer

from etcray.cli.interrupts import until_interrupted
from etcray.cli.kv import At
from etcray.cli.output import bytes_json, pair_json, pair_lines, print_json, print_lines
from etcray.client import Client, KeyValue
from etcray.client.blocking_lock import Lock
from etcray.errors import OptionsError

POLL_SECONDS: Final = 0.1
KILL_SECONDS: Final = 5.0
"""A command that is told to end has so long before it is killed."""

ELECT_TTL_SECONDS: Final = 10


def lock(name: str, ttl: int, command: list[str], at: At, *, as_json: bool) -> None:
    """Ends with the command's exit code. Raises LockLostError; a running command is stopped then."""
    code = 0
    with until_interrupted(), at.client() as client, client.lock(os.fsencode(name), ttl=ttl) as held:
        if command:
            code = _run_command(command, held)
        else:
            if as_json:
                shown = {"fencing_token": held.fencing_token, "revision": held.revision}
                print_json({**bytes_json("key", held.key), **shown})
            else:
                print_lines([held.key, b""])
            held.lost.wait()
    if code:
        raise typer.Exit(code)


def _run_command(command: list[str], held: Lock) -> int:
    environment = {
        **os.environ,
        "ETCD_LOCK_KEY": os.fsdecode(held.key),
        "ETCD_LOCK_REV": str(held.revision),
    }
    try:
        child = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise OptionsError(f"{command[0]}: {error.strerror}") from error
    try:
        while not held.lost.is_set():
            try:
                code = child.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return code if code >= 0 else 128 - code
        return 0
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """It must not go on without the lock."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def elect(name: str, proposal: str | None, listen: bool, at: At, *, as_json: bool) -> None:
    """Raises LeaseLostError if the leadership is lost."""
    if listen and proposal is not None:
        raise OptionsError("--listen only listens: leave PROPOSAL out")
    if not listen and proposal is None:
        raise OptionsError("elect needs a PROPOSAL, or --listen")
    with until_interrupted(), at.client() as client:
        if proposal is None:
            _listen(client, name, as_json)
        else:
            _lead(client, name, proposal, as_json)


def _listen(client: Client, name: str, as_json: bool) -> None:
    for leader in client.election(os.fsencode(name)).observe():
        _show(leader, as_json)


def _lead(client: Client, name: str, proposal: str, as_json: bool) -> None:
    with client.election(os.fsencode(name), ttl=ELECT_TTL_SECONDS) as election:
        election.campaign(os.fsencode(proposal))
        leader = client.get(election.key)
        if leader is not None:
            _show(leader, as_json)
            election.lost.wait()


def _show(leader: KeyValue, as_json: bool) -> None:
    print_json(pair_json(leader)) if as_json else print_lines(pair_lines(leader))
