"""Members of a real cluster come and go: by one step of ours, by etcdctl, and by themselves when one is lost.

The tests share one cluster, and each leaves it whole: three voters, all serving."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcray import Cluster
from etcray.cluster import Teller
from etcray.errors import MembershipError
from etcray.status import ClusterStatus, MemberReport
from tests.cluster.writers import Writers, kill, leader_of, wait_for
from tests.etcd_tools import Etcdctl, distributions

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("changing")
    with Cluster.launch(nodes=3, name="changing", data_dir=str(directory), listen="127.0.0.1:0") as launched:
        yield launched


@pytest.fixture
def whole(changing: Cluster) -> Iterator[Cluster]:
    wait_until_whole(changing)
    yield changing
    wait_until_whole(changing)


@pytest.fixture
def ctl(changing: Cluster) -> Etcdctl:
    found = next(one for one in distributions() if one.etcdctl is not None)
    assert found.etcdctl is not None
    return Etcdctl(found.etcdctl, found.version, changing.endpoints[0])


def is_whole(status: ClusterStatus, voters: int = 3) -> bool:
    members = status.members
    return (
        status.ready
        and len(members) == voters
        and all(member.phase == "serving" and member.client_urls for member in members)
        and not any(member.learner or "?" in member.peer_urls[0] for member in members)
    )


def wait_until_whole(cluster: Cluster) -> None:
    wait_for(lambda: is_whole(cluster.status()), "three voters that serve")


def follower_of(cluster: Cluster) -> MemberReport:
    leader = leader_of(cluster)
    return next(member for member in cluster.status().members if member.id != leader.id)


def listed(ctl: Etcdctl) -> dict[str, list[str]]:
    """The members by id, as etcdctl prints them."""
    lines = [line.split(", ") for line in ctl.ok("member", "list").splitlines()]
    return {line[0]: line[1:] for line in lines}


def check_revisions(cluster: Cluster) -> None:
    """All members end with the same."""
    wait_for(lambda: len({m.revision for m in cluster.status().members}) == 1, "equal members")


# --- what clients see -------------------------------------------------------------------------


def test_members_are_listed_as_started_with_where_they_serve(whole: Cluster, ctl: Etcdctl) -> None:
    members = listed(ctl)
    urls = ",".join(f"http://{endpoint}" for endpoint in whole.endpoints)
    for member in whole.status().members:
        expected = ["started", member.name, f"ray://changing/{member.name}", urls]
        assert members[f"{member.id:x}"][:4] == expected
    assert "is leader" not in ctl.ok("endpoint", "status", "--cluster")
    assert ctl.ok("endpoint", "health", "--cluster").count("is healthy") >= 1


# --- by etcdctl alone -------------------------------------------------------------------------


def test_a_member_that_etcdctl_adds_is_started_by_itself(whole: Cluster, ctl: Etcdctl) -> None:
    before = set(listed(ctl))
    ctl.ok("member", "add", "guest", "--peer-urls=http://guest:2380")
    (added,) = set(listed(ctl)) - before
    wait_for(lambda: listed(ctl)[added][0] == "started", "the new member")
    wait_for(lambda: is_whole(whole.status(), 4), "four voters")
    name = listed(ctl)[added][1]
    directory = next(Path(m.data_directory) for m in whole.status().members if m.name == name)
    assert directory.is_dir()
    ctl.ok("member", "remove", added)
    wait_until_whole(whole)
    assert added not in listed(ctl)
    wait_for(lambda: not directory.exists(), "its directory to be set aside")
    assert list(directory.parent.glob(f"{name}.removed-*"))


def test_a_learner_that_etcdctl_adds_can_be_promoted(whole: Cluster, ctl: Etcdctl) -> None:
    before = set(listed(ctl))
    ctl.ok("member", "add", "pupil", "--learner", "--peer-urls=http://pupil:2380")
    (added,) = set(listed(ctl)) - before
    wait_for(lambda: listed(ctl)[added][0] == "started", "the learner")
    assert listed(ctl)[added][-1] == "true"
    wait_for(lambda: ctl.run("member", "promote", added).code == 0, "its promotion")
    wait_for(lambda: is_whole(whole.status(), 4), "four voters")
    whole.remove_member(added)
    assert added not in listed(ctl)


def test_etcdctl_moves_the_leader(whole: Cluster, ctl: Etcdctl) -> None:
    leader, follower = leader_of(whole), follower_of(whole)
    ctl.ok("move-leader", f"{follower.id:x}")
    wait_for(lambda: whole.status().leader == follower.id, "the other leader")
    whole.move_leader(leader.name)
    assert whole.status().leader == leader.id


# --- in one step ------------------------------------------------------------------------------


def test_clients_do_not_notice_three_five_three_one_three(whole: Cluster) -> None:
    with Writers(whole.endpoints[0], count=4) as writers:
        for size in (5, 3, 1, 3):
            writers.progress(20)
            status = whole.resize(size)
            assert is_whole(status, size), status
        writers.progress(20)
        writers.stop()
        with whole.client() as client:
            writers.check(client)
    check_revisions(whole)


def test_the_leader_can_be_removed_and_never_comes_back(whole: Cluster) -> None:
    leader = leader_of(whole)
    steps: list[str] = []
    with Writers(whole.endpoints[0], count=2) as writers:
        writers.progress(10)
        whole.remove_member(leader.name, tell=steps.append)
        writers.progress(10)
        writers.stop()
        with whole.client() as client:
            writers.check(client)
    assert leader.id not in [member.id for member in whole.status().members]
    with pytest.raises(MembershipError, match="another name"):
        whole.add_member(leader.name)
    added = whole.add_member()
    assert not added.learner
    assert added.name != leader.name


def test_the_status_names_a_leader_that_came_later_as_the_source_of_the_history(whole: Cluster) -> None:
    added = whole.add_member()
    whole.move_leader(added.name)
    with whole.client() as client:
        client.put("followed", "from the newest member")

    def is_followed() -> bool:
        history = whole.status().history
        return history is not None and history.is_following and history.source == added.name

    wait_for(is_followed, "the history to follow the newest member")
    whole.remove_member(added.name)


def test_what_makes_no_sense_is_refused(whole: Cluster, ctl: Etcdctl) -> None:
    with pytest.raises(MembershipError, match="no member 'nobody'"):
        whole.remove_member("nobody")
    with pytest.raises(MembershipError, match="votes already"):
        whole.promote_member("0x" + f"{leader_of(whole).id:x}")
    pupil = whole.add_member("pupil", learner=True)
    assert pupil.learner
    with pytest.raises(MembershipError, match="learner"):
        whole.move_leader("pupil")
    with pytest.raises(MembershipError, match="pupil is a learner still"):
        whole.resize(5)
    assert ctl.refused("move-leader", f"{pupil.id:x}")[1].endswith("bad leader transferee")
    whole.remove_member(pupil.id)


def test_the_command_line_shows_and_changes_members(whole: Cluster) -> None:
    def etcray(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "etcray.cli", *arguments, "--name", "changing"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = json.loads(etcray("member", "list", "--json").stdout)
    assert sorted(m["name"] for m in shown["members"]) == sorted(m.name for m in whole.status().members)
    added = etcray("member", "add", "by-hand", "--learner")
    assert added.returncode == 0, added.stderr
    assert "by-hand" in added.stdout
    done = etcray("member", "remove", "by-hand", "--json")
    assert [m["name"] for m in json.loads(done.stdout)["members"] if m["name"] == "by-hand"] == []
    refused = etcray("member", "remove", "by-hand")
    assert refused.returncode == 1
    assert "there is no member 'by-hand'" in refused.stderr


# --- by itself --------------------------------------------------------------------------------


def test_a_member_with_a_damaged_log_is_replaced_by_itself(whole: Cluster) -> None:
    with whole.client() as client:
        client.put("before", "damage")
    victim = follower_of(whole)
    for path in Path(victim.data_directory, "log").iterdir():
        damage(path)
    kill(victim)
    wait_for(lambda: victim.id not in {m.id for m in whole.status().members}, "the replacement")
    wait_until_whole(whole)
    check_revisions(whole)


def test_a_member_whose_directory_was_wiped_is_replaced_by_itself(whole: Cluster) -> None:
    victim = leader_of(whole)
    Path(victim.data_directory).rename(victim.data_directory + "-taken")
    kill(victim)
    wait_for(lambda: victim.id not in {m.id for m in whole.status().members}, "the replacement")
    wait_until_whole(whole)
    check_revisions(whole)


def test_a_change_goes_on_after_the_supervisor_was_killed(whole: Cluster) -> None:
    status: list[ClusterStatus] = []
    told = threading.Event()
    tell: Teller = lambda _step: told.set()  # noqa: E731
    growth = threading.Thread(target=lambda: status.append(whole.resize(5, tell=tell)))
    growth.start()
    assert told.wait(60)
    os.kill(whole.status().supervisor.process_id, signal.SIGKILL)
    growth.join()
    assert is_whole(status[0], 5)
    whole.resize(3)


def damage(path: Path) -> None:
    """Flip bits all over the file, while its process has it open."""
    with path.open("r+b") as file:
        size = path.stat().st_size
        for offset in range(64, size, max(64, size // 64)):
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 0xFF]))
