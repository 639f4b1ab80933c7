"""From thousands of requests to the few that show a difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrink(items: Sequence[T], fails: Callable[[Sequence[T]], bool], attempts: int) -> list[T]:
    """Delta debugging: leave out ever smaller pieces as long as what is left still fails.

    `items` is known to fail. Gives back the best found after at most so many calls of `fails`.
    """
    assert attempts >= 0, f"{attempts} attempts"
    best = list(items)
    size = len(best) // 2
    while size > 0:
        start = 0
        removed = False
        while start < len(best) and size < len(best):
            if attempts == 0:
                return best
            attempts -= 1
            candidate = best[:start] + best[start + size :]
            if fails(candidate):
                best = candidate
                removed = True
            else:
                start += size
        if not removed or size >= len(best):
            size //= 2
    return best
