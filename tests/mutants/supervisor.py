"""Mistakes in what the supervisor decides about members."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_RECONCILER = "actors/etcray/supervisor/reconciler.py"
_TEST = "tests/supervisor/test_reconciler.py::test_"

MUTANTS = (
    Mutant(
        "a member is replaced although the rest has no majority",
        "B3",
        (
            Edit(
                _RECONCILER,
                "    if not facts.leaves_majority(lost):\n",
                "    if False:\n",
            ),
        ),
        (_TEST + "nobody_is_replaced_when_the_rest_has_no_majority",),
    ),
    Mutant(
        "the old member goes before the new one has caught up",
        "R18",
        (Edit(_RECONCILER, "    if not facts.is_caught_up(coming):\n", "    if False:\n"),),
        (_TEST + "a_lagging_learner_is_waited_for",),
    ),
    Mutant(
        "a member is replaced as soon as its node is gone",
        "G9",
        (
            Edit(
                _RECONCILER,
                "self.now - member.gone_since >= self.replace_after",
                "self.now >= member.gone_since",
            ),
        ),
        (_TEST + "a_node_is_waited_for_until_the_deadline",),
    ),
    Mutant(
        "a member that comes back is removed all the same",
        "B3",
        (
            Edit(
                _RECONCILER,
                "    if old is not None and not facts.is_lost(old) and old.serves:\n",
                "    if False:\n",
            ),
        ),
        (_TEST + "a_voter_that_comes_back_in_time_stays_and_its_replacement_goes",),
    ),
    Mutant(
        "a removed member's name is given again",
        "B1",
        (
            Edit(
                _RECONCILER,
                ' in names or _id_of(facts, f"member{number}") in ids:',
                " in names:",
            ),
        ),
        (_TEST + "a_name_of_a_removed_member_is_never_given_again",),
    ),
    Mutant(
        "the actor of a removed leader is stopped while it is needed",
        "R17",
        (
            Edit(
                _RECONCILER,
                "        if member_id in facts.removed and facts.leader not in (NOBODY, member_id)\n",
                "        if member_id in facts.removed\n",
            ),
        ),
        (_TEST + "the_actor_of_a_removed_member_is_stopped_once_another_one_leads",),
    ),
    Mutant(
        "the last voter is removed",
        "B6",
        (
            Edit(
                _RECONCILER, "    if len(facts.voters) == 1:\n        return", "    if False:\n        return"
            ),
        ),
        (_TEST + "the_last_voter_stays",),
    ),
    Mutant(
        "a leader is removed without handing over",
        "B6",
        (
            Edit(
                _RECONCILER,
                "    if facts.leader == member.id:\n        successor",
                "    if False:\n        successor",
            ),
        ),
        (_TEST + "a_leader_hands_over_before_it_is_removed",),
    ),
    Mutant(
        "changes are made without a leader",
        "B3",
        (Edit(_RECONCILER, "    if facts.leader == NOBODY:\n", "    if False:\n"),),
        (_TEST + "between_two_leaders_a_whole_cluster_waits",),
    ),
)
