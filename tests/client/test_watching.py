"""The pure part of watches, against a model of a server that loses connections at any point."""

from __future__ import annotations

import random
from collections import deque
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcray.client import CompactedError, EtcrayError, InvalidRequestError
from etcray.client.watching import Phase, WatchHub, WatchOptions, WatchState
from etcray_storage.errors import Code
from etcray_storage.proto import kv_pb2, rpc_pb2

KEYS = (b"a", b"b")


class Server:
    """Revision r writes one key, or both. Watches are served batch by batch, in the order of requests."""

    def __init__(self) -> None:
        self.history: list[tuple[bytes, ...]] = []
        self.next_id = 0
        self.watches: dict[int, tuple[bytes, int]] = {}
        """Per id: key, next revision."""
        self.requests: deque[bytes] = deque()
        self.answers: deque[rpc_pb2.WatchResponse] = deque()

    @property
    def revision(self) -> int:
        return 1 + len(self.history)

    def disconnect(self) -> None:
        self.watches.clear()
        self.requests.clear()
        self.answers.clear()

    def serve_request(self) -> None:
        if not self.requests:
            return
        request = rpc_pb2.WatchRequest.FromString(self.requests.popleft())
        if request.HasField("cancel_request"):
            self.watches.pop(request.cancel_request.watch_id, None)
            self.answer(rpc_pb2.WatchResponse(watch_id=request.cancel_request.watch_id, canceled=True))
            return
        create = request.create_request
        self.watches[self.next_id] = (create.key, create.start_revision or self.revision + 1)
        self.answer(rpc_pb2.WatchResponse(watch_id=self.next_id, created=True))
        self.next_id += 1

    def send_events(self, watch_id: int, most: int) -> None:
        key, start = self.watches[watch_id]
        events = []
        for revision in range(start, min(start + most, self.revision + 1)):
            for written in self.history[revision - 2]:
                if written == key:
                    kv = kv_pb2.KeyValue(key=key, mod_revision=revision)
                    events += [kv_pb2.Event(kv=kv), kv_pb2.Event(kv=kv)]
            self.watches[watch_id] = (key, revision + 1)
        if events:
            self.answer(rpc_pb2.WatchResponse(watch_id=watch_id, events=events))

    def send_progress(self) -> None:
        if all(start > self.revision for _, start in self.watches.values()):
            self.answer(rpc_pb2.WatchResponse(watch_id=-1))

    def answer(self, response: rpc_pb2.WatchResponse) -> None:
        response.header.revision = self.revision
        self.answers.append(response)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "request", "events", "events", "answer", "answer", "take", "progress", "break"]
        ),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(actions=ACTIONS, starts=st.tuples(st.integers(2, 8), st.integers(2, 8), st.integers(2, 8)))
def test_every_event_arrives_once_and_in_order_whatever_breaks(
    actions: list[tuple[str, int]], starts: tuple[int, int, int]
) -> None:
    server, hub = Server(), WatchHub(random.Random(1))
    watches = [
        WatchState(KEYS[number % 2], None, WatchOptions(start_revision=start))
        for number, start in enumerate(starts)
    ]
    taken: list[list[int]] = [[] for _ in watches]
    server.requests.extend(hub.connected())

    def take(number: int) -> bool:
        batch = watches[number].take()
        server.requests.extend(hub.was_taken_from(watches[number]))
        if batch is not None:
            taken[number] += [event.revision for event in batch.events]
            assert batch.revision >= max(taken[number], default=0)
        return batch is not None

    def act(name: str, number: int) -> None:
        if name == "write":
            server.history.append((KEYS[:1], KEYS[1:], KEYS, ())[number])
        elif name == "request":
            server.serve_request()
        elif name == "events" and server.watches:
            server.send_events(sorted(server.watches)[number % len(server.watches)], 1 + number)
        elif name == "progress":
            server.send_progress()
        elif name == "answer" and server.answers:
            server.requests.extend(hub.received(server.answers.popleft().SerializeToString()))
        elif name == "take":
            take(number % len(watches))
        elif name == "break":
            server.disconnect()
            assert hub.disconnected(Code.UNAVAILABLE, "", 1) > 0
            server.requests.extend(hub.connected())

    with mock.patch("etcray.client.watching.WATCH_QUEUE_EVENTS_MAX", 6):
        for watch in watches:
            server.requests.extend(hub.add(watch))
        for name, number in actions:
            act(name, number)
        for _ in range(2 * len(server.history) + 10):  # and in the end all is quiet
            for name, number in [("request", 0), ("answer", 0), ("take", 0), ("take", 1), ("take", 2)]:
                act(name, number)
            for watch_id in sorted(server.watches):
                server.send_events(watch_id, 100)
            while server.requests or server.answers:
                act("request", 0)
                act("answer", 0)
    for number, start in enumerate(starts):
        expected = [
            revision
            for revision, keys in enumerate(server.history, 2)
            for key in keys
            for _ in range(2)
            if key == KEYS[number % 2] and revision >= start
        ]
        assert taken[number] == expected


