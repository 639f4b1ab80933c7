"""What can go wrong in the laboratory that a person can do something about."""

from __future__ import annotations

from etcray.errors import ClusterError


class LaboratoryError(ClusterError):
    """An experiment cannot be run, or not be shown. The message says what to do."""
