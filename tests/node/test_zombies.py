"""Processes that were given up and wake up again: what they say and write must not count.

With real processes and real signals, because a lock of the kernel is at the bottom of it.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from etcray.node.api import Outcome
from etcray.node.envelope import Envelope, Fence, Wellbeing
from etcray.node.opened import EXIT_FATAL
from etcray.node.peers import PeerUnreachableError
from etcray.spec import ClusterSpec, Timing
from etcray_storage.commands import (
    Batch,
    CommandKind,
    MemberAdd,
    MemberPublish,
    MemberRemove,
    encode_batch,
    encode_member_command,
)
from etcray_storage.types import ClusterId, Incarnation, Index, MemberId
from tests.node.local_cluster import make_spec, member_spec, put_batch, wait_for
from tests.node.member_process import MemberProcess

SESSION = 31


class Processes:
    """A cluster of processes, and a client of it."""

    def __init__(self, directory: Path, nodes: int, stack: ExitStack) -> None:
        self.directory = directory
        self.spec = make_spec(directory, nodes, Timing(heartbeat_ms=50, election_ms=2000))
        self._stack = stack
        self._sequence = -1
        self.running = {m.id: self.start(self.spec, m.name) for m in self.spec.members}
        for process in self.running.values():
            assert process.opened() is None
        self.propose(b"", [])

    def start(self, spec: ClusterSpec, name: str, socket: str | None = None) -> MemberProcess:
        return self._stack.enter_context(MemberProcess(spec, self.directory, name, socket))

    def leader(self) -> MemberProcess:
        def find() -> MemberProcess | None:
            for process in self.running.values():
                try:
                    status = process.status()
                except PeerUnreachableError:
                    continue
                if status.role == "leader":
                    return process
            return None

        return wait_for(find, "a leader")

    def propose(self, kinds: bytes, requests: list[bytes]) -> list[int]:
        self._sequence += 1
        batch = encode_batch(Batch(SESSION, self._sequence, 0, kinds, requests))

        def attempt() -> list[int] | None:
            try:
                reply = self.leader().propose(batch)
            except PeerUnreachableError:
                return None
            return reply.answer.errors if reply.answer is not None else None

        return wait_for(attempt, "an answer")

    def put(self, key: bytes, value: bytes) -> None:
        batch = put_batch(SESSION, 0, {key: value})
        assert self.propose(batch.kinds, batch.requests) == [0]

    def change(self, kind: CommandKind, command: MemberAdd | MemberPublish | MemberRemove) -> None:
        assert self.propose(bytes([kind]), [encode_member_command(command)]) == [0]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@contextmanager
def processes(directory: Path, nodes: int) -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(directory, nodes, stack)


def test_a_stopped_process_keeps_its_directory_until_it_is_killed(tmp_path: Path) -> None:
    with processes(tmp_path, 1) as cluster:
        cluster.put(b"key", b"value")
        (old,) = cluster.running.values()
        old.stop()
        second = cluster.start(cluster.spec, "m1", socket="second")
        refused = second.opened()
        assert refused is not None
        assert refused.error == "DataDirectoryInUseError"
        assert f"process {old.process.pid}" in refused.message
        old.process.send_signal(signal.SIGKILL)  # works on a stopped process, too
        assert old.process.wait() == -signal.SIGKILL
        third = cluster.start(cluster.spec, "m1", socket="third")
        assert third.opened() is None
        assert third.status().incarnation == 2
        wait_for(lambda: third.status().revision == 2 or None, "what was answered before")


def test_a_leader_that_sleeps_through_its_replacement_wakes_up_to_no_effect(tmp_path: Path) -> None:
    with processes(tmp_path, 3) as cluster:
        cluster.put(b"key", b"old")
        old = cluster.leader()
        old.stop()
        del cluster.running[old.member]
        cluster.put(b"key", b"new")
        cluster.change(CommandKind.MEMBER_REMOVE, MemberRemove(old.member))
        joining = member_spec(tmp_path, "m4", joining=True)
        cluster.change(CommandKind.MEMBER_ADD, MemberAdd(joining.id, "", ("ray://test/m4",), True))
        spec = msgspec.structs.replace(cluster.spec, members=(*cluster.spec.members, joining), formed=True)
        cluster.running[joining.id] = cluster.start(spec, "m4")
        assert cluster.running[joining.id].opened() is None
        meeting = msgspec.msgpack.encode((joining.id, str(tmp_path), "m4"))
        for process in cluster.running.values():
            if process.member != joining.id:
                process.call("meet", meeting)
        cluster.change(CommandKind.MEMBER_PUBLISH, MemberPublish(joining.id, "m4", ()))
        newcomer = cluster.running[joining.id]
        wait_for(lambda: newcomer.status().revision == 3 or None, "the newcomer to catch up")
        term = cluster.leader().status().term
        old.go_on()
        # It still believes that it leads: what it is asked for now must not be answered as done.
        late = encode_batch(put_batch(77, 1, {b"key": b"zombie"}))
        wait_for(lambda: old.status().removed or None, "the zombie to learn that it was removed")
        assert old.propose(late).outcome is Outcome.NOT_LEADER
        cluster.put(b"last", b"word")
        statuses = [process.status() for process in cluster.running.values()]
        assert {status.term for status in statuses} == {term}
        assert cluster.leader().status().revision == 4
        assert old.status().revision <= 3


def test_a_process_whose_directory_was_replaced_ends_without_an_answer(tmp_path: Path) -> None:
    with processes(tmp_path, 1) as cluster:
        cluster.put(b"key", b"value")
        (process,) = cluster.running.values()
        (tmp_path / "m1").rename(tmp_path / "moved")
        shutil.copytree(tmp_path / "moved", tmp_path / "m1")
        before = contents(tmp_path / "m1")
        with pytest.raises(PeerUnreachableError):
            process.propose(encode_batch(put_batch(SESSION, 9, {b"key": b"lost"})))
        assert process.process.wait() == EXIT_FATAL
        assert contents(tmp_path / "m1") == before


def test_an_earlier_incarnation_is_not_heard_once_a_later_one_has_spoken() -> None:
    cluster, here, there = ClusterId(1), MemberId(2), MemberId(3)
    fence = Fence(cluster, here, Incarnation(1), lambda _: False, lambda: Wellbeing(Index(0), 0, False))

    def letter(incarnation: int) -> Envelope:
        return Envelope(cluster, there, Incarnation(incarnation), here, [])

    assert fence.admits(letter(4))
    assert fence.admits(letter(5))
    for _ in range(2):
        assert not fence.admits(letter(4))
    assert fence.admits(letter(5))


def test_only_letters_of_this_cluster_to_this_member_from_who_was_not_removed_are_heard() -> None:
    cluster, here, there, removed = ClusterId(1), MemberId(2), MemberId(3), MemberId(4)
    fence = Fence(
        cluster, here, Incarnation(1), lambda member: member == removed, lambda: Wellbeing(Index(0), 0, False)
    )

    def is_heard(cluster: ClusterId, sender: MemberId, recipient: MemberId) -> bool:
        return fence.admits(Envelope(cluster, sender, Incarnation(1), recipient, []))

    assert is_heard(cluster, there, here)
    assert not is_heard(ClusterId(2), there, here)
    assert not is_heard(cluster, there, MemberId(5))
    assert not is_heard(cluster, removed, here)
