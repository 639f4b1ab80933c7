"""What a launch refuses before anything runs, and what it stores."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import msgspec
import pytest

from etcray import run_file, state_file
from etcray.errors import ClusterRunningError, OptionsError, PortInUseError
from etcray.launch import (
    LaunchOptions,
    check_against_stored,
    check_options,
    check_ports,
    compose_gateways,
    launch,
    place_gateways,
)
from etcray.placement import check_directory, choose_node, pin_of, spread
from etcray.processes import process_started
from etcray.run_file import RunRecord
from etcray.spec import ClusterSpec, NodePin, compose_members, derive_cluster_id
from etcray_storage.errors import DataDirectoryError, QuarantinedError


def make_spec(directory: Path, name: str = "here", count: int = 3) -> ClusterSpec:
    return ClusterSpec(
        name=name,
        token="token",
        cluster_id=derive_cluster_id(name, "token"),
        members=compose_members(name, "token", str(directory), [None] * count),
        gateways=(),
    )


@pytest.fixture(autouse=True)
def own_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCRAY_RUN_DIR", str(tmp_path / "run"))


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (LaunchOptions(nodes=2), "--nodes"),
        (LaunchOptions(nodes=0), "--nodes"),
        (LaunchOptions(gateways=0), "--gateways"),
        (LaunchOptions(replace_after=-1), "--replace-after"),
        (LaunchOptions(replace_after=float("nan")), "--replace-after"),
        (LaunchOptions(name="a/b"), "name"),
        (LaunchOptions(name=""), "name"),
        (LaunchOptions(history_retention_seconds=0), "--history-retention-age"),
        (LaunchOptions(history_retention_bytes=-1), "--history-retention-bytes"),
        (LaunchOptions(history=False, history_retention_revisions=5), "--no-history"),
        (LaunchOptions(listen="2379"), "--listen"),
        (LaunchOptions(listen="localhost:http"), "--listen"),
        (LaunchOptions(listen="127.0.0.1:65535", gateways=2), "65536"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: LaunchOptions, word: str) -> None:
    with pytest.raises(OptionsError, match=word):
        check_options(options)


def test_an_ipv6_address_is_given_in_brackets() -> None:
    assert check_options(LaunchOptions(listen="[::1]:2379")) == ("::1", 2379)


def test_another_number_of_members_than_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"has 3 members, --nodes 5"):
        check_against_stored(LaunchOptions(nodes=5), make_spec(tmp_path))


def test_gateways_take_consecutive_ports() -> None:
    assert [gateway.port for gateway in compose_gateways(3, "127.0.0.1", 2379)] == [2379, 2380, 2381]
    chosen = {gateway.port for gateway in compose_gateways(2, "127.0.0.1", 0)}
    assert len(chosen) == 2
    assert 0 not in chosen


def test_gateways_on_loopback_stay_with_the_launcher_and_others_spread() -> None:
    nodes = [NodePin(hostname=name, address=f"10.0.0.{n}") for n, name in enumerate("ab")]
    local = place_gateways(compose_gateways(3, "127.0.0.1", 2379), nodes)
    public = place_gateways(compose_gateways(3, "0.0.0.0", 2379), nodes)
    assert [g.pin.hostname for g in local if g.pin] == ["a", "a", "a"]
    assert [g.pin.hostname for g in public if g.pin] == ["a", "b", "a"]


def test_a_port_in_use_is_found_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortInUseError, match="--listen"):
            check_ports(compose_gateways(1, "127.0.0.1", port))
        options = LaunchOptions(name="x", data_dir=str(tmp_path), listen=f"127.0.0.1:{port}")
        with pytest.raises(PortInUseError):
            launch(options)
    assert run_file.read("x") is None
    assert not (tmp_path / "x" / "cluster.json").exists()


# --- the state file ---------------------------------------------------------------------------


def test_a_stored_cluster_is_read_back(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    state_file.save(tmp_path, spec)
    assert state_file.load(tmp_path, "here") == spec


def test_a_moved_directory_takes_its_members_along(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    state_file.save(old, make_spec(old))
    old.rename(new)
    stored = state_file.load(new, "here")
    assert stored is not None
    assert [member.data_directory for member in stored.members] == [
        str(new / f"member{n}") for n in (1, 2, 3)
    ]


def test_an_empty_directory_holds_no_cluster(tmp_path: Path) -> None:
    assert state_file.load(tmp_path, "here") is None


def test_members_data_without_a_state_file_is_not_taken_for_a_new_cluster(tmp_path: Path) -> None:
    (tmp_path / "member1").mkdir()
    (tmp_path / "member1" / "log").touch()
    with pytest.raises(DataDirectoryError, match="member1"):
        state_file.load(tmp_path, "here")


def test_another_clusters_directory_is_refused(tmp_path: Path) -> None:
    state_file.save(tmp_path, make_spec(tmp_path, name="there"))
    with pytest.raises(DataDirectoryError, match="holds cluster 'there', not 'here'"):
        state_file.load(tmp_path, "here")


def test_a_newer_format_is_refused_by_its_number_alone(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"format": 99, "unheard": "of"}')
    with pytest.raises(DataDirectoryError, match="format 99"):
        state_file.load(tmp_path, "here")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}'])
def test_a_damaged_state_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "cluster.json").write_text(content)
    with pytest.raises(DataDirectoryError, match="not a cluster file"):
        state_file.load(tmp_path, "here")


def test_a_changed_token_is_refused(tmp_path: Path) -> None:
    state_file.save(tmp_path, msgspec.structs.replace(make_spec(tmp_path), token="another"))
    with pytest.raises(DataDirectoryError, match="cluster id"):
        state_file.load(tmp_path, "here")


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirectoryError, match="--data-dir"):
        state_file.make_directory(tmp_path / "file" / "here")


def test_the_newest_of_several_copies_is_read(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    for version, name in enumerate(("member1", "member2", "member3")):
        (tmp_path / name).mkdir()
        state_file.save(tmp_path / name, msgspec.structs.replace(spec, version=version))
    assert state_file.load(tmp_path, "here") == msgspec.structs.replace(spec, version=2)
    state_file.save(tmp_path, msgspec.structs.replace(spec, version=9))
    assert state_file.load(tmp_path, "here") == msgspec.structs.replace(spec, version=9)


def test_a_recovery_outdates_every_copy_of_the_epoch_before(tmp_path: Path) -> None:
    spec = msgspec.structs.replace(make_spec(tmp_path), version=70)
    (tmp_path / "member1").mkdir()
    state_file.save(tmp_path / "member1", spec)
    later = msgspec.structs.replace(
        spec, version=1, epoch=1, cluster_id=derive_cluster_id("here", "token", 1), members=spec.members[:1]
    )
    state_file.save(tmp_path, later)
    assert state_file.load(tmp_path, "here") == later


def test_a_damaged_copy_and_one_of_a_removed_member_do_not_count(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    state_file.save(tmp_path, spec)
    for name in ("member1", "member2"):
        (tmp_path / name).mkdir()
    (tmp_path / "member1" / "cluster.json").write_text("{")
    state_file.save(tmp_path / "member2", msgspec.structs.replace(spec, version=5))
    state_file.set_aside(tmp_path / "member2")
    assert state_file.load(tmp_path, "here") == spec


def test_directories_are_set_aside_one_beside_the_other(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "member1").mkdir()
        state_file.set_aside(tmp_path / "member1")
    state_file.set_aside(tmp_path / "member1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["member1.removed-1", "member1.removed-2"]


def test_a_file_of_an_older_etcray_has_the_members_as_founders(tmp_path: Path) -> None:
    state_file.save(tmp_path, make_spec(tmp_path))
    content = json.loads((tmp_path / "cluster.json").read_text())
    for field in ("founders", "epoch", "version", "replace_after_seconds"):
        content["cluster"].pop(field, None)
    for member in content["cluster"]["members"]:
        member.pop("joining")
    (tmp_path / "cluster.json").write_text(json.dumps(content))
    stored = state_file.load(tmp_path, "here")
    assert stored is not None
    assert [founder.id for founder in stored.first_members] == [member.id for member in stored.members]
    assert stored.replace_after_seconds == 60


def test_two_launches_do_not_share_a_directory(tmp_path: Path) -> None:
    first = state_file.LaunchLock(tmp_path)
    with pytest.raises(ClusterRunningError, match=str(os.getpid())):
        state_file.LaunchLock(tmp_path)
    first.release()
    state_file.LaunchLock(tmp_path).release()


def test_a_member_that_lost_its_directory_is_not_started_empty(tmp_path: Path) -> None:
    member = make_spec(tmp_path).members[0]
    with pytest.raises(QuarantinedError, match="gone"):
        check_directory(member)
    (tmp_path / "member1").mkdir()
    with pytest.raises(QuarantinedError, match="gone"):
        check_directory(member)
    (tmp_path / "member1" / "identity.json").touch()
    check_directory(member)


# --- the run record ---------------------------------------------------------------------------


def make_record(process_id: int, started: float) -> RunRecord:
    return RunRecord(
        name="here", data_directory="/x", process_id=process_id, process_started=started, is_command=True
    )


def test_a_run_record_is_found_by_name_and_removed() -> None:
    record = make_record(os.getpid(), process_started(os.getpid()))
    run_file.write(record)
    assert run_file.read("here") == record
    assert [found.name for found in run_file.read_all()] == ["here"]
    assert record.launcher_lives
    run_file.remove("here")
    assert run_file.read("here") is None


def test_a_used_again_process_id_is_not_the_launcher() -> None:
    assert not make_record(os.getpid(), process_started(os.getpid()) + 1).launcher_lives


def test_a_name_that_runs_elsewhere_is_refused(tmp_path: Path) -> None:
    run_file.write(make_record(os.getppid(), process_started(os.getppid())))
    options = LaunchOptions(name="here", data_dir=str(tmp_path), listen="127.0.0.1:0")
    with pytest.raises(ClusterRunningError, match=str(os.getppid())):
        launch(options)


# --- nodes ------------------------------------------------------------------------------------


def node(node_id: str, hostname: str, address: str) -> dict[str, object]:
    return {"NodeID": node_id, "NodeManagerHostname": hostname, "NodeManagerAddress": address, "Alive": True}


def test_a_pin_finds_its_machine_after_ray_was_restarted_there() -> None:
    nodes = [node("new", "a", "10.0.0.1"), node("other", "b", "10.0.0.2")]
    assert choose_node(NodePin(hostname="a", address="10.0.0.1"), nodes, 0) == "new"


def test_a_pin_finds_its_machine_under_a_new_address() -> None:
    assert choose_node(NodePin(hostname="a", address="10.0.0.9"), [node("n", "a", "10.0.0.1")], 0) == "n"


def test_actors_take_turns_where_several_nodes_run_on_one_machine() -> None:
    nodes = [node(name, "a", "10.0.0.1") for name in ("z", "x", "y")]
    pin = NodePin(hostname="a", address="10.0.0.1")
    assert [choose_node(pin, nodes, place) for place in range(4)] == ["x", "y", "z", "x"]


def named(node_id: str, name: str) -> dict[str, object]:
    return {**node(node_id, "a", "10.0.0.1"), "NodeName": name}


def test_a_pin_of_a_named_node_means_no_other() -> None:
    nodes = [named("x", "left"), named("y", "right"), named("z", "10.0.0.1")]
    pins = [pin_of(each) for each in nodes]
    assert [pin.node_name for pin in pins] == ["left", "right", ""]
    assert choose_node(pins[1], nodes, 0) == "y"
    with pytest.raises(LookupError, match="named right"):
        choose_node(pins[1], nodes[:1], 0)
    assert choose_node(pins[2], nodes[:1], 0) == "x"


def test_members_spread_over_the_nodes_that_have_the_fewest() -> None:
    a, b, c = (NodePin(hostname=name, address="10.0.0.1") for name in "abc")
    assert spread([a, b, c], [], 5) == [a, b, c, a, b]
    assert spread([a, b, c], [a, b], 1) == [c]
    assert spread([a, b], [a, b, None], 2) == [a, b]
    assert spread([a, a, b], [a], 2) == [a, b]


def test_a_pin_never_falls_back_to_another_machine() -> None:
    with pytest.raises(LookupError, match=r"a \(10.0.0.1\)"):
        choose_node(NodePin(hostname="a", address="10.0.0.1"), [node("n", "b", "10.0.0.1")], 0)
