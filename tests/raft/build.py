"""Short ways to build logs, messages and members for single rules."""

from __future__ import annotations

from collections.abc import Sequence

from etcray.raft.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    VoteRequest,
    VoteResponse,
)
from etcray.raft.ready import Record
from etcray_storage.types import NOBODY, Entry, EntryKind, HardState, Index, MemberId, Term

from .cluster import Cluster, Member


def entry(index: int, term: int, data: bytes = b"x") -> Entry:
    return Entry(Index(index), Term(term), EntryKind.COMMANDS, data)


def entries(terms: Sequence[int]) -> tuple[Entry, ...]:
    return tuple(entry(position + 1, term, b"%d" % term) for position, term in enumerate(terms))


def append(
    term: int,
    previous: tuple[int, int],
    new: Sequence[Entry] = (),
    *,
    commit: int = 0,
    read: int = 0,
    sender: int = 2,
    recipient: int = 1,
) -> AppendRequest:
    index, previous_term = previous
    return AppendRequest(
        MemberId(sender),
        MemberId(recipient),
        Term(term),
        Index(index),
        Term(previous_term),
        Index(commit),
        read,
        tuple(new),
    )


def ack(
    term: int, match: int, *, commit: int = 0, read: int = 0, sender: int = 2, recipient: int = 1
) -> AppendResponse:
    return AppendResponse(
        MemberId(sender),
        MemberId(recipient),
        Term(term),
        Index(match),
        Index(commit),
        Index(0),
        Index(0),
        Term(0),
        read,
    )


def reject(
    term: int, rejected: int, hint: tuple[int, int], *, sender: int = 2, recipient: int = 1
) -> AppendResponse:
    return AppendResponse(
        MemberId(sender),
        MemberId(recipient),
        Term(term),
        Index(0),
        Index(0),
        Index(rejected),
        Index(hint[0]),
        Term(hint[1]),
        0,
    )


def vote_request(term: int, log: tuple[int, int], *, sender: int = 2) -> VoteRequest:
    return VoteRequest(MemberId(sender), MemberId(1), Term(term), Index(log[0]), Term(log[1]))


def pre_vote_request(term: int, log: tuple[int, int], *, sender: int = 2) -> PreVoteRequest:
    return PreVoteRequest(MemberId(sender), MemberId(1), Term(term), Index(log[0]), Term(log[1]))


def vote(term: int, granted: bool, *, sender: int = 2) -> VoteResponse:
    return VoteResponse(MemberId(sender), MemberId(1), Term(term), granted)


def voted(recipient: int, term: int, granted: bool) -> VoteResponse:
    """What member 1 answers."""
    return VoteResponse(MemberId(1), MemberId(recipient), Term(term), granted)


def pre_voted(recipient: int, term: int, granted: bool, commit: tuple[int, int] = (0, 0)) -> PreVoteResponse:
    index, commit_term = Index(commit[0]), Term(commit[1])
    return PreVoteResponse(MemberId(1), MemberId(recipient), Term(term), granted, index, commit_term)


def acked(term: int, match: int, *, commit: int = 0, read: int = 0, recipient: int = 2) -> AppendResponse:
    return ack(term, match, commit=commit, read=read, sender=1, recipient=recipient)


def rejected(term: int, index: int, hint: tuple[int, int], *, recipient: int = 2) -> AppendResponse:
    return reject(term, index, hint, sender=1, recipient=recipient)


def cluster_with_logs(
    logs: dict[int, Sequence[int]],
    term: int | None = None,
    commit: int = 0,
    voters: Sequence[int] = (1, 2, 3),
    **limits: int,
) -> Cluster:
    """Members that start with these terms in their logs, all in the same term, all forgetful of
    commits after `commit`."""
    cluster = Cluster(voters, (), 0, **limits)
    newest = max((max(terms) for terms in logs.values() if terms), default=0) if term is None else term
    for member in cluster.members.values():
        hard_state = HardState(Term(newest), NOBODY, Index(commit))
        found = entries(logs.get(member.id, ()))
        member.disk.write(Record(hard_state=hard_state, entries=found))
        cluster.restart(member.id)
    cluster.events.clear()
    return cluster


def terms_of(member: Member) -> list[int]:
    """The terms in a member's log, from its first index."""
    log = member.raft.state.log
    return [log.term(Index(index)) or 0 for index in range(log.base_index + 1, log.last_index + 1)]


def answers(cluster: Cluster, message: Message) -> list[Message]:
    """What member 1 answers to a message, its disk being fast."""
    cluster.sync()
    cluster.take()
    cluster.arrive(message)
    cluster.sync()
    return cluster.take()
