"""What is recorded: three members in one process that go through everything that touches a disk.

`record` runs it as a program, with the recorder preloaded and small limits. The first member's directory
is watched. Beside the recorder's journal it leaves `truth.json`: which entry is at each index, and what
the state was after it.
"""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path
from typing import Any, Final

import msgspec

from etcray.node.envelope import decode_envelope
from etcray.node.member import Member
from etcray.raft.messages import AppendResponse, VoteRequest, VoteResponse
from etcray_storage.commands import Batch, CommandKind, ReadKind
from etcray_storage.machine.machine import StateMachine
from etcray_storage.proto.rpc_pb2 import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from etcray_storage.types import Entry
from tests.node import local_cluster
from tests.node.local_cluster import Line, LocalCluster

WATCHED: Final = "m1"
SESSION: Final = 77
KEYS: Final = 40


class Promise(msgspec.Struct, omit_defaults=True):
    """What the watched member has told somebody. Later ones add to earlier ones."""

    term: int = 0
    vote: int = 0
    """In `term`; 0: none."""
    match: int = 0
    """It holds all entries up to here."""


class Truth(msgspec.Struct):
    """What is right, by index of the log."""

    entries: dict[int, tuple[int, int]]
    """Term, and checksum of the data."""
    states: dict[int, int]
    """`digest` of the state after the entry."""


def digest(machine: StateMachine) -> int:
    """Of everything that a client can read now."""
    everything = RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()
    checksum = zlib.crc32(f"{machine.revision} {machine.compact_revision}".encode())
    checksum = zlib.crc32(machine.read(ReadKind.RANGE, everything).body, checksum)
    return zlib.crc32(machine.read(ReadKind.LEASE_LEASES, b"").body, checksum)


class Witness:
    """Notes what the members apply and what the watched one promises."""

    def __init__(self, directory: Path) -> None:
        self.truth = Truth({}, {})
        self._marks = os.open(f"{directory / WATCHED}.promises", os.O_WRONLY | os.O_CREAT, 0o600)
        self.watched_id = 0
        self.watched: Member | None = None
        self._apply = StateMachine.apply

    def promise(self, promise: Promise) -> None:
        os.write(self._marks, msgspec.json.encode(promise) + b"\n")

    def leaves(self, envelope: bytes) -> None:
        """Messages of the watched member are about to leave."""
        for message in decode_envelope(envelope).messages:
            if isinstance(message, AppendResponse):
                # Entries only: an acknowledgement of what was durable before may leave before its term is
                # (`raft`'s essay). A term protects the vote in it, and there was none yet.
                self.promise(Promise(match=message.match))
            elif isinstance(message, VoteResponse) and message.granted:
                self.promise(Promise(term=message.term, vote=message.recipient))
            elif isinstance(message, VoteRequest):
                self.promise(Promise(term=message.term, vote=message.sender))

    def apply(self, machine: StateMachine, entry: Entry) -> Any:
        answers = self._apply(machine, entry)
        index = int(entry.index)
        found = (int(entry.term), zlib.crc32(entry.data))
        state = digest(machine)
        assert self.truth.entries.setdefault(index, found) == found, f"two entries at {index}"
        assert self.truth.states.setdefault(index, state) == state, f"members differ after entry {index}"
        opened = self.watched._opened if self.watched is not None else None
        if opened is not None and opened.applier.machine is machine:
            self.promise(Promise(match=index))
        return answers


def install(witness: Witness) -> None:
    """Have the witness see what the members do."""

    class WitnessedLine(Line):
        def exchange(self, envelope: bytes) -> bytes:
            sender, recipient = self._pair
            if sender == witness.watched_id:
                witness.leaves(envelope)
            reply = super().exchange(envelope)
            if recipient == witness.watched_id:
                witness.leaves(reply)
            return reply

    vars(local_cluster)["Line"] = WitnessedLine

    def apply(machine: StateMachine, entry: Entry) -> Any:
        return witness.apply(machine, entry)

    type.__setattr__(StateMachine, "apply", apply)


