"""Real members on real directories, with a switchboard where Ray would be."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from etcray.node.api import Outcome, ProposeReply, ReadReply, ReadRequest, encode
from etcray.node.member import Member
from etcray.node.peers import PeerUnreachableError
from etcray.spec import (
    ClusterSpec,
    Founder,
    MemberSpec,
    Timing,
    derive_cluster_id,
    derive_member_id,
    peer_url,
)
from etcray_storage.commands import (
    Batch,
    CommandKind,
    MemberAdd,
    MemberPromote,
    MemberPublish,
    MemberRemove,
    ReadKind,
    encode_batch,
    encode_member_command,
)
from etcray_storage.errors import LEARNER_NOT_READY
from etcray_storage.proto.rpc_pb2 import PutRequest, RangeRequest, RangeResponse
from etcray_storage.types import MemberId

MemberCommand = MemberAdd | MemberPromote | MemberPublish | MemberRemove

WAIT_SECONDS = 30.0
CHANGES = 0xC0
"""The session in which members are added and removed."""


def make_spec(directory: Path, nodes: int, timing: Timing) -> ClusterSpec:
    names = [f"m{number}" for number in range(1, nodes + 1)]
    members = tuple(member_spec(directory, name) for name in names)
    return ClusterSpec(
        name="test",
        token="token",
        cluster_id=derive_cluster_id("test", "token"),
        members=members,
        founders=tuple(Founder(id=member.id, name=member.name) for member in members),
        gateways=(),
        timing=timing,
    )


def member_spec(directory: Path, name: str, *, joining: bool = False) -> MemberSpec:
    member_id = derive_member_id("test", "token", name)
    return MemberSpec(id=member_id, name=name, data_directory=str(directory / name), joining=joining)


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

    def __init__(
        self, directory: Path, nodes: int = 3, timing: Timing | None = None, spec: ClusterSpec | None = None
    ) -> None:
        """`spec`: of a cluster that is there already."""
        self.directory = directory
        self.spec = spec or make_spec(directory, nodes, timing or Timing(heartbeat_ms=30, election_ms=200))
        self.board = Switchboard()
        self.room: dict[MemberId, int] = {}
        """How many bytes a member may still write; as many as it likes if it is not in here."""
        self._changes = 0
        for member in self.spec.members:
            self.start(member.id)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        for member in list(self.board.members):
            self.stop(member)

    def start(self, member_id: MemberId) -> None:
        name = next(member.name for member in self.spec.members if member.id == member_id)
        member = Member(self.spec, name, measure_room=lambda _: self.room.get(member_id, 1 << 40))
        member.open()
        self.board.members[member_id] = member
        self.introduce()

    def introduce(self) -> None:
        """What the supervisor does whenever a member was started: all learn how to call all."""
        for member_id, member in self.board.members.items():
            member.connect({peer.id: Line(self.board, member_id, peer.id) for peer in self.spec.members})

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

    # --- a supervisor's part ------------------------------------------------------------------

    def add(self, name: str, *, learner: bool = True, start: bool = True) -> MemberId:
        """Add a member, and start it on an empty directory."""
        member = member_spec(self.directory, name, joining=True)
        assert self.add_error(name, learner=learner) == 0
        self.spec = msgspec.structs.replace(self.spec, members=(*self.spec.members, member), formed=True)
        if start:
            self.start(member.id)
            self.publish(member.id)
        return member.id

    def add_error(self, name: str, *, learner: bool) -> int:
        """Ask for a member to be added: the number of the error, or 0. Nothing is started."""
        add = MemberAdd(member_spec(self.directory, name).id, "", (peer_url("test", name),), learner)
        return self.change(CommandKind.MEMBER_ADD, add)

    def publish(self, member_id: MemberId) -> None:
        name = next(member.name for member in self.spec.members if member.id == member_id)
        assert self.change(CommandKind.MEMBER_PUBLISH, MemberPublish(member_id, name, ())) == 0

    def promote(self, member_id: MemberId) -> None:
        """Promote as soon as the leader finds that the learner is ready."""

        def attempt() -> bool | None:
            error = self.change(CommandKind.MEMBER_PROMOTE, MemberPromote(member_id))
            assert error in (0, LEARNER_NOT_READY.number), f"error {error}"
            return error == 0 or None

        wait_for(attempt, "a learner that is ready")

    def remove(self, member_id: MemberId) -> int:
        return self.change(CommandKind.MEMBER_REMOVE, MemberRemove(member_id))

    def grow(self, name: str) -> MemberId:
        """Add a voter in the safe order: as a learner first."""
        member_id = self.add(name)
        self.promote(member_id)
        return member_id

    def campaign(self, member_id: MemberId) -> None:
        """Have a member's time-out be over."""
        opened = self.board.members[member_id]._opened
        assert opened is not None
        opened.driver._raft.state.election_deadline = 0.0
        opened.driver._wake_timer.set()

    def wait_until_removed(self, member_id: MemberId) -> None:
        """Wait until the member itself knows it, and another one leads. Whoever stops it earlier may stop
        the cluster: of two members, the other one may know the removal's entry, and not yet that it is
        committed, and would then need the vote of the one that is gone."""
        member = self.board.members[member_id]
        wait_for(lambda: member.status().removed or None, "word of its own removal")
        wait_for(lambda: self.leader() is not member or None, "another leader")

    def change_batch(self, kind: CommandKind, command: MemberCommand) -> Batch:
        if self._changes == 0:
            self.open_session(CHANGES)
        self._changes += 1
        request = encode_member_command(command)
        return Batch(CHANGES, self._changes, self._changes - 1, bytes([kind]), [request])

    def change(self, kind: CommandKind, command: MemberCommand) -> int:
        """Propose a change of members until it is answered; the number of the error, or 0."""
        answer = self.propose(self.change_batch(kind, command)).answer
        assert answer is not None
        return answer.errors[0]

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
