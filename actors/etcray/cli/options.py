"""Options that several commands have, with the same names and the same help everywhere."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import typer


class SortBy(StrEnum):
    """As etcdctl's."""

    KEY = "KEY"
    VERSION = "VERSION"
    CREATE = "CREATE"
    MODIFY = "MODIFY"
    VALUE = "VALUE"


class Order(StrEnum):
    """As etcdctl's."""

    ASCEND = "ASCEND"
    DESCEND = "DESCEND"


class Consistency(StrEnum):
    """As etcdctl's."""

    LINEARIZABLE = "l"
    SERIALIZABLE = "s"


Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Name = Annotated[str, typer.Option("--name", help="Name of the cluster.")]
Address = Annotated[
    str | None, typer.Option("--address", help="A running Ray: auto, or HOST:PORT. Default: one of its own.")
]
DataDirectory = Annotated[str, typer.Option("--data-dir", help="Where clusters keep their data.")]
Endpoints = Annotated[
    str,
    typer.Option("--endpoints", envvar="ETCRAY_ENDPOINTS", help="HOST:PORT of gateways, with commas."),
]
CommandTimeout = Annotated[float, typer.Option("--command-timeout", help="Seconds, retries included.")]
Prefix = Annotated[bool, typer.Option("--prefix", help="All keys that start with KEY.")]
FromKey = Annotated[bool, typer.Option("--from-key", help="All keys that are not smaller than KEY.")]
PrevKv = Annotated[bool, typer.Option("--prev-kv", help="Show what was there before.")]
Key = Annotated[str, typer.Argument(metavar="KEY", show_default=False)]
RangeEnd = Annotated[
    str | None, typer.Argument(metavar="[RANGE_END]", help="Up to, without, this key.", show_default=False)
]

DEFAULT_ENDPOINTS: Final = "127.0.0.1:2379"
DEFAULT_TIMEOUT_SECONDS: Final = 5.0

# What a launch may choose. The names of the numbers are those of `etcray.tuning`; a test compares.
Transport = Annotated[
    str | None,
    typer.Option(
        "--transport",
        metavar="[ray|direct]",
        help="How members and gateways talk: by Ray calls, or by sockets. Default: as stored, or ray.",
        show_default=False,
    ),
]
Durability = Annotated[
    str | None,
    typer.Option(
        "--durability",
        metavar="[synced|written]",
        help="An acknowledged write is on the disks of a majority, or only handed to their operating "
        "systems: a power loss can lose it then. Default: as stored, or synced.",
        show_default=False,
    ),
]
Tune = Annotated[
    list[str] | None,
    typer.Option(
        "--tune",
        metavar="NAME=VALUE",
        help="A number for experiments; may be repeated. Names: gateway_batches_in_flight, "
        "gateway_batch_requests, gateway_batch_bytes, gateway_read_batches_in_flight, "
        "gateway_read_batch_requests, appends_in_flight, append_bytes. Default: as stored.",
        show_default=False,
    ),
]
