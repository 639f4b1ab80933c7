"""A query that does not end by itself."""

from typing import Final

ENDLESS: Final = "SELECT sum(sin(a.range + b.range)) FROM range(100000000000) a, range(1000) b"
"""Needs a thousand rows of memory. One that joins two long ranges holds one of them, and is out of memory
within a second."""
