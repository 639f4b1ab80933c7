"""What holds for every test: nothing is left outside its temporary folders, and who may run beside whom."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# A shell that starts something in the background has it ignore Ctrl-C, and what it starts inherits that: the
# programs whose end by Ctrl-C is tested would not end.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def run_directory() -> Iterator[None]:
    """Records of running clusters go to a folder of this test run: other runs, and the user's own
    clusters, may have the same names. Set for the session, so that subprocesses inherit it.

    Not in pytest's own: members have their sockets there, whose paths may have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="etcray-run-", ignore_cleanup_errors=True) as directory:
        os.environ["ETCRAY_RUN_DIR"] = directory
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For several processes (`-n 2`). Real clusters take every core there is, and some of their tests share
    one: the files with such tests are one group, which one process runs from beginning to end. Every other
    file goes to one process, so that what it sets up is set up once."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ClustersTogether(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "clusters" if _starts_clusters(config.rootpath / file) else file

    return ClustersTogether(config, log)


@cache
def _starts_clusters(file: Path) -> bool:
    return file.parent.name == "cluster" or "pytest.mark.cluster" in file.read_text()
