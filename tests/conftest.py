"""What holds for every test: nothing is left outside its temporary folders, and who may run beside whom."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Records of running clusters go to a folder of this test run: other runs, and the user's own
    clusters, may have the same names. Set for the session, so that subprocesses inherit it."""
    os.environ["ETCRAY_RUN_DIR"] = str(tmp_path_factory.mktemp("run"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For several processes (`-n 2 --dist loadgroup`). Real clusters take every core there is, and some of
    their tests share one: they are one group, which one process runs from beginning to end. Everything
    else is grouped by file, so that what a file sets up is set up once."""
    for item in items:
        is_cluster = item.get_closest_marker("cluster") is not None or item.path.parent.name == "cluster"
        item.add_marker(pytest.mark.xdist_group("cluster" if is_cluster else str(item.path)))
