"""How a command finds a running cluster: one small file for each, in a directory of the user's.

The launcher writes it, replaces it when something changes, and removes it when the cluster stops. A
launcher that was killed leaves it behind; such a record is recognised by its dead process.
The directory is `$ETCRAY_RUN_DIR`, else `$XDG_RUNTIME_DIR/etcray`, else `~/.cache/etcray/run`.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from etcray.processes import process_lives


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One running, or starting, cluster."""

    name: str
    data_directory: str
    """The cluster's own: the data directory and the cluster's name."""
    process_id: int
    process_started: float
    """Of the launcher: a process id alone may mean another process by now."""
    is_command: bool
    """The launcher is the `etcray up` command, which stops its cluster on SIGTERM. Otherwise it is
    somebody's program, which nobody but its owner should signal."""
    ray_address: str = ""
    """Empty until Ray runs."""
    ray_directory: str = ""
    """The Ray that the launcher started keeps its files there; empty if it joined a running one."""
    token_path: str = ""
    """Where Ray's authentication token is, if Ray has one of this cluster's own."""
    endpoints: tuple[str, ...] = ()
    """Empty until the cluster serves."""

    @property
    def launcher_lives(self) -> bool:
        """Whether the process that wrote this is still there."""
        return process_lives(self.process_id, self.process_started)


def run_directory() -> Path:
    """Where the records are; created when the first one is written."""
    chosen = os.environ.get("ETCRAY_RUN_DIR")
    if chosen:
        return Path(chosen)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "etcray"
    return Path.home() / ".cache" / "etcray" / "run"


def read(name: str) -> RunRecord | None:
    """The record of cluster `name`, or None. An unreadable record is none."""
    try:
        return msgspec.json.decode((run_directory() / f"{name}.json").read_bytes(), type=RunRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def read_all() -> list[RunRecord]:
    """All records, by name."""
    names = sorted(path.stem for path in run_directory().glob("*.json"))
    return [record for record in map(read, names) if record is not None]


def write(record: RunRecord) -> None:
    """Replace the record of its cluster, atomically."""
    directory = run_directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = directory / f".{record.name}.{os.getpid()}"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2))
    temporary.replace(directory / f"{record.name}.json")


def remove(name: str) -> None:
    """Idempotent."""
    (run_directory() / f"{name}.json").unlink(missing_ok=True)
