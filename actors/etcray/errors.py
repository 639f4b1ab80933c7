"""What can go wrong between a person and a cluster as a whole: starting, finding and stopping one.

Told apart by what the person can do about it; each message says what to do. Errors of the key-value
API and of a member's storage are in `etcray_storage.errors`.
"""

from __future__ import annotations


class ClusterError(Exception):
    """Nothing was started, or what was started is stopped again. Never raise the base itself."""


class OptionsError(ClusterError):
    """An option makes no sense, or contradicts the cluster that is stored in the data directory."""


class PortInUseError(ClusterError):
    """Another process listens on a port that a gateway should listen on."""


class ClusterRunningError(ClusterError):
    """A cluster of this name, or on this data directory, is running already."""


class ClusterNotFoundError(ClusterError):
    """No running cluster of this name was found."""


class RayError(ClusterError):
    """Ray could not be started or joined, or this process is connected to another Ray."""


class NotReadyError(ClusterError):
    """The cluster did not become ready in the time given, or a member cannot be opened."""


class MembershipError(ClusterError):
    """The membership cannot be changed as asked, or not in the time given."""


class CommandFailedError(ClusterError):
    """A command that was to be run for an event could not do its work."""
