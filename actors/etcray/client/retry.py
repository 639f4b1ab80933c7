"""Endpoints in turn, and what to do after a failed attempt. Pure: the time is an argument.

The rules are those of etcd's Go client: a read is repeated while the code is Unavailable, a write
only while it was never sent; see the package's essay.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from etcray.client.errors import EtcrayError, error_for, was_never_sent
from etcray_storage.errors import Code

PAUSE_FIRST_SECONDS: Final = 0.025
PAUSE_MAX_SECONDS: Final = 0.4
JITTER: Final = 0.1
"""A pause is longer or shorter by up to this share, so that clients do not return all at once."""


_NOT_ANSWERING: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})


def parse_endpoints(endpoints: str | Sequence[str]) -> tuple[str, ...]:
    """`host:port`s from a list, or from one text with commas; a leading `http://` is dropped."""
    listed = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
    parsed = tuple(_parse_endpoint(endpoint.strip()) for endpoint in listed if endpoint.strip())
    if not parsed:
        raise ValueError("no endpoint given: a client needs at least one HOST:PORT")
    return parsed


def _parse_endpoint(endpoint: str) -> str:
    if endpoint.startswith("https://"):
        raise ValueError(f"{endpoint}: this client does not speak TLS yet; give HOST:PORT")
    return endpoint.removeprefix("http://").rstrip("/")


class EndpointRound:
    """Which endpoint is used now. All calls of a client stay on one until it fails."""

    def __init__(self, endpoints: tuple[str, ...]) -> None:
        self.endpoints = endpoints
        self._current = 0

    @property
    def current(self) -> str:
        return self.endpoints[self._current]

    def after_failure(self, code: Code, endpoint: str) -> None:
        """Go on to the next if this endpoint did not answer, unless another call did so already."""
        if code in _NOT_ANSWERING and self.current == endpoint:
            self._current = (self._current + 1) % len(self.endpoints)


class Attempts:
    """The attempts of one call. `deadline` is on the caller's clock, in seconds."""

    def __init__(self, *, writes: bool, endpoints: int, deadline: float, jitter: random.Random) -> None:
        self._writes = writes
        self._endpoints = endpoints
        self._deadline = deadline
        self._jitter = jitter
        self._failures = 0

    def seconds_left(self, now: float) -> float:
        return max(0.0, self._deadline - now)

    def after_failure(self, code: Code, message: str, now: float) -> float | EtcrayError:
        """Seconds to wait before the next attempt, or the error that ends the call."""
        self._failures += 1
        pause = pause_seconds(self._failures, self._endpoints, self._jitter)
        repeatable = was_never_sent(code, message) or (code is Code.UNAVAILABLE and not self._writes)
        if not repeatable or now + pause >= self._deadline:
            return error_for(code, message, writes=self._writes)
        return pause


def pause_seconds(failures: int, endpoints: int, jitter: random.Random) -> float:
    """None until every endpoint has failed once, then doubling with every round."""
    rounds, within = divmod(failures, endpoints)
    if within != 0:
        return 0.0
    pause = min(PAUSE_FIRST_SECONDS * 2.0 ** min(rounds - 1, 10), PAUSE_MAX_SECONDS)
    return pause * jitter.uniform(1 - JITTER, 1 + JITTER)
