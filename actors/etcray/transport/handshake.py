"""Both ends of a connection prove that they belong to the same cluster. Pure: nonces are given.

    listener -> dialler   CHALLENGE   a nonce
    dialler -> listener   PROOF       who it is, whom it means, a nonce of its own; HMAC over all of it
    listener -> dialler   WELCOME     HMAC over the same, with another label

The key is made from the cluster's token, which only its own processes have. Each proof covers the other
end's fresh nonce, so none can be used twice, and the labels keep one from being sent back as the other. A
dialler that was let in by something that does not know the token finds out before it says a word.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

from etcray.spec import ClusterSpec
from etcray_storage.types import ClusterId, MemberId

NONCE_BYTES: Final = 32
_GREETING: Final = b"etcray stream 1\n"
_DIALLER: Final = b"dialler"
_LISTENER: Final = b"listener"


class StrangerError(Exception):
    """The other end does not belong to this cluster, or is not the member that was meant."""


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """Who dials, and whom it means."""

    cluster: ClusterId
    recipient: MemberId
    role: str
    """member, gateway or history"""
    nonce: bytes


class _Proof(msgspec.Struct, frozen=True, array_like=True):
    claim: Claim
    mac: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_proof: Final = msgspec.msgpack.Decoder(_Proof).decode


class Credentials(msgspec.Struct, frozen=True):
    """What a process of the cluster knows."""

    cluster: ClusterId
    key: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return f"Credentials({self.cluster:x})"


def credentials_of(cluster: ClusterSpec) -> Credentials:
    """Of the cluster's own processes. Another epoch of a cluster is another cluster."""
    label = f"etcray stream/{cluster.cluster_id:x}".encode()
    return Credentials(cluster.cluster_id, hmac.digest(cluster.token.encode(), label, hashlib.sha256))


def challenge(nonce: bytes) -> bytes:
    """The listener's first word."""
    assert len(nonce) == NONCE_BYTES, f"a nonce of {len(nonce)} bytes"
    return _GREETING + nonce


def prove(credentials: Credentials, challenged: bytes, claim: Claim) -> bytes:
    """The dialler's answer. Raises StrangerError for what is no challenge."""
    nonce = challenged[len(_GREETING) :]
    if not challenged.startswith(_GREETING) or len(nonce) != NONCE_BYTES:
        raise StrangerError("what listens there is no member of etcray, or of another version")
    return _encode(_Proof(claim, _mac(credentials, _DIALLER, nonce, claim)))


def admit(credentials: Credentials, member: MemberId, nonce: bytes, proof: bytes) -> tuple[Claim, bytes]:
    """Who dialled, and the welcome to send. Raises StrangerError."""
    try:
        claim, mac = msgspec.structs.astuple(_decode_proof(proof))
    except msgspec.DecodeError as error:
        raise StrangerError(f"no proof: {error}") from error
    if not hmac.compare_digest(mac, _mac(credentials, _DIALLER, nonce, claim)):
        raise StrangerError("the token is another one")
    if claim.cluster != credentials.cluster:
        raise StrangerError(f"the cluster {claim.cluster:x} was meant")
    if claim.recipient != member:
        raise StrangerError(f"the member {claim.recipient:x} was meant")
    return claim, _mac(credentials, _LISTENER, nonce, claim)


def check_welcome(credentials: Credentials, challenged: bytes, claim: Claim, welcome: bytes) -> None:
    """Raises StrangerError if the listener does not know the token."""
    nonce = challenged[len(_GREETING) :]
    if not hmac.compare_digest(welcome, _mac(credentials, _LISTENER, nonce, claim)):
        raise StrangerError("what listens there does not know the token")


def _mac(credentials: Credentials, label: bytes, nonce: bytes, claim: Claim) -> bytes:
    """The parts are of fixed lengths or self-delimiting, so no two claims have the same text."""
    return hmac.digest(credentials.key, label + b"\0" + nonce + _encode(claim), hashlib.sha256)
