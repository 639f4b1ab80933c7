"""What a crash between two steps leaves: a directory, copied before each step that touches the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Images:
    """Copies, in order. A subclass names the steps of what it watches in `before_all`."""

    def __init__(self, directory: Path, into: Path) -> None:
        self._directory = directory
        self._into = into
        self.taken: list[Path] = []

    def take(self) -> None:
        image = self._into / f"{len(self.taken):03}"
        shutil.copytree(self._directory, image)
        self.taken.append(image)

    def before(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Take one before each call of this function."""
        wrapped: Callable[..., Any] = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            self.take()
            return wrapped(*args, **kwargs)

        monkeypatch.setattr(owner, name, step)
