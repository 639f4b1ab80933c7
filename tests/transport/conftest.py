"""A run directory of the test's own: that is where members' sockets are."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCRAY_RUN_DIR", str(tmp_path / "run"))
