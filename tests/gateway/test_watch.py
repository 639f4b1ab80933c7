"""etcd's watch service through Python's grpcio, against a gateway with one real state machine."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from etcray_storage import limits
from etcray_storage.proto import rpc_pb2 as rpc
from etcray_storage.proto.kv_pb2 import Event
from tests.gateway.grpc_calls import KV, call, put
from tests.gateway.raw_http2 import RawHttp2
from tests.gateway.serving import ServingGateway, until
from tests.gateway.watch_calls import WATCH, WatchConversation

PUT, DELETE = 0, 1
ALL = (b"\0", b"\0")


@pytest.fixture
def watch(gateway: ServingGateway) -> Iterator[WatchConversation]:
    with WatchConversation(gateway.address) as conversation:
        yield conversation


def delete(gateway: ServingGateway, key: str) -> None:
    call(gateway, KV + "DeleteRange", rpc.DeleteRangeRequest(key=key.encode()).SerializeToString())


def compact(gateway: ServingGateway, revision: int) -> None:
    call(gateway, KV + "Compact", rpc.CompactionRequest(revision=revision).SerializeToString())


def put_all(gateway: ServingGateway, *keys: str, value: bytes = b"v") -> None:
    """In one revision."""
    puts = [rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=value)) for key in keys]
    call(gateway, KV + "Txn", rpc.TxnRequest(success=puts).SerializeToString())


def test_watch_from_now_brings_puts_and_deletions(gateway: ServingGateway, watch: WatchConversation) -> None:
    before = put(gateway, "k").header.revision
    created = watch.created(b"k")
    assert (created.created, created.watch_id, created.header.revision) == (True, 0, before)
    assert created.header.cluster_id
    put(gateway, "other")
    put(gateway, "k")
    delete(gateway, "k")
    events: list[Event] = []
    while len(events) < 2:  # both may come in one response
        response = watch.next()
        events.extend(response.events)
        assert response.header.revision == events[-1].kv.mod_revision
    written, deletion = events
    assert written.kv.mod_revision == before + 2
    assert (deletion.type, deletion.kv.mod_revision, deletion.kv.version) == (DELETE, before + 3, 0)
    assert not deletion.HasField("prev_kv")


def test_own_earlier_write_is_never_news(gateway: ServingGateway, watch: WatchConversation) -> None:
    for n in range(20):
        revision = put(gateway, f"k{n}").header.revision
        assert watch.created(f"k{n}".encode()).header.revision >= revision
    assert watch.nothing()


def test_watch_from_the_past_goes_on_into_the_present(
    gateway: ServingGateway, watch: WatchConversation
) -> None:
    for n in range(5):
        put(gateway, f"k{n}")
    watch.created(b"k", b"l", start_revision=3)
    assert watch.events(4) == [(PUT, b"k%d" % (n - 2), n) for n in range(3, 7)]
    put(gateway, "k9")
    assert watch.events(1) == [(PUT, b"k9", 7)]


def test_watch_of_the_future_waits_for_its_revision(
    gateway: ServingGateway, watch: WatchConversation
) -> None:
    watch.created(b"k", start_revision=4)
    watch.progress()
    put(gateway, "k")
    put(gateway, "k")
    assert watch.nothing()
    put(gateway, "k")
    assert watch.events(1) == [(PUT, b"k", 4)]


def test_compacted_start_is_created_and_then_canceled(
    gateway: ServingGateway, watch: WatchConversation
) -> None:
    for _ in range(5):
        put(gateway, "k")
    compact(gateway, 4)
    assert watch.created(b"k", start_revision=3).header.revision == 6
    canceled = watch.next()
    assert (canceled.canceled, canceled.compact_revision, canceled.watch_id) == (True, 4, 0)
    assert (canceled.cancel_reason, canceled.header.revision) == ("", 0)
    watch.created(b"k", start_revision=4)
    assert watch.events(3) == [(PUT, b"k", revision) for revision in (4, 5, 6)]


def test_deletion_at_the_compact_revision_is_delivered(
    gateway: ServingGateway, watch: WatchConversation
) -> None:
    put(gateway, "k")
    delete(gateway, "k")
    compact(gateway, 3)
    watch.created(b"k", start_revision=3)
    assert watch.events(1) == [(DELETE, b"k", 3)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"start_revision": -1}, "etcdserver: mvcc: required revision has been compacted"),
        ({"range_end": b"k"}, "mvcc: watcher range is empty"),
        ({"range_end": b"a"}, "mvcc: watcher range is empty"),
    ],
)
def test_impossible_watch_is_created_and_canceled_at_once(
    watch: WatchConversation, fields: dict[str, object], reason: str
) -> None:
    refused = watch.created(b"k", **fields)  # type: ignore[arg-type]
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
    assert (refused.cancel_reason, refused.compact_revision) == (reason, 0)
    assert watch.created(b"k").watch_id == 0


def test_watch_ids_are_picked_around_those_that_the_client_chose(
    gateway: ServingGateway, watch: WatchConversation
) -> None:
    assert [watch.created(b"k", watch_id=n).watch_id for n in (1, 0, 0)] == [1, 0, 2]
    duplicate = watch.created(b"k", watch_id=2)
    assert (duplicate.created, duplicate.canceled, duplicate.watch_id) == (True, True, -1)
    assert duplicate.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"
    put(gateway, "k")
    assert sorted(watch.next().watch_id for _ in range(3)) == [0, 1, 2]


def test_cancel_is_answered_and_ends_the_watcher(gateway: ServingGateway, watch: WatchConversation) -> None:
    watch.created(b"k")
    watch.created(b"k")
    watch.cancel(77)
    watch.cancel(0)
    canceled = watch.next()
    assert (canceled.canceled, canceled.watch_id, canceled.created) == (True, 0, False)
    watch.cancel(0)
    put(gateway, "k")
    assert watch.next().watch_id == 1
    assert watch.nothing()


def test_previous_pairs_of_live_and_past_events(gateway: ServingGateway, watch: WatchConversation) -> None:
    put(gateway, "k", b"1")
    put(gateway, "k", b"2")
    watch.created(b"k", start_revision=2, prev_kv=True)
    past = watch.next().events
    assert [event.HasField("prev_kv") for event in past] == [False, True]
    assert past[1].prev_kv.value == b"1"
    delete(gateway, "k")
    (deletion,) = watch.next().events
    assert (deletion.prev_kv.value, deletion.prev_kv.mod_revision) == (b"2", 3)


def test_filters_leave_out_what_is_not_wanted(gateway: ServingGateway, watch: WatchConversation) -> None:
    watch.created(b"k", filters=[rpc.WatchCreateRequest.NOPUT])
    watch.created(b"k", filters=[rpc.WatchCreateRequest.NODELETE])
    put(gateway, "k")
    delete(gateway, "k")
    responses = [watch.next(), watch.next()]  # one batch may bring both, in any order
    got = sorted((r.watch_id, [e.type for e in r.events]) for r in responses)
    assert got == [(0, [DELETE]), (1, [PUT])]
    assert watch.nothing()


def test_transaction_is_one_response_unless_fragments_were_asked_for(
    gateway: ServingGateway, watch: WatchConversation
) -> None:
    watch.created(*ALL)
    watch.created(*ALL, fragment=True)
    keys = [f"k{n}" for n in range(8)]
    put_all(gateway, *keys, value=b"x" * 100_000)
    for responses in ([watch.next()], [watch.next()]):
        assert [len(r.events) for r in responses] == [8]
        assert not responses[0].fragment
    for key in keys:
        put(gateway, key, b"y" * 1_000_000)
        watch.next(), watch.next()
    call(gateway, KV + "DeleteRange", rpc.DeleteRangeRequest(key=b"\0", range_end=b"\0").SerializeToString())
    watch.next(), watch.next()
    watch.cancel(0)
    assert watch.next().canceled
    watch.created(*ALL, fragment=True, prev_kv=True, start_revision=3 + 8)
    parts = [watch.next() for _ in range(4)]  # two megabytes of previous values fit into one
    assert [(part.watch_id, part.fragment, len(part.events)) for part in parts] == [
        (2, number < 3, 2) for number in range(4)
    ]


def test_requested_progress_is_for_the_whole_stream_and_only_if_all_are_there(
    gateway: ServingGateway, watch: WatchConversation
) -> None:
    watch.progress()  # nobody watches: no answer
    watch.created(b"k")
    revision = put(gateway, "other").header.revision

    def progress() -> rpc.WatchResponse:
        watch.progress()
        return watch.next()

    reports = [progress()]
    while reports[-1].header.revision < revision:
        reports.append(progress())
    assert {report.watch_id for report in reports} == {-1}
    assert not any(report.events or report.created or report.canceled for report in reports)
    watch.created(b"k", start_revision=revision + 10)
    watch.progress()
    assert watch.nothing()


def test_bad_requests_are_passed_over(gateway: ServingGateway, watch: WatchConversation) -> None:
    watch.send(rpc.WatchRequest())
    assert watch.created(b"").watch_id == 0  # the key \0
    put(gateway, "\0")
    assert watch.events(1) == [(PUT, b"\0", 2)]


def test_half_closed_stream_goes_on_receiving(gateway: ServingGateway, watch: WatchConversation) -> None:
    watch.created(b"k")
    watch.half_close()
    put(gateway, "k")
    assert watch.events(1) == [(PUT, b"k", 2)]


def test_malformed_request_ends_the_stream(gateway: ServingGateway) -> None:
    with WatchConversation(gateway.address) as watch:
        watch._requests.put(b"\xff\xff")
        assert watch.end() is grpc.StatusCode.INTERNAL


def test_stream_ends_with_the_gateway() -> None:
    with ServingGateway() as gateway:
        watch = WatchConversation(gateway.address)
        watch.created(b"k")
    assert watch.end() is grpc.StatusCode.UNAVAILABLE


def test_stream_that_asked_for_a_leader_ends_without_one(
    gateway: ServingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcray.gateway.leader_guard.INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr("etcray.gateway.dispatcher.LEADER_CONFIRMED_SECONDS", 0.05)
    with (
        WatchConversation(gateway.address, metadata=(("hasleader", "true"),)) as asking,
        WatchConversation(gateway.address) as patient,
    ):
        asking.created(b"k")
        patient.created(b"k")
        gateway.member.leaderless = True
        assert asking.end() is grpc.StatusCode.UNAVAILABLE
        assert "no leader" in asking._call.details()
        gateway.member.leaderless = False
        put(gateway, "k")
        assert patient.events(1) == [(PUT, b"k", 2)]


def test_reader_that_stops_gets_everything_when_it_goes_on(gateway: ServingGateway) -> None:
    """Nothing is read from the socket, so the queue fills, the watcher is parked and resynchronised."""
    create = rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"k")).SerializeToString()
    hub = gateway.server.watches.hub
    with RawHttp2(gateway.port) as client:
        stream = client.open(WATCH)
        client.send_data(stream, b"\0" + len(create).to_bytes(4, "big") + create, end=False)
        until(lambda: gateway.call(lambda: hub.watcher_count) == 1)
        for _ in range(300):
            put(gateway, "k", b"v" * 20_000)
        (parked,) = gateway.call(lambda: list(hub.streams))
        assert gateway.call(lambda: len(parked.parked)) == 1
        assert gateway.call(lambda: hub.buffered_bytes) <= 1 << 20
    until(lambda: gateway.call(lambda: len(hub.streams)) == 0)
    assert gateway.call(lambda: (hub.watcher_count, hub.buffered_bytes, hub.range_bytes)) == (0, 0, 0)


def test_flood_of_creations_without_reading_is_held_back(gateway: ServingGateway) -> None:
    create = rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"k")).SerializeToString()
    message = b"\0" + len(create).to_bytes(4, "big") + create
    hub = gateway.server.watches.hub
    with RawHttp2(gateway.port) as client:
        stream = client.open(WATCH)
        for _ in range(200):
            client.send_data(stream, message * 100, end=False)

        def is_held_back() -> bool:
            (flooded,) = hub.streams
            return len(flooded.queue) >= limits.WATCH_STREAM_RESPONSES_MAX

        until(lambda: gateway.call(lambda: bool(hub.streams) and is_held_back()))
        assert gateway.call(lambda: hub.watcher_count) < 5_000


def test_creations_on_one_stream_are_answered_in_order(watch: WatchConversation) -> None:
    for n in range(200):
        watch.create(b"k%d" % n)
    assert [watch.next().watch_id for _ in range(200)] == list(range(200))


def test_nobody_asks_for_events_while_nobody_watches(gateway: ServingGateway) -> None:
    hub = gateway.server.watches.hub
    with WatchConversation(gateway.address) as watch:
        watch.created(b"k")
    until(lambda: gateway.call(lambda: hub.position) is None)
    put(gateway, "k")
    with WatchConversation(gateway.address) as watch:
        assert watch.created(b"k").header.revision == 2
        assert watch.nothing()
