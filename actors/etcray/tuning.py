"""What a person may turn when launching a cluster, to see what it does: messaging, durability, sizes.

The defaults are what the figures in the README are measured with, and what `limits` says. All of it is
stored with the cluster, because a member that is created again must run as it did before; a later launch
may choose anew, each knob by itself.

`durability` is the only one that changes a promise. With `synced` an acknowledged write is on the disks of
a majority. With `written` the log hands it to the operating system and does not wait for the disk: it
survives the end of any process, and of all of them, but not a power loss. What a machine loses then is
found, because the log's tip is synced ten times a second all the same: a member whose log is shorter than
its tip does not vote, and is rebuilt from its peers. What was acknowledged in the last tenth of a second
may be lost unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from etcray.errors import OptionsError
from etcray_storage import limits


class Transport(StrEnum):
    """How members and gateways talk."""

    RAY = "ray"
    """By calls of Ray actors."""
    DIRECT = "direct"
    """By sockets between the same actors, which find each other through Ray; see `etcray.transport`."""


class Durability(StrEnum):
    """What an acknowledged write has behind it."""

    SYNCED = "synced"
    """It is on the disks of a majority."""
    WRITTEN = "written"
    """The operating systems of a majority have it: it does not survive a power loss."""


class Knob(NamedTuple):
    """A number that may be chosen."""

    least: int
    most: int
    meaning: str


KNOBS: Final[Mapping[str, Knob]] = {
    "gateway_batches_in_flight": Knob(
        1, limits.SESSION_ANSWERS_MAX - 1, "batches of commands of one gateway on their way at once"
    ),
    "gateway_batch_requests": Knob(1, limits.PROPOSALS_PENDING_MAX, "commands in one such batch"),
    "gateway_batch_bytes": Knob(
        1, limits.LOG_RECORD_BYTES_MAX // 2, "bytes in one such batch; one command may be larger alone"
    ),
    "gateway_read_batches_in_flight": Knob(1, 64, "batches of reads, of each kind, on their way at once"),
    "gateway_read_batch_requests": Knob(1, limits.READS_PENDING_MAX, "reads in one such batch"),
    "appends_in_flight": Knob(
        1, limits.OUTBOX_MESSAGES_MAX // 2, "appends to one peer that are not acknowledged"
    ),
    "append_bytes": Knob(
        1, limits.APPENDS_IN_FLIGHT_BYTES_MAX, "bytes in one append; one entry may be larger alone"
    ),
}
"""By their names in `Tuning`. The bounds are those of what would break behind them."""


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """How a cluster runs. A file of an older etcray has none of it: the defaults."""

    transport: Transport = Transport.RAY
    durability: Durability = Durability.SYNCED
    gateway_batches_in_flight: int = limits.BATCHES_IN_FLIGHT_MAX
    gateway_batch_requests: int = limits.BATCH_COMMANDS_MAX
    gateway_batch_bytes: int = limits.BATCH_BYTES_MAX
    gateway_read_batches_in_flight: int = limits.READ_BATCHES_IN_FLIGHT_MAX
    gateway_read_batch_requests: int = limits.READ_BATCH_REQUESTS_MAX
    appends_in_flight: int = limits.APPENDS_IN_FLIGHT_MAX
    append_bytes: int = limits.APPEND_BYTES_MAX

    def __post_init__(self) -> None:
        """Raises ValueError; so a stored one that makes no sense is refused like any damaged file."""
        for name, knob in KNOBS.items():
            value: int = getattr(self, name)
            if not knob.least <= value <= knob.most:
                raise ValueError(f"{name} is from {knob.least} to {knob.most}, not {value}")


DEFAULT_TUNING: Final = Tuning()

WRITTEN_WARNING: Final = (
    "WARNING: durability is 'written': acknowledged writes are NOT synced to disk, and a power loss can lose "
    "them. Launch with --durability synced for data that matters"
)


def tuned(
    stored: Tuning, transport: str | None, durability: str | None, numbers: Mapping[str, int]
) -> Tuning:
    """`stored` with what was chosen; None, and names that are left out, stay. Raises OptionsError."""
    for name in numbers:
        if name not in KNOBS:
            raise OptionsError(f"--tune {name}: there is no such number. There are {', '.join(KNOBS)}")
    try:
        return Tuning(
            **{
                **msgspec.structs.asdict(stored),
                **numbers,
                "transport": stored.transport if transport is None else _transport(transport),
                "durability": stored.durability if durability is None else _durability(durability),
            }
        )
    except ValueError as error:
        raise OptionsError(f"--tune {error}") from error


def _transport(text: str) -> Transport:
    if text not in list(Transport):
        raise OptionsError(f"--transport is {' or '.join(Transport)}, not {text!r}")
    return Transport(text)


def _durability(text: str) -> Durability:
    if text not in list(Durability):
        raise OptionsError(f"--durability is {' or '.join(Durability)}, not {text!r}")
    return Durability(text)


def parse_numbers(texts: Iterable[str]) -> dict[str, int]:
    """Each NAME=VALUE. Raises OptionsError for what is not of that form; `tuned` looks at the rest."""
    numbers: dict[str, int] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value.isdecimal():
            raise OptionsError(f"--tune is NAME=VALUE with a whole number, not {text!r}")
        if name in numbers:
            raise OptionsError(f"--tune {name} is given twice")
        numbers[name] = int(value)
    return numbers
