"""What a load is: everything about it that can vary, checked when it is made."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from etcray.errors import OptionsError

Distribution = Literal["sequential", "uniform", "zipfian", "latest"]
Arrivals = Literal["poisson", "fixed"]

WORKLOADS: Final = {
    "put": "writes of one key",
    "range": "linearizable reads of one key, or of --keys-per-range neighbours",
    "serializable-range": "the same, answered by any member from what it has",
    "mixed": "reads of one key and writes, --read-ratio of them reads",
    "txn": "transactions that compare, put and get; they always succeed",
    "txn-mixed": "transactions with one read or one write, --read-ratio of them reads",
    "compare-and-put": "writes that succeed if the key is as last seen; lost races are counted",
    "lease-grant": "grants of leases",
    "lease-keep-alive": "renewals of one lease for each client, on a stream of its own",
    "lease": "grant a lease, attach a key, renew it, revoke it, and again",
    "watch": "each put goes to --watchers watchers; the next follows when all have it",
    "ycsb-a": "50 % reads, 50 % updates, zipfian",
    "ycsb-b": "95 % reads, 5 % updates, zipfian",
    "ycsb-c": "reads, zipfian",
    "ycsb-d": "95 % reads of what is new, 5 % inserts",
    "ycsb-e": "95 % scans of up to 100 keys, 5 % inserts",
    "ycsb-f": "50 % reads, 50 % read-modify-write, zipfian",
    "kubernetes": "what an API server does: lists in pages, gets, guarded updates, events, watches",
}
"""By name, what each does."""

_ZIPFIAN: Final = frozenset({"ycsb-a", "ycsb-b", "ycsb-c", "ycsb-e", "ycsb-f"})
_UNWRITTEN: Final = frozenset({"put", "txn", "lease-grant", "lease-keep-alive", "lease", "watch"})
"""They begin with an empty store, unless told otherwise."""
_CLOSED_ONLY: Final = frozenset({"lease", "lease-keep-alive", "watch"})
_LEASES: Final = frozenset({"lease-grant", "lease-keep-alive", "lease"})

STAMP_BYTES: Final = 20
"""At the start of each value: key, writer and the writer's sequence, in 7, 5 and 8 hexadecimal digits."""
KEYS_MAX: Final = 99_999_999
WRITERS_MAX: Final = 16**5 - 2
"""The last one is who writes the store before the load begins."""
NUMBER_DIGITS_MIN: Final = 8
VALUE_BYTES_MAX: Final = 1_000_000
"""Of etcd's 1.5 MiB for a request, with room for what is around the value."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. Raises OptionsError if it makes no sense."""

    endpoints: tuple[str, ...]
    """HOST:PORT. Connections are spread over them in turns."""
    workload: str = "put"
    clients: int = 64
    """Closed loop: so many operations are under way. Open loop: at most so many."""
    rate: float | None = None
    """Operations begun in a second, by all processes together. None: a closed loop."""
    arrivals: Arrivals = "poisson"
    connections: int = 8
    """Of all processes together, and at least one for each endpoint and process."""
    processes: int = 1
    seconds: float = 10.0
    warmup_seconds: float = 2.0
    keys: int = 10_000
    preload: bool | None = None
    """Whether all keys are written before. None: if the workload reads."""
    key_bytes: int | None = None
    """None: the prefix and eight digits."""
    value_bytes: int | None = None
    """None: 256, and for kubernetes 1,024 to 4,096."""
    value_bytes_max: int | None = None
    """Sizes are spread evenly from value_bytes up to this."""
    distribution: Distribution | None = None
    """None: zipfian or latest where YCSB says so, else uniform."""
    zipfian_theta: float = 0.99
    keys_per_range: int = 1
    read_ratio: float = 0.5
    lease_ttl_seconds: int = 600
    watchers: int = 0
    watchers_per_stream: int = 1
    prefix: str = "bench/"
    """What is below it is deleted first."""
    seed: int = 1
    tolerate_failures: bool = False
    """Connect again and go on. A write without an answer may then have happened or not."""
    request_seconds_max: float = 10.0

    def __post_init__(self) -> None:
        if isinstance(self.endpoints, list):
            msgspec.structs.force_setattr(self, "endpoints", tuple(self.endpoints))
        for problem in self._problems():
            raise OptionsError(problem)

    def _problems(self) -> list[str]:
        found = []
        if self.workload not in WORKLOADS:
            found.append(f"there is no workload {self.workload!r}, but {', '.join(WORKLOADS)}")
        for name, least, most in (
            ("clients", 1, WRITERS_MAX),
            ("connections", 1, 10_000),
            ("processes", 1, 256),
            ("keys", 1, KEYS_MAX),
            ("keys_per_range", 1, self.keys),
            ("watchers", 0, 1_000_000),
            ("watchers_per_stream", 1, 1_000_000),
            ("lease_ttl_seconds", 1, 9_000_000_000),
        ):
            if not least <= getattr(self, name) <= most:
                found.append(f"{_option(name)} is from {least} to {most}, not {getattr(self, name)}")
        if self.seconds <= 0 or self.warmup_seconds < 0 or self.request_seconds_max <= 0:
            found.append("seconds are above 0 (those of the warm-up may be 0)")
        if self.rate is not None and not 0 < self.rate <= 1_000_000:
            found.append(f"--rate is above 0 and up to a million operations a second, not {self.rate}")
        if not 0 <= self.read_ratio <= 1:
            found.append(f"--read-ratio is from 0 to 1, not {self.read_ratio}")
        if not 0 < self.zipfian_theta < 1:
            found.append(f"--zipfian-theta is between 0 and 1, not {self.zipfian_theta}")
        if not self.prefix:
            found.append("--prefix must not be empty: all that is below it is deleted")
        if self.processes > self.clients:
            found.append(f"{self.processes} processes need a client each, but there are {self.clients}")
        least, most = self.value_sizes
        if not STAMP_BYTES <= least <= most <= VALUE_BYTES_MAX:
            found.append(f"value sizes are {STAMP_BYTES} to {VALUE_BYTES_MAX}, not {least} to {most}")
        if self.key_bytes is not None and self.key_bytes < len(self.prefix.encode()) + NUMBER_DIGITS_MIN:
            found.append(f"--key-size needs room for the prefix and {NUMBER_DIGITS_MIN} digits")
        for endpoint in self.endpoints or ("",):
            host, _, port = endpoint.rpartition(":")
            if not host or not port.isdigit():
                found.append(f"an endpoint is HOST:PORT, not {endpoint!r}")
        return found + self._contradictions()

    def _contradictions(self) -> list[str]:
        found = []
        if self.rate is not None and self.workload in _CLOSED_ONLY:
            found.append(f"{self.workload} is a closed loop, without --rate")
        if self.workload == "watch":
            if not self.watchers:
                found.append("watch needs --watchers")
            if self.processes > 1:
                found.append("watch runs in one process: every delivery is checked against every put")
            if self.tolerate_failures:
                found.append("watch cannot go on after failures: no watcher may miss an event")
        elif self.watchers and self.workload != "kubernetes":
            found.append(f"{self.workload} has no watchers; watch and kubernetes have")
        if self.distribution == "latest" and self.workload != "ycsb-d":
            found.append("latest is for ycsb-d, which inserts")
        return found

    @property
    def value_sizes(self) -> tuple[int, int]:
        """The least and the largest."""
        if self.value_bytes is None and self.value_bytes_max is None and self.workload == "kubernetes":
            return 1024, 4096
        least = 256 if self.value_bytes is None else self.value_bytes
        return least, least if self.value_bytes_max is None else self.value_bytes_max

    @property
    def is_preloaded(self) -> bool:
        if self.preload is not None:
            return self.preload
        return self.workload not in _UNWRITTEN

    @property
    def key_distribution(self) -> Distribution:
        if self.distribution is not None:
            return self.distribution
        if self.workload == "ycsb-d":
            return "latest"
        return "zipfian" if self.workload in _ZIPFIAN else "uniform"

    @property
    def has_leases(self) -> bool:
        return self.workload in _LEASES or self.workload == "kubernetes"


def _option(name: str) -> str:
    return "--" + name.replace("_bytes", "_size").replace("_seconds", "").replace("_", "-")
