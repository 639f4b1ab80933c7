"""The thread that appends: order, grouping, failure."""

from __future__ import annotations

import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from etcray_storage.errors import StorageFatalError
from etcray_storage.log import Log, LogWriter, Record
from etcray_storage.log.record import merge
from etcray_storage.types import Entry, HardState, Index, MemberId, Term

from .log_workload import all_entries, entry, record, small


class _HeldLog(Log):
    """A log whose appends wait until the test lets them go."""

    appended: list[Record]
    gate: threading.Semaphore
    entered: threading.Semaphore

    def append(self, record: Record) -> None:
        self.entered.release()
        self.gate.acquire()
        self.appended.append(record)
        super().append(record)


def _held(path: Path) -> _HeldLog:
    log = _HeldLog.open(path)
    assert isinstance(log, _HeldLog)
    log.appended = []
    log.gate = threading.Semaphore(0)
    log.entered = threading.Semaphore(0)
    return log


def _no_failure(exception: Exception) -> None:
    raise AssertionError("the writer failed") from exception


def test_callbacks_come_in_order_after_the_record_is_durable(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    writer = LogWriter(log, _no_failure)
    seen: list[tuple[int, bool]] = []

    def on_durable(index: int) -> None:
        seen.append((index, log.last_index >= index))

    for index in range(1, 101):
        writer.submit(record(index), lambda index=index: on_durable(index))  # type: ignore[misc]
    writer.close()
    assert seen == [(index, True) for index in range(1, 101)]
    log.close()
    again = small(tmp_path / "log")
    assert again.last_index == 100
    again.close()


def test_records_that_gather_during_an_append_become_one(tmp_path: Path) -> None:
    log = _held(tmp_path / "log")
    writer = LogWriter(log, _no_failure)
    done: list[int] = []
    writer.submit(record(1), lambda: done.append(1))
    log.entered.acquire()
    for index in (2, 3, 4):
        writer.submit(record(index, count=2), lambda index=index: done.append(index))  # type: ignore[misc]
    assert done == []
    log.gate.release(2)
    writer.close()
    assert done == [1, 2, 3, 4]
    assert [[e.index for e in r.entries] for r in log.appended] == [[1], [2, 3, 4, 5]]
    log.close()


def test_reset_keeps_its_place_among_the_records(tmp_path: Path) -> None:
    log = _held(tmp_path / "log")
    writer = LogWriter(log, _no_failure)
    done: list[str] = []
    writer.submit(record(1, count=3), lambda: done.append("before"))
    log.entered.acquire()
    writer.submit(record(4), lambda: done.append("still before"))
    state = HardState(Term(1), MemberId(7), Index(50))
    writer.submit_reset(Index(50), Term(1), state, lambda: done.append("reset"))
    writer.submit(record(51, commit=50), lambda: done.append("after"))
    log.gate.release(3)
    writer.close()
    assert done == ["before", "still before", "reset", "after"]
    assert (log.base_index, log.last_index) == (50, 51)
    log.close()


def test_failure_is_told_once_and_nothing_is_called_after_it(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    failures: list[Exception] = []
    called: list[int] = []
    writer = LogWriter(log, failures.append)
    log._engine.execute("DETACH log_1")
    writer.submit(record(1), lambda: called.append(1))
    writer._thread.join()
    writer.submit(record(2), lambda: called.append(2))
    writer.close()
    assert [type(failure) for failure in failures] == [StorageFatalError]
    assert called == []
    log.close()


def test_callback_cannot_close_its_own_writer(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    failures: list[Exception] = []
    writer = LogWriter(log, failures.append)
    writer.submit(record(1), writer.close)
    writer.close()
    assert [type(failure) for failure in failures] == [AssertionError]
    log.close()


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(1, 3)),
        min_size=1,
        max_size=6,
    )
)
def test_merged_record_leaves_what_the_records_would(steps: list[tuple[int, int, int]]) -> None:
    stored = [entry(index, 1) for index in range(1, 8)]
    records = []
    model: list[Entry] = list(stored)
    for back, count, step in steps:
        first = max(1, len(model) + 1 - back)
        made = record(first, count=count, term=step)
        records.append(made)
        if made.entries:
            model[first - 1 :] = made.entries
    merged = merge(records)
    assert merged.hard_state == records[-1].hard_state
    if merged.entries:
        stored[merged.entries[0].index - 1 :] = merged.entries
    assert stored == model


def test_all_entries_of_a_merged_record_are_read_back(tmp_path: Path) -> None:
    log = small(tmp_path / "log")
    log.append(merge([record(1, count=4), record(3, count=2, term=2), record(4, term=3)]))
    assert [(e.index, e.term) for e in all_entries(log)] == [(1, 1), (2, 1), (3, 2), (4, 3)]
    log.close()
