"""Mistakes in elections, replication, reads and snapshots of the consensus core."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_RAFT = "actors/etcray/raft/"
_ELECTION = "tests/raft/test_election.py::test_"
_REPLICATION = "tests/raft/test_replication.py::test_"
_READ_INDEX = "tests/raft/test_read_index.py::test_"
_PROPERTIES = "tests/raft/test_properties.py::test_"
_SCRIPTS = "tests/raft/test_scripts.py::test_"
_SNAPSHOT = "tests/raft/test_snapshot.py::test_"

MUTANTS = (
    Mutant(
        "a vote leaves before it is durable",
        "R1",
        (
            Edit(
                _RAFT + "election.py",
                "    state.send_after_sync(VoteResponse(",
                "    state.send(VoteResponse(",
            ),
        ),
        (_ELECTION + "vote_response_waits_for_the_disk",),
    ),
    Mutant(
        "a second candidate of the term gets a vote, too",
        "R2",
        (
            Edit(
                _RAFT + "election.py",
                "        state.vote in (NOBODY, message.sender)\n        and state.leader == NOBODY\n",
                "        state.leader == NOBODY\n",
            ),
            Edit(
                _RAFT + "state.py",
                "        assert self.vote in (NOBODY, candidate), "
                'f"second vote in term {self.term}: {self.vote}, {candidate}"\n',
                "",
            ),
        ),
        (_ELECTION + "member_votes_once_a_term_first_come_first_served",),
    ),
    Mutant(
        "a new term is not written before it is answered for",
        "R3",
        (Edit(_RAFT + "raft.py", "return handed.term != state.term or handed.vote", "return handed.vote"),),
        (_SCRIPTS + "script_has_recorded_outcome[vote_waits_for_disk]",),
    ),
    Mutant(
        "an acknowledgement leaves before the entries are durable",
        "R4",
        (
            Edit(
                _RAFT + "follower.py",
                "    if match <= state.log.stable_index and not state.is_change_unsaved():",
                "    if not state.is_change_unsaved():",
            ),
        ),
        (_REPLICATION + "acknowledgement_waits_for_the_disk",),
    ),
    Mutant(
        "an entry of an older term is committed by counting",
        "R5",
        (
            Edit(
                _RAFT + "leader.py",
                "if index <= state.commit or index < leading.first_index:",
                "if index <= state.commit:",
            ),
        ),
        (_REPLICATION + "older_terms_are_not_committed_by_counting",),
    ),
    Mutant(
        "a heartbeat commits what follows the matching entries",
        "R6",
        (
            Edit(
                _RAFT + "follower.py",
                "    commit = Index(min(message.commit, match))\n",
                "    commit = Index(min(message.commit, state.log.last_index))\n",
            ),
        ),
        (_REPLICATION + "commit_stops_at_the_last_new_entry",),
    ),
    Mutant(
        "what was probed counts as acknowledged",
        "R7",
        (
            Edit(
                _RAFT + "leader.py",
                "    bounded = min(next_index, message.rejected)\n",
                "    bounded = min(next_index, message.rejected)\n"
                "    progress.match_index = max(progress.match_index, Index(bounded - 1))\n",
            ),
        ),
        (_REPLICATION + "conflict_costs_one_message_a_term",),
    ),
    Mutant(
        "a late acknowledgement takes the match index back",
        "R7",
        (
            Edit(
                _RAFT + "progress.py",
                "        if is_news:\n            self.match_index",
                "        if match:\n            self.match_index",
            ),
        ),
        (_REPLICATION + "match_index_never_falls",),
    ),
    Mutant(
        "an old append cuts off the entries behind it",
        "R8",
        (
            Edit(
                _RAFT + "follower.py",
                "        if not state.log.matches(entry.index, entry.term):\n"
                '            assert entry.index > state.commit, f"entry {entry.index} is committed, '
                'commit {state.commit}"\n',
                "        if entry.index > state.commit:\n",
            ),
        ),
        (_REPLICATION + "follower_replaces_only_what_conflicts",),
    ),
    Mutant(
        "a late report of the disk vouches for entries that replaced the written ones",
        "R9",
        (Edit(_RAFT + "log.py", "        if rewrites != self._rewrites:\n            return False\n", ""),),
        (_REPLICATION + "late_report_of_replaced_entries_is_ignored",),
    ),
    Mutant(
        "a read is answered before the first commit of the leader's term",
        "R10",
        (Edit(_RAFT + "leader.py", "    if state.commit >= leading.first_index:\n", "    if True:\n"),),
        (_READ_INDEX + "read_waits_for_a_commit_in_the_leaders_own_term",),
    ),
    Mutant(
        "an answer from before the read began confirms it",
        "R11",
        (
            Edit(
                _RAFT + "read_index.py",
                "        if not self._sequence_is_open:\n            self.sequence += 1\n",
                "        if not self._sequence_is_open:\n            self.sequence = self.sequence or 1\n",
            ),
        ),
        (_READ_INDEX + "echo_from_before_the_read_confirms_nothing",),
    ),
    Mutant(
        "a read joins a round whose requests have left",
        "R11",
        (
            Edit(
                _RAFT + "read_index.py",
                "        self._sequence_is_open = False\n\n    def confirm",
                "        pass\n\n    def confirm",
            ),
        ),
        (_READ_INDEX + "echo_from_before_the_read_confirms_nothing",),
    ),
    Mutant(
        "reads of a lost leadership are never answered",
        "R12",
        (
            Edit(
                _RAFT + "state.py",
                "            self.reads_lost.extend(self.leading.reads.unanswered())\n",
                "",
            ),
        ),
        (_READ_INDEX + "deposed_leader_never_confirms_a_read",),
    ),
    Mutant(
        "a leader that hears no majority goes on",
        "R13",
        (
            Edit(
                _RAFT + "leader.py",
                "    if leading.voter_progress and state.now >= state.quorum_heard_at()",
                "    if False and state.now >= state.quorum_heard_at()",
            ),
            Edit(
                _RAFT + "leader.py",
                "        deadline = min(deadline, state.quorum_heard_at() + state.config.election_s)\n",
                "        pass\n",
            ),
        ),
        (_ELECTION + "leader_without_majority_steps_down_within_an_election_timeout",),
    ),
    Mutant(
        "a member that was cut off campaigns without asking first",
        "R14",
        (
            Edit(
                _RAFT + "election.py",
                "        _become_pre_candidate(state)\n",
                "        _become_candidate(state, transfer=True)\n",
            ),
        ),
        (_ELECTION + "isolated_member_never_changes_its_term",),
    ),
    Mutant(
        "a vote request disturbs a leader that is heard",
        "R14",
        (
            Edit(
                _RAFT + "raft.py",
                "            if not wanted_by_leader and state.protects_leader():\n",
                "            if False:\n",
            ),
        ),
        (_ELECTION + "votes_are_refused_while_a_leader_is_heard",),
    ),
    Mutant(
        "a vote is given to a candidate with an older log",
        "R5",
        (
            Edit(
                _RAFT + "election.py",
                "        and state.leader == NOBODY\n"
                "        and state.log.is_up_to_date(message.last_index, message.last_term)\n",
                "        and state.leader == NOBODY\n",
            ),
        ),
        (_ELECTION + "vote_needs_up_to_date_log",),
    ),
    Mutant(
        "the commit index reaches the snapshot, the log does not",
        "R20",
        (Edit(_RAFT + "follower.py", "    state.log.restore(meta)\n", ""),),
        (_SNAPSHOT + "snapshot_replaces_a_conflicting_log",),
    ),
    Mutant(
        "a snapshot behind the commit index is installed",
        "R21",
        (
            Edit(
                _RAFT + "follower.py",
                "    if meta.index <= state.commit:\n"
                "        _acknowledge(state, message.sender, state.commit, 0)\n        return\n",
                "",
            ),
        ),
        (_SNAPSHOT + "snapshot_behind_the_commit_changes_nothing",),
    ),
    Mutant(
        "a second snapshot is accepted while one is being installed",
        "R21",
        (
            Edit(
                _RAFT + "follower.py",
                "    if state.installing is not None:\n        return\n    meta = message.meta\n",
                "    meta = message.meta\n",
            ),
        ),
        (_SNAPSHOT + "second_snapshot_waits_for_the_first",),
    ),
    Mutant(
        "an entry is applied before it is durable on this member",
        "R22",
        (
            Edit(
                _RAFT + "raft.py",
                "        return min(self.state.commit, self.state.log.stable_index)\n",
                "        return self.state.commit\n",
            ),
        ),
        (_REPLICATION + "entry_is_committed_once_durable_on_a_majority",),
    ),
    Mutant(
        "the leader counts its own entries before they are durable",
        "R22",
        (
            Edit(
                _RAFT + "leader.py",
                "state.reached_with_own(matches, state.log.stable_index)",
                "state.reached_with_own(matches, state.log.last_index)",
            ),
        ),
        (_REPLICATION + "entry_is_committed_once_durable_on_a_majority",),
    ),
    Mutant(
        "proposals pile up without a limit",
        "G13",
        (
            Edit(
                _RAFT + "leader.py",
                "    if leading.uncommitted_bytes and leading.uncommitted_bytes + size"
                " > state.config.uncommitted_bytes_max:\n",
                "    if False:\n",
            ),
        ),
        (_REPLICATION + "uncommitted_proposals_are_limited",),
    ),
    Mutant(
        "a message for another member is listened to",
        "R24",
        (
            Edit(
                _RAFT + "raft.py",
                "        if message.recipient != state.member or message.sender == state.member",
                "        if message.sender == state.member",
            ),
        ),
        (_REPLICATION + "messages_of_strangers_and_strays_are_ignored",),
    ),
    Mutant(
        "every member waits equally long before it campaigns",
        "R25",
        (
            Edit(
                _RAFT + "state.py",
                "self.config.election_s * (1.0 + self.rng.random())",
                "self.config.election_s * 1.5",
            ),
        ),
        (_ELECTION + "election_timeouts_are_spread_over_the_whole_interval",),
    ),
    Mutant(
        "the term of the last compacted entry is forgotten",
        "S22",
        (Edit(_RAFT + "log.py", "        self.base_term = self._term_known(index)\n", ""),),
        (_SNAPSHOT + "compaction_keeps_the_term_before_the_first_entry",),
    ),
    Mutant(
        "half of the votes elect a leader",
        "R2",
        (Edit(_RAFT + "quorum.py", "    return voters // 2 + 1\n", "    return (voters + 1) // 2\n"),),
        (_PROPERTIES + "two_majorities_share_a_voter",),
    ),
    Mutant(
        "half of the members commit",
        "R5",
        (
            Edit(
                _RAFT + "quorum.py",
                "ascending[(len(ascending) - 1) // 2]",
                "ascending[len(ascending) // 2]",
            ),
        ),
        (_PROPERTIES + "reached_by_majority_is_the_largest_number_that_enough_have_reached",),
    ),
)
