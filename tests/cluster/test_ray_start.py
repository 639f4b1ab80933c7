"""The Ray that is started for a cluster. One that does not come up in time is ended, and started again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from etcray import Cluster, ray_runtime
from etcray.errors import RayError
from etcray.ray_runtime import RaySession


class SlowRay:
    """Stands for Ray's own start: leaves a process behind and fails, so many times."""

    def __init__(self, failures: int, text: str) -> None:
        self.failures = failures
        self.text = text
        self.left: list[subprocess.Popen[bytes]] = []
        self.directories: list[Path] = []

    def start(self, directory: Path, dashboard: bool) -> RaySession:
        self.directories.append(directory)
        if len(self.directories) > self.failures:
            return RaySession(address="here", is_own=True, directory=str(directory))
        command = [sys.executable, "-c", "import time; time.sleep(600)", str(directory)]
        self.left.append(subprocess.Popen(command))
        raise RayError(f"Ray could not be started on this machine: {self.text}")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ETCRAY_RAY_DIR", str(tmp_path))
    return tmp_path


def test_what_was_too_slow_is_ended_and_started_once_more(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowRay(1, "The current node timed out during startup.")
    monkeypatch.setattr(ray_runtime, "_start_in", slow.start)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        session = ray_runtime.start_own()
        assert session.directory == str(slow.directories[1])
        assert slow.left[0].wait() == -9
        assert other.poll() is None
    assert not slow.directories[0].exists()


@pytest.mark.parametrize(("failures", "text"), [(2, "it timed out during startup"), (1, "no such option")])
def test_the_second_failure_and_any_other_one_are_final(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, failures: int, text: str
) -> None:
    slow = SlowRay(failures, text)
    monkeypatch.setattr(ray_runtime, "_start_in", slow.start)
    with pytest.raises(RayError, match=text):
        ray_runtime.start_own()
    assert [process.wait() for process in slow.left] == [-9] * failures
    assert list(temporary.glob("etcray-ray-*")) == []


def test_an_actor_that_cannot_be_created_says_why() -> None:
    cause = ModuleNotFoundError("No module named 'duckdb'")
    text = f"Traceback:\n  ...\nModuleNotFoundError: {cause}"
    raised: Any = RayTaskError("MemberActor.__init__", text, cause)  # type: ignore[no-untyped-call]
    assert ray_runtime.problem_of(ActorDiedError(raised)) == "ModuleNotFoundError: No module named 'duckdb'"
    assert ray_runtime.problem_of(raised) == "ModuleNotFoundError: No module named 'duckdb'"
    assert ray_runtime.problem_of(ActorDiedError()).startswith("The actor died unexpectedly")
    assert ray_runtime.problem_of(ValueError()) == "ValueError"


@pytest.mark.cluster
@pytest.mark.filterwarnings("default")
def test_members_and_gateways_run_with_the_settings_of_our_own_ray(cluster: Cluster) -> None:
    status = cluster.status()
    actors = (*status.members, *status.gateways)
    assert len(actors) == 4
    for actor in actors:
        process = Path(f"/proc/{actor.process_id}")
        assert "libjemalloc" in (process / "maps").read_text()
        inline = f"RAY_max_direct_call_object_size={ray_runtime.INLINE_BYTES}"
        assert inline.encode() in (process / "environ").read_bytes().split(b"\0")
