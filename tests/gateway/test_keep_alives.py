"""Renewals of leases are gathered, find the leader, and never wait for ever."""

from __future__ import annotations

import pytest

from etcray.gateway.delivery import Delivery, Lane
from etcray.gateway.keep_alives import KeepAlives
from etcray.gateway.proposals import REQUEST_SECONDS_MAX
from etcray.node import api
from etcray_storage import limits
from etcray_storage.errors import EtcdError
from etcray_storage.proto import rpc_pb2 as rpc
from etcray_storage.types import NOBODY, MemberId, Term

A, B = MemberId(1), MemberId(2)


def led_by_a() -> tuple[Delivery, KeepAlives]:
    delivery = Delivery([A, B])
    delivery.heard(A, A, Term(1))
    return delivery, KeepAlives(delivery)


def answer(member: MemberId, ttls: list[int], revision: int = 5) -> api.KeepAliveReply:
    return api.KeepAliveReply(api.Outcome.ANSWERED, member, Term(1), member, revision, ttls)


def test_renewals_of_one_moment_travel_together_to_the_leader() -> None:
    delivery, keep_alives = led_by_a()
    for lease in (7, 8, 7):
        keep_alives.submit(0.0, lease, f"ticket {lease}")
    keep_alives.advance(0.0)
    (send,) = delivery.sends(0.0)
    assert (send.lane, send.member) == (Lane.KEEP_ALIVE, A)
    assert api.decode_keep_alive_request(send.data).leases == [7, 8, 7]
    settled = keep_alives.answered(0.1, send.parcel, answer(A, [60, 0, 60]))
    bodies = [rpc.LeaseKeepAliveResponse.FromString(one.body) for one in settled]
    assert [(body.ID, body.TTL) for body in bodies] == [(7, 60), (8, 0), (7, 60)]
    assert [(one.ticket, one.revision, one.error) for one in settled] == [
        ("ticket 7", 5, None),
        ("ticket 8", 5, None),
        ("ticket 7", 5, None),
    ]
    assert keep_alives.pending_count == 0


def test_second_answer_to_one_batch_changes_nothing() -> None:
    delivery, keep_alives = led_by_a()
    keep_alives.submit(0.0, 7, "ticket")
    keep_alives.advance(0.0)
    (send,) = delivery.sends(0.0)
    assert len(keep_alives.answered(0.1, send.parcel, answer(A, [60]))) == 1
    assert keep_alives.answered(0.2, send.parcel, answer(A, [60])) == []


def test_renewals_go_to_the_next_leader() -> None:
    delivery, keep_alives = led_by_a()
    keep_alives.submit(0.0, 7, "ticket")
    keep_alives.advance(0.0)
    (first,) = delivery.sends(0.0)
    delivery.refused(0.1, first, NOBODY, Term(1))
    assert delivery.sends(0.1) == []
    delivery.heard(B, B, Term(2))
    (second,) = delivery.sends(0.2)
    assert (second.member, second.data) == (B, first.data)


def test_renewal_that_nobody_answers_times_out() -> None:
    delivery, keep_alives = led_by_a()
    keep_alives.submit(0.0, 7, "sent")
    keep_alives.advance(0.0)
    delivery.sends(0.0)
    keep_alives.submit(0.0, 8, "waiting")
    settled = keep_alives.tick(REQUEST_SECONDS_MAX)
    assert {one.ticket for one in settled} == {"sent", "waiting"}
    assert all(
        one.error is not None and one.error.message == "etcdserver: request timed out" for one in settled
    )
    assert keep_alives.pending_count == 0


def test_batches_and_what_waits_are_bounded() -> None:
    delivery, keep_alives = led_by_a()
    for number in range(limits.KEEP_ALIVES_PENDING_MAX):
        keep_alives.submit(0.0, number, number)
    with pytest.raises(EtcdError, match="too many requests"):
        keep_alives.submit(0.0, 1, "one more")
    keep_alives.advance(0.0)
    sends = delivery.sends(0.0)
    assert len(sends) == limits.KEEP_ALIVE_BATCHES_IN_FLIGHT_MAX
    assert len(api.decode_keep_alive_request(sends[0].data).leases) == limits.KEEP_ALIVE_BATCH_LEASES_MAX
