"""What a mutant is, and how it is applied to sources."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class MisfitError(Exception):
    """A mutant that does not fit the sources any more: the catalogue is out of date."""


class Edit(NamedTuple):
    """One replacement of text."""

    file: str
    """Relative to the root of the sources."""
    old: str
    """Occurs exactly once in the file."""
    new: str


class Mutant(NamedTuple):
    """One mistake, and who has to notice it."""

    name: str
    """The mistake in a few words."""
    row: str
    """Of the catalogue of failures, see the package's essay; several are separated by a comma."""
    edits: tuple[Edit, ...]
    """More than one where an assertion of the product would notice the mistake before any test."""
    caught_by: tuple[str, ...]
    """Pytest node ids. They pass without the mutant; at least one of them fails with it."""


def mutated(root: Path, mutant: Mutant) -> dict[str, str]:
    """The new text of each file that the mutant changes. Raises MisfitError."""
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        text = texts.get(edit.file) or (root / edit.file).read_text()
        count = text.count(edit.old)
        if count != 1 or edit.old == edit.new:
            raise MisfitError(f"{mutant.name}: found {count} times in {edit.file}, not once: {edit.old!r}")
        texts[edit.file] = text.replace(edit.old, edit.new)
        try:
            compile(texts[edit.file], edit.file, "exec", dont_inherit=True)
        except SyntaxError as e:
            raise MisfitError(f"{mutant.name}: {edit.file} is no Python any more: {e}") from e
    return texts
