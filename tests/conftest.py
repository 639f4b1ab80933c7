"""What holds for every test: nothing is left outside its temporary folders."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Records of running clusters go to a folder of this test run: other runs, and the user's own
    clusters, may have the same names. Set for the session, so that subprocesses inherit it."""
    os.environ["ETCRAY_RUN_DIR"] = str(tmp_path_factory.mktemp("run"))
