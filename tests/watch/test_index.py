"""The interval index against the obvious: trying every range."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from etcray.gateway.watch_index import WatchIndex, prefix_of
from etcray.gateway.watch_stream import Watcher, WatchStream


def watcher() -> Watcher:
    return Watcher(WatchStream(lambda: None), 0, 1)


def test_prefixes_are_recognised() -> None:
    assert prefix_of(b"a", b"b") == b"a"
    assert prefix_of(b"a/", b"a0") == b"a/"
    assert prefix_of(b"\0", b"\0") == b""
    assert prefix_of(b"a", b"\0") is None
    assert prefix_of(b"a\xff", b"b") is None
    assert prefix_of(b"a", b"c") is None


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_index_finds_exactly_the_ranges_that_hold_a_key(seed: int) -> None:
    rng = random.Random(seed)

    def name() -> bytes:
        return bytes(rng.choice(b"ab\xff") for _ in range(rng.randrange(1, 4)))

    index = WatchIndex()
    watchers: list[Watcher] = []
    for _ in range(rng.choice([20, 400])):
        if watchers and rng.random() < 0.3:
            gone = watchers.pop(rng.randrange(len(watchers)))
            index.remove(gone)
            assert gone not in gone.bucket.watchers
            continue
        start = name()
        prefix_end = start[:-1] + bytes((min(start[-1] + 1, 255),))
        end = rng.choice([b"", b"\0", prefix_end, start + b"\0", name()])
        if end > start or end in (b"", b"\0"):
            watchers.append(watcher())
            index.add(watchers[-1], start, end)
    for _ in range(30):
        key = name()
        found = [w for bucket in index.find(key) for w in bucket.watchers]
        assert len(set(found)) == len(found)
        assert set(found) == {w for w in watchers if w.bucket.holds(key)}
    for last in watchers:
        index.remove(last)
    assert index.find(name()) == []
    assert (index._keys, index._prefixes, index._ranges._buckets) == ({}, {}, {})
