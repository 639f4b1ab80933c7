"""What a figure depends on besides the code: the machine, and the versions of everything."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

from etcray_bench.results.records import Environment

PACKAGES: Final = ("etcray", "ray", "duckdb", "uvloop", "httpunk", "grpcio")


def describe_environment(*, etcd: Path | None = None, ray_nodes: int = 1) -> Environment:
    """As it is now. `etcd` is the program that is compared with, if there is one."""
    versions = {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}}
    if etcd is not None:
        versions["etcd"] = etcd_version(etcd)
    return Environment(
        commit=commit_of(Path(__file__).parent) or versions["etcray"],
        cpu_model=cpu_model(),
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        load_average=load_average(),
        versions=versions,
        ray_nodes=ray_nodes,
    )


def load_average() -> float:
    """How many processes wanted to run, on the average of the last minute."""
    return os.getloadavg()[0]


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def etcd_version(binary: Path) -> str:
    """The number alone. Raises OSError if the program cannot be run."""
    shown = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return shown.splitlines()[0].rpartition(":")[2].strip()


def commit_of(directory: Path) -> str:
    """Of the checkout that holds this directory; empty if it is in none."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        # An ignored directory, such as an installed package within somebody's checkout, is not of that.
        if not commit or git("check-ignore", str(directory)):
            return ""
        return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except OSError:
        return ""


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()
