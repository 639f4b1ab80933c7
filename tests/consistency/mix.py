"""What the clients ask: a random mix on few keys, every value unique."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from tests.consistency.history import (
    Answer,
    Compare,
    Delete,
    Pair,
    Put,
    Range,
    RangeAnswer,
    Relation,
    Request,
    Target,
    Txn,
)

GROUPS: Final = (b"a/", b"b/", b"c/", b"d/")
KEYS_PER_GROUP: Final = 8
EVERYTHING: Final = Range(b"\0", b"\0")
READER_EVERY: Final = 5
"""Of so many clients one only reads. Prime to the number of connections, so that each has readers."""

PAST_REVISIONS: Final = 1_000
"""How far back reads of the past go."""


class Mix:
    """Chooses requests. Seen pairs and revisions make compares that sometimes hold."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"mix {seed}")
        self._keys = [group + b"%d" % number for group in GROUPS for number in range(KEYS_PER_GROUP)]
        self._seen: dict[bytes, Pair] = {}
        self._revision = 1
        self._count = 0
        self.compacted = 0
        """Reads of the past rarely go below this."""
        shares: list[tuple[int, Callable[[], Request]]] = [
            (26, self._put),
            (18, self._get),
            (10, self._list),
            (3, self._count_keys),
            (4, self._get_past),
            (8, self._get_serializable),
            (6, self._delete),
            (2, self._delete_some),
            (12, self._swap),
            (7, self._put_several),
            (4, self._move),
        ]
        self._kinds = [make for share, make in shares for _ in range(share)]
        self._reading_kinds = [self._get, self._get, self._list, self._get_serializable]

    def request(self, client: int) -> Request:
        """Some clients only read: with a leader that can commit nothing all others soon wait for a write,
        and nobody would ask it anything any more."""
        is_reader = client % READER_EVERY == READER_EVERY - 1
        return self._random.choice(self._reading_kinds if is_reader else self._kinds)()

    def learn(self, request: Request, answer: Answer, revision: int) -> None:
        """Remember what an answer showed."""
        self._revision = max(self._revision, revision)
        if isinstance(request, Put) and self._random.random() < 0.5:
            self._seen[request.key] = (request.key, request.value, 0, revision, 0)
        elif isinstance(answer, RangeAnswer) and not getattr(request, "revision", 0):
            for pair in answer.pairs:
                self._seen[pair[0]] = pair

    def _key(self) -> bytes:
        return self._random.choice(self._keys)

    def _value(self) -> bytes:
        self._count += 1
        return b"%d" % self._count + b"." * self._random.choice((0, 0, 10, 40))

    def _put(self) -> Request:
        return Put(self._key(), self._value(), prev_kv=self._random.random() < 0.3)

    def _get(self) -> Request:
        return Range(self._key())

    def _list(self) -> Request:
        group = self._random.choice(GROUPS)
        return Range(group, _end(group), limit=self._random.choice((0, 0, 1, 3)))

    def _count_keys(self) -> Request:
        return Range(b"a/", b"\0", count_only=True)

    def _get_past(self) -> Request:
        lowest = max(1, self._revision - PAST_REVISIONS, self.compacted)
        if self._random.random() < 0.03:
            lowest = 1
        revision = self._random.randint(min(lowest, self._revision), self._revision)
        if self._random.random() < 0.02:
            revision = self._revision + self._random.randint(1, 50)
        if self._random.random() < 0.5:
            return Range(self._key(), revision=revision)
        group = self._random.choice(GROUPS)
        return Range(group, _end(group), revision)

    def _get_serializable(self) -> Request:
        if self._random.random() < 0.5:
            return Range(self._key(), serializable=True)
        group = self._random.choice(GROUPS)
        return Range(group, _end(group), serializable=True)

    def _delete(self) -> Request:
        return Delete(self._key(), prev_kv=self._random.random() < 0.3)

    def _delete_some(self) -> Request:
        key = self._key()
        return Delete(key, _end(key[:2]), prev_kv=self._random.random() < 0.3)

    def _swap(self) -> Request:
        """Compare and put: what the jetcd client lost updates with."""
        key = self._key()
        return Txn((self._compare(key),), (Put(key, self._value()),), (Range(key),))

    def _compare(self, key: bytes) -> Compare:
        seen = self._seen.get(key)
        choice = self._random.random()
        if seen is None or choice < 0.2:
            return Compare(key, Target.CREATE, Relation.EQUAL, 0)
        if choice < 0.5:
            return Compare(key, Target.MOD, Relation.EQUAL, seen[3])
        if choice < 0.85:
            return Compare(key, Target.VALUE, Relation.EQUAL, seen[1])
        return Compare(key, Target.VERSION, self._random.choice(list(Relation)), self._random.randint(0, 6))

    def _put_several(self) -> Request:
        keys = self._random.sample(self._keys, 3)
        return Txn((), tuple(Put(key, self._value()) for key in keys))

    def _move(self) -> Request:
        """In one transaction: delete one key, put another, and look at a third."""
        old, new, other = self._random.sample(self._keys, 3)
        compare = Compare(old, Target.VERSION, Relation.GREATER, 0)
        return Txn(
            (compare,), (Delete(old), Put(new, self._value()), Range(other)), (Put(old, self._value()),)
        )


def _end(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes((prefix[-1] + 1,))
