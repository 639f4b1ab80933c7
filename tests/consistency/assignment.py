"""Who may have done what, one thing each: a matching between things and their candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def assign(possible: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """A largest assignment of candidates to things, no candidate twice (augmenting paths, Kuhn 1955)."""
    holder: dict[int, int] = {}
    """By candidate: the thing that it is assigned to."""
    for thing in possible:
        _augment(thing, possible, holder)
    return {thing: candidate for candidate, thing in holder.items()}


def _augment(thing: int, possible: Mapping[int, Sequence[int]], holder: dict[int, int]) -> None:
    """Breadth first: a path from the thing over held candidates to a free one, then shift along it."""
    reached_from: dict[int, int] = {}
    """By candidate: the thing that led to it."""
    waiting = [thing]
    for current in waiting:
        for candidate in possible[current]:
            if candidate in reached_from:
                continue
            reached_from[candidate] = current
            if candidate not in holder:
                _shift(thing, candidate, reached_from, holder)
                return
            waiting.append(holder[candidate])


def _shift(thing: int, free: int, reached_from: dict[int, int], holder: dict[int, int]) -> None:
    held = {other: candidate for candidate, other in holder.items() if other in set(reached_from.values())}
    candidate = free
    while True:
        taker = reached_from[candidate]
        holder[candidate] = taker
        if taker == thing:
            return
        candidate = held[taker]
