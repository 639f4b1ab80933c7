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
