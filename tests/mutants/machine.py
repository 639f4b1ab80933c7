"""Mistakes in the replicated state: sessions, transactions, clock, state hash."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_MACHINE = "storage/etcray_storage/machine/"
_SESSIONS = "tests/storage/test_machine_sessions.py"
_TXN = "tests/storage/test_txn.py"
_HASH = "tests/storage/test_state_hash.py"
_VALIDATE = "tests/storage/test_validate.py"

MUTANTS = (
    Mutant(
        "a batch that arrives again is applied again",
        "G3",
        (
            Edit(
                _MACHINE + "sessions.py",
                "        if answer is not None:\n"
                "            return answer\n"
                "        return sequence > known.floor\n",
                "        return sequence > known.floor\n",
            ),
        ),
        (_SESSIONS + "::test_a_batch_that_arrives_again_gets_its_answer_and_changes_nothing",),
    ),
    Mutant(
        "a batch whose answer was acknowledged is applied again",
        "G3",
        (
            Edit(
                _MACHINE + "sessions.py",
                "        return sequence > known.floor\n\n",
                "        return True\n\n",
            ),
        ),
        (_SESSIONS + "::test_an_acknowledged_answer_is_forgotten_and_its_batch_never_applied_again",),
    ),
    Mutant(
        "a batch of an unknown session is applied",
        "G3",
        (
            Edit(
                _MACHINE + "sessions.py",
                "        if known is None:\n            return False\n        self._use",
                "        if known is None:\n"
                "            known = self._sessions[session] = Session(index, place)\n"
                "        self._use",
            ),
        ),
        (_SESSIONS + "::test_a_batch_of_an_unknown_session_is_refused_as_a_whole",),
    ),
    Mutant(
        "sessions are forgotten in the order of their opening",
        "S24",
        (Edit(_MACHINE + "sessions.py", "        self._sessions.move_to_end(session)\n", ""),),
        (_SESSIONS + "::test_the_longest_unused_session_is_forgotten_first",),
    ),
    Mutant(
        "the order of use of sessions is lost in a restart",
        "S24",
        (
            Edit(
                _MACHINE + "sessions.py",
                "        loaded.sort(key=lambda pair: (pair[1].used_index, pair[1].used_place))\n",
                "",
            ),
        ),
        (_SESSIONS + "::test_a_restored_machine_remembers_answers_floors_and_order_of_use",),
    ),
    Mutant(
        "nested compares see what the transaction has written",
        "M10",
        (
            Edit(
                _MACHINE + "txn.py",
                "                number, body = 4, _execute(store, next(nested))\n",
                "                number, body = 4, _execute(store, _choose(store, op.request_txn))\n",
            ),
        ),
        (_TXN + "::test_nested_compares_see_the_state_before_the_whole_txn",),
    ),
    Mutant(
        "a transaction fails after its first writes",
        "M10",
        (Edit(_MACHINE + "txn.py", "    _check(store, leases, path)\n    return", "    return"),),
        (_TXN + "::test_what_cannot_be_done_is_found_before_anything_is_written",),
    ),
    Mutant(
        "one compare that holds is enough",
        "M8",
        (Edit(_MACHINE + "txn.py", "succeeded = all(_holds", "succeeded = any(_holds"),),
        (_TXN + "::test_all_compares_must_hold",),
    ),
    Mutant(
        "a key of the range that holds is enough",
        "M8",
        (
            Edit(
                _MACHINE + "txn.py",
                "    return all(_compare_record",
                "    return any(_compare_record",
            ),
        ),
        (_TXN + "::test_with_a_range_every_key_must_hold",),
    ),
    Mutant(
        "greater and less are swapped",
        "M8",
        (
            Edit(_MACHINE + "txn.py", "actual > expected", "actual < expected "),
            Edit(_MACHINE + "txn.py", "actual < expected  # type: ignore[operator]\n", "actual > expected\n"),
        ),
        (_TXN + "::test_operators_compare_the_stored_with_the_given",),
    ),
    Mutant(
        "nested transactions run in the wrong order",
        "M4",
        (
            Edit(
                _MACHINE + "txn.py",
                "    responses: list[bytes] = []\n    nested = iter(path.nested)\n",
                "    responses: list[bytes] = []\n    nested = reversed(path.nested)\n",
            ),
        ),
        (_TXN + "::test_nested_txns_run_in_order_each_on_its_own_branch",),
    ),
    Mutant(
        "a key may be put twice in a transaction",
        "M8",
        (
            Edit(
                _MACHINE + "validate.py",
                "        if not puts.isdisjoint(new_puts) or _hit",
                "        if _hit",
            ),
        ),
        (_VALIDATE,),
    ),
    Mutant(
        "a transaction may have one operation too many",
        "G15",
        (Edit(_MACHINE + "validate.py", "    if widest > ops_max:\n", "    if widest > ops_max + 1:\n"),),
        (_VALIDATE,),
    ),
    Mutant(
        "nested operations are not counted",
        "G15",
        (
            Edit(
                _MACHINE + "validate.py",
                "            _check_op(op, ops_max - widest)\n",
                "            _check_op(op, ops_max)\n",
            ),
        ),
        (_VALIDATE,),
    ),
    Mutant(
        "unknown sort orders reach the state machine",
        "F2",
        (Edit(_MACHINE + "validate.py", "not 0 <= request.sort_order <= _SORT_ORDER_MAX or ", ""),),
        ("tests/storage/test_range.py::test_unknown_sort_enums_are_an_error_answer",),
    ),
    Mutant(
        "what is no request raises in apply",
        "F9",
        (
            Edit(
                _MACHINE + "machine.py",
                "    except (DecodeError, msgspec.DecodeError):\n",
                "    except msgspec.DecodeError:\n",
            ),
        ),
        ("tests/storage/test_machine.py::test_no_bytes_of_a_client_can_stop_the_machine",),
    ),
    Mutant(
        "a refused command moves the revision",
        "M9",
        (
            Edit(
                "storage/etcray_storage/mvcc/store.py",
                "        if self._sub:\n            self.revision += 1\n",
                "        if True:\n            self.revision += 1\n",
            ),
        ),
        ("tests/storage/test_machine.py::test_delete_of_nothing_keeps_the_revision",),
    ),
    Mutant(
        "the clock goes back",
        "L12",
        (
            Edit(
                _MACHINE + "clock.py",
                "        self.time_ms = max(self.time_ms, time_ms)\n",
                "        self.time_ms = time_ms\n",
            ),
        ),
        ("tests/storage/test_machine.py::test_time_never_goes_back_not_even_over_a_restart",),
    ),
    Mutant(
        "the clock is forgotten in a restart",
        "S24",
        (
            Edit(
                _MACHINE + "clock.py",
                "        self.time_ms = self._taken_ms = int.from_bytes",
                "        self._taken_ms = int.from_bytes",
            ),
        ),
        ("tests/storage/test_machine.py::test_time_never_goes_back_not_even_over_a_restart",),
    ),
    Mutant(
        "the state hash does not cover deletions",
        "S20",
        (
            Edit(
                _MACHINE + "state_hash.py",
                "[change[2] or wire.delete_event(change[1], change[0]) for change in changes]",
                "[change[2] for change in changes]",
            ),
        ),
        (_HASH + "::test_deletion_of_another_key_on_one_member_is_told",),
    ),
    Mutant(
        "the state hash does not cover leases",
        "S20",
        (
            Edit(
                _MACHINE + "machine.py",
                "        parts = (self.leases, self._alarms, self._members)\n",
                "        parts = (self._alarms, self._members)\n",
            ),
        ),
        (_HASH,),
    ),
    Mutant(
        "the state hash does not roll",
        "S20",
        (
            Edit(
                _MACHINE + "state_hash.py",
                "zlib.crc32(done, upper) << 32 | zlib.adler32(done, lower)",
                "zlib.crc32(done) << 32 | zlib.adler32(done)",
            ),
        ),
        (_HASH,),
    ),
    Mutant(
        "the state hash starts anew in a restart",
        "S20",
        (
            Edit(
                _MACHINE + "state_hash.py",
                "        self.value = self._taken = int.from_bytes",
                "        self._taken = int.from_bytes",
            ),
        ),
        (_HASH,),
    ),
)
