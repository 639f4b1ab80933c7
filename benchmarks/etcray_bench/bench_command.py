"""The command `etcray bench`: one load, shown as a table, JSON or CSV.

Found by the command `etcray` through the entry-point group `etcray.commands`. What it does is imported
when it runs: a list of all commands costs nothing of it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import typer

DEFAULT_ENDPOINTS: Final = "127.0.0.1:2379"

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True
)

EPILOG: Final = (
    "Workloads: put, range, serializable-range, mixed, txn, txn-mixed, compare-and-put, lease-grant, "
    "lease-keep-alive, lease, watch, ycsb-a to ycsb-f, kubernetes; `etcray bench list` says what each does. "
    "What is below --prefix is deleted first. After the run every key is compared with what was "
    "acknowledged; a difference is an error."
)


@app.command(epilog=EPILOG)
def bench(
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", help="See below; list shows them.", show_default=False)
    ],
    clients: Annotated[int, typer.Option(help="Operations under way; with --rate: at most.")] = 64,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Open loop: so many operations begin in a second. Latency runs from when they should.",
            show_default=False,
        ),
    ] = None,
    arrivals: Annotated[Literal["poisson", "fixed"], typer.Option(help="Of an open loop.")] = "poisson",
    seconds: Annotated[float, typer.Option(help="Measured time.")] = 10.0,
    warmup: Annotated[float, typer.Option(help="Seconds before that.")] = 2.0,
    connections: Annotated[int, typer.Option(help="HTTP/2 connections, spread over the endpoints.")] = 8,
    processes: Annotated[int, typer.Option(help="Generator processes.")] = 1,
    keys: Annotated[int, typer.Option(help="In the store.")] = 10_000,
    preload: Annotated[
        bool | None,
        typer.Option(
            "--preload/--no-preload",
            help="Write all keys first. Default: if the workload reads.",
            show_default=False,
        ),
    ] = None,
    distribution: Annotated[
        Literal["sequential", "uniform", "zipfian", "latest"] | None,
        typer.Option(help="Of keys. Default: YCSB's, else uniform.", show_default=False),
    ] = None,
    zipfian_theta: Annotated[float, typer.Option(help="The nearer to 1, the less even.")] = 0.99,
    key_size: Annotated[
        int | None, typer.Option(help="Bytes. Default: prefix and 8 digits.", show_default=False)
    ] = None,
    value_size: Annotated[
        int | None,
        typer.Option(help="Bytes. Default: 256; kubernetes 1024 to 4096.", show_default=False),
    ] = None,
    value_size_max: Annotated[
        int | None, typer.Option(help="Sizes are spread from --value-size to this.", show_default=False)
    ] = None,
    keys_per_range: Annotated[int, typer.Option(help="Of range and serializable-range.")] = 1,
    read_ratio: Annotated[float, typer.Option(help="Of mixed and txn-mixed, 0 to 1.")] = 0.5,
    lease_ttl: Annotated[int, typer.Option(help="Seconds.")] = 600,
    watchers: Annotated[int, typer.Option(help="Of watch and kubernetes.")] = 0,
    watchers_per_stream: Annotated[int, typer.Option(help="Of watch.")] = 1,
    prefix: Annotated[str, typer.Option(help="Of all keys; what is there is deleted.")] = "bench/",
    seed: Annotated[int, typer.Option(help="Of keys, shares and arrivals.")] = 1,
    tolerate_failures: Annotated[
        bool,
        typer.Option(
            "--tolerate-failures", help="Connect again, go on; unanswered writes may have happened."
        ),
    ] = False,
    request_timeout: Annotated[float, typer.Option(help="Seconds; then a request has failed.")] = 10.0,
    endpoints: Annotated[
        str, typer.Option(envvar="ETCRAY_ENDPOINTS", help="HOST:PORT of etcray or etcd, with commas.")
    ] = DEFAULT_ENDPOINTS,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a line for each operation.")] = False,
) -> None:
    """Put a load on etcray, or on any etcd, and say how fast and how quick it was."""
    given: dict[str, Any] = dict(locals())
    from etcray_bench.load import show

    if workload == "list":
        show.list_workloads(as_json=json)
        return
    show.run(show.load_from(given), "json" if json else "csv" if csv else "table")


if __name__ == "__main__":
    app()
