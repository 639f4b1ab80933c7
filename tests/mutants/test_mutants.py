"""The catalogue is in order, and a few of its mutants are caught for real; the rest is a command."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS, ROWS, SIMULATED, table
from tests.mutants.mutant import Edit, MisfitError, Mutant, mutated
from tests.mutants.runner import BROKEN, CAUGHT, SURVIVED, run
from tests.mutants.workshop import ROOT
from tests.simulation.mutants import MUTANTS as PLANTED

SAMPLE = (
    "a vote leaves before it is durable",
    "an entry of an older term is committed by counting",
    "promises leave with their record, not after it",
    "a batch that arrives again is applied again",
    "the errors for compacted and future revisions are swapped",
    "an expiry ends a lease that was granted after it was decided",
    "a poll behind the floor is not told that it missed something",
    "a member is replaced although the rest has no majority",
)
"""One of each area, all of them fast."""

_TEST = "tests/raft/test_properties.py::test_two_majorities_share_a_voter"
_QUORUM = "actors/etcray/raft/quorum.py"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fits_the_sources(mutant: Mutant) -> None:
    texts = mutated(ROOT, mutant)
    assert all(text != (ROOT / name).read_text() for name, text in texts.items())
    assert all(name.startswith(("actors/etcray/", "storage/etcray_storage/")) for name in texts)


def test_no_two_mutants_are_the_same() -> None:
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
    assert max(Counter(mutant.edits for mutant in MUTANTS).values()) == 1


def test_every_row_is_explained_and_used() -> None:
    used = {row for mutant in MUTANTS for row in mutant.row.split(",")} | set(SIMULATED.values())
    assert used == ROWS.keys()


def test_the_simulations_own_mistakes_are_in_the_table() -> None:
    assert PLANTED.keys() == SIMULATED.keys()
    assert all(f"| {name} |" in table() for name in PLANTED)


def test_the_readme_of_the_tests_has_this_table() -> None:
    readme = (ROOT / "tests" / "README.md").read_text()
    assert table() in readme, "put what `python -m tests.mutants --list` prints into tests/README.md"


def test_every_test_that_is_named_exists() -> None:
    named = {test for mutant in MUTANTS for test in mutant.caught_by}
    files = sorted({test.partition("::")[0] for test in named})
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    known = {line.strip() for line in collected}
    known |= {line.partition("[")[0] for line in known}
    known |= {line.partition("::")[0] for line in known}
    assert not named - known


def test_a_sample_of_the_mutants_is_caught() -> None:
    sample = [mutant for mutant in MUTANTS if mutant.name in SAMPLE]
    assert len(sample) == len(SAMPLE)
    results = run(sample, jobs=2, tell=lambda _: None)
    assert {result.name: result.verdict for result in results} == dict.fromkeys(SAMPLE, CAUGHT)


def test_what_changes_nothing_survives_and_what_is_no_program_is_broken() -> None:
    harmless = Edit(_QUORUM, "    return voters // 2 + 1\n", "    return 1 + voters // 2\n")
    nameless = Edit(_QUORUM, "    return voters // 2 + 1\n", "    return undefined\n")
    misfit = Edit(_QUORUM, "no such text", "")
    mutants = [
        Mutant(name, "R2", (edit,), (_TEST,))
        for name, edit in (("harmless", harmless), ("nameless", nameless), ("misfit", misfit))
    ]
    results = run(mutants, jobs=1, tell=lambda _: None)
    verdicts = {result.name: result.verdict for result in results}
    assert verdicts == {"harmless": SURVIVED, "nameless": BROKEN, "misfit": BROKEN}


def test_text_that_is_there_twice_is_a_misfit(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\na = 1\n")
    mutant = Mutant("twice", "R2", (Edit("file.py", "a = 1", "a = 2"),), ())
    with pytest.raises(MisfitError, match="found 2 times"):
        mutated(tmp_path, mutant)
