"""How a piece of history is cut into responses, and what their headers promise."""

from __future__ import annotations

import pytest

from etcray.gateway.watch_responses import Identity, Piece
from etcray.gateway.watch_stream import Watcher, WatchStream
from etcray.node.api import Outcome, WatchEvents
from etcray_storage import wire
from etcray_storage.limits import WATCH_RESPONSE_BYTES_MAX
from etcray_storage.proto.rpc_pb2 import WatchResponse
from etcray_storage.types import MemberId, Term


def piece(revisions: list[int], through: int, value_bytes: int) -> Piece:
    keys = [b"k%d" % number for number in range(len(revisions))]
    events = [
        wire.put_event(wire.key_value(key, revision, revision, 1, b"v" * value_bytes, 0))
        for key, revision in zip(keys, revisions, strict=True)
    ]
    reply = WatchEvents(
        Outcome.ANSWERED, MemberId(1), Term(1), through, -1, False, revisions, keys, events, []
    )
    return Piece(revisions[0], through, reply, Identity(1, 1, 1))


def responses(of: Piece) -> list[WatchResponse]:
    watcher = Watcher(WatchStream(lambda: None), 0, 1)
    encoded = of.encode(range(len(of.keys)), watcher)
    return [WatchResponse.FromString(one.header + one.tail) for one in encoded]


@pytest.mark.parametrize("value_bytes", [1, WATCH_RESPONSE_BYTES_MAX // 3, 2 * WATCH_RESPONSE_BYTES_MAX])
def test_header_never_promises_more_than_was_sent_so_far(value_bytes: int) -> None:
    """A client that reconnects behind `header.revision` must not miss what the next response has."""
    revisions = [2, 3, 3, 4, 6, 7]
    sent: list[int] = []
    found = responses(piece(revisions, 9, value_bytes))
    for response in found[:-1]:
        sent += [event.kv.mod_revision for event in response.events]
        assert response.header.revision == sent[-1]
        assert revisions[len(sent)] > sent[-1], "a revision was split"
    assert found[-1].header.revision == 9
    assert sent + [event.kv.mod_revision for event in found[-1].events] == revisions
    assert (len(found) > 1) == (value_bytes > 1)
