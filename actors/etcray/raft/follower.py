"""Taking over a leader's log (paper 5.3, 7). The sender leads the current term: see raft.step.

An acknowledgement says "durable here", so it leaves after the sync of what it speaks of, or at once if
that is durable already. A rejection promises nothing and leaves at once.
"""

from __future__ import annotations

from etcray.raft.messages import AppendRequest, AppendResponse, InstallSnapshotRequest
from etcray.raft.state import State
from etcray_storage.types import EntryKind, Index, MemberId, SnapshotMeta, Term


def handle_append_request(state: State, message: AppendRequest) -> None:
    if state.installing is not None or message.previous_index < state.commit:
        # Late, a duplicate, or a heartbeat to somebody who needs a snapshot. What is committed here
        # is in every leader's log, so that much can be acknowledged whatever the message holds.
        _acknowledge(state, message.sender, state.commit, message.read_sequence)
        return
    log = state.log
    if not log.matches(message.previous_index, message.previous_term):
        _reject(state, message)
        return
    if not message.entries:
        # What is durable already is acknowledged at once: a read that waits for this answer need
        # not wait for the disk. The rest was acknowledged with the request that brought it.
        match = min(message.previous_index, log.stable_index)
        _advance_commit(state, message, message.previous_index)
        _acknowledge(state, message.sender, match, message.read_sequence)
        return
    if _is_second_change(state, message):
        return
    _append_new(state, message)
    match = Index(message.previous_index + len(message.entries))
    _advance_commit(state, message, match)
    _acknowledge(state, message.sender, match, message.read_sequence)


def _advance_commit(state: State, message: AppendRequest, match: Index) -> None:
    """What follows the matching entries may differ from the leader's, so it is not committed here."""
    commit = Index(min(message.commit, match))
    if commit > state.commit:
        state.commit_to(commit)


def _is_second_change(state: State, message: AppendRequest) -> bool:
    """Whether the message holds a change of membership while an earlier one, which stays in the log,
    is not committed as far as the message tells. No correct leader sends that: see membership.py."""
    changes = state.log.changes
    if not changes or all(entry.kind is not EntryKind.MEMBERSHIP for entry in message.entries):
        return False
    return any(max(state.commit, message.commit) < index <= message.previous_index for index in changes)


def _append_new(state: State, message: AppendRequest) -> None:
    """Append what is not in the log yet. Entries that are there already stay: this request may be
    older than the one that brought what follows them."""
    for position, entry in enumerate(message.entries):
        if not state.log.matches(entry.index, entry.term):
            assert entry.index > state.commit, f"entry {entry.index} is committed, commit {state.commit}"
            state.log.append(message.entries[position:])
            return


def _reject(state: State, message: AppendRequest) -> None:
    """Tell the leader where to go on, so that it need not step back entry by entry (end of 5.3).
    Everything up to the commit index matches every leader, so nothing below it is ever hinted."""
    log = state.log
    conflict_term = log.term(message.previous_index)
    if conflict_term is None:
        hint_index, hint_term = Index(log.last_index + 1), Term(0)
    else:
        if message.previous_index == state.commit:
            return  # No correct leader contradicts what is committed.
        hint_index = log.first_index_of_term_at(message.previous_index, Index(state.commit + 1))
        hint_term = conflict_term
    state.send(
        AppendResponse(
            sender=state.member,
            recipient=message.sender,
            term=state.term,
            match=Index(0),
            commit=Index(0),
            rejected=message.previous_index,
            hint_index=hint_index,
            hint_term=hint_term,
            read_sequence=message.read_sequence,
        )
    )


def _acknowledge(state: State, leader: MemberId, match: Index, read_sequence: int) -> None:
    response = AppendResponse(
        sender=state.member,
        recipient=leader,
        term=state.term,
        match=match,
        commit=state.commit,
        rejected=Index(0),
        hint_index=Index(0),
        hint_term=Term(0),
        read_sequence=read_sequence,
    )
    if match <= state.log.stable_index and not state.is_change_unsaved():
        state.send(response)
    else:
        state.send_after_sync(response)


def handle_install_snapshot_request(state: State, message: InstallSnapshotRequest) -> None:
    """Take the snapshot over unless this log has what it holds. A late or repeated one changes
    nothing; while one is being installed every other is ignored."""
    if state.installing is not None:
        return
    meta = message.meta
    if meta.index > state.commit and state.log.matches(meta.index, meta.term):
        state.commit_to(meta.index)
    if meta.index <= state.commit:
        _acknowledge(state, message.sender, state.commit, 0)
        return
    state.installing = meta
    state.snapshot_to_hand_out = meta


def snapshot_installed(state: State, meta: SnapshotMeta) -> None:
    assert state.installing == meta, f"installed {meta}, expected {state.installing}"
    assert state.leading is None, "a leader does not install snapshots"
    assert meta.index > state.commit, f"snapshot at {meta.index} is behind commit {state.commit}"
    state.installing = None
    state.log.restore(meta)
    state.commit = meta.index
    state.applied = meta.index
    state.adopt(meta.membership)
    if state.leader:
        _acknowledge(state, state.leader, meta.index, 0)
