"""One way to write things for people: logs, recorded scenarios and tools all use it.

1>2 append t3 5/3 +2 commit 4 read 7       entries 6 and 7 after entry 5 of term 3
2>1 ack t3 7 read 7
2>1 reject t3 5 hint 4/2
"""

from __future__ import annotations

from typing import Final, assert_never

from etcray.raft.messages import (
    AppendRequest,
    AppendResponse,
    InstallSnapshotRequest,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from etcray.raft.ready import Ready, Status
from etcray_storage.types import NOBODY, Entry, EntryKind, HardState, Membership

DATA_SHOWN_BYTES: Final = 16


def describe_entry(entry: Entry) -> str:
    data = entry.data[:DATA_SHOWN_BYTES]
    text = data.decode() if data.isascii() and data.decode().isprintable() else data.hex()
    more = "..." if len(entry.data) > DATA_SHOWN_BYTES else ""
    kind = "change " if entry.kind is EntryKind.MEMBERSHIP else ""
    return f"{entry.index}/{entry.term} {kind}{text or 'no-op'}{more}"


def describe_membership(membership: Membership) -> str:
    voters = " ".join(str(voter) for voter in membership.voters)
    learners = "".join(f" +{learner}" for learner in membership.learners)
    return f"voters {voters}{learners}"


def describe_message(message: Message) -> str:
    return f"{message.sender}>{message.recipient} {_describe_body(message)}"


def _describe_body(message: Message) -> str:
    term = f"t{message.term}"
    match message:
        case AppendRequest():
            kind = "append" if message.entries else "heartbeat"
            entries = f" +{len(message.entries)}" if message.entries else ""
            text = f"{kind} {term} {message.previous_index}/{message.previous_term}{entries}"
            return f"{text} commit {message.commit}{_describe_read(message.read_sequence)}"
        case AppendResponse():
            read = _describe_read(message.read_sequence)
            if not message.rejected:
                return f"ack {term} {message.match}{read}"
            return f"reject {term} {message.rejected} hint {message.hint_index}/{message.hint_term}{read}"
        case PreVoteRequest():
            return f"pre-vote? {term} log {message.last_index}/{message.last_term}"
        case VoteRequest():
            transfer = " transfer" if message.transfer else ""
            return f"vote? {term} log {message.last_index}/{message.last_term}{transfer}"
        case PreVoteResponse():
            return f"pre-vote {term} {'granted' if message.granted else 'refused'}"
        case VoteResponse():
            return f"vote {term} {'granted' if message.granted else 'refused'}"
        case InstallSnapshotRequest():
            return f"snapshot {term} {message.meta.index}/{message.meta.term}"
        case TimeoutNow():
            return f"campaign! {term} log {message.last_index}"
        case _:
            assert_never(message)


def _describe_read(sequence: int) -> str:
    return f" read {sequence}" if sequence else ""


def describe_hard_state(hard_state: HardState) -> str:
    return f"term {hard_state.term} vote {hard_state.vote} commit {hard_state.commit}"


def describe_ready(ready: Ready) -> list[str]:
    """One line an effect, in the order in which they may be acted on."""
    lines: list[str] = []
    if ready.soft_state is not None:
        soft = ready.soft_state
        lines.append(f"{soft.role} in term {soft.term}, leader {soft.leader or 'unknown'}")
    if ready.snapshot is not None:
        lines.append(f"install snapshot {ready.snapshot.index}/{ready.snapshot.term}")
    if ready.record is not None:
        if ready.record.hard_state is not None:
            lines.append(f"save {describe_hard_state(ready.record.hard_state)}")
        lines.extend(f"save {describe_entry(entry)}" for entry in ready.record.entries)
    lines.extend(f"send {describe_message(message)}" for message in ready.messages)
    lines.extend(f"send after sync {describe_message(message)}" for message in ready.messages_after_sync)
    lines.extend(f"apply {describe_entry(entry)}" for entry in ready.committed)
    lines.extend(f"read {read.token} at {read.index}" for read in ready.read_states)
    lines.extend(f"read {token} lost" for token in ready.reads_lost)
    lines.extend(f"snapshot wanted by {wanted.member}" for wanted in ready.snapshots_wanted)
    return lines


def describe_status(status: Status) -> str:
    log = f"log {status.first_index}..{status.last_index} stable {status.stable_index}"
    peers = "".join(
        f"; {peer.member} {peer.state} match {peer.match_index} next {peer.next_index}"
        for peer in status.peers
    )
    transfer = f"; hands over to {status.transfer_target}" if status.transfer_target != NOBODY else ""
    return (
        f"{status.member}: {status.role} term {status.term} vote {status.vote} leader {status.leader} "
        f"commit {status.commit} applied {status.applied} {log}{peers}{transfer}"
    )
