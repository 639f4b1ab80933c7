"""Spans of time and amounts of bytes as people write them."""

from __future__ import annotations

import re
from typing import Final

from etcray.errors import OptionsError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_BYTES: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_seconds(text: str) -> int:
    """90d, 12h, 30m, 45s or 2w. Raises OptionsError."""
    found = re.fullmatch(r"(\d+)([smhdw])", text.strip().lower())
    if found is None:
        raise OptionsError(f"{text!r} is no span of time: write 90d, 12h, 30m or 45s")
    return int(found[1]) * _SECONDS[found[2]]


def parse_bytes(text: str) -> int:
    """500M, 20G, or a plain number; units are powers of 1024. Raises OptionsError."""
    found = re.fullmatch(r"(\d+)([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None:
        raise OptionsError(f"{text!r} is no amount of bytes: write 500M, 20G or a number")
    return int(found[1]) * _BYTES[found[2]]
