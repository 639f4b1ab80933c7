"""The election service: one leader at a time, and everybody may watch."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from etcray_storage.proto import election_pb2 as election
from etcray_storage.proto import rpc_pb2 as rpc
from tests.gateway.grpc_calls import KV, call, refusal, server_stream, unary
from tests.gateway.serving import ServingGateway, until
from tests.gateway.test_lease import grant
from tests.gateway.test_lock import line

ELECTION = "/v3electionpb.Election/"
NAME = b"chair"


def campaign_request(lease: int, value: bytes) -> bytes:
    return election.CampaignRequest(name=NAME, lease=lease, value=value).SerializeToString()


def campaign(gateway: ServingGateway, lease: int, value: bytes) -> election.LeaderKey:
    grant(gateway, 60, lease)
    answer = call(gateway, ELECTION + "Campaign", campaign_request(lease, value))
    return election.CampaignResponse.FromString(answer).leader


def leader(gateway: ServingGateway) -> bytes:
    request = election.LeaderRequest(name=NAME).SerializeToString()
    return election.LeaderResponse.FromString(call(gateway, ELECTION + "Leader", request)).kv.value


def resign(gateway: ServingGateway, key: election.LeaderKey) -> None:
    call(gateway, ELECTION + "Resign", election.ResignRequest(leader=key).SerializeToString())


def proclaim_request(key: election.LeaderKey, value: bytes) -> bytes:
    return election.ProclaimRequest(leader=key, value=value).SerializeToString()


class Candidate:
    """A campaign that is under way."""

    def __init__(self, gateway: ServingGateway, lease: int, value: bytes) -> None:
        grant(gateway, 60, lease)
        self._channel = grpc.insecure_channel(gateway.address)
        method = unary(self._channel, ELECTION + "Campaign")
        self.call: Any = method.future(campaign_request(lease, value), timeout=20)

    def __enter__(self) -> Candidate:
        return self

    def __exit__(self, *_: object) -> None:
        self.call.cancel()
        self._channel.close()

    def wait(self) -> election.LeaderKey:
        return election.CampaignResponse.FromString(self.call.result()).leader


class Observer:
    """A stream of proclamations."""

    def __init__(self, gateway: ServingGateway) -> None:
        self._channel = grpc.insecure_channel(gateway.address)
        request = election.LeaderRequest(name=NAME).SerializeToString()
        self.responses = server_stream(self._channel, ELECTION + "Observe")(request, timeout=20)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self.responses.cancel()
        self._channel.close()

    def next(self) -> bytes:
        return election.LeaderResponse.FromString(next(self.responses)).kv.value


def test_candidates_lead_one_after_the_other(gateway: ServingGateway) -> None:
    first = campaign(gateway, 1, b"one")
    assert (first.name, first.key, first.lease) == (NAME, b"chair/1", 1)
    assert first.rev == line(gateway, NAME)[0].create_revision
    with Candidate(gateway, 2, b"two") as second, Candidate(gateway, 3, b"three") as third:
        until(lambda: len(line(gateway, NAME)) == 3)
        assert leader(gateway) == b"one"
        order = [second, third] if line(gateway, NAME)[1].lease == 2 else [third, second]
        resign(gateway, first)
        key = order[0].wait()
        assert line(gateway, NAME)[0].key == key.key
        assert not order[1].call.done()
        gateway.call(lambda: gateway.member.expire(key.lease))
        assert order[1].wait().key == line(gateway, NAME)[0].key


def test_campaign_of_the_same_lease_proclaims_the_new_value(gateway: ServingGateway) -> None:
    first = campaign(gateway, 1, b"one")
    again = call(gateway, ELECTION + "Campaign", campaign_request(1, b"more"))
    assert election.CampaignResponse.FromString(again).leader == first
    assert leader(gateway) == b"more"


def test_proclaim_needs_the_lead(gateway: ServingGateway) -> None:
    key = campaign(gateway, 1, b"one")
    call(gateway, ELECTION + "Proclaim", proclaim_request(key, b"more"))
    assert leader(gateway) == b"more"
    resign(gateway, key)
    resign(gateway, key)
    lost = (grpc.StatusCode.UNKNOWN, "election: not leader")
    assert refusal(gateway, ELECTION + "Proclaim", proclaim_request(key, b"no")) == lost
    nobody = (grpc.StatusCode.UNKNOWN, "election: no leader")
    assert (
        refusal(gateway, ELECTION + "Leader", election.LeaderRequest(name=NAME).SerializeToString()) == nobody
    )
    missing = (grpc.StatusCode.UNKNOWN, '"leader" field must be provided')
    for method in ("Proclaim", "Resign"):
        assert refusal(gateway, ELECTION + method, b"") == missing


def test_candidate_whose_lease_ended_did_not_win(gateway: ServingGateway) -> None:
    first = campaign(gateway, 1, b"one")
    with Candidate(gateway, 2, b"two") as second:
        until(lambda: len(line(gateway, NAME)) == 2)
        gateway.call(lambda: gateway.member.expire(2))
        resign(gateway, first)
        with pytest.raises(grpc.RpcError) as caught:
            second.wait()
        assert caught.value.details() == "election: not leader"


def test_candidate_that_leaves_gives_up_its_place(gateway: ServingGateway) -> None:
    campaign(gateway, 1, b"one")
    with Candidate(gateway, 2, b"two"):
        until(lambda: len(line(gateway, NAME)) == 2)
    until(lambda: len(line(gateway, NAME)) == 1)


def test_observer_sees_every_proclamation_and_every_successor(gateway: ServingGateway) -> None:
    with Observer(gateway) as observer:
        key = campaign(gateway, 1, b"one")
        assert observer.next() == b"one"
        for value in (b"two", b"three"):
            call(gateway, ELECTION + "Proclaim", proclaim_request(key, value))
        assert [observer.next(), observer.next()] == [b"two", b"three"]
        with Candidate(gateway, 2, b"four") as second:
            until(lambda: len(line(gateway, NAME)) == 2)
            resign(gateway, key)
            second.wait()
            assert observer.next() == b"four"
        resign(gateway, second.wait())
        campaign(gateway, 3, b"five")
        assert observer.next() == b"five"


def test_observer_goes_on_behind_a_compaction(gateway: ServingGateway) -> None:
    key = campaign(gateway, 1, b"one")
    with Observer(gateway) as observer:
        assert observer.next() == b"one"
        for number in range(20):
            call(gateway, ELECTION + "Proclaim", proclaim_request(key, b"%d" % number))
            revision = gateway.call(lambda: gateway.member.machine.revision)
            call(gateway, KV + "Compact", rpc.CompactionRequest(revision=revision).SerializeToString())
        seen = [observer.next()]
        while seen[-1] != b"19":
            seen.append(observer.next())
        numbers = [int(value) for value in seen]
        assert numbers == sorted(set(numbers)), "no proclamation twice, none out of order"
