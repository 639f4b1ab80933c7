"""Who is let in, and who finds out that he should not go in."""

from __future__ import annotations

import msgspec
import pytest

from etcray.spec import ClusterSpec, compose_members, derive_cluster_id
from etcray.transport.handshake import (
    NONCE_BYTES,
    Claim,
    Credentials,
    StrangerError,
    admit,
    challenge,
    check_welcome,
    credentials_of,
    prove,
)
from etcray_storage.types import ClusterId, MemberId

MEMBER = MemberId(7)
NONCE, OTHER_NONCE = bytes(NONCE_BYTES), bytes([1]) * NONCE_BYTES


def make_credentials(token: str = "token", epoch: int = 0) -> Credentials:
    return credentials_of(
        ClusterSpec(
            name="c",
            token=token,
            cluster_id=derive_cluster_id("c", token, epoch),
            members=compose_members("c", token, "/data", [None]),
            gateways=(),
            epoch=epoch,
        )
    )


OURS = make_credentials()


def make_claim(
    cluster: ClusterId = OURS.cluster, recipient: MemberId = MEMBER, nonce: bytes = OTHER_NONCE
) -> Claim:
    return Claim(cluster, recipient, "gateway", nonce)


def test_two_that_know_the_token_are_sure_of_each_other() -> None:
    claim, challenged = make_claim(), challenge(NONCE)
    found, welcome = admit(OURS, MEMBER, NONCE, prove(OURS, challenged, claim))
    assert found == claim
    check_welcome(OURS, challenged, claim, welcome)


@pytest.mark.parametrize("strangers", [make_credentials("other"), make_credentials(epoch=1)])
def test_another_token_and_another_epoch_are_refused(strangers: Credentials) -> None:
    with pytest.raises(StrangerError, match="token"):
        admit(OURS, MEMBER, NONCE, prove(strangers, challenge(NONCE), make_claim()))
    claim = make_claim(strangers.cluster)
    with pytest.raises(StrangerError, match="token"):
        admit(OURS, MEMBER, NONCE, prove(strangers, challenge(NONCE), claim))


def test_whoever_means_another_member_or_cluster_is_refused() -> None:
    with pytest.raises(StrangerError, match="the member 8 was meant"):
        admit(OURS, MEMBER, NONCE, prove(OURS, challenge(NONCE), make_claim(recipient=MemberId(8))))
    with pytest.raises(StrangerError, match="the cluster 1 was meant"):
        admit(OURS, MEMBER, NONCE, prove(OURS, challenge(NONCE), make_claim(cluster=ClusterId(1))))


def test_a_proof_is_of_no_use_for_another_challenge_or_another_claim() -> None:
    proof = prove(OURS, challenge(NONCE), make_claim())
    with pytest.raises(StrangerError):
        admit(OURS, MEMBER, OTHER_NONCE, proof)
    _, mac = msgspec.msgpack.decode(proof)
    changed = msgspec.msgpack.encode([make_claim(nonce=NONCE), mac])
    with pytest.raises(StrangerError):
        admit(OURS, MEMBER, NONCE, changed)


@pytest.mark.parametrize("proof", [b"", b"\xc1", b"GET / HTTP/1.1\r\n", msgspec.msgpack.encode([1, 2])])
def test_what_is_no_proof_is_refused(proof: bytes) -> None:
    with pytest.raises(StrangerError, match="no proof"):
        admit(OURS, MEMBER, NONCE, proof)


def test_a_dialler_says_nothing_to_what_does_not_know_the_token() -> None:
    claim, challenged = make_claim(), challenge(NONCE)
    _, welcome = admit(OURS, MEMBER, NONCE, prove(OURS, challenged, claim))
    for wrong in (b"", welcome[:-1], bytes(len(welcome))):
        with pytest.raises(StrangerError, match="does not know the token"):
            check_welcome(OURS, challenged, claim, wrong)
    _, mac = msgspec.msgpack.decode(prove(OURS, challenged, claim))
    with pytest.raises(StrangerError):  # our own proof, sent back
        check_welcome(OURS, challenged, claim, mac)
    with pytest.raises(StrangerError, match="another version"):
        prove(OURS, b"etcray stream 2\n" + NONCE, claim)


def test_the_key_is_not_shown() -> None:
    assert OURS.key.hex() not in repr(OURS)
    assert repr(OURS.key)[2:-1] not in repr(OURS)
