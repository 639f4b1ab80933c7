"""Which points a sweep has, and what a wrong option is answered with."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from etcray_bench.errors import LaboratoryError
from etcray_bench.experiments.commands import experiment_app
from etcray_bench.experiments.experiment import Experiment
from etcray_bench.experiments.registry import experiments, find
from etcray_bench.experiments.running import parse_settings
from etcray_bench.experiments.sweep import batches_of
from etcray_bench.load import Load
from etcray_bench.systems.spec import SystemSpec

ALL = list(experiments().values())


@pytest.mark.parametrize("experiment", ALL, ids=lambda each: each.name)
def test_an_experiment_asks_a_question_of_variables_and_has_plots(experiment: Experiment) -> None:
    assert experiment.question.endswith("?")
    assert len({variable.name for variable in experiment.variables}) == len(experiment.variables) >= 1
    assert experiment.plots
    full, quick = experiment.points({}, quick=False), experiment.points({}, quick=True)
    assert len(full) >= len(quick) >= 1
    for variable in experiment.variables:
        assert {type(value) for value in (*variable.values, *variable.quick)} == {type(variable.values[0])}


@pytest.mark.parametrize("experiment", ALL, ids=lambda each: each.name)
def test_every_point_has_a_cluster_and_a_load_that_can_be(experiment: Experiment) -> None:
    for quick in (False, True):
        for point in experiment.points({}, quick=quick):
            assert isinstance(experiment.spec(point), SystemSpec)
            Load(endpoints=("127.0.0.1:1",), seconds=1.0, **experiment.load(point))


@pytest.mark.parametrize("experiment", ALL, ids=lambda each: each.name)
def test_points_that_need_one_cluster_follow_each_other(experiment: Experiment) -> None:
    """A cluster that was stopped is not started again for a later point."""
    gone: set[SystemSpec] = set()
    running: set[SystemSpec] = set()
    for batch in batches_of(experiment, experiment.points({}, quick=False)):
        wanted = {experiment.spec(point) for point in batch}
        gone |= running - wanted
        running = wanted
        assert not wanted & gone


def test_points_are_all_combinations_of_the_chosen_values() -> None:
    members = find("members")
    chosen = parse_settings(members, ["members=1,3", "clients=2"])
    assert members.points(chosen, quick=True) == [{"members": 1, "clients": 2}, {"members": 3, "clients": 2}]


def test_values_that_are_compared_are_measured_in_turns() -> None:
    transport = find("transport")
    batches = batches_of(transport, transport.points({}, quick=True))
    assert [[(p["transport"], p["clients"]) for p in batch] for batch in batches] == [
        [("ray", 1), ("direct", 1)],
        [("ray", 64), ("direct", 64)],
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("members", "say VARIABLE=VALUE"),
        ("colour=1", "no variable 'colour'"),
        ("members=three", "cannot be 'three'"),
        ("members=-1", "cannot be '-1'"),
        ("members=", "there is no value"),
    ],
)
def test_wrong_values_are_named(text: str, problem: str) -> None:
    with pytest.raises(LaboratoryError, match=problem):
        parse_settings(find("members"), [text])


def test_words_are_those_that_an_experiment_knows() -> None:
    assert parse_settings(find("history"), ["history=no"]) == {"history": (False,)}
    assert parse_settings(find("keys"), ["keys=1_000"]) == {"keys": (1000,)}
    with pytest.raises(LaboratoryError, match=r"cannot be 'pigeon'.*ray, direct"):
        parse_settings(find("transport"), ["transport=pigeon"])


def test_the_list_names_every_experiment_with_its_variables() -> None:
    shown = CliRunner().invoke(experiment_app, ["list"])
    assert shown.exit_code == 0
    for experiment in ALL:
        assert experiment.name in shown.output
        for variable in experiment.variables:
            assert f"{variable.name}=" in shown.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["run", "nothing"], "no experiment 'nothing'"),
        (["run", "versus-etcd"], "a command of its own"),
        (["run", "failover", "--etcd", "/nowhere/etcd"], "no etcd"),
        (["versus-etcd", "--transport", "pigeon"], "ray, direct"),
        (["report", "nowhere.duckdb"], "no results file"),
    ],
)
def test_a_command_that_cannot_be_says_why(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(experiment_app, arguments)
    assert isinstance(result.exception, LaboratoryError)
    assert problem in str(result.exception)
