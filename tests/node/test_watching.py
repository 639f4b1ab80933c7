"""Watching real members: leader changes, restarts, an installed snapshot, compaction. The hub is the
gateway's; its calls go to the members directly."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from etcray.gateway.watch_hub import WatchHub
from etcray.gateway.watch_stream import WatchStream
from etcray.node import api
from etcray.node.member import Member
from etcray_storage.commands import Batch, CommandKind
from etcray_storage.proto.kv_pb2 import Event
from etcray_storage.proto.rpc_pb2 import CompactionRequest, WatchCreateRequest, WatchResponse
from etcray_storage.types import MemberId
from tests.node.local_cluster import LocalCluster, put_batch, wait_for
from tests.watch.validators import Recording, validate

SESSION = 77


class WatchingGateway:
    """A hub, a stream, and the way to whichever members answer; driven by hand."""

    def __init__(self, cluster: LocalCluster, seed: int = 1) -> None:
        self.cluster = cluster
        self.rng = random.Random(seed)
        self.hub = WatchHub(cluster.spec.cluster_id, self.rng, lambda: None)
        self.stream: WatchStream = self.hub.open_stream(lambda: None)
        self.recordings: list[Recording] = []
        self.served: set[MemberId] = set()

    def watch(self, **fields: object) -> Recording:
        self.advance_until(lambda: self.hub.position is not None, "a position")
        request = WatchCreateRequest(key=b"\0", range_end=b"\0", **fields)  # type: ignore[arg-type]
        self.recordings.append(Recording(request))
        self.hub.create(self.stream, request, 0, 0.0)
        return self.recordings[-1]

    def advance(self, only: MemberId | None = None) -> None:
        """One poll of one member, and whatever reads that asks for."""
        poll = self.hub.poll()
        assert poll is not None
        member = self._member(only)
        events = None if member is None else attempt(member.watch, api.encode(poll_now(poll)))
        if events is not None and events.outcome is api.Outcome.ANSWERED:
            self.served.add(events.member)
            self.hub.polled(events)
        for read in self.hub.catch_ups.next_reads():
            member = self._member(only)
            found = None if member is None else attempt(member.history, api.encode(read.request))
            if found is not None and found.outcome is api.Outcome.ANSWERED:
                self.hub.catch_ups.answered(read, found)
            else:
                self.hub.catch_ups.failed(read)
        while (data := self.hub.take(self.stream)) is not None:
            response = WatchResponse.FromString(data)
            self.recordings[response.watch_id].responses.append(response)

    def advance_until(self, reached: Callable[[], bool], what: str, only: MemberId | None = None) -> None:
        def check() -> bool | None:
            self.advance(only)
            return reached() or None

        wait_for(check, what)

    def _member(self, only: MemberId | None) -> Member | None:
        members = [m for m in self.cluster.board.members.values() if only in (None, m.spec.id)]
        return self.rng.choice(members) if members else None

    def reach(self, revision: int) -> None:
        """Go on until all watchers have been told of everything up to a revision."""
        self.advance_until(
            lambda: self.hub.position == revision and self.stream.all_synced(revision), f"revision {revision}"
        )

    def events(self, recording: Recording) -> list[tuple[bytes, int]]:
        return [(event.kv.key, event.kv.mod_revision) for event in recording.events()]


AnswerT = TypeVar("AnswerT")


def attempt(call: Callable[[bytes], AnswerT], request: bytes) -> AnswerT | None:
    """None if the member is closed."""
    try:
        return call(request)
    except RuntimeError:
        return None


def poll_now(poll: api.WatchPoll) -> api.WatchPoll:
    return api.WatchPoll(poll.after_revision, poll.with_previous, poll.bytes_max, 0.01)


def compact(cluster: LocalCluster, sequence: int, revision: int) -> None:
    request = CompactionRequest(revision=revision).SerializeToString()
    cluster.propose(Batch(SESSION, sequence, 0, bytes([CommandKind.COMPACT]), [request]))


def answered(member: Member, request: api.HistoryRequest) -> api.HistoryReply | None:
    """None while the member has not applied that far."""
    reply = member.history(api.encode(request))
    return reply if reply.outcome is api.Outcome.ANSWERED else None


def truth_of(cluster: LocalCluster, through: int) -> list[Event]:
    """Every event, as read from one member's tables."""
    member = next(iter(cluster.board.members.values()))
    history: list[Event] = []
    first = 2
    while first <= through:
        request = api.HistoryRequest(b"\0", b"\0", first, through, True, 100, 1 << 20)
        reply = wait_for(partial(answered, member, request), "a member that has applied it")
        for data, previous in zip(reply.events, reply.previous, strict=True):
            event = Event.FromString(data)
            if previous:
                event.prev_kv.ParseFromString(previous)
            history.append(event)
        first = reply.through_revision + 1
    return history


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        yield cluster


def test_every_member_serves_events_and_history(cluster: LocalCluster) -> None:
    for sequence in range(1, 6):
        cluster.put(SESSION, sequence, b"k", b"%d" % sequence)
    cluster.wait_until_equal()
    for member in cluster.board.members:
        gateway = WatchingGateway(cluster)
        recording = gateway.watch(start_revision=1, prev_kv=True)
        gateway.advance_until(recording.is_under_way, "events", member)
        gateway.reach(6)
        assert gateway.events(recording) == [(b"k", revision) for revision in range(2, 7)]
        validate(recording, truth_of(cluster, 6), 6)


