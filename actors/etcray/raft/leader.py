"""Leading: replicate, commit, confirm reads, notice its own isolation (paper 5.3, 5.4.2, 8; thesis 6.2, 6.4).

All appends leave in `flush`, which `raft.ready` calls: what arrived since the last one goes out in one
message a peer. Handlers only update what is known and ask for a flush.
"""

from __future__ import annotations

from etcray.raft import transfer
from etcray.raft.errors import DropReason, ProposalDroppedError
from etcray.raft.messages import AppendRequest, AppendResponse
from etcray.raft.progress import Progress, ProgressState
from etcray.raft.ready import Role, SnapshotWanted
from etcray.raft.state import Leadership, State
from etcray_storage.types import NOBODY, Entry, EntryKind, Index, MemberId, Term


def become_leader(state: State) -> None:
    """Open the term with a no-op: only an entry of its own term tells a leader what is committed."""
    assert state.role is Role.CANDIDATE, f"leader without an election, from {state.role}"
    assert state.leading is None, "leads already"
    state.role = Role.LEADER
    state.leader = state.member
    state.votes = {}
    state.leading = Leadership(state.membership, state.member, state.log.last_index, state.now)
    _append(state, b"", EntryKind.COMMANDS)


def propose(state: State, leading: Leadership, data: bytes, kind: EntryKind) -> Index:
    """Append one entry. Whether it is committed shows when it is handed out."""
    size = len(data)
    assert size > 0, "an entry without data is a no-op"
    if leading.uncommitted_bytes and leading.uncommitted_bytes + size > state.config.uncommitted_bytes_max:
        raise ProposalDroppedError(
            DropReason.BYTES,
            f"{leading.uncommitted_bytes} bytes are proposed and not committed; no room for {size}",
        )
    index = _append(state, data, kind)
    leading.uncommitted.append((index, size))
    leading.uncommitted_bytes += size
    leading.flush_due = True
    return index


def _append(state: State, data: bytes, kind: EntryKind) -> Index:
    index = Index(state.log.last_index + 1)
    state.log.append((Entry(index, state.term, kind, data),))
    return index


def read_index(state: State, leading: Leadership) -> int:
    state.last_read_token += 1
    token = state.last_read_token
    if state.commit >= leading.first_index:
        leading.reads.begin(token, state.commit)
    else:
        leading.reads.begin_early(token)
    leading.flush_due = True
    return token


# --- sending ----------------------------------------------------------------------------------


def flush(state: State, leading: Leadership) -> None:
    """Send to each peer what it may be sent now: entries within its window; else an empty append if
    a heartbeat is due or the newest read round has not been sent to it."""
    leading.flush_due = False
    reads = leading.reads
    reads.close_round()
    if not leading.voter_progress:
        _confirm_reads(state, leading)
    for peer, progress in leading.progress.items():
        _send_entries(state, leading, peer, progress)
        if progress.heartbeat_due or (progress.read_sequence_sent < reads.sequence and not reads.is_idle):
            _send_heartbeat(state, leading, peer, progress)
    transfer.advance(state, leading)


def _send_entries(state: State, leading: Leadership, peer: MemberId, progress: Progress) -> None:
    config, log = state.config, state.log
    if progress.needs_snapshot(log.base_index):
        if not leading.voter_progress and log.stable_index < leading.first_index:
            return  # A single voter's term is not durable yet: see `_send_append`.
        progress.become_snapshot(state.now + config.snapshot_report_s)
        state.snapshots_wanted.append(SnapshotWanted(member=peer, term=state.term))
        return
    while progress.next_index <= log.last_index and not progress.is_paused(
        config.appends_in_flight_max, config.appends_in_flight_bytes_max
    ):
        previous = Index(progress.next_index - 1)
        previous_term = log.term(previous)
        assert previous_term is not None, f"entry {previous} is compacted, {peer} needs a snapshot"
        entries = tuple(log.entries(progress.next_index, log.last_index, config.append_bytes_max))
        _send_append(state, leading, peer, progress, previous, previous_term, entries)
        progress.sent(entries[-1].index, sum(len(entry.data) for entry in entries))