def response(**fields: object) -> bytes:
    message = rpc_pb2.WatchResponse(**fields)  # type: ignore[arg-type]
    message.header.revision = 7
    return message.SerializeToString()


def started() -> tuple[WatchHub, WatchState]:
    hub, watch = WatchHub(random.Random(1)), WatchState("a", None, WatchOptions())
    hub.connected()
    hub.add(watch)
    hub.received(response(watch_id=0, created=True))
    return hub, watch


def test_watch_from_now_resumes_where_it_was_created() -> None:
    hub, watch = started()
    assert (watch.next_revision, watch.was_created) == (8, True)
    hub.disconnected(Code.UNAVAILABLE, "", 1)
    (request,) = hub.connected()
    assert rpc_pb2.WatchRequest.FromString(request).create_request.start_revision == 8


def test_progress_moves_the_place_to_resume_from() -> None:
    hub, watch = started()
    message = rpc_pb2.WatchResponse(watch_id=0)
    message.header.revision = 40
    hub.received(message.SerializeToString())
    assert watch.next_revision == 41
    batch = watch.take()
    assert batch is not None
    assert (batch.events, batch.revision) == ((), 40)


def test_an_event_behind_its_progress_notification_is_not_lost() -> None:
    """etcd 3.5.1 may send them in this order."""
    hub, watch = started()
    hub.received(response(watch_id=-1))
    event = kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"a", mod_revision=7))
    hub.received(response(watch_id=0, events=[event]))
    batches = [watch.take(), watch.take()]
    assert [len(batch.events) for batch in batches if batch] == [0, 1]


def test_cancel_before_the_answer_is_made_good_when_it_comes() -> None:
    hub = WatchHub(random.Random(1))
    cancelled, kept = WatchState("a", None, WatchOptions()), WatchState("b", None, WatchOptions())
    hub.connected()
    hub.add(cancelled)
    hub.add(kept)
    assert hub.cancel(cancelled) == []
    (sent,) = hub.received(response(watch_id=5, created=True))
    assert rpc_pb2.WatchRequest.FromString(sent).cancel_request.watch_id == 5
    hub.received(response(watch_id=6, created=True))
    assert (kept.watch_id, kept.phase) == (6, Phase.ACTIVE)


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"compact_revision": 5}, CompactedError, Code.OUT_OF_RANGE),
        ({"cancel_reason": "mvcc: watcher range is empty"}, InvalidRequestError, Code.INVALID_ARGUMENT),
        (
            {"cancel_reason": "rpc error: code = PermissionDenied desc = etcdserver: permission denied"},
            EtcrayError,
            Code.PERMISSION_DENIED,
        ),
        ({}, EtcrayError, Code.CANCELED),
    ],
)
def test_reasons_of_the_server_become_errors(
    fields: dict[str, object], kind: type[EtcrayError], code: Code
) -> None:
    hub, watch = started()
    hub.received(response(watch_id=0, canceled=True, **fields))
    assert hub.is_idle
    with pytest.raises(kind) as raised:
        watch.take()
    assert raised.value.code is code


def test_stream_that_cannot_succeed_ends_all_watches() -> None:
    hub, watch = started()
    assert hub.disconnected(Code.UNAUTHENTICATED, "etcdserver: invalid auth token", 1) == 0.0
    assert hub.is_idle
    with pytest.raises(EtcrayError, match="invalid auth token"):
        watch.take()
