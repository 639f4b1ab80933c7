"""Watches of both clients, against a real etcd."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from etcray.client import (
    Client,
    CompactedError,
    Delete,
    InvalidRequestError,
    Put,
    UnavailableError,
    WatchBatch,
    WatchCancelledError,
    WatchEvent,
)
from etcray_bench.etcd import EtcdCluster, free_ports
from etcray_storage import limits
from tests.client.conftest import Maker


def brief(events: Iterator[WatchEvent]) -> list[str]:
    return [("-" if e.is_delete else "+") + e.kv.key_text + "=" + e.kv.text for e in events]


def batch_of(batch: WatchBatch | None) -> WatchBatch:
    assert batch is not None, "no batch came in time"
    return batch


def test_what_happens_inside_the_block_is_seen_in_order(store: Client) -> None:
    with store.watch("a", prefix=True) as watch:
        first = store.put("a1", "x").revision
        store.put("b", "not ours")
        store.put("a2", "y")
        store.delete("a1")
        events = list(islice(watch, 3))
    assert brief(iter(events)) == ["+a1=x", "+a2=y", "-a1="]
    assert [event.revision for event in events] == [first, first + 2, first + 3]
    assert [event.is_create for event in events] == [True, True, False]


def test_start_revision_reads_the_past(store: Client) -> None:
    first = store.put("a", "1").revision
    store.put("a", "2")
    with store.watch("a", start_revision=first) as watch:
        store.put("a", "3")
        assert brief(islice(watch, 3)) == ["+a=1", "+a=2", "+a=3"]


def test_start_revision_in_the_future_waits_for_it(store: Client) -> None:
    revision = store.put("a", "1").revision
    with store.watch("a", start_revision=revision + 2) as watch:
        store.put("a", "2")
        store.put("a", "3")
        assert brief(islice(watch, 1)) == ["+a=3"]


def test_prev_kv_shows_the_pair_before(store: Client) -> None:
    with store.watch("a", prev_kv=True) as watch:
        store.put("a", "1")
        store.put("a", "2")
        store.delete("a")
        previous = [event.prev_kv for event in islice(watch, 3)]
    assert [kv.text if kv else None for kv in previous] == [None, "1", "2"]


def test_filters_leave_out_one_kind(store: Client) -> None:
    with store.watch("a", no_put=True) as deletions, store.watch("a", no_delete=True) as writes:
        store.put("a", "1")
        store.delete("a")
        store.put("a", "2")
        store.delete("a")
        assert brief(islice(deletions, 2)) == ["-a=", "-a="]
        assert brief(islice(writes, 2)) == ["+a=1", "+a=2"]


def test_events_of_one_transaction_come_in_one_batch(store: Client) -> None:
    with store.watch("", prefix=True) as watch:
        done = store.txn().then(Put("a", "1"), Put("b", "2"), Delete("c"), Put("d", "3")).commit()
        batch = batch_of(watch.next_batch(5.0))
    assert brief(iter(batch.events)) == ["+a=1", "+b=2", "+d=3"]
    assert batch.revision == done.revision == batch.header_revision


def test_progress_can_be_asked_for(store: Client) -> None:
    with store.watch("quiet") as watch:
        revision = store.put("elsewhere", "1").revision
        assert watch.next_batch(0.05) is None
        store.request_progress()
        batch = batch_of(watch.next_batch(5.0))
        assert (batch.events, batch.revision) == ((), revision)


def test_compacted_start_names_the_oldest_revision_left(store: Client) -> None:
    old = store.put("a", "1").revision
    newest = store.put("a", "2").revision
    store.compact(newest)
    with store.watch("a", start_revision=old) as watch:
        with pytest.raises(CompactedError, match=f"the oldest one left is {newest}") as raised:
            watch.next_batch(5.0)
        assert raised.value.compact_revision == newest
        with pytest.raises(CompactedError):
            next(iter(watch))


def test_impossible_watches_are_refused(store: Client) -> None:
    with pytest.raises(InvalidRequestError, match="watcher range is empty"), store.watch("b", "a"):
        pass
    with pytest.raises(CompactedError), store.watch("a", start_revision=-5) as watch:
        watch.next_batch(5.0)
    with store.watch("a") as watch:  # and the stream is none the worse for it
        store.put("a", "1")
        assert brief(islice(watch, 1)) == ["+a=1"]


def test_cancel_wakes_who_waits_and_ends_the_iteration(store: Client) -> None:
    with store.watch("a") as watch:
        ended = threading.Event()

        def wait() -> None:
            assert list(watch) == []
            ended.set()

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)
        watch.cancel()
        thread.join(5)
        assert ended.is_set()
        with pytest.raises(WatchCancelledError):
            watch.next_batch()


def test_closing_the_client_ends_its_watches(make_client: Maker, etcd: EtcdCluster) -> None:
    client = make_client(etcd.endpoints)
    with client.watch("a") as watch:
        client.close()
        assert list(watch) == []
    with client.watch("a") as watch:  # connects again
        client.put("a", "again")
        assert brief(islice(watch, 1)) == ["+a=again"]


def test_nobody_there_is_said_when_the_watch_begins(make_client: Maker) -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnavailableError), make_client(f"127.0.0.1:{port}", timeout=0.3).watch("a"):
        pass


def test_slow_consumer_misses_nothing_and_holds_up_nobody(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.client.watching.WATCH_QUEUE_EVENTS_MAX", 8)
    assert limits.WATCH_QUEUE_EVENTS_MAX > 8
    with store.watch("slow/", prefix=True) as slow, store.watch("last") as other:
        for number in range(100):
            store.put(f"slow/{number}", "")
        store.put("last", "1")
        assert brief(islice(other, 1)) == ["+last=1"]
        seen = [event.kv.key_text for event in islice(slow, 100)]
    assert seen == [f"slow/{number}" for number in range(100)]


def test_many_watches_each_see_their_own(store: Client) -> None:
    watches = [store.watch(f"w{number}") for number in range(50)]
    for watch in watches:
        watch.__enter__()
    for number in range(50):
        store.put(f"w{number}", str(number))
    assert [next(iter(watch)).kv.text for watch in watches] == [str(number) for number in range(50)]
    for watch in watches:
        watch.cancel()


def test_members_killed_and_restarted_cost_no_event_and_repeat_none(
    make_client: Maker, private_etcd: EtcdCluster
) -> None:
    watcher, writer = make_client(private_etcd.endpoints), Client(private_etcd.endpoints, timeout=20.0)
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        while not stop.is_set():
            try:
                written.append(writer.put("k", str(len(written))).revision)
            except Exception:  # its outcome is open: the revision shows up in the watch or it does not
                continue

    with watcher.watch("k") as watch:
        thread = threading.Thread(target=write)
        thread.start()
        seen = list(islice(watch, 20))
        for victim in (0, 1):
            private_etcd.signal(victim, signal.SIGKILL)
            seen += islice(watch, 20)
            private_etcd.restart(victim)
            seen += islice(watch, 20)
            time.sleep(0.5)
        stop.set()
        thread.join()
        while seen[-1].revision < written[-1]:
            seen.append(next(iter(watch)))
    writer.close()
    revisions = [event.revision for event in seen]
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))
    assert set(written) <= set(revisions)
