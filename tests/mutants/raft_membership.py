"""Mistakes in changes of membership and in the transfer of leadership."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_RAFT = "actors/etcray/raft/"
_ELECTION = "tests/raft/test_election.py::test_"
_MEMBERSHIP = "tests/raft/test_membership.py::test_"
_REPLICATION = "tests/raft/test_replication.py::test_"
_SCRIPTS = "tests/raft/test_scripts.py::test_"
_TRANSFER = "tests/raft/test_transfer.py::test_"

MUTANTS = (
    Mutant(
        "a member campaigns before it has applied a committed change",
        "R15",
        (
            Edit(
                _RAFT + "election.py",
                "    elif state.newest_committed_change():",
                "    elif False:",
            ),
            Edit(
                _RAFT + "election.py",
                "if state.is_voter and not state.newest_committed_change():",
                "if state.is_voter:",
            ),
        ),
        (_MEMBERSHIP + "member_does_not_campaign_while_a_committed_change_is_not_applied",),
    ),
    Mutant(
        "two changes of membership are under way at once",
        "R16",
        (
            Edit(
                _RAFT + "membership.py",
                "    if state.log.changes:\n        message",
                "    if False:\n        message",
            ),
            Edit(
                _RAFT + "raft.py",
                "        assert len(changes) < 2 or changes[-2] <= state.commit, (",
                "        assert True, (",
            ),
            Edit(
                _RAFT + "invariants.py",
                "    assert len(changes) < 2 or changes[-2] <= state.commit, (",
                "    assert True, (",
            ),
            Edit(
                _RAFT + "follower.py",
                "    if _is_second_change(state, message):\n        return\n",
                "",
            ),
            Edit(
                _RAFT + "messages.py",
                "            if change > message.commit:\n                return False\n",
                "",
            ),
        ),
        (_MEMBERSHIP + "second_change_waits_until_the_first_is_applied",),
    ),
    Mutant(
        "a new leader changes the membership before a commit of its own term",
        "R15",
        (
            Edit(
                _RAFT + "membership.py",
                "    if state.applied < leading.first_index:",
                "    if False:",
            ),
        ),
        (_MEMBERSHIP + "new_leader_takes_no_change_before_its_no_op_is_applied",),
    ),
    Mutant(
        "a second change is proposed before the first is applied",
        "R16",
        (
            Edit(
                _RAFT + "membership.py",
                "    if state.log.changes:\n        message",
                "    if state.log.changes and state.log.changes[0] > state.commit:\n        message",
            ),
        ),
        (_SCRIPTS + "script_has_recorded_outcome[second_change_is_refused]",),
    ),
    Mutant(
        "learners count in the quorum",
        "R18",
        (
            Edit(
                _RAFT + "state.py",
                "for peer in peers if peer in membership.voters)",
                "for peer in peers)",
            ),
        ),
        (_REPLICATION + "learner_gets_entries_but_does_not_count",),
    ),
    Mutant(
        "a removed leader counts itself",
        "R17",
        (
            Edit(
                _RAFT + "state.py",
                "        if self.is_voter:\n            counted",
                "        if True:\n            counted",
            ),
        ),
        (_MEMBERSHIP + "removed_leader_commits_by_the_others_alone",),
    ),
    Mutant(
        "a transfer votes a second time in the same term",
        "R19",
        (
            Edit(
                _RAFT + "election.py",
                "    state.become_follower(Term(state.term + 1), NOBODY)\n"
                "    state.role = Role.CANDIDATE\n"
                "    state.grant_vote(state.member)",
                "    state.become_follower(Term(state.term + (0 if transfer else 1)), NOBODY)\n"
                "    state.role = Role.CANDIDATE\n"
                "    state.vote = state.member",
            ),
        ),
        (_SCRIPTS + "script_has_recorded_outcome[remove_leader]",),
    ),
    Mutant(
        "vote requests leave before the candidate's own vote is durable",
        "R1",
        (
            Edit(
                _RAFT + "election.py",
                "        state.send_after_sync(\n            VoteRequest(",
                "        state.send(\n            VoteRequest(",
            ),
        ),
        (_ELECTION + "vote_requests_wait_for_the_candidates_own_vote",),
    ),
    Mutant(
        "the commit of a change is acknowledged before it is saved",
        "R15",
        (
            Edit(
                _RAFT + "raft.py",
                " or state.is_change_unsaved()",
                "",
            ),
        ),
        (_SCRIPTS + "script_has_recorded_outcome[add_learner_and_promote]",),
    ),
    Mutant(
        "the commit index is forgotten in a restart",
        "R6",
        (
            Edit(
                _RAFT + "state.py",
                "self.commit = Index(max(min(hard_state.commit, self.log.last_index), applied))",
                "self.commit = applied",
            ),
        ),
        (_REPLICATION + "restart_takes_commit_from_hard_state_or_tables",),
    ),
    Mutant(
        "a restarted member does not know of changes in its log",
        "R15",
        (
            Edit(
                _RAFT + "state.py",
                "        self.log.find_changes(applied, config.apply_bytes_max)\n",
                "",
            ),
        ),
        (_MEMBERSHIP + "restarted_member_applies_committed_changes_before_it_campaigns",),
    ),
    Mutant(
        "a change that was cut off the log is still waited for",
        "B9",
        (
            Edit(
                _RAFT + "log.py",
                "        while self.changes and self.changes[-1] >= first:\n            self.changes.pop()\n",
                "",
            ),
        ),
        (_MEMBERSHIP + "change_that_is_replaced_in_the_log_is_forgotten",),
    ),
    Mutant(
        "the membership of an installed snapshot is ignored",
        "R20",
        (
            Edit(
                _RAFT + "follower.py",
                "    state.adopt(meta.membership)\n",
                "",
            ),
        ),
        (_MEMBERSHIP + "snapshot_brings_its_membership",),
    ),
    Mutant(
        "nobody looks again when the quorum becomes smaller",
        "B4",
        (
            Edit(
                _RAFT + "leader.py",
                "    maybe_commit(state, leading)\n"
                "    if not leading.reads.is_idle:\n"
                "        _confirm_reads(state, leading)\n",
                "",
            ),
        ),
        (_MEMBERSHIP + "smaller_quorum_commits_and_confirms_what_waited_for_the_larger_one",),
    ),
    Mutant(
        "a transfer that fails is never given up",
        "R19",
        (
            Edit(
                _RAFT + "transfer.py",
                "state.now < leading.transfer.deadline:",
                "True:",
            ),
        ),
        (_TRANSFER + "transfer_is_given_up_after_an_election_timeout",),
    ),
    Mutant(
        "a removed leader steps down before the others know",
        "R17",
        (
            Edit(
                _RAFT + "transfer.py",
                "    if known < leading.removed_at:\n        return\n",
                "",
            ),
        ),
        (_MEMBERSHIP + "removed_leader_commits_by_the_others_alone",),
    ),
    Mutant(
        "a removed leader never steps down",
        "R17,B6",
        (
            Edit(
                _RAFT + "transfer.py",
                "    if ready:\n",
                "    if False:\n",
            ),
            Edit(
                _RAFT + "transfer.py",
                "state.now < leading.transfer.deadline:",
                "leading.removed_at or state.now < leading.transfer.deadline:",
            ),
        ),
        (_MEMBERSHIP + "removed_leader_hands_over_without_a_timeout",),
    ),
    Mutant(
        "leadership goes to a member that lags behind",
        "R19",
        (
            Edit(
                _RAFT + "transfer.py",
                "    return leading.progress[peer].match_index == state.log.last_index",
                "    return True",
            ),
        ),
        (_TRANSFER + "successor_is_told_once_all_is_durable_there",),
    ),
    Mutant(
        "a successor that first has to apply a change forgets the order",
        "R19",
        (
            Edit(
                _RAFT + "membership.py",
                "    election.campaign_if_wanted(state)\n",
                "",
            ),
        ),
        (_TRANSFER + "order_waits_for_the_successor_to_apply_a_change",),
    ),
    Mutant(
        "voters protect the leader against its own successor",
        "R19",
        (
            Edit(
                _RAFT + "raft.py",
                "if not wanted_by_leader and state.protects_leader()",
                "if state.protects_leader()",
            ),
        ),
        (_TRANSFER + "vote_request_of_a_transfer_is_heard_beside_a_leader",),
    ),
    Mutant(
        "a voter does not tell what else it knows as committed",
        "R17",
        (
            Edit(
                _RAFT + "election.py",
                "and not _learns_of_change(state, message)",
                "",
            ),
        ),
        (_SCRIPTS + "script_has_recorded_outcome[removal_known_only_to_the_removed]",),
    ),
    Mutant(
        "proposals are taken during a transfer",
        "R19",
        (
            Edit(
                _RAFT + "raft.py",
                "        if leading.transfer is not None:\n            message",
                "        if False:\n            message",
            ),
        ),
        (_TRANSFER + "transfer_and_change_of_membership_exclude_each_other",),
    ),
    Mutant(
        "only known voters get votes",
        "R18",
        (
            Edit(
                _RAFT + "election.py",
                "    granted = (\n        state.vote in",
                "    granted = (\n        message.sender in state.membership.voters and state.vote in",
            ),
        ),
        (_MEMBERSHIP + "vote_for_a_stranger_is_durable_like_any_other",),
    ),
    Mutant(
        "only known voters are followed",
        "R18",
        (
            Edit(
                _RAFT + "raft.py",
                "        if state.role is not Role.FOLLOWER:\n"
                "            state.become_follower(state.term, sender)",
                "        if sender not in state.membership.voters:\n"
                "            return False\n"
                "        if state.role is not Role.FOLLOWER:\n"
                "            state.become_follower(state.term, sender)",
            ),
        ),
        (_MEMBERSHIP + "joining_member_follows_a_leader_that_it_does_not_know_and_does_not_campaign",),
    ),
    Mutant(
        "a transfer begins while a change is under way",
        "R19",
        (
            Edit(
                _RAFT + "transfer.py",
                "    if state.log.changes:\n",
                "    if False:\n",
            ),
        ),
        (_TRANSFER + "transfer_and_change_of_membership_exclude_each_other",),
    ),
    Mutant(
        "a removed follower is not told",
        "R17",
        (
            Edit(
                _RAFT + "leader.py",
                "        if peer not in leading.progress and",
                "        if False and",
            ),
        ),
        (_MEMBERSHIP + "removed_follower_is_told",),
    ),
    Mutant(
        "the term of a removed member counts",
        "R17",
        (
            Edit(
                _RAFT + "raft.py",
                "            and message.sender not in state.members\n",
                "            and False\n",
            ),
        ),
        (_MEMBERSHIP + "votes_and_answers_of_removed_members_do_not_count",),
    ),
)
