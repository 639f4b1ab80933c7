"""`etcray recover`: says what is left and what may be lost, and goes on from it if told to."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from etcray.cli.output import print_json
from etcray.launch import NODES_ALLOWED
from etcray.recovery import Prospect, Recovery
from etcray_storage.recover import Survivor


def recover(data_dir: str, name: str, yes: bool, *, as_json: bool) -> None:
    """Raises ClusterError or DataDirectoryError."""
    directory = Path(data_dir).expanduser().absolute() / name
    recovery = Recovery(directory, name)
    try:
        prospect = recovery.look()
        if yes:
            recovery.carry_out(prospect)
    finally:
        recovery.close()
    if as_json:
        print_json({**_as_json(prospect), "recovered": yes})
        return
    typer.echo("\n".join(_lines(prospect)))
    of_name = "" if name == "default" else f" --name {name}"
    of_directory = "" if data_dir == "./etcray-data" else f" --data-dir {data_dir}"
    if yes:
        typer.echo(
            f"{prospect.chosen.name} is the only member now. Start it with `etcray up{of_name}{of_directory}`"
        )
        voters = len([member for member in prospect.chosen.members if not member.is_learner])
        size = min(count for count in NODES_ALLOWED if count >= min(voters, max(NODES_ALLOWED)))
        typer.echo(f"Then `etcray resize {size}{of_name}` makes the cluster grow again")
    else:
        typer.echo("Nothing was changed. The same command with --yes does it")


def _lines(prospect: Prospect) -> list[str]:
    chosen, loss = prospect.chosen, prospect.loss
    lines = [f"{survivor.name}: {_described(survivor)}" for survivor in prospect.survivors]
    lines += [f"{voter.name or format(voter.id, 'x')}: lost" for voter in loss.lost_voters]
    lines.append(
        f"{chosen.name} knows most: entry {chosen.last_index} of term {chosen.last_term}{_when(chosen)}"
    )
    if loss.unconfirmed:
        lines.append(
            f"Its last {loss.unconfirmed} entries were not known to be committed. They are kept, so writes "
            "that clients saw fail may turn out to be there"
        )
    if loss.is_possible:
        lines.append(
            f"WRITES MAY BE LOST: those after revision {chosen.revision} that the lost members acknowledged "
            f"without {chosen.name}"
        )
    else:
        lines.append("No acknowledged write is lost: every majority had a member in it that is here")
    return lines


def _described(survivor: Survivor) -> str:
    if survivor.problem:
        return f"cannot be used: {survivor.problem}"
    return (
        f"entry {survivor.last_index} of term {survivor.last_term}, revision {survivor.revision}, "
        f"known committed up to {survivor.commit}"
    )


def _when(survivor: Survivor) -> str:
    if not survivor.time_ms:
        return ""
    return time.strftime(", written %Y-%m-%d %H:%M:%S", time.localtime(survivor.time_ms / 1000))


def _as_json(prospect: Prospect) -> dict[str, Any]:
    return {
        "name": prospect.cluster.name,
        "chosen": prospect.chosen.name,
        "may_lose_writes": prospect.loss.is_possible,
        "unconfirmed_entries": prospect.loss.unconfirmed,
        "lost": [{"id": f"{voter.id:x}", "name": voter.name} for voter in prospect.loss.lost_voters],
        "survivors": [
            {
                "id": f"{survivor.member_id:x}",
                "name": survivor.name,
                "directory": str(survivor.path),
                "problem": survivor.problem,
                "last_term": survivor.last_term,
                "last_index": survivor.last_index,
                "commit": survivor.commit,
                "revision": survivor.revision,
                "time_ms": survivor.time_ms,
            }
            for survivor in prospect.survivors
        ],
    }
