"""What a launch may tune: which names and values are taken, where they are stored, and who is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from typer.models import OptionInfo

from etcray import state_file
from etcray.cli.options import Tune
from etcray.cli.screen import deviations
from etcray.cli.up import arguments_of
from etcray.errors import OptionsError
from etcray.launch import LaunchOptions, check_options
from etcray.spec import ClusterSpec, compose_members, derive_cluster_id
from etcray.tuning import (
    DEFAULT_TUNING,
    KNOBS,
    WRITTEN_WARNING,
    Durability,
    Transport,
    Tuning,
    parse_numbers,
    tuned,
)
from etcray_storage.errors import DataDirectoryError


def test_what_is_left_out_stays_as_stored() -> None:
    stored = Tuning(transport=Transport.DIRECT, appends_in_flight=3)
    assert tuned(stored, None, None, {}) == stored
    chosen = tuned(stored, "ray", "written", {"append_bytes": 4_096})
    assert chosen == Tuning(durability=Durability.WRITTEN, appends_in_flight=3, append_bytes=4_096)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (LaunchOptions(transport="tcp"), "--transport is ray or direct, not 'tcp'"),
        (LaunchOptions(durability="none"), "--durability is synced or written, not 'none'"),
        (LaunchOptions(tune={"batch": 1}), "--tune batch: .* gateway_batches_in_flight"),
        (LaunchOptions(tune={"transport": 1}), "--tune transport: there is no such number"),
        (LaunchOptions(tune={"appends_in_flight": 0}), "--tune appends_in_flight is from 1 to 32, not 0"),
        (LaunchOptions(tune={"gateway_batches_in_flight": 64}), "from 1 to 63, not 64"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(options: LaunchOptions, words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        check_options(options)


@pytest.mark.parametrize("text", ["appends_in_flight", "appends_in_flight=", "append_bytes=1k", "=3"])
def test_numbers_are_given_as_name_and_value(text: str) -> None:
    with pytest.raises(OptionsError, match=r"NAME=VALUE|no such number"):
        tuned(DEFAULT_TUNING, None, None, parse_numbers([text]))


def test_a_number_is_given_once() -> None:
    assert parse_numbers(["append_bytes=7", "appends_in_flight=2"]) == {
        "append_bytes": 7,
        "appends_in_flight": 2,
    }
    with pytest.raises(OptionsError, match="append_bytes is given twice"):
        parse_numbers(["append_bytes=7", "append_bytes=8"])


def test_every_number_is_in_the_help_and_has_bounds_around_its_default() -> None:
    numbers = {name for name, value in msgspec.structs.asdict(DEFAULT_TUNING).items() if type(value) is int}
    assert numbers == KNOBS.keys()
    option = next(item for item in get_args(Tune) if isinstance(item, OptionInfo))
    assert option.help is not None
    assert all(name in option.help for name in KNOBS)


def test_a_launch_in_the_background_gets_the_same_options() -> None:
    arguments = arguments_of(
        LaunchOptions(
            transport="direct", durability="written", tune={"append_bytes": 9, "appends_in_flight": 1}
        )
    )
    assert " ".join(arguments).endswith(
        "--transport direct --durability written --tune append_bytes=9 --tune appends_in_flight=1"
    )
    assert not {"--transport", "--durability", "--tune"} & set(arguments_of(LaunchOptions()))


def make_spec(directory: Path, tuning: Tuning) -> ClusterSpec:
    return ClusterSpec(
        name="tuned",
        token="token",
        cluster_id=derive_cluster_id("tuned", "token"),
        members=compose_members("tuned", "token", str(directory), [None]),
        gateways=(),
        tuning=tuning,
    )


def test_it_is_stored_and_a_file_without_it_means_the_defaults(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, Tuning(transport=Transport.DIRECT, append_bytes=8_192))
    state_file.save(tmp_path, spec)
    assert state_file.load(tmp_path, "tuned") == spec
    path = tmp_path / state_file.FILE_NAME
    stored = json.loads(path.read_text())
    del stored["cluster"]["tuning"]
    path.write_text(json.dumps(stored))
    loaded = state_file.load(tmp_path, "tuned")
    assert loaded is not None
    assert loaded.tuning == DEFAULT_TUNING


def test_a_stored_number_out_of_its_bounds_is_refused_like_any_damage(tmp_path: Path) -> None:
    state_file.save(tmp_path, make_spec(tmp_path, Tuning()))
    path = tmp_path / state_file.FILE_NAME
    stored = json.loads(path.read_text())
    stored["cluster"]["tuning"]["appends_in_flight"] = 1_000
    path.write_text(json.dumps(stored))
    with pytest.raises(DataDirectoryError, match="appends_in_flight is from 1 to 32"):
        state_file.load(tmp_path, "tuned")


def test_people_are_told_what_differs_and_loudly_that_writes_may_be_lost() -> None:
    assert deviations(DEFAULT_TUNING) == []
    assert deviations(Tuning(transport=Transport.DIRECT)) == ["tuned: transport direct"]
    lines = deviations(Tuning(durability=Durability.WRITTEN, append_bytes=1))
    assert lines == ["tuned: durability written, append_bytes 1", WRITTEN_WARNING]
