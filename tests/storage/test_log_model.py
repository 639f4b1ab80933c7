"""The log against a list that does the obvious thing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from etcray_storage.log import CompactedError, Log, Record
from etcray_storage.types import Entry, EntryKind, HardState, Index, MemberId, Term

_SEGMENT_BYTES = 400
_SEGMENT_ROWS = 6
_CACHE_BYTES = 60


def _open(directory: Path) -> Log:
    return Log.open(
        directory, segment_bytes=_SEGMENT_BYTES, segment_rows=_SEGMENT_ROWS, cache_bytes=_CACHE_BYTES
    )


class LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="etcray-log-"))
        self.log = _open(self.root / "log")
        self.copies = 0
        self.base = (Index(0), Term(0))
        self.entries: list[Entry] = []
        self.hard_state = HardState()

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.root)

    def last(self) -> int:
        return self.base[0] + len(self.entries)

    def term_before(self, index: int) -> int:
        at = index - self.base[0] - 2
        return self.entries[at].term if at >= 0 else self.base[1]

    @rule(
        back=st.integers(0, 6),
        sizes=st.lists(st.integers(0, 60), max_size=4),
        term_up=st.integers(0, 1),
        vote=st.integers(0, 3),
    )
    def append(self, back: int, sizes: list[int], term_up: int, vote: int) -> None:
        first = max(self.base[0] + 1, self.last() + 1 - back)
        term = max(self.hard_state.term, self.term_before(first)) + term_up
        entries = tuple(
            Entry(Index(first + n), Term(term), EntryKind.COMMANDS, bytes([n]) * size)
            for n, size in enumerate(sizes)
        )
        hard_state = HardState(Term(term), MemberId(vote), self.hard_state.commit)
        self.log.append(Record(hard_state, entries))
        if entries:
            self.entries[first - self.base[0] - 1 :] = entries
        self.hard_state = hard_state

    @rule(fraction=st.floats(0, 1))
    def compact(self, fraction: float) -> None:
        count = int(fraction * len(self.entries))
        self.log.compact(Index(self.base[0] + count))
        if count:
            self.base = (self.entries[count - 1].index, self.entries[count - 1].term)
            del self.entries[:count]

    @rule(ahead=st.integers(0, 8))
    def reset(self, ahead: int) -> None:
        index, term = Index(self.base[0] + ahead), max(self.base[1], self.hard_state.term)
        self.hard_state = HardState(Term(term), self.hard_state.vote, max(self.hard_state.commit, index))
        self.log.reset(index, Term(term), self.hard_state)
        self.base, self.entries = (index, Term(term)), []

    @rule()
    def maintain(self) -> None:
        self.log.maintain()

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.log = _open(self.root / "log")

    @rule()
    def crash(self) -> None:
        """Go on with a copy of the files as they are: what a killed process leaves."""
        copy = self.root / f"copy-{self.copies}"
        self.copies += 1
        shutil.copytree(self.root / "log", copy)
        self.log.close()
        shutil.rmtree(self.root / "log")
        copy.rename(self.root / "log")
        self.log = _open(self.root / "log")

    @rule(start=st.floats(0, 1), stop=st.floats(0, 1), bytes_max=st.integers(0, 200))
    def read(self, start: float, stop: float, bytes_max: int) -> None:
        if not self.entries:
            return
        low = int(start * (len(self.entries) - 1))
        high = low + int(stop * (len(self.entries) - 1 - low))
        first, last = self.entries[low].index, self.entries[high].index
        got = self.log.entries(first, last, bytes_max)
        expected = [self.entries[low]]
        size = len(expected[0].data)
        for entry in self.entries[low + 1 : high + 1]:
            size += len(entry.data)
            if size > bytes_max:
                break
            expected.append(entry)
        assert got == expected[: len(got)]
        assert len(got) == len(expected)

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.log.hard_state == self.hard_state
        assert (self.log.base_index, self.log.base_term) == self.base
        assert self.log.last_index == self.last()
        assert self.log.first_index == self.base[0] + 1
        assert self.log.term(self.base[0]) == self.base[1]
        for entry in self.entries:
            assert self.log.term(entry.index) == entry.term
        if self.base[0]:
            with pytest.raises(CompactedError):
                self.log.term(Index(self.base[0] - 1))


LogMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestLogAgainstModel = LogMachine.TestCase