def _send_heartbeat(state: State, leading: Leadership, peer: MemberId, progress: Progress) -> None:
    """It claims what the peer should have by now, so that it also finds out about a lost append. To
    a peer that needs a snapshot it claims nothing: the entry before the first is in every log."""
    previous = Index(progress.next_index - 1)
    previous_term = state.log.term(previous)
    if progress.state is ProgressState.SNAPSHOT or previous_term is None:
        previous, previous_term = Index(0), Term(0)
    _send_append(state, leading, peer, progress, previous, previous_term, ())


def _send_append(
    state: State,
    leading: Leadership,
    peer: MemberId,
    progress: Progress,
    previous: Index,
    previous_term: Term,
    entries: tuple[Entry, ...],
) -> None:
    message = AppendRequest(
        state.member, peer, state.term, previous, previous_term, state.commit, leading.reads.sequence, entries
    )
    progress.sent_at = state.now
    progress.heartbeat_due = False
    progress.read_sequence_sent = leading.reads.sequence
    if leading.voter_progress:
        # Others have voted for this term after it was durable here. The leader's own entries need
        # not be: they count only once they are (10.2.1 of the thesis).
        state.send(message)
    else:
        # A single voter made itself leader without waiting for its disk. If it crashed now, it could
        # come back in the same term with other entries: its learners must not see these before.
        state.send_after_sync(message)


# --- answers ----------------------------------------------------------------------------------


def handle_append_response(state: State, leading: Leadership, message: AppendResponse) -> None:
    progress = leading.progress.get(message.sender)
    if progress is None or message.match > state.log.last_index:
        return  # Not a member, or it claims what this leader has never had.
    progress.heard_at = state.now
    progress.known_commit = max(progress.known_commit, message.commit)
    _note_read_echo(state, leading, progress, message.read_sequence)
    if message.rejected:
        _handle_rejection(state, leading, progress, message)
    else:
        _handle_acknowledgement(state, leading, progress, message.match)


def _handle_acknowledgement(state: State, leading: Leadership, progress: Progress, match: Index) -> None:
    is_news = progress.acknowledge(match)
    if progress.state is ProgressState.PROBE:
        # A peer that is installing a snapshot acknowledges less than what is probed.
        if progress.match_index == progress.next_index - 1:
            progress.become_replicate()
    elif progress.state is ProgressState.SNAPSHOT and progress.match_index >= state.log.base_index:
        progress.become_replicate()
    leading.flush_due = True
    if is_news:
        maybe_commit(state, leading)


def _handle_rejection(state: State, leading: Leadership, progress: Progress, message: AppendResponse) -> None:
    """Step back to where the logs may agree. The hint is the follower's; it only saves messages, so
    it is bent into the range that makes sense: above what is acknowledged, below what was refused."""
    if not progress.is_rejection_current(message.rejected):
        return
    next_index = message.hint_index
    if message.hint_term:
        known = state.log.last_index_of_term(message.hint_term, message.rejected)
        if known is not None:
            next_index = Index(known + 1)
    bounded = min(next_index, message.rejected)
    progress.become_probe(Index(max(bounded, progress.match_index + 1)))
    leading.flush_due = True


def maybe_commit(state: State, leading: Leadership) -> None:
    """Commit what a majority has durably, this leader's own disk included, but by counting only
    entries of the own term (5.4.2); older ones are committed with them."""
    matches = [progress.match_index for progress in leading.voter_progress]
    index = state.reached_with_own(matches, state.log.stable_index)
    if index <= state.commit or index < leading.first_index:
        return
    state.commit_to(Index(index))
    uncommitted = leading.uncommitted
    while uncommitted and uncommitted[0][0] <= index:
        leading.uncommitted_bytes -= uncommitted.popleft()[1]
    if leading.reads.begin_held(state.commit) or not leading.voter_progress:
        leading.flush_due = True


