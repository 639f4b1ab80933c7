"""Real members on real directories, with a switchboard where Ray would be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from etcray.node.api import Outcome, ProposeReply, ReadReply, ReadRequest, encode
from etcray.node.member import Member
from etcray.node.peers import PeerUnreachableError
from etcray.spec import ClusterSpec, MemberSpec, Timing, derive_cluster_id, derive_member_id
from etcray_storage.commands import Batch, CommandKind, ReadKind, encode_batch
from etcray_storage.proto.rpc_pb2 import PutRequest, RangeRequest, RangeResponse
from etcray_storage.types import MemberId

WAIT_SECONDS = 30.0


def make_spec(directory: Path, nodes: int, timing: Timing) -> ClusterSpec:
    names = [f"m{number}" for number in range(1, nodes + 1)]
    return ClusterSpec(
        name="test",
        token="token",
        cluster_id=derive_cluster_id("test", "token"),
        members=tuple(
            MemberSpec(
                id=derive_member_id("test", "token", name), name=name, data_directory=str(directory / name)
            )
            for name in names
        ),
        gateways=(),
        timing=timing,
    )


class Switchboard:
    """Delivers calls between members, unless a line is cut."""

    def __init__(self) -> None:
        self.members: dict[MemberId, Member] = {}
        self.cut: set[tuple[MemberId, MemberId]] = set()
        """(from, to): calls fail before they are delivered."""
        self.deaf: set[tuple[MemberId, MemberId]] = set()
        """(from, to): calls are delivered, their return values are lost."""


class Line:
    """One member's way to another."""

    def __init__(self, board: Switchboard, sender: MemberId, recipient: MemberId) -> None:
        self._board = board
        self._pair = (sender, recipient)

    def exchange(self, envelope: bytes) -> bytes:
        return self._call(lambda member: member.exchange(envelope))

    def snapshot_chunk(self, chunk: bytes) -> bytes:
        return self._call(lambda member: member.receive_snapshot_chunk(chunk))

    def _call(self, call: Callable[[Member], bytes]) -> bytes:
        member = self._board.members.get(self._pair[1])
        if member is None or self._pair in self._board.cut:
            raise PeerUnreachableError("the line is cut")
        try:
            reply = call(member)
        except RuntimeError as e:  # closed in the middle of the call
            raise PeerUnreachableError(str(e)) from e
        if self._pair in self._board.deaf:
            raise PeerUnreachableError("the reply is lost")
        return reply


class LocalCluster:
    """A cluster in one process. `stop` closes a member cleanly; `start` opens it on its directory."""

    def __init__(self, directory: Path, nodes: int = 3, timing: Timing | None = None) -> None:
        self.spec = make_spec(directory, nodes, timing or Timing(heartbeat_ms=30, election_ms=200))
        self.board = Switchboard()
        self._sequence = 0
        self._lock = threading.Lock()
        for member in self.spec.members:
            self.start(member.id)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        for member in list(self.board.members):
            self.stop(member)

    def start(self, member_id: MemberId) -> None:
        name = next(member.name for member in self.spec.members if member.id == member_id)
        member = Member(self.spec, name)
        member.open()
        self.board.members[member_id] = member
        member.connect(
            {
                peer.id: Line(self.board, member_id, peer.id)
                for peer in self.spec.members
                if peer.id != member_id
            }
        )

    def stop(self, member_id: MemberId) -> None:
        self.board.members.pop(member_id).close()

    def isolate(self, member_id: MemberId) -> None:
        for peer in self.spec.members:
            self.board.cut |= {(member_id, peer.id), (peer.id, member_id)}

    def heal(self) -> None:
        self.board.cut.clear()
        self.board.deaf.clear()

    def leader(self) -> Member:
        """Wait for a leader that knows of no newer one."""
        return wait_for(self._leader, "a leader")

    def _leader(self) -> Member | None:
        reachable = [m for m in self.board.members.values() if not self._is_isolated(m.spec.id)]
        statuses = [(member.status(), member) for member in reachable]
        leaders = [(status.term, member) for status, member in statuses if status.role == "leader"]
        if not leaders:
            return None
        term, member = max(leaders, key=lambda found: found[0])
        return member if term == max(status.term for status, _ in statuses) else None

    def _is_isolated(self, member: MemberId) -> bool:
        return all((member, peer.id) in self.board.cut for peer in self.spec.members)

    # --- a gateway's part ---------------------------------------------------------------------

    def open_session(self, session: int) -> None:
        self.propose(Batch(session, 0, 0, b"", []))

    def propose(self, batch: Batch) -> ProposeReply:
        """Send a batch until it is answered, to whoever leads, as a gateway does."""
        encoded = encode_batch(batch)

        def attempt() -> ProposeReply | None:
            try:
                reply = self.leader().propose(encoded)
            except RuntimeError:
                return None
            return reply if reply.outcome is Outcome.ANSWERED else None

        return wait_for(attempt, f"an answer to batch {batch.sequence}")

    def put(self, session: int, sequence: int, key: bytes, value: bytes) -> ProposeReply:
        return self.propose(put_batch(session, sequence, {key: value}))

    def get(self, key: bytes) -> bytes | None:
        """A linearizable read."""

        def attempt() -> ReadReply | None:
            try:
                reply = self.leader().read(range_request(key, linearizable=True))
            except RuntimeError:
                return None
            return reply if reply.outcome is Outcome.ANSWERED else None

        return value_of(wait_for(attempt, "an answer to a read"))

    def dump(self, member_id: MemberId) -> dict[bytes, bytes]:
        """All pairs of one member, as far as it has applied."""
        request = ReadRequest(
            False, bytes([ReadKind.RANGE]), [RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()]
        )
        reply = self.board.members[member_id].read(encode(request))
        return {pair.key: pair.value for pair in RangeResponse.FromString(reply.bodies[0]).kvs}

    def wait_until_equal(self) -> dict[bytes, bytes]:
        """Wait until all members have applied the same, and return what it is."""

        def settled() -> dict[bytes, bytes] | None:
            statuses = [member.status() for member in self.board.members.values()]
            if len({status.applied_index for status in statuses}) > 1:
                return None
            if any(status.applied_index < status.commit_index for status in statuses):
                return None
            dumps = [self.dump(member) for member in self.board.members]
            return dumps[0] if all(dump == dumps[0] for dump in dumps) else None

        return wait_for(settled, "equal members")


def put_batch(session: int, sequence: int, pairs: dict[bytes, bytes], acknowledged: int = 0) -> Batch:
    return Batch(
        session,
        sequence,
        acknowledged,
        bytes([CommandKind.PUT]) * len(pairs),
        [PutRequest(key=key, value=value).SerializeToString() for key, value in pairs.items()],
    )


def range_request(key: bytes, *, linearizable: bool) -> bytes:
    request = RangeRequest(key=key).SerializeToString()
    return encode(ReadRequest(linearizable, bytes([ReadKind.RANGE]), [request]))


def value_of(reply: ReadReply) -> bytes | None:
    assert reply.errors == [0], f"the read failed: {reply.errors}"
    pairs = RangeResponse.FromString(reply.bodies[0]).kvs
    return pairs[0].value if pairs else None


T = TypeVar("T")


def wait_for(attempt: Callable[[], T | None], what: str) -> T:
    """Poll until there is a value. A time-out is a failure of the test, with a name."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = attempt()
        if found is not None:
            return found
        time.sleep(0.005)
    raise AssertionError(f"waited {WAIT_SECONDS} s for {what}")