def test_watchers_over_leader_changes_miss_nothing(cluster: LocalCluster) -> None:
    gateway = WatchingGateway(cluster)
    now, past = gateway.watch(), gateway.watch(start_revision=1, prev_kv=True)
    done = threading.Event()
    written: list[int] = []

    def write() -> None:
        while not done.is_set():
            sequence = len(written) + 1
            batch = put_batch(SESSION, sequence, {b"n%d" % (sequence % 3): b"%d" % sequence}, sequence - 1)
            reply = cluster.propose(batch)
            assert reply.answer is not None
            written.extend(reply.answer.revisions)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            leader = cluster.leader().spec.id
            cluster.isolate(leader)
            enough = len(written) + 15
            while len(written) < enough:
                assert writer.is_alive()
                gateway.advance()
                time.sleep(0.002)
            cluster.heal()
    finally:
        done.set()
        writer.join()
    gateway.reach(written[-1])
    for recording in (now, past):
        validate(recording, truth_of(cluster, written[-1]), written[-1])
        assert len(list(recording.events())) == len(written)
    assert len(gateway.served) > 1


def test_cut_off_member_sends_watchers_elsewhere(cluster: LocalCluster) -> None:
    cluster.put(SESSION, 1, b"k", b"v")
    old = cluster.leader()
    cluster.isolate(old.spec.id)
    poll = api.encode(api.WatchPoll(1, False, 1000, 0.01))
    wait_for(lambda: old.watch(poll).outcome is api.Outcome.NOT_LEADER or None, "a refusal")


def test_installed_snapshot_and_restart_leave_no_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcray.node.opened.LOG_CATCH_UP_ENTRIES", 5)
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        lagging = next(m for m in cluster.board.members if m != cluster.leader().spec.id)
        gateway = WatchingGateway(cluster)
        live, past = gateway.watch(), gateway.watch(start_revision=1, prev_kv=True)
        gateway.reach(1)
        cluster.isolate(lagging)
        for sequence in range(1, 61):
            cluster.put(SESSION, sequence, b"k%d" % (sequence % 7), b"%d" % sequence)

        def trimmed() -> bool | None:
            opened = cluster.leader()._opened
            assert opened is not None
            return opened.log.base_index > 20 or None

        wait_for(trimmed, "a trimmed log")
        cluster.heal()
        cluster.put(SESSION, 61, b"k", b"last")
        cluster.wait_until_equal()
        # Only the member that skipped all of it is asked: it has missed the events, but not their rows.
        gateway.advance_until(lambda: len(gateway.events(live)) == 61, "61 events", lagging)
        cluster.stop(lagging)
        cluster.start(lagging)
        cluster.put(SESSION, 62, b"k", b"more")
        cluster.wait_until_equal()
        gateway.advance_until(lambda: len(gateway.events(past)) == 62, "62 events", lagging)
        gateway.reach(63)
        for recording in (live, past):
            validate(recording, truth_of(cluster, 63), 63)


def test_watcher_behind_a_compaction_is_canceled_with_its_revision(cluster: LocalCluster) -> None:
    for sequence in range(1, 11):
        cluster.put(SESSION, sequence, b"k", b"%d" % sequence)
    compact(cluster, 11, 8)
    cluster.wait_until_equal()
    gateway = WatchingGateway(cluster)
    behind, at_it = gateway.watch(start_revision=7), gateway.watch(start_revision=8)
    gateway.reach(11)
    assert [(r.canceled, r.compact_revision) for r in behind.responses] == [(False, 0), (True, 8)]
    assert gateway.events(at_it) == [(b"k", revision) for revision in (8, 9, 10, 11)]


def test_history_does_not_keep_rows_from_the_disk(cluster: LocalCluster) -> None:
    """Reading the past stages rows; the next flush has to write them although nothing else changed."""
    cluster.put(SESSION, 1, b"k", b"v")
    cluster.wait_until_equal()
    member: Member = cluster.leader()
    opened = member._opened
    assert opened is not None
    request = api.HistoryRequest(b"k", b"", 2, 2, False, 10, 1000)
    reply = member.history(api.encode(request))
    assert (reply.revisions, reply.through_revision) == ([2], 2)
    wait_for(lambda: opened.tables.revision == 2 or None, "the rows on disk")


def test_too_many_waiting_polls_are_turned_away(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = cluster.leader()
    cluster.wait_until_equal()
    opened = member._opened
    assert opened is not None
    monkeypatch.setattr(opened.watching, "_polls", threading.BoundedSemaphore(1))
    waiting = threading.Thread(target=member.watch, args=(api.encode(api.WatchPoll(1, False, 1000, 5.0)),))
    waiting.start()
    poll = api.encode(api.WatchPoll(1, False, 1000, 0.0))
    wait_for(lambda: member.watch(poll).outcome is api.Outcome.BUSY or None, "a full member")
    cluster.put(SESSION, 1, b"k", b"v")
    waiting.join(10)
    assert not waiting.is_alive()
    assert member.watch(poll).revisions == [2]
