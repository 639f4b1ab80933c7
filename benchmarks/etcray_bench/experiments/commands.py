"""`etcray experiment`: names, options and help. What the commands do is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

RESULTS_DEFAULT: Final = Path("etcray-results.duckdb")

experiment_app = typer.Typer(
    help="Questions about real clusters, measured: sweeps, reports, comparisons.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Results = Annotated[
    Path,
    typer.Option("--results", metavar="FILE", help="A DuckDB file; made if it is not there, else added to."),
]
Quick = Annotated[bool, typer.Option("--quick", help="Few values, short loads: to see that it works.")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Begin anew, also where a run like this was interrupted.")
]
Repetitions = Annotated[
    int | None, typer.Option("--repetitions", min=1, help="Of each point.", show_default=False)
]
Seconds = Annotated[
    float | None, typer.Option("--seconds", min=0.1, help="Measured time of each load.", show_default=False)
]
WarmUp = Annotated[
    float | None, typer.Option("--warmup-seconds", min=0.0, help="Before it.", show_default=False)
]
DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where clusters keep their data while they run: the disk that is measured. Default: the "
        "temporary directory.",
        show_default=False,
    ),
]
EtcdChoice = Annotated[
    str, typer.Option("--etcd", help="The etcd to compare with: 3.5, system, or the path of a program.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="An HTML page.", show_default=False)
]


@experiment_app.command(name="list")
def list_experiments() -> None:
    """Show all experiments: their questions and their variables."""
    from etcray_bench.experiments import running

    running.show_list()


@experiment_app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="VARIABLE=VALUE,...", help="Other values for a variable; may be repeated."
        ),
    ] = None,
    quick: Quick = False,
    results: Results = RESULTS_DEFAULT,
    fresh: Fresh = False,
    repetitions: Repetitions = None,
    seconds: Seconds = None,
    warmup_seconds: WarmUp = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Of a running Ray, or auto: members, gateways and generators are spread over its nodes.",
            show_default=False,
        ),
    ] = None,
    etcd: EtcdChoice = "3.5",
    data_dir: DataDirectory = None,
) -> None:
    """Run an experiment on real clusters. Given again after it was interrupted, it goes on where it was."""
    from etcray_bench.experiments import running

    running.run(
        name,
        set_ or [],
        running.Wishes(
            quick=quick,
            results=results,
            fresh=fresh,
            repetitions=repetitions,
            seconds=seconds,
            warmup_seconds=warmup_seconds,
            address=address or "",
            etcd=etcd,
            data_dir=data_dir,
        ),
    )


@experiment_app.command(name="versus-etcd")
def versus_etcd(
    load: Annotated[
        str | None,
        typer.Option(
            "--load",
            metavar="NAME,...",
            help="Such as put-64,range-256, or all. Only if asked for: put-256-1M-keys, failover.",
            show_default=False,
        ),
    ] = None,
    transport: Annotated[
        str, typer.Option("--transport", help="Of etcray's members: ray, direct, or both as ray,direct.")
    ] = "ray",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    quick: Quick = False,
    results: Results = RESULTS_DEFAULT,
    fresh: Fresh = False,
    repetitions: Repetitions = None,
    seconds: Seconds = None,
    warmup_seconds: WarmUp = None,
    etcd: EtcdChoice = "3.5",
    data_dir: DataDirectory = None,
) -> None:
    """A three-member etcd and a three-member etcray under the same loads, in turns, and the ratios."""
    from etcray_bench.experiments import running

    running.versus_etcd(
        load,
        transport,
        running.Wishes(
            quick=quick,
            results=results,
            fresh=fresh,
            repetitions=repetitions,
            seconds=seconds,
            warmup_seconds=warmup_seconds,
            etcd=etcd,
            data_dir=data_dir,
        ),
        markdown=markdown,
    )


Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE[#RUN]", help="Of each experiment the newest run, or that one.", show_default=False
    ),
]


@experiment_app.command()
def report(source: Source, output: Output = None) -> None:
    """Write one HTML page with plots and tables, from a results file alone. Default: beside that file."""
    from etcray_bench.experiments import running

    running.report(source, output)


@experiment_app.command()
def compare(before: Source, after: Source, output: Output = None) -> None:
    """Compare what two files, or two runs of a file (FILE#RUN), measured at the same points."""
    from etcray_bench.experiments import running

    running.compare(before, after, output)
