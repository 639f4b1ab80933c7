"""The hub, step by step: when a watcher is told how far it is; ids that are taken."""

from __future__ import annotations

import random

from etcray.gateway.watch_hub import DUPLICATE_ID_TEXT, WatchHub
from etcray.gateway.watch_stream import WatchStream
from etcray.node.api import Outcome, WatchEvents
from etcray_storage import wire
from etcray_storage.proto.rpc_pb2 import WatchCreateRequest, WatchResponse
from etcray_storage.types import MemberId, Term


def events(key: bytes, revision: int) -> WatchEvents:
    """One put at this revision; none at revision 5, where the hub begins."""
    found = [] if revision == 5 else [wire.put_event(wire.key_value(key, revision, revision, 1, b"v", 0))]
    revisions = [revision] * len(found)
    keys = [key] * len(found)
    return WatchEvents(
        Outcome.ANSWERED, MemberId(1), Term(1), revision, -1, False, revisions, keys, found, []
    )


def begin(request: WatchCreateRequest) -> tuple[WatchHub, WatchStream]:
    hub = WatchHub(1, random.Random(1), lambda: None, progress_seconds=10.0)
    stream = hub.open_stream(lambda: None)
    hub.polled(events(b"", 5))
    hub.create(stream, request, 5, 0.0)
    assert [response.created for response in taken(hub, stream)] == [True]
    return hub, stream


def taken(hub: WatchHub, stream: WatchStream) -> list[WatchResponse]:
    found = []
    while (data := hub.take(stream)) is not None:
        found.append(WatchResponse.FromString(data))
    return found


def interval(hub: WatchHub, stream: WatchStream) -> list[tuple[int, int]]:
    """What comes at the end of the next interval: revision and number of events."""
    wakeup = hub.next_wakeup()
    assert wakeup is not None
    hub.tick(wakeup)
    return [(response.header.revision, len(response.events)) for response in taken(hub, stream)]


def test_idle_watcher_hears_how_far_the_store_is_while_others_write() -> None:
    hub, stream = begin(WatchCreateRequest(key=b"mine", progress_notify=True))
    interval(hub, stream)
    assert interval(hub, stream) == [(5, 0)]
    hub.polled(events(b"other", 6))
    assert interval(hub, stream) == [(6, 0)]


def test_watcher_that_got_something_needs_no_progress() -> None:
    hub, stream = begin(WatchCreateRequest(key=b"mine", progress_notify=True))
    interval(hub, stream)
    hub.polled(events(b"mine", 6))
    assert interval(hub, stream) == [(6, 1)]
    assert interval(hub, stream) == [(6, 0)]


def test_watcher_of_the_future_hears_nothing_before_it() -> None:
    hub, stream = begin(WatchCreateRequest(key=b"mine", progress_notify=True, start_revision=7))
    for revision in (5, 6):
        if revision > 5:
            hub.polled(events(b"other", revision))
        hub.request_progress(stream)
        interval(hub, stream)
        assert interval(hub, stream) == []
    hub.polled(events(b"other", 7))
    assert interval(hub, stream) == [(7, 0)]
    hub.request_progress(stream)
    assert [response.header.revision for response in taken(hub, stream)] == [7]


def test_id_that_is_taken_is_refused_and_its_watch_goes_on() -> None:
    request = WatchCreateRequest(key=b"mine", watch_id=4)
    hub, stream = begin(request)
    hub.create(stream, request, 5, 0.0)
    (refused,) = taken(hub, stream)
    assert (refused.created, refused.canceled, refused.cancel_reason) == (True, True, DUPLICATE_ID_TEXT)
    hub.polled(events(b"mine", 6))
    assert [(one.watch_id, len(one.events)) for one in taken(hub, stream)] == [(4, 1)]
