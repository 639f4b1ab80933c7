"""etcdctl commands that go on until they are interrupted: `watch`, `lock`, `elect`, `make-mirror`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.etcd_tools import ETCDCTL_SECONDS_MAX, Etcdctl

WAITS_MAX = 2000
"""Looks, 0.02 s apart, before a wait is given up: far more than anything here takes."""


def until(condition: Callable[[], bool], told: Callable[[], str]) -> None:
    """Wait for what other processes do; if it never happens, say what was there instead."""
    for _ in range(WAITS_MAX):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"it never happened; there is only {told()}")


@dataclass(frozen=True)
class Background:
    """A command that runs beside the test."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    def output(self) -> str:
        return self.stdout.read_text()

    def lines(self) -> list[str]:
        return self.output().splitlines()

    def complaints(self) -> str:
        return self.stderr.read_text()

    def shows(self, expected: str) -> None:
        """Wait until exactly this has been printed."""
        self.wait_for(lambda output: output == expected)

    def wait_for(self, accepts: Callable[[str], bool]) -> None:
        until(
            lambda: accepts(self.output()), lambda: f"{self.output()!r} and on stderr {self.complaints()!r}"
        )

    def say(self, line: str) -> None:
        """One line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """What Ctrl-C does; returns when the command has ended."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(ETCDCTL_SECONDS_MAX)


@contextmanager
def running(ctl: Etcdctl, directory: Path, *arguments: str) -> Iterator[Background]:
    """Start a command. What is left of it at the end is killed."""
    number = len(list(directory.glob("*.stdout")))
    stdout, stderr = directory / f"{number}.stdout", directory / f"{number}.stderr"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    with stdout.open("wb") as out, stderr.open("wb") as error:
        process = subprocess.Popen(
            [str(ctl.program), f"--endpoints={ctl.endpoint}", *arguments],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=error,
            env={**clean, "ETCDCTL_API": "3"},
        )
    try:
        yield Background(process, stdout, stderr)
    finally:
        process.kill()
        process.communicate()
