"""The small parts against naive models, and the whole core against anything a peer can send."""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from etcray.raft.log import RaftLog
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
    decode_message,
    decode_messages,
    encode_message,
    encode_messages,
)
from etcray.raft.quorum import VoteResult, count_votes, majority, reached_by_majority
from etcray.raft.ready import Record
from etcray_storage.types import Entry, EntryKind, Index, MemberId, Membership, SnapshotMeta, Term

from .build import entry
from .cluster import Cluster, Disk


@given(st.lists(st.integers(0, 20), min_size=1, max_size=7))
def test_reached_by_majority_is_the_largest_number_that_enough_have_reached(values: list[int]) -> None:
    needed = majority(len(values))
    naive = max(n for n in range(21) if sum(1 for value in values if value >= n) >= needed)
    assert reached_by_majority(values) == naive


@given(st.integers(1, 9))
def test_two_majorities_share_a_voter(size: int) -> None:
    needed = majority(size)
    voters = range(size)
    assert all(set(a) & set(b) for a in combinations(voters, needed) for b in combinations(voters, needed))
    assert needed == 1 or not all(
        set(a) & set(b) for a in combinations(voters, size - needed) for b in combinations(voters, needed)
    )


@given(st.integers(1, 7), st.dictionaries(st.integers(1, 9), st.booleans()))
def test_vote_is_decided_when_no_missing_vote_could_change_it(size: int, votes: dict[int, bool]) -> None:
    voters = [MemberId(i) for i in range(1, size + 1)]
    given_votes = {MemberId(voter): vote for voter, vote in votes.items()}
    granted = sum(1 for voter in voters if votes.get(voter))
    missing = sum(1 for voter in voters if voter not in votes)
    outcomes = {granted + more >= majority(size) for more in range(missing + 1)}
    expected = {True: VoteResult.WON, False: VoteResult.LOST}
    result = count_votes(voters, given_votes)
    assert result is (VoteResult.PENDING if len(outcomes) == 2 else expected[outcomes.pop()])


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_log_agrees_with_a_list(seed: int) -> None:
    """Appends, rewrites, late reports, compaction and eviction, against a plain list of entries and
    a list of the records on their way to the disk."""
    rng = random.Random(seed)
    disk, model = Disk(), [entry(0, 0)]
    log = RaftLog(disk, rng.choice([200, 1000, 10**6]))
    records: list[tuple[Entry, ...]] = []
    term = 1
    for _ in range(60):
        action = rng.randrange(6)
        if action == 0:
            term += rng.randrange(2)
            first = rng.randint(max(log.base_index + 1, len(model) - 4), len(model))
            if first < len(model):
                term += 1
            new = [entry(first + n, term, b"d" * rng.randrange(40)) for n in range(rng.randint(1, 4))]
            log.append(new)
            model[first:] = new
        elif action == 1 and (handed := log.hand_out()):
            records.append(handed)
        elif action == 2 and records:
            done = records.pop(0)
            disk.write(Record(hard_state=None, entries=done))
            log.stable_to(done[-1].index, done[-1].term)
        elif action == 3 and not records and log.handed_index == log.last_index:
            index = Index(rng.randint(log.base_index, log.stable_index))
            disk.flushed = max(disk.flushed, index)
            log.compact_to(index)
            disk.compact(index)
        assert log.last_index == len(model) - 1
        stable = log.stable_index
        assert disk.last_index >= stable
        assert [log.term(Index(i)) for i in range(log.base_index, len(model))] == [
            one.term for one in model[log.base_index :]
        ]
        if log.base_index < log.last_index:
            _check_reads(log, model, rng)
        assert all(disk.term(Index(i)) == model[i].term for i in range(disk.base_index, stable + 1))


def _check_reads(log: RaftLog, model: list[Entry], rng: random.Random) -> None:
    first = rng.randint(log.base_index + 1, log.last_index)
    last = rng.randint(first, log.last_index)
    found = list(log.entries(Index(first), Index(last), rng.choice([1, 50, 1000])))
    assert found == model[first : first + len(found)]
    assert 1 <= len(found) <= last - first + 1
    term = model[first].term
    expected = min(i for i in range(log.base_index + 1, first + 1) if model[i].term == term)
    assert log.first_index_of_term_at(Index(first), Index(log.base_index + 1)) == expected
    wanted = Term(rng.randint(1, log.last_term))
    candidates = [i for i in range(log.base_index, first + 1) if model[i].term == wanted]
    assert log.last_index_of_term(wanted, Index(first)) == (max(candidates) if candidates else None)


# --- messages ---------------------------------------------------------------------------------

members = st.integers(1, 4).map(MemberId)
terms = st.one_of(st.integers(0, 6), st.integers(-(2**63), 2**64 - 1)).map(Term)
indexes = st.one_of(st.integers(0, 8), st.integers(-(2**63), 2**64 - 1)).map(Index)
hostile_entries = st.one_of(
    st.builds(Entry, indexes, terms, st.just(EntryKind.COMMANDS), st.binary(max_size=3)),
    st.builds(
        Entry,
        indexes,
        terms,
        st.just(EntryKind.MEMBERSHIP),
        st.sampled_from((b"voter 4", b"remove 1", b"remove 2", b"learner 5")),
    ),
)
member_lists = st.lists(st.integers(0, 4).map(MemberId), max_size=3).map(tuple)
memberships = st.builds(Membership, member_lists, member_lists)
metas = st.builds(SnapshotMeta, indexes, terms, memberships)
header = (members, st.just(MemberId(1)), terms)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(PreVoteRequest, *header, indexes, terms),
    st.builds(PreVoteResponse, *header, st.booleans(), indexes, terms),
    st.builds(VoteRequest, *header, indexes, terms, st.booleans()),
    st.builds(VoteResponse, *header, st.booleans()),
    st.builds(AppendRequest, *header, indexes, terms, indexes, indexes, st.lists(hostile_entries).map(tuple)),
    st.builds(AppendResponse, *header, indexes, indexes, indexes, indexes, terms, indexes),
    st.builds(TimeoutNow, *header, indexes),
    st.builds(InstallSnapshotRequest, *header, metas),
)


@given(st.lists(messages, max_size=4))
def test_messages_survive_the_wire(batch: list[Message]) -> None:
    assert decode_messages(encode_messages(batch)) == batch
    assert [decode_message(encode_message(message)) for message in batch] == batch


@settings(max_examples=300)
@given(st.lists(messages, min_size=1, max_size=8), st.booleans(), st.integers(0, 3))
def test_nothing_that_a_peer_sends_stops_a_member(batch: list[Message], leads: bool, rounds: int) -> None:
    """F7: absurd terms, indexes far ahead, gaps, contradictions: no assertion, and all invariants."""
    cluster = Cluster()
    if leads:
        cluster.elect(1)
    else:
        cluster.elect(2)
    cluster.propose(1 if leads else 2, b"a")
    cluster.settle()
    cluster.now += rounds
    for message in batch:
        cluster.arrive(message)
        cluster.sync()
        cluster.tick_due()
