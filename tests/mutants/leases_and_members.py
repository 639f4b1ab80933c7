"""Mistakes in the replicated state: leases, members, alarms."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_MACHINE = "storage/etcray_storage/machine/"
_LEASES = "tests/storage/test_leases.py"
_MEMBERS = "tests/storage/test_members.py"
_ALARMS = "tests/storage/test_machine_alarms.py"

MUTANTS = (
    Mutant(
        "the keys of a lease are deleted in any order",
        "L7,S24",
        (
            Edit(
                "storage/etcray_storage/mvcc/key_index.py",
                "        return sorted(self._attached.get(lease, ()))\n",
                "        return list(self._attached.get(lease, ()))\n",
            ),
        ),
        (
            _LEASES + "::test_a_revoke_deletes_the_keys_in_order_and_in_one_revision",
            "tests/storage/test_machine_determinism.py",
        ),
    ),
    Mutant(
        "a key that moved to another lease ends with the old one",
        "L9",
        (
            Edit(
                "storage/etcray_storage/mvcc/key_index.py",
                "            if record.lease:\n                self._detach(key, record.lease)\n",
                "",
            ),
        ),
        (_LEASES + "::test_a_key_that_moved_to_another_lease_is_not_deleted_with_the_old_one",),
    ),
    Mutant(
        "an expiry ends a lease that was granted after it was decided",
        "L3",
        (
            Edit(
                _MACHINE + "leases.py",
                "        return known is not None and known.granted_index <= seen_index\n",
                "        return known is not None\n",
            ),
        ),
        (_LEASES + "::test_a_lease_granted_after_the_leader_looked_is_not_meant",),
    ),
    Mutant(
        "checkpoints are not recorded",
        "L2",
        (
            Edit(
                _MACHINE + "leases.py",
                "                known.remaining_ms = min(max(remaining_ms, 0), known.ttl_seconds * 1000)\n",
                "",
            ),
        ),
        (_LEASES + "::test_a_checkpoint_is_kept_and_says_at_most_what_was_granted",),
    ),
    Mutant(
        "a checkpoint is not written to the tables",
        "L2",
        (
            Edit(
                _MACHINE + "leases.py",
                "                self._dirty.add(lease)\n                self.effects",
                "                self.effects",
            ),
        ),
        (_LEASES + "::test_a_checkpoint_is_written_also_if_its_lease_was_written_before",),
    ),
    Mutant(
        "a lease may have any life",
        "L8",
        (
            Edit(
                _MACHINE + "leases.py",
                "        if request.TTL > LEASE_TTL_SECONDS_MAX:\n",
                "        if False:\n",
            ),
        ),
        (_LEASES + "::test_a_grant_that_is_refused",),
    ),
    Mutant(
        "a put may name a lease that does not exist",
        "L11",
        (
            Edit(
                _MACHINE + "operations.py",
                "    if request.lease and request.lease not in leases:\n",
                "    if False:\n",
            ),
        ),
        (_LEASES + "::test_a_transaction_that_names_an_unknown_lease_changes_nothing",),
    ),
    Mutant(
        "without space, puts are taken",
        "S6",
        (
            Edit(
                _MACHINE + "machine.py",
                "        if needs_space and self._alarms.no_space:\n",
                "        if False:\n",
            ),
        ),
        (_ALARMS + "::test_without_space_puts_are_refused_and_all_else_goes_on",),
    ),
    Mutant(
        "without space, a put of key and value alone is taken",
        "S6",
        (Edit(_MACHINE + "machine.py", " and not alarms.no_space and", " and"),),
        (_ALARMS + "::test_without_space_puts_are_refused_and_all_else_goes_on",),
    ),
    Mutant(
        "a corrupt cluster takes a put of key and value alone",
        "S20",
        (Edit(_MACHINE + "machine.py", " and not alarms.corrupt:", ":"),),
        (_ALARMS + "::test_a_corrupt_cluster_refuses_every_write_and_still_reads",),
    ),
    Mutant(
        "without space, transactions with a put are taken",
        "S6",
        (
            Edit(
                _MACHINE + "machine.py",
                "self._refuse_write(needs_space=validate.has_put(request))",
                "self._refuse_write(needs_space=False)",
            ),
        ),
        (_ALARMS + "::test_without_space_puts_are_refused_and_all_else_goes_on",),
    ),
    Mutant(
        "a corrupt cluster takes writes",
        "S20",
        (Edit(_MACHINE + "machine.py", "        if self._alarms.corrupt:\n", "        if False:\n"),),
        (_ALARMS + "::test_a_corrupt_cluster_refuses_every_write_and_still_reads",),
    ),
    Mutant(
        "an alarm that was raised by hand goes away by itself",
        "S6",
        (
            Edit(
                _MACHINE + "alarms.py",
                "        elif not report.low and self._raised.get(alarm) == _BY_REPORT:\n",
                "        elif not report.low and alarm in self._raised:\n",
            ),
        ),
        (_ALARMS,),
    ),
    Mutant(
        "a removed member comes back",
        "B1",
        (
            Edit(
                _MACHINE + "members.py",
                "        if command.id in self.removed:\n"
                "            raise error_by_number(errors.MEMBER_NOT_FOUND.number)\n",
                "",
            ),
        ),
        (_MEMBERS + "::test_removed_member_never_comes_back_not_even_after_a_restart",),
    ),
    Mutant(
        "removed members are forgotten in a restart",
        "B1",
        (
            Edit(
                _MACHINE + "members.py",
                "for member, value in values.items() if value == _REMOVED)",
                "for member, value in values.items() if value is None)",
            ),
        ),
        (_MEMBERS + "::test_removed_member_never_comes_back_not_even_after_a_restart",),
    ),
    Mutant(
        "a change of the URLs makes a learner a voter",
        "B5",
        (
            Edit(
                _MACHINE + "members.py",
                "msgspec.structs.replace(member, peer_urls=command.peer_urls)",
                "msgspec.structs.replace(member, peer_urls=command.peer_urls, is_learner=False)",
            ),
        ),
        (_MEMBERS,),
    ),
    Mutant(
        "a promotion is not written",
        "B5",
        (
            Edit(
                _MACHINE + "members.py",
                "            self._dirty.update(self._members)\n        self._dirty.add(member)\n",
                "            self._dirty.update(self._members)\n",
            ),
        ),
        (_MEMBERS,),
    ),
    Mutant(
        "the last voter can be removed",
        "B6",
        (
            Edit(
                _MACHINE + "members.py",
                "        if self.membership.voters == (member.id,):\n",
                "        if False:\n",
            ),
        ),
        (_MEMBERS + "::test_last_voter_cannot_be_removed",),
    ),
    Mutant(
        "there may be two learners",
        "R18",
        (Edit(_MACHINE + "members.py", ">= LEARNERS_MAX:", "> LEARNERS_MAX:"),),
        (_MEMBERS + "::test_addition_is_refused_as_in_etcd",),
    ),
    Mutant(
        "membership changes without consensus knowing",
        "R16",
        (
            Edit(
                _MACHINE + "machine.py",
                "        if not self._may_reconfigure:\n"
                '            return errors.MALFORMED_REQUEST.number, b""\n',
                "",
            ),
        ),
        (_MEMBERS + "::test_change_that_consensus_was_not_told_of_is_refused",),
    ),
)
