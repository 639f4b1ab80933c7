"""Linearizable reads without a log entry (thesis 6.4).

A read may be answered from a state that has applied everything committed when the read began, if
this member was still the leader then. A leader knows its commit index, but only

1. after it has committed an entry of its own term: before that, entries that an earlier leader had
   committed may still look uncommitted here; and
2. after a majority has confirmed, by answering a request that left *after* the read began, that
   nobody else has been elected in the meantime.

Rounds are numbered. Every append carries the number of the newest round, its answer echoes it. Reads
that begin before the round's first request has left share that round; later ones begin a new one. So
an old, duplicated or reordered answer can never confirm a read that began after it.
"""

from __future__ import annotations

from collections import deque

import msgspec

from etcray_storage.types import Index


class ReadState(msgspec.Struct, frozen=True):
    """The read with this token may be answered once `index` is applied."""

    token: int
    index: Index


class ReadRounds:
    """The reads of one leadership. It dies with the leadership: see `unanswered`."""

    def __init__(self) -> None:
        self.sequence = 0
        """The newest round; 0 before the first. Never falls within a term."""
        self._sequence_is_open = False
        """No request with `sequence` has left yet: a new read may still join the round."""
        self._early: list[int] = []
        """Tokens of reads that began before an entry of the term was committed."""
        self._waiting: deque[tuple[int, int, Index]] = deque()
        """(sequence, token, index) of reads that a round is to confirm, oldest first."""

    def begin(self, token: int, commit: Index) -> None:
        if not self._sequence_is_open:
            self.sequence += 1
            self._sequence_is_open = True
        self._waiting.append((self.sequence, token, commit))

    def begin_early(self, token: int) -> None:
        """Hold the read back until `begin_held` says that the leader knows its commit index."""
        self._early.append(token)

    def begin_held(self, commit: Index) -> bool:
        """Begin the reads that were held back. Returns whether there were any."""
        held, self._early = self._early, []
        for token in held:
            self.begin(token, commit)
        return bool(held)

    def close_round(self) -> None:
        """Requests with the newest sequence are about to leave."""
        self._sequence_is_open = False

    def confirm(self, sequence: int) -> list[ReadState]:
        """A majority has echoed `sequence`: the reads that this answers, in their order."""
        assert sequence <= self.sequence, f"round {sequence} confirmed, newest is {self.sequence}"
        confirmed: list[ReadState] = []
        while self._waiting and self._waiting[0][0] <= sequence:
            _, token, index = self._waiting.popleft()
            confirmed.append(ReadState(token, index))
        return confirmed

    def unanswered(self) -> list[int]:
        """Tokens of all reads that nothing will confirm any more once leadership is lost."""
        return [token for _, token, _ in self._waiting] + self._early

    @property
    def is_idle(self) -> bool:
        return not self._waiting
