"""A process that is told what to do: one line of JSON on its standard input, one on its standard output.

Both ends are here. `HostedProcess` is the end of whoever asks, `answer_lines` is the end of the process. That
one ends with its input: nobody can forget to stop it, however its parent ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from etcray_bench.systems.system import SystemFailedError


class HostedProcess:
    """`python -m MODULE ARGUMENTS`, in a session of its own: Ctrl-C is for the parent, which then tells it.

    What it says on its standard error goes to the log. It runs in the directory, or in its parent's."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path,
        directory: Path | None = None,
    ) -> None:
        self._log_path = log_path
        self._talking = threading.Lock()
        with log_path.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **environment},
                cwd=directory,
                start_new_session=True,
            )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Raises SystemFailedError with its reason, or when it has ended."""
        with self._talking:
            assert self.process.stdin is not None
            try:
                self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
                self.process.stdin.flush()
            except OSError as error:
                raise self._ended() from error
            return self.hear()

    def hear(self) -> dict[str, Any]:
        """What it says next. Raises SystemFailedError as `ask` does."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._ended()
        heard: dict[str, Any] = json.loads(line)
        if "error" in heard:
            raise SystemFailedError(heard["error"])
        return heard

    def _ended(self) -> SystemFailedError:
        lines = [line for line in self._log_path.read_text(errors="replace").splitlines() if line.strip()]
        last_words = lines[-1] if lines else "it said nothing"
        return SystemFailedError(f"the cluster's process has ended: {last_words} (see {self._log_path})")

    def end_input(self, seconds_max: float) -> bool:
        """Let it end by itself. False if it takes longer."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """When it has ended, or was killed."""
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was not said yet has nobody to hear it
                pipe.close()


def own_stdout() -> TextIO:
    """The standard output for the answers alone: whatever else is printed goes where errors go."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def say(answers: TextIO, thing: Mapping[str, Any]) -> None:
    answers.write(json.dumps(thing) + "\n")
    answers.flush()


def answer_lines(answers: TextIO, answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Until the input ends. What `answer` raises is an answer, too."""
    for line in sys.stdin:
        try:
            say(answers, answer(json.loads(line)))
        except Exception as error:
            say_error(answers, error)


def say_error(answers: TextIO, error: Exception) -> None:
    say(answers, {"error": f"{type(error).__name__}: {error}"})
