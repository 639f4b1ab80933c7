"""A cluster of real members loses its majority, and one of them goes on alone, and grows again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from etcray import state_file
from etcray.errors import ClusterRunningError, OptionsError
from etcray.recovery import Recovery
from etcray.spec import ClusterSpec
from etcray_storage import data_directory, recover
from etcray_storage.errors import DataDirectoryError, DataDirectoryInUseError
from etcray_storage.types import MemberId
from tests.node.local_cluster import LocalCluster

SESSION = 0xA11


def stopped_cluster(tmp_path: Path, nodes: int = 3) -> ClusterSpec:
    """All members had everything; then the first one went on with one other, and stopped last."""
    directory = tmp_path / "test"
    directory.mkdir()
    with LocalCluster(directory, nodes) as cluster:
        cluster.open_session(SESSION)
        cluster.put(SESSION, 1, b"early", b"1")
        cluster.wait_until_equal()
        cluster.stop(cluster.spec.members[-1].id)
        cluster.put(SESSION, 2, b"late", b"2")
        cluster.wait_until_equal()
        spec = msgspec.structs.replace(cluster.spec, formed=True)
    state_file.save(directory, spec)
    return spec


def lose(tmp_path: Path, *names: str) -> None:
    for name in names:
        (tmp_path / "test" / name).rename(tmp_path / f"lost-{name}")


def carry_out(tmp_path: Path) -> ClusterSpec:
    recovery = Recovery(tmp_path / "test", "test")
    try:
        return recovery.carry_out(recovery.look())
    finally:
        recovery.close()


def start(tmp_path: Path, spec: ClusterSpec) -> LocalCluster:
    return LocalCluster(tmp_path / "test", spec=spec)


def test_the_longest_log_is_chosen_and_the_possible_loss_is_said(tmp_path: Path) -> None:
    stopped_cluster(tmp_path)
    lose(tmp_path, "m1")
    recovery = Recovery(tmp_path / "test", "test")
    prospect = recovery.look()
    recovery.close()
    assert [survivor.name for survivor in prospect.survivors] == ["m2", "m3"]
    assert prospect.chosen.name == "m2"
    assert not prospect.loss.is_possible
    assert [voter.name for voter in prospect.loss.lost_voters] == ["m1"]
    lose(tmp_path, "m2")
    recovery = Recovery(tmp_path / "test", "test")
    prospect = recovery.look()
    recovery.close()
    assert prospect.chosen.name == "m3"
    assert prospect.loss.is_possible
    assert prospect.chosen.revision == 2


def test_the_survivor_goes_on_alone_and_grows(tmp_path: Path) -> None:
    old = stopped_cluster(tmp_path)
    lose(tmp_path, "m2", "m3")
    spec = carry_out(tmp_path)
    assert state_file.load(tmp_path / "test", "test") == spec
    assert spec.cluster_id != old.cluster_id
    with start(tmp_path, spec) as cluster:
        assert cluster.leader().spec.name == "m1"
        assert cluster.get(b"late") == b"2"
        cluster.put(SESSION, 3, b"after", b"3")
        cluster.grow("m4")
        cluster.grow("m5")
        cluster.wait_until_equal()
        status = cluster.leader().status()
        assert len(status.membership.voters) == 3
        assert {member.id for member in old.members[1:]} <= set(status.removed_ids)


def test_members_that_were_left_out_are_set_aside_and_not_heard(tmp_path: Path) -> None:
    stopped_cluster(tmp_path)
    lose(tmp_path, "m1")
    spec = carry_out(tmp_path)
    assert not (tmp_path / "test" / "m3").exists()
    (tmp_path / "test" / "m3.removed-1").rename(tmp_path / "test" / "m3")
    with pytest.raises(DataDirectoryError, match="belongs to cluster"):
        data_directory.DataDirectory.open(
            tmp_path / "test" / "m3", spec.cluster_id, MemberId(spec.members[0].id), "test", "m3"
        )


@pytest.mark.parametrize("crash_at", ["make_sole_member", "move_to_cluster"])
def test_a_recovery_that_was_cut_short_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: str
) -> None:
    stopped_cluster(tmp_path)
    lose(tmp_path, "m2", "m3")
    owner = recover if crash_at == "make_sole_member" else data_directory.DataDirectory

    def crash(*_: object) -> None:
        raise SystemExit(crash_at)

    with monkeypatch.context() as patched:
        patched.setattr(owner, crash_at, crash)
        with pytest.raises(SystemExit):
            carry_out(tmp_path)
    half_done = state_file.load(tmp_path / "test", "test")
    assert half_done is not None
    with pytest.raises(DataDirectoryError, match="belongs to cluster"):
        start(tmp_path, half_done)
    spec = carry_out(tmp_path)
    assert spec == half_done
    with start(tmp_path, spec) as cluster:
        assert cluster.get(b"late") == b"2"


def test_a_second_recovery_prefers_the_epoch_that_went_on(tmp_path: Path) -> None:
    stopped_cluster(tmp_path)
    lose(tmp_path, "m1", "m2")
    spec = carry_out(tmp_path)
    assert spec.members[0].name == "m3"
    (tmp_path / "lost-m1").rename(tmp_path / "test" / "m1")
    recovery = Recovery(tmp_path / "test", "test")
    prospect = recovery.look()
    recovery.close()
    assert {survivor.name: survivor.epoch for survivor in prospect.survivors} == {"m1": 0, "m3": 1}
    assert prospect.chosen.name == "m3"


def test_nothing_is_recovered_while_a_member_runs(tmp_path: Path) -> None:
    spec = stopped_cluster(tmp_path)
    with start(tmp_path, spec):
        recovery = Recovery(tmp_path / "test", "test")
        with pytest.raises(DataDirectoryInUseError):
            recovery.look()
        recovery.close()


def test_nothing_is_recovered_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="no cluster"):
        Recovery(tmp_path / "test", "test")
    stopped_cluster(tmp_path)
    lose(tmp_path, "m1", "m2", "m3")
    recovery = Recovery(tmp_path / "test", "test")
    with pytest.raises(ClusterRunningError):
        Recovery(tmp_path / "test", "test")
    with pytest.raises(DataDirectoryError, match="none is there"):
        recovery.look()
    recovery.close()


def test_a_damaged_member_is_left_out_and_said(tmp_path: Path) -> None:
    stopped_cluster(tmp_path)
    identity = tmp_path / "test" / "m1" / "identity.json"
    identity.write_text(json.dumps({"format": 1}))
    recovery = Recovery(tmp_path / "test", "test")
    prospect = recovery.look()
    recovery.close()
    damaged = next(survivor for survivor in prospect.survivors if survivor.name == "m1")
    assert "damaged" in damaged.problem
    assert prospect.chosen.name == "m2"
