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
TEST_SECONDS_MAX: Final = 180.0
"""For one test of which nothing else is known."""
_RUN_SECONDS_MAX: Final = 3_600.0

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
    seconds: dict[str, float]
    """What each test took, by its node id."""


class Workshop:
    """One copy. One run at a time; several copies may work side by side."""

    def __init__(self, directory: Path) -> None:
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

    def run(self, tests: Sequence[str], *options: str, test_seconds: float = TEST_SECONDS_MAX) -> Outcome:
        """Run pytest with these tests on the copy as it is now; each has so long."""
        self._report.unlink(missing_ok=True)
        arguments = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"),
            *("--hypothesis-seed=0", f"--timeout={test_seconds}"),
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
                timeout=_RUN_SECONDS_MAX,
                check=False,
            )
            status, output = done.returncode, done.stdout
        except subprocess.TimeoutExpired as e:
            status, output = -1, str(e)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)
        cases = list(ElementTree.parse(self._report).iter("testcase")) if self._report.exists() else []
        failures = tuple(failure for case in cases for failure in _failures(case))
        skipped = sum(case.find("skipped") is not None for case in cases)
        seconds = {_node_id(case): float(case.get("time", 0)) for case in cases}
        return Outcome(len(cases) - len(failures) - skipped, failures, status, output, seconds)


def _failures(case: ElementTree.Element) -> Iterator[Failure]:
    for kind in ("failure", "error"):
        for found in case.iter(kind):
            message = found.get("message", "")
            is_verdict = kind == "failure" and not message.startswith(_NOT_A_VERDICT)
            yield Failure(f"{case.get('classname')}::{case.get('name')}", message, is_verdict)


def _node_id(case: ElementTree.Element) -> str:
    return f"{(case.get('classname') or '').replace('.', '/')}.py::{case.get('name')}"
