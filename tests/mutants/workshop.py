"""A copy of the sources in which mutants are applied, tested and taken away again.

Bytecode is kept between runs, so that not every one of them compiles everything. Python recognises stale
bytecode by the source's size and its time in whole seconds, which is too coarse here: whoever changes a
source here removes its bytecode.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import cache_from_source
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutants.mutant import Mutant, mutated

ROOT: Final = Path(__file__).parents[2]
_COPIED: Final = ("actors", "storage", "benchmarks", "tests", "pyproject.toml")
_TEST_SECONDS_MAX: Final = 180
_RUN_SECONDS_MAX: Final = 900
_SOUND_SECONDS_MAX: Final = 3_600
"""For all tests that are named, one after the other."""

_NOT_A_VERDICT: Final = ("NameError", "ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError")
"""Errors of a mutant that was badly made."""


class Failure(NamedTuple):
    """One test that failed."""

    test: str
    """As in the report: module and name."""
    message: str
    is_verdict: bool
    """It failed by what it demands; not because it could not be set up, or the mutant is no program."""


class Outcome(NamedTuple):
    """What one run of pytest came to."""

    passed: int
    failures: tuple[Failure, ...]
    exit_status: int
    """Pytest's own; -1 if it was ended because it took too long."""
    output: str


class Workshop:
    """One copy. One run at a time; several copies may work side by side. `patience` multiplies every
    limit of time: on a machine that is busy with other things a sound test must not look hang."""

    def __init__(self, directory: Path, patience: float = 1.0) -> None:
        self._patience = patience
        self._root = directory / "sources"
        self._report = directory / "report.xml"
        self._temporary = directory / "tmp"
        self._root.mkdir(parents=True)
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
                shutil.copytree(source, self._root / name, ignore=ignored)
            else:
                shutil.copy2(source, self._root / name)

    @contextmanager
    def applied(self, mutant: Mutant) -> Iterator[None]:
        """Within the block, the copy has the mistake. Raises MisfitError."""
        texts = mutated(self._root, mutant)
        originals = {name: (self._root / name).read_text() for name in texts}
        try:
            for name, text in texts.items():
                self._replace(name, text)
            yield
        finally:
            for name, text in originals.items():
                self._replace(name, text)

    def _replace(self, name: str, text: str) -> None:
        path = self._root / name
        path.write_text(text)
        Path(cache_from_source(str(path))).unlink(missing_ok=True)

    def run_all(self, tests: Sequence[str]) -> Outcome:
        """Run all of many tests, however many fail."""
        return self._run(tests, _SOUND_SECONDS_MAX)

    def run(self, tests: Sequence[str]) -> Outcome:
        """Run these tests on the copy as it is now, up to the first that fails."""
        return self._run(tests, _RUN_SECONDS_MAX, "-x")

    def _run(self, tests: Sequence[str], seconds_max: float, *options: str) -> Outcome:
        self._report.unlink(missing_ok=True)
        arguments = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"),
            *("--hypothesis-seed=0", f"--timeout={_TEST_SECONDS_MAX * self._patience}"),
            f"--junitxml={self._report}",
            *(f"--basetemp={self._temporary}", *options, *tests),
        ]
        python_path = os.pathsep.join(
            str(self._root / name) for name in ("actors", "storage", "benchmarks", ".")
        )
        try:
            done = subprocess.run(
                arguments,
                cwd=self._root,
                env={**os.environ, "PYTHONPATH": python_path},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds_max * self._patience,
                check=False,
            )
            status, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as e:
            status, output = -1, str(e)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)
        passed, failures = self._read_report()
        return Outcome(passed, failures, status, output)

    def _read_report(self) -> tuple[int, tuple[Failure, ...]]:
        if not self._report.exists():
            return 0, ()
        cases = list(ElementTree.parse(self._report).iter("testcase"))
        failures = []
        for case in cases:
            for kind in ("failure", "error"):
                for found in case.iter(kind):
                    message = found.get("message", "")
                    is_verdict = kind == "failure" and not message.startswith(_NOT_A_VERDICT)
                    name = f"{case.get('classname')}::{case.get('name')}"
                    failures.append(Failure(name, message, is_verdict))
        skipped = sum(case.find("skipped") is not None for case in cases)
        return len(cases) - len(failures) - skipped, tuple(failures)
