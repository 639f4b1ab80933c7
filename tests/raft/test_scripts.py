"""Recorded scenarios: each file in scripts/ is a list of commands with what happened after each.

A line that begins with `>` is a command, one that begins with `#` a comment; the rest is what the
members did, and must come out the same. After a wanted change: ETCRAY_REWRITE=1 pytest tests/raft.

    cluster 1 2 3 [+4] [limit=N ...]   voters, learners, limits of RaftConfig
    elect M             M's election timeout runs out first; everything is delivered, nothing recorded
    campaign M          M's election timeout runs out now
    tick M              the time goes on to M's next deadline; only M notices
    wait SECONDS        time passes, everything is delivered at once; heartbeats are not recorded
    skip SECONDS        time passes, nobody looks at the clock
    propose M TEXT      |  read M
    change M CHANGE     M proposes: learner N, voter N, promote N or remove N
    join N              N, which was added, starts with an empty disk
    transfer M N        M hands leadership over to N
    members [M ...]     who votes and who only listens, as far as each member has applied
    slow M              M applies nothing until `apply M`
    apply M
    sync M [COUNT]      M's oldest writes become durable
    stall M             M's disk does nothing until `sync M`
    deliver [A>B]       messages that are on their way arrive; A or B may be *
    drop [A>B]          they do not
    double [A>B]        they will arrive twice
    reverse             the newest message comes first
    settle              sync and deliver until nothing is on its way
    cut A B  |  mend    |  suspect M A (M finds that calls to A fail)
    crash M [COUNT]     COUNT writes have still reached the disk
    restart M
    compact M INDEX     tables flushed up to INDEX, log compacted
    snapshot M [fails]  M finishes its oldest snapshot transfer
    status [M ...]
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from etcray.raft.describe import describe_membership, describe_status
from etcray.raft.errors import NotLeaderError, ProposalDroppedError, TransferRefusedError
from etcray_storage.types import Index

from .cluster import Cluster

SCRIPTS = Path(__file__).parent / "scripts"


class Player:
    def __init__(self) -> None:
        self.cluster = Cluster()

    def play(self, command: str) -> list[str]:
        name, *arguments = command.split()
        self.cluster.events.clear()
        action: Callable[..., None] = getattr(self, f"do_{name}")
        action(*arguments)
        return list(self.cluster.events)

    def do_cluster(self, *arguments: str) -> None:
        voters = [int(a) for a in arguments if a.isdigit()]
        learners = [int(a) for a in arguments if a.startswith("+")]
        limits = dict(a.split("=") for a in arguments if "=" in a)
        self.cluster = Cluster(voters, learners, **{name: int(value) for name, value in limits.items()})

    def do_elect(self, member: str) -> None:
        leader = self.cluster.elect(int(member)).raft.state
        self.cluster.events[:] = [f"{member} leads term {leader.term}, its no-op is {leader.log.last_index}"]

    def do_campaign(self, member: str) -> None:
        self.cluster[int(member)].raft.state.election_deadline = self.cluster.now
        self.cluster.tick(int(member))

    def do_tick(self, member: str) -> None:
        self.cluster.tick(int(member))

    def do_wait(self, seconds: str) -> None:
        self.cluster.wait(float(seconds))
        kinds = (" heartbeat ", " ack ")
        self.cluster.events[:] = [e for e in self.cluster.events if not any(kind in e for kind in kinds)]

    def do_skip(self, seconds: str) -> None:
        self.cluster.now += float(seconds)

    def do_propose(self, member: str, text: str) -> None:
        try:
            self.cluster.propose(int(member), text.encode())
        except (NotLeaderError, ProposalDroppedError) as e:
            self.cluster.events.append(f"{member}: {type(e).__name__}: {e}")

    def do_change(self, member: str, *change: str) -> None:
        try:
            self.cluster.change(int(member), " ".join(change))
        except (NotLeaderError, ProposalDroppedError) as e:
            self.cluster.events.append(f"{member}: {type(e).__name__}: {e}")

    def do_join(self, member: str) -> None:
        self.cluster.join(int(member))

    def do_transfer(self, member: str, to: str) -> None:
        try:
            self.cluster.transfer_leadership(int(member), int(to))
        except (NotLeaderError, TransferRefusedError) as e:
            self.cluster.events.append(f"{member}: {type(e).__name__}: {e}")

    def do_members(self, *members: str) -> None:
        for member in self.cluster.members.values():
            if not members or str(member.id) in members:
                membership = member.raft.status().membership
                self.cluster.events.append(f"{member.id}: {describe_membership(membership)}")

    def do_slow(self, member: str) -> None:
        self.cluster[int(member)].applies_by_itself = False

    def do_apply(self, member: str) -> None:
        one = self.cluster[int(member)]
        one.applies_by_itself = True
        one.apply(len(one.unapplied))

    def do_read(self, member: str) -> None:
        try:
            self.cluster.read(int(member))
        except NotLeaderError as e:
            self.cluster.events.append(f"{member}: {type(e).__name__}: {e}")

    def do_sync(self, member: str, count: str = "1000") -> None:
        one = self.cluster[int(member)]
        one.sync(self.cluster.clock(one), int(count))

    def do_stall(self, member: str) -> None:
        self.cluster[int(member)].stalled = True

    def do_deliver(self, way: str = "*>*") -> None:
        self.cluster.deliver(*_parse_way(way))

    def do_drop(self, way: str = "*>*") -> None:
        self.cluster.take(*_parse_way(way))

    def do_double(self, way: str = "*>*") -> None:
        taken = self.cluster.take(*_parse_way(way))
        self.cluster.network.extend(taken + taken)

    def do_reverse(self) -> None:
        self.cluster.network.reverse()

    def do_settle(self) -> None:
        self.cluster.settle()

    def do_cut(self, one: str, other: str) -> None:
        self.cluster.cut(int(one), int(other))

    def do_mend(self) -> None:
        self.cluster.cuts.clear()

    def do_suspect(self, member: str, suspected: str) -> None:
        self.cluster.suspect(int(member), int(suspected))

    def do_crash(self, member: str, writes_done: str = "0") -> None:
        self.cluster.crash(int(member), int(writes_done))

    def do_restart(self, member: str) -> None:
        self.cluster.restart(int(member))

    def do_compact(self, member: str, index: str) -> None:
        self.cluster[int(member)].flush(Index(int(index)))
        self.cluster[int(member)].compact(Index(int(index)))

    def do_snapshot(self, member: str, result: str = "arrives") -> None:
        self.cluster.transfer_snapshot(int(member), ok=result != "fails")

    def do_status(self, *members: str) -> None:
        for member in self.cluster.members.values():
            if not members or str(member.id) in members:
                self.cluster.events.append(describe_status(member.raft.status()))


def _parse_way(way: str) -> tuple[int | None, int | None]:
    sender, recipient = way.split(">")
    return (None if sender == "*" else int(sender), None if recipient == "*" else int(recipient))


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_script_has_recorded_outcome(path: Path) -> None:
    player, lines = Player(), []
    recorded = path.read_text()
    for line in recorded.splitlines():
        if line.startswith("#"):
            lines.append(line)
        elif line.startswith("> "):
            lines.append(line)
            lines.extend(f"    {event}" for event in player.play(line[2:]))
        elif not line:
            lines.append("")
    outcome = "\n".join(lines) + "\n"
    if os.environ.get("ETCRAY_REWRITE"):
        path.write_text(outcome)
    assert outcome == path.read_text(), f"{path.name} went another way than recorded"


def test_there_are_scripts() -> None:
    assert len(list(SCRIPTS.glob("*.txt"))) >= 12, f"no scenarios in {SCRIPTS}"
