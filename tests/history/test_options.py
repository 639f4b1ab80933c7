"""The history's options, from the command line into the cluster's specification."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from etcray import state_file
from etcray.cli.up import arguments_of
from etcray.errors import OptionsError
from etcray.launch import LaunchOptions, compose_history
from etcray.quantities import parse_bytes, parse_seconds
from etcray.spec import ClusterSpec, HistorySpec, compose_members, derive_cluster_id


def spec_in(directory: Path) -> ClusterSpec:
    return ClusterSpec(
        name=directory.name,
        token="token",
        cluster_id=derive_cluster_id(directory.name, "token"),
        members=compose_members(directory.name, "token", str(directory), [None]),
        gateways=(),
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("30m", 1_800), ("12h", 43_200), ("90D", 7_776_000), (" 2w ", 1_209_600)],
)
def test_spans_of_time_are_read(text: str, seconds: int) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("5", 5), ("2k", 2_048), ("500M", 500 << 20), ("20GiB", 20 << 30), ("1tb", 1 << 40)]
)
def test_amounts_of_bytes_are_read(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "5", "-5d", "1.5h", "5y", "d"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(OptionsError, match="90d"):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["", "-5", "1.5G", "5X", "G"])
def test_what_is_no_amount_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(OptionsError, match="20G"):
        parse_bytes(text)


def test_the_options_reach_the_specification(tmp_path: Path) -> None:
    options = LaunchOptions(
        history_retention_seconds=60, history_retention_revisions=1_000, history_retention_bytes=1 << 30
    )
    assert compose_history(options, spec_in(tmp_path), tmp_path) == HistorySpec(
        directory=str(tmp_path / "history"),
        retention_seconds=60,
        retention_revisions=1_000,
        retention_bytes=1 << 30,
    )
    assert compose_history(LaunchOptions(history=False), spec_in(tmp_path), tmp_path) is None


def test_a_launch_in_the_background_gets_the_same_options() -> None:
    assert "--no-history" in arguments_of(LaunchOptions(history=False))
    arguments = arguments_of(LaunchOptions(history_retention_seconds=90, history_retention_bytes=5_000))
    assert arguments[arguments.index("--history-retention-age") + 1] == "90s"
    assert arguments[arguments.index("--history-retention-bytes") + 1] == "5000"
    assert "--history-retention-revisions" not in arguments
    assert "--no-history" not in arguments


def test_a_moved_directory_takes_its_history_along(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "x", tmp_path / "new" / "x"
    old.mkdir(parents=True)
    spec = spec_in(old)
    state_file.save(old, msgspec.structs.replace(spec, history=compose_history(LaunchOptions(), spec, old)))
    new.parent.mkdir()
    old.rename(new)
    loaded = state_file.load(new, "x")
    assert loaded is not None
    assert loaded.history is not None
    assert loaded.history.directory == str(new / "history")


def test_a_cluster_file_from_before_there_was_a_history_is_read(tmp_path: Path) -> None:
    directory = tmp_path / "x"
    directory.mkdir()
    state_file.save(directory, spec_in(directory))
    path = directory / state_file.FILE_NAME
    content = msgspec.json.decode(path.read_bytes())
    del content["cluster"]["history"]
    path.write_bytes(msgspec.json.encode(content))
    loaded = state_file.load(directory, "x")
    assert loaded is not None
    assert loaded.history is None