class Workload:
    def __init__(self, cluster: LocalCluster, witness: Witness, seed: int) -> None:
        self._cluster = cluster
        self._witness = witness
        self._random = random.Random(seed)
        self._sequence = 0
        self._cut_off = 0
        """Steps until the watched member hears the others again."""

    def run(self, steps: int) -> None:
        self._cluster.open_session(SESSION)
        for step in range(steps):
            self._write()
            if self._cut_off:
                self._cut_off -= 1
                if not self._cut_off:
                    self._cluster.heal()
            elif step % 50 == 49:
                self._disturb(step // 50)
        self._cluster.heal()
        self._write()
        self._cluster.wait_until_equal()

    def _write(self) -> None:
        self._sequence += 1
        count = self._random.choice((1, 1, 1, 3, 12))
        commands = [self._command() for _ in range(count)]
        kinds = bytes(kind for kind, _ in commands)
        self._cluster.propose(
            Batch(SESSION, self._sequence, self._sequence - 1, kinds, [request for _, request in commands])
        )

    def _command(self) -> tuple[CommandKind, bytes]:
        chance = self._random
        key = f"key{chance.randrange(KEYS)}".encode()
        value = chance.randbytes(chance.choice((0, 20, 200, 2000)))
        kind = chance.random()
        if kind < 0.7:
            return CommandKind.PUT, PutRequest(key=key, value=value).SerializeToString()
        if kind < 0.8:
            return CommandKind.DELETE_RANGE, DeleteRangeRequest(key=key).SerializeToString()
        if kind < 0.9:
            return CommandKind.TXN, _swap(key, value).SerializeToString()
        if kind < 0.95:
            grant = LeaseGrantRequest(TTL=9_000, ID=chance.randrange(1, 1 << 40))
            return CommandKind.LEASE_GRANT, grant.SerializeToString()
        revision = max(1, self._revision() - chance.randrange(40))
        return CommandKind.COMPACT, CompactionRequest(revision=revision).SerializeToString()

    def _revision(self) -> int:
        return max(member.status().revision for member in self._cluster.board.members.values())

    def _disturb(self, turn: int) -> None:
        """In turn: rewrite the tables; lag until a snapshot is needed; start anew; change the leader."""
        watched = self._watched()
        match turn % 4:
            case 0:
                opened = watched._opened
                assert opened is not None
                opened.flush()
                opened.tables.maintain(force=True)
            case 1:
                if watched.status().role != "leader":
                    self._cluster.isolate(watched.spec.id)
                    self._cut_off = 45
            case 2:
                self._cluster.stop(watched.spec.id)
                self._cluster.start(watched.spec.id)
                self._witness.watched = self._watched()
            case _:
                leader = self._cluster.leader().spec.id
                self._cluster.stop(leader)
                self._cluster.leader()
                self._cluster.start(leader)
                self._witness.watched = self._watched()

    def _watched(self) -> Member:
        return next(m for m in self._cluster.board.members.values() if m.spec.name == WATCHED)


def _swap(key: bytes, value: bytes) -> TxnRequest:
    """Put if the key exists, else delete its neighbour and put."""
    exists = Compare(key=key, target=Compare.VERSION, result=Compare.GREATER, version=0)
    put = RequestOp(request_put=PutRequest(key=key, value=value))
    delete = RequestOp(request_delete_range=DeleteRangeRequest(key=key + b"0", range_end=key + b"1"))
    return TxnRequest(compare=[exists], success=[put], failure=[delete, put])


def run(directory: Path, seed: int, steps: int) -> None:
    """Everything, from empty directories to a clean end."""
    witness = Witness(directory)
    install(witness)
    with LocalCluster(directory) as cluster:
        workload = Workload(cluster, witness, seed)
        watched = workload._watched()
        witness.watched, witness.watched_id = watched, watched.spec.id
        workload.run(steps)
    (directory / "truth.json").write_bytes(msgspec.json.encode(witness.truth))
