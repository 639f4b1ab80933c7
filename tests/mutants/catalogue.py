"""All mutants, and what their rows mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.mutants import (
    gateway,
    leases_and_members,
    log,
    machine,
    mvcc,
    node,
    raft,
    raft_membership,
    supervisor,
    watch,
)
from tests.mutants.mutant import Mutant
from tests.simulation.mutants import MUTANTS as PLANTED

AREAS: Final[dict[str, Sequence[Mutant]]] = {
    "raft": raft.MUTANTS,
    "raft_membership": raft_membership.MUTANTS,
    "log": log.MUTANTS,
    "mvcc": mvcc.MUTANTS,
    "machine": machine.MUTANTS,
    "leases_and_members": leases_and_members.MUTANTS,
    "node": node.MUTANTS,
    "watch": watch.MUTANTS,
    "gateway": gateway.MUTANTS,
    "supervisor": supervisor.MUTANTS,
}
MUTANTS: Final = tuple(mutant for mutants in AREAS.values() for mutant in mutants)

SIMULATED: Final = {
    "vote answered before its sync": "R1",
    "ack before its sync": "R4",
    "commit of an old term by counting": "R5",
    "ReadIndex before the first commit of the term": "R10",
    "read without confirmation": "R11",
    "double apply on retry": "G3",
    "applied index apart from the data": "S1",
    "lease expiry by a follower": "L1",
    "two membership changes at once": "R16",
    "snapshot that forgets sessions": "G3",
    "the core learns late of a compaction": "S22",
}
"""The rows of the mistakes of `tests.simulation.mutants`."""
SIMULATION_TEST: Final = "tests/simulation/test_mutants.py"

ROWS: Final = {
    "R1": "a vote is answered before it is durable",
    "R2": "two votes in one term",
    "R3": "the term is not stored, or goes back",
    "R4": "entries are acknowledged before they are durable",
    "R5": "a committed entry is lost: commit by counting, or a leader that lacks it",
    "R6": "the commit index goes back, or exceeds the log",
    "R7": "the match index is not what the peer has",
    "R8": "entries that match are truncated",
    "R9": "a late report of the disk vouches for other entries",
    "R10": "a read before the first commit of the leader's term",
    "R11": "a read that is confirmed by something older than itself",
    "R12": "a read over a change of leaders",
    "R13": "a leader that is none any more answers",
    "R14": "a member that comes back disturbs, or nobody can be elected",
    "R15": "a change of members before the leader's first commit",
    "R16": "two changes of members at once",
    "R17": "a removed leader leads on, a removed member disturbs",
    "R18": "learners count, or are promoted too early",
    "R19": "a transfer of leadership gone wrong",
    "R20": "an installed snapshot and the log do not fit together",
    "R21": "a snapshot that is older than what is there",
    "R22": "applied or counted before it is durable here",
    "R23": "a proposal is dropped without a word",
    "R24": "messages for somebody else",
    "R25": "all members wait equally long",
    "S1": "the applied index is stored apart from the data",
    "S2": "the log's tail is gone without a word",
    "S3": "a damaged row is believed",
    "S4": "a file whose name was never synced is missing",
    "S5": "a failed sync is tried again",
    "S6": "the disk is full",
    "S14": "a directory is replaced under a running member",
    "S15": "a damaged or partial snapshot",
    "S16": "leftovers of what was interrupted",
    "S17": "a torn write",
    "S18": "writes reach the disk in another order",
    "S19": "a newer format is opened",
    "S20": "members diverge, and nobody notices",
    "S21": "files of different times beside each other",
    "S22": "the log forgets what nothing else holds",
    "S23": "a rewrite of the tables loses what is written meanwhile",
    "S24": "members that apply the same come to different states",
    "M1": "compaction takes what can still be read",
    "M3": "a deletion at the compact revision is lost",
    "M4": "sub-revisions, order inside a transaction",
    "M6": "the bounds of revisions",
    "M7": "limits, counts, sorting, filters",
    "M8": "versions, create revisions, compares",
    "M9": "a change of nothing moves the revision",
    "M10": "a transaction that is half done",
    "M11": "the hash of all keys does not cover everything",
    "M12": "a read shows what is deleted, or not what is there",
    "W1": "events come twice",
    "W2": "events are missing after a switch or a gap",
    "W3": "progress is told ahead of events",
    "W4": "a slow consumer's events are lost",
    "W5": "a watch of the future, or from now, gets older events",
    "W6": "an idle watcher hears of no progress",
    "W7": "a revision is split",
    "W8": "a compacted start is not told",
    "W9": "ids of watches",
    "W11": "filters, previous pairs",
    "W12": "memory without a bound for slow consumers",
    "L1": "a follower's clock ends a lease",
    "L2": "leader changes prolong a lease for ever, or a checkpoint cuts it short",
    "L3": "an old leader decides about leases",
    "L4": "renewals of what has ended, and the reverse",
    "L7": "the keys of a lease are deleted in different orders",
    "L8": "odd ids and lives",
    "L9": "a key goes with a lease that it has left",
    "L10": "very many leases end at once",
    "L11": "a key with a lease that does not exist",
    "L12": "a clock jumps",
    "A6": "the end of a range",
    "B1": "a removed id comes back",
    "B2": "two sources of truth about the members",
    "B3": "a change of members costs the quorum",
    "B4": "a change that would help is refused",
    "B5": "a promotion is lost, or happens by itself",
    "B6": "the leader or the last voter is removed",
    "B7": "a member comes back without its disk",
    "B8": "a member is moved without its disk",
    "B9": "a change of members is cut off the log",
    "G1": "two processes are one member",
    "G3": "applied twice, or a refusal of what was applied",
    "G4": "an error says something else than what happened",
    "G9": "a node is gone for a while",
    "G10": "what a client leaves behind",
    "G13": "queues without a bound",
    "G15": "requests over the limits",
    "G17": "a leader of yesterday",
    "G19": "health is green while nothing works",
    "F2": "unknown enums",
    "F9": "an entry that stops everybody who applies it",
}


def table() -> str:
    """Every mutant, its row, and who catches it, in Markdown."""
    lines = ["| mistake | row | caught by |", "| --- | --- | --- |"]
    for mutant in MUTANTS:
        tests = ", ".join(f"`{short(test)}`" for test in mutant.caught_by)
        lines.append(f"| {mutant.name} | {mutant.row} | {tests} |")
    for name in PLANTED:
        lines.append(f"| {name} | {SIMULATED[name]} | `{short(SIMULATION_TEST)}[{name}]` |")
    return "\n".join(lines)


def short(test: str) -> str:
    """A node id without what all of them have."""
    return test.removeprefix("tests/").replace(".py", "")


def chosen(words: Sequence[str]) -> tuple[Mutant, ...]:
    """The mutants of these areas, of these rows, or with these words in their names; all of them without
    any word."""
    if not words:
        return MUTANTS
    return tuple(
        mutant
        for area, mutants in AREAS.items()
        for mutant in mutants
        if any(
            word == area if word in AREAS else word in mutant.name or word in mutant.row.split(",")
            for word in words
        )
    )
