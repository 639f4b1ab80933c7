"""What can go wrong with a load. Each message says what to do, or what was found."""

from __future__ import annotations

from etcray.errors import ClusterError


class LoadError(ClusterError):
    """The load could not be run to its end."""


class ConnectError(LoadError):
    """Nobody answers at an endpoint, or something that is no store."""


class CheckFailedError(LoadError):
    """The store does not hold, or did not say, what its clients were told before: whatever was measured
    does not count."""


class RequestFailedError(LoadError):
    """One request was not answered, or with an error. What it asked for may have happened, or not."""
