"""Mistakes of a member: the driver, the applier, leases, the fence, changes of membership, reports."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_NODE = "actors/etcray/node/"
_DRIVER = "tests/node/test_driver.py::test_"
_LESSOR = "tests/node/test_lessor.py::test_"
_LEASES = "tests/node/test_leases.py::test_"
_ZOMBIES = "tests/node/test_zombies.py::test_"
_MEMBERSHIP = "tests/node/test_membership.py::test_"
_RULES = "tests/node/test_reconfiguration.py::test_"
_REPORTS = "tests/node/test_reports.py::test_"
_SNAPSHOTS = "tests/node/test_snapshots.py::test_"

MUTANTS = (
    Mutant(
        "promises leave with their record, not after it",
        "R1,R4",
        (
            Edit(
                _NODE + "driver.py",
                "        self._unsynced.append(list(promises))\n",
                "        self._send_all(promises)\n        self._unsynced.append([])\n",
            ),
        ),
        (_DRIVER + "a_vote_leaves_when_its_record_is_durable",),
    ),
    Mutant(
        "promises leave after the oldest record, not after their own",
        "R4",
        (
            Edit(
                _NODE + "driver.py",
                "            messages = self._unsynced.popleft()\n            if self._retired:\n",
                "            messages = [one for promises in self._unsynced for one in promises]\n"
                "            self._unsynced.popleft()\n"
                "            for promises in self._unsynced:\n                promises.clear()\n"
                "            if self._retired:\n",
            ),
        ),
        (_DRIVER + "an_acknowledgement_leaves_when_its_own_record_is_durable",),
    ),
    Mutant(
        "a promise without a record does not wait",
        "R4",
        (
            Edit(
                _NODE + "driver.py",
                "            if self._unsynced:\n                self._unsynced[-1].extend(promises)\n"
                "            else:\n                self._send_all(promises)\n",
                "            self._send_all(promises)\n",
            ),
        ),
        (_DRIVER + "a_promise_without_a_record_waits_for_the_record_under_way",),
    ),
    Mutant(
        "a deadline that comes closer does not wake the timer",
        "R14",
        (
            Edit(
                _NODE + "driver.py",
                "        if self._raft.next_deadline() < self._timer_due:\n",
                "        if False:\n",
            ),
        ),
        (
            "tests/node/test_member.py::test_members_that_are_told_of_the_leaders_death_do_not_wait_for_the_timeout",
        ),
    ),
    Mutant(
        "a read is answered before its index is applied",
        "R11",
        (
            Edit(
                _NODE + "applier.py",
                "            if self.machine.applied_index < index:\n",
                "            if False:\n",
            ),
        ),
        (_DRIVER + "a_read_waits_until_what_it_must_see_is_applied",),
    ),
    Mutant(
        "proposals of a lost leadership wait for ever",
        "R23",
        (
            Edit(
                _NODE + "driver.py",
                "(soft_state.term, soft_state.role):\n            self._applier.give_up_all()\n",
                "(soft_state.term, soft_state.role):\n            pass\n",
            ),
        ),
        (_DRIVER + "proposals_are_given_up_with_the_leadership_and_not_before",),
    ),
    Mutant(
        "a member that was removed goes on talking",
        "R17,B1",
        (
            Edit(
                _NODE + "driver.py",
                "            if self._retired:\n                return\n            if stable is not None:\n",
                "            if stable is not None:\n",
            ),
        ),
        (_DRIVER + "a_member_that_takes_no_part_any_more_says_nothing",),
    ),
    Mutant(
        "linearizable reads ask nobody",
        "R11",
        (
            Edit(
                _NODE + "calls.py",
                "        if request.linearizable:\n            try:\n",
                "        if False:\n            try:\n",
            ),
        ),
        ("tests/node/test_member.py::test_a_deposed_leader_answers_no_linearizable_read",),
    ),
    Mutant(
        "an earlier incarnation is heard again",
        "G1",
        (Edit(_NODE + "envelope.py", "if letter.sender_incarnation < heard or ", "if "),),
        (_ZOMBIES + "an_earlier_incarnation_is_not_heard_once_a_later_one_has_spoken",),
    ),
    Mutant(
        "the fence follows whichever incarnation spoke last",
        "G1",
        (
            Edit(
                _NODE + "envelope.py",
                "        heard = self._heard.get(letter.sender, Incarnation(0))\n",
                "        heard = self._heard.pop(letter.sender, Incarnation(0))\n",
            ),
        ),
        (_ZOMBIES + "an_earlier_incarnation_is_not_heard_once_a_later_one_has_spoken",),
    ),
    Mutant(
        "a removed member is heard",
        "B1,R17",
        (Edit(_NODE + "envelope.py", " or self.is_removed(letter.sender):", ":"),),
        (_ZOMBIES + "only_letters_of_this_cluster_to_this_member_from_who_was_not_removed_are_heard",),
    ),
    Mutant(
        "letters of another cluster are heard",
        "R24",
        (Edit(_NODE + "envelope.py", "letter.cluster != self.cluster or letter", "letter"),),
        (_ZOMBIES + "only_letters_of_this_cluster_to_this_member_from_who_was_not_removed_are_heard",),
    ),
    Mutant(
        "letters for another member are heard",
        "R24",
        (Edit(_NODE + "envelope.py", " or letter.recipient != self.member:", ":"),),
        (_ZOMBIES + "only_letters_of_this_cluster_to_this_member_from_who_was_not_removed_are_heard",),
    ),
    Mutant(
        "a lease ends before its time",
        "L12",
        (
            Edit(
                _NODE + "lessor.py",
                "        ends_at = now + ttl_seconds\n",
                "        ends_at = now + ttl_seconds * 0.9\n",
            ),
        ),
        (_LESSOR + "a_lease_ends_after_its_ttl_and_not_before",),
    ),
    Mutant(
        "a lease whose end is decided can be renewed",
        "L4",
        (
            Edit(
                _NODE + "lessor.py",
                "        if held is None or held.is_expiring or now >= held.deadline:\n"
                "            return 0\n",
                "        if held is None:\n            return 0\n",
            ),
        ),
        (_LESSOR + "a_lease_whose_time_is_over_cannot_be_renewed_even_before_its_end_is_applied",),
    ),
    Mutant(
        "a new leader begins every TTL anew",
        "L2",
        (
            Edit(
                _NODE + "lessor.py",
                "            ends_at = now + remaining_ms / 1000\n",
                "            ends_at = now + ttl_seconds\n",
            ),
        ),
        (_LESSOR + "a_lease_ends_although_the_leader_changes_twice_in_every_ttl",),
    ),
    Mutant(
        "nothing is recorded of what a lease has left",
        "L2",
        (
            Edit(
                _NODE + "lessor.py",
                "        while self._checkpoints and self._checkpoints[0][0]",
                "        while False and self._checkpoints[0][0]",
            ),
        ),
        (_LESSOR + "a_lease_ends_although_the_leader_changes_twice_in_every_ttl",),
    ),
    Mutant(
        "a renewal is answered although the log says less",
        "L2",
        (
            Edit(
                _NODE + "lessor.py",
                "                held.lowered = next(self._numbers)\n",
                "",
            ),
        ),
        (_LESSOR + "a_lowered_lease_stays_lowered_until_the_newest_checkpoint_is_made_up_for",),
    ),
    Mutant(
        "a renewal does not move the deadline",
        "L4",
        (
            Edit(
                _NODE + "lessor.py",
                "        held.deadline = max(held.deadline, held.ends_at)\n",
                "",
            ),
        ),
        (_LESSOR + "a_renewal_begins_the_ttl_anew",),
    ),
    Mutant(
        "all leases that are due end in one entry",
        "L10",
        (
            Edit(
                _NODE + "lessor.py",
                "self._deadlines[0][0] <= now and len(found) < leases_max:",
                "self._deadlines[0][0] <= now:",
            ),
        ),
        (_LESSOR + "ends_come_in_bounded_pieces_the_longest_overdue_first",),
    ),
    Mutant(
        "an old leader's decision about a lease enters another term",
        "L3",
        (
            Edit(
                _NODE + "driver.py",
                "            if self._retired or (term is not None and term != self.soft_state.term):\n",
                "            if self._retired:\n",
            ),
        ),
        (_LEASES + "what_was_decided_in_one_term_cannot_be_proposed_in_another",),
    ),
    Mutant(
        "followers renew leases",
        "L3",
        (
            Edit(
                _NODE + "leases.py",
                "        return state.role is Role.LEADER and state.term == self._term\n",
                "        return True\n",
            ),
            Edit(
                _NODE + "calls.py",
                "            return self._keep_alive_reply(e.leader)\n        yield",
                "            return self._keep_alive_reply(e.leader, 1, [60 for _ in request.leases])\n"
                "        yield",
            ),
        ),
        (_LEASES + "only_the_leader_renews",),
    ),
    Mutant(
        "a voter is added while another is down",
        "B3",
        (
            Edit(
                _NODE + "reconfiguration.py",
                "    if not all(voter.id in view.connected for voter in voters):\n",
                "    if False:\n",
            ),
        ),
        (_RULES + "no_voter_is_added_while_one_is_down_and_a_learner_always",),
    ),
    Mutant(
        "a learner that lags is promoted",
        "R18",
        (
            Edit(
                _NODE + "reconfiguration.py",
                "    if view.match_index.get(member, 0) * 100 < view.last_index * PROMOTE_MATCH_PERCENT:\n",
                "    if False:\n",
            ),
        ),
        (_RULES + "a_learner_is_ready_with_nine_tenths_of_the_log",),
    ),
    Mutant(
        "a voter that the quorum needs is removed",
        "B3",
        (
            Edit(
                _NODE + "reconfiguration.py",
                "    if sum(voter.id in view.connected for voter in rest) < _quorum(len(rest)):\n",
                "    if False:\n",
            ),
        ),
        (_RULES + "a_voter_that_is_down_may_go_and_one_that_is_needed_may_not",),
    ),
    Mutant(
        "a voter that is down cannot be removed",
        "B4",
        (
            Edit(
                _NODE + "reconfiguration.py",
                "    if member not in view.connected:\n        return None\n",
                "",
            ),
        ),
        (_RULES + "a_voter_that_is_down_may_go_and_one_that_is_needed_may_not",),
    ),
    Mutant(
        "a change whose answer was lost is refused when it is asked for again",
        "G3",
        (
            Edit(
                _NODE + "calls.py",
                "            if machine.remembers(batch.session, batch.sequence):\n"
                "                return None\n",
                "",
            ),
        ),
        (
            _MEMBERSHIP
            + "an_addition_that_is_asked_for_again_is_not_refused_because_the_new_voter_is_not_there_yet",
        ),
    ),
    Mutant(
        "whoever differs from the leader is at fault",
        "S20",
        (
            Edit(
                _NODE + "reports.py",
                "        if len(with_leader) >= majority:\n",
                "        if True:\n",
            ),
        ),
        (_REPORTS + "a_leader_that_differs_from_a_majority_names_itself",),
    ),
    Mutant(
        "members that differ go unnoticed",
        "S20",
        (Edit(_NODE + "reports.py", "            elif own != NO_HASH:\n", "            elif False:\n"),),
        (_REPORTS + "the_first_report_that_differs_calls_for_a_look_at_once_and_names_its_sender",),
    ),
    Mutant(
        "an agreement from before the difference counts",
        "S20",
        (
            Edit(
                _NODE + "reports.py",
                "for member, index in agreed.items() if index >= everywhere}",
                "for member, index in agreed.items()}",
            ),
        ),
        (_REPORTS + "an_agreement_from_before_the_difference_says_nothing",),
    ),
    Mutant(
        "a newer snapshot takes the place of one that was accepted",
        "R21",
        (
            Edit(
                _NODE + "snapshots.py",
                "        if self._offers or self._accepted is not None:\n",
                "        if self._offers:\n",
            ),
        ),
        (_SNAPSHOTS + "a_newer_snapshot_does_not_take_the_place_of_one_that_was_accepted",),
    ),
    Mutant(
        "the log forgets while it is reset to a snapshot",
        "S22",
        (
            Edit(
                _NODE + "opened.py",
                "            if self.log.base_index < through and settled <= self.driver.applied_index:\n",
                "            if self.log.base_index < through <= self.log.last_index:\n",
            ),
        ),
        (_SNAPSHOTS + "nothing_is_forgotten_of_the_log_between_a_snapshots_state_and_the_reset",),
    ),
    Mutant(
        "the written commit goes back while the log is reset to a snapshot",
        "R6",
        (
            Edit(
                _NODE + "driver.py",
                "            commit = max(record.hard_state.commit, self._hard_state.commit)\n",
                "            commit = record.hard_state.commit\n",
            ),
        ),
        (_DRIVER + "the_written_commit_does_not_go_back_while_the_log_is_reset_to_a_snapshot",),
    ),
)