def _note_read_echo(state: State, leading: Leadership, progress: Progress, sequence: int) -> None:
    if progress.read_sequence_echoed < sequence <= progress.read_sequence_sent:
        progress.read_sequence_echoed = sequence
        if not leading.reads.is_idle:
            _confirm_reads(state, leading)


def _confirm_reads(state: State, leading: Leadership) -> None:
    echoed = [progress.read_sequence_echoed for progress in leading.voter_progress]
    sequence = state.reached_with_own(echoed, leading.reads.sequence)
    state.read_states.extend(leading.reads.confirm(sequence))


# --- time -------------------------------------------------------------------------------------


def tick(state: State, leading: Leadership) -> None:
    config = state.config
    if leading.voter_progress and state.now >= state.quorum_heard_at() + config.election_s:
        state.become_follower(state.term, NOBODY)
        return
    if transfer.is_over(state, leading):
        return
    for peer, progress in leading.progress.items():
        if progress.state is ProgressState.SNAPSHOT and state.now >= progress.snapshot_deadline:
            progress.become_probe(Index(progress.match_index + 1))
        if state.now >= progress.sent_at + config.heartbeat_s:
            progress.heartbeat_due = True
            progress.probe_sent = False
            if leading.transfer is not None and leading.transfer.target == peer:
                leading.transfer.is_told = False
    flush(state, leading)


def next_deadline(state: State, leading: Leadership) -> float:
    """Of the next heartbeat, or of stepping down if nobody answers. Infinite for a member alone."""
    deadline = float("inf")
    for progress in leading.progress.values():
        deadline = min(deadline, progress.sent_at)
    deadline += state.config.heartbeat_s
    if leading.voter_progress:
        deadline = min(deadline, state.quorum_heard_at() + state.config.election_s)
    if leading.transfer is not None:
        deadline = min(deadline, leading.transfer.deadline)
    return deadline


# --- what the driver reports ------------------------------------------------------------------


def membership_adopted(state: State, leading: Leadership, index: Index) -> None:
    """The change in entry `index` is applied. Whoever has left is told at once, as far as its log
    reaches; all others soon have it applied as well. A smaller quorum may have been reached already."""
    before = leading.progress
    leading.adopt(state.membership, state.member, state.log.last_index, state.now)
    for peer, progress in before.items():
        if peer not in leading.progress and progress.state is not ProgressState.SNAPSHOT:
            _send_heartbeat(state, leading, peer, progress)
    for progress in leading.progress.values():
        progress.heartbeat_due = True
    leading.flush_due = True
    if not state.is_voter:
        transfer.begin_removal(state, leading, index)
    maybe_commit(state, leading)
    if not leading.reads.is_idle:
        _confirm_reads(state, leading)


def peer_suspected(state: State, leading: Leadership, peer: MemberId) -> None:
    """What was on the way to it is probably lost: find out where it is when it is back."""
    progress = leading.progress.get(peer)
    if progress is not None and progress.state is ProgressState.REPLICATE:
        progress.become_probe(Index(progress.match_index + 1))
        progress.probe_sent = True


def snapshot_sent(state: State, leading: Leadership, peer: MemberId, meta_index: Index, ok: bool) -> None:
    """Probe after the snapshot if it has arrived, else from where the peer was; either way with the
    next heartbeat, to give it time to install or to recover."""
    assert meta_index <= state.log.last_index, f"snapshot at {meta_index}, log ends {state.log.last_index}"
    progress = leading.progress.get(peer)
    if progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    arrived = meta_index if ok else Index(0)
    progress.become_probe(Index(max(progress.match_index, arrived) + 1))
    progress.probe_sent = True
