"""Mistakes of gateways and of the client library: retries, limits, answers."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_GATEWAY = "actors/etcray/gateway/"
_PROPOSALS = "tests/gateway/test_proposals.py::test_"
_READS = "tests/gateway/test_reads.py::test_"
_LOCK = "tests/gateway/test_lock.py::test_"

MUTANTS = (
    Mutant(
        "a batch that may have been applied is sent again under a new number",
        "G3",
        (Edit(_GATEWAY + "proposals.py", "            if attempts == 1:\n", "            if attempts:\n"),),
        (_PROPOSALS + "expired_session_is_an_error_when_the_batch_may_have_been_applied",),
    ),
    Mutant(
        "a command that timed out is proposed again under a new number",
        "G3",
        (
            Edit(
                _GATEWAY + "proposals.py",
                "                expired.append(flight.commands[flight.expired])\n",
                "                self._pending.append(flight.commands[flight.expired])\n",
            ),
        ),
        (_PROPOSALS + "command_that_nobody_answers_times_out_and_its_batch_is_still_finished",),
    ),
    Mutant(
        "a timeout looks like success",
        "G4",
        (
            Edit(
                _GATEWAY + "proposals.py",
                'Settled(command.ticket, error_by_number(TIMEOUT.number), 0, b"", MemberId(0), Term(0))',
                'Settled(command.ticket, None, 0, b"", MemberId(0), Term(0))',
            ),
        ),
        (_PROPOSALS + "command_that_nobody_answers_times_out_and_its_batch_is_still_finished",),
    ),
    Mutant(
        "batches are acknowledged before those below them are answered",
        "G3",
        (
            Edit(
                _GATEWAY + "proposals.py",
                "        while self._acknowledged + 1 in self._answered_ahead:\n"
                "            self._acknowledged += 1\n"
                "            self._answered_ahead.remove(self._acknowledged)\n",
                "        self._acknowledged = max(self._acknowledged, flight.sequence)\n",
            ),
        ),
        (_PROPOSALS + "acknowledged_rises_only_over_answered_batches",),
    ),
    Mutant(
        "batches leave before the session is open",
        "G3",
        (
            Edit(
                _GATEWAY + "proposals.py",
                "            self._open_session()\n            return\n",
                "            self._open_session()\n",
            ),
        ),
        (_PROPOSALS + "session_is_opened_before_the_first_batch",),
    ),
    Mutant(
        "a batch that a busy leader refused counts as done",
        "R23",
        (
            Edit(
                _GATEWAY + "delivery.py",
                "        self._again(now, send, PAUSE_SECONDS)\n\n",
                "        self.remove(send.parcel)\n\n",
            ),
        ),
        (_PROPOSALS + "busy_leader_is_asked_again_after_a_pause",),
    ),
    Mutant(
        "a deposed leader is believed",
        "G17",
        (
            Edit(
                _GATEWAY + "delivery.py",
                "        if leader not in self._members or term < self.term:\n            return\n"
                "        if term == self.term and self.leader != NOBODY:\n            return\n",
                "        if leader not in self._members:\n            return\n",
            ),
        ),
        (_PROPOSALS + "deposed_leader_that_still_claims_to_lead_is_not_believed",),
    ),
    Mutant(
        "a silent leader is waited for although another one leads",
        "G17",
        (
            Edit(
                _GATEWAY + "delivery.py",
                "            self.leader = leader\n            self._redirect()\n",
                "            self.leader = leader\n",
            ),
        ),
        (_PROPOSALS + "lost_reply_is_asked_for_again_and_applied_once",),
    ),
    Mutant(
        "a lost call is never repeated",
        "R23",
        (
            Edit(
                _GATEWAY + "delivery.py",
                "            elif silence >= RESEND_SECONDS:\n                self._put_back(parcel, 0.0)\n",
                "",
            ),
        ),
        (_PROPOSALS + "acknowledged_rises_only_over_answered_batches",),
    ),
    Mutant(
        "any number of commands may wait",
        "G13",
        (
            Edit(
                _GATEWAY + "proposals.py",
                "self.pending_count >= limits.PROPOSALS_PENDING_MAX or ",
                "",
            ),
        ),
        (_PROPOSALS + "commands_over_the_limit_are_refused",),
    ),
    Mutant(
        "any number of bytes may wait",
        "G13",
        (
            Edit(
                _GATEWAY + "proposals.py",
                " or waiting_bytes > limits.PENDING_BYTES_MAX:",
                ":",
            ),
        ),
        (_PROPOSALS + "commands_over_the_limit_of_bytes_are_refused_until_some_are_answered",),
    ),
    Mutant(
        "a change of members shares its batch",
        "R16",
        (
            Edit(
                _GATEWAY + "proposals.py",
                "            alone = pending[0].kind in commands.RECONFIGURATIONS\n",
                "            alone = False\n",
            ),
        ),
        ("tests/gateway/test_cluster.py::test_change_of_members_is_alone_in_its_batch_among_writes",),
    ),
    Mutant(
        "linearizable reads go to any member",
        "R12",
        (Edit(_GATEWAY + "reads.py", "            self._linearizable, bytes(", "            False, bytes("),),
        (_READS + "linearizable_reads_follow_the_leader",),
    ),
    Mutant(
        "a second answer to a read is taken for the next one",
        "R12",
        (
            Edit(
                _GATEWAY + "reads.py",
                "flight = self._in_flight.pop(parcel, None)",
                "flight = self._in_flight.get(parcel)",
            ),
        ),
        (_READS + "second_answer_to_one_batch_changes_nothing",),
    ),
    Mutant(
        "requests of any size enter the log",
        "G15",
        (
            Edit(
                _GATEWAY + "service.py",
                "    if len(request) > limits.REQUEST_BYTES_MAX:\n",
                "    if False:\n",
            ),
        ),
        ("tests/gateway/test_grpc.py::test_request_between_the_two_limits_is_too_large_for_etcd",),
    ),
    Mutant(
        "a request of exactly the largest size is refused",
        "G15",
        (
            Edit(
                _GATEWAY + "service.py",
                "    if len(request) > limits.REQUEST_BYTES_MAX:\n",
                "    if len(request) >= limits.REQUEST_BYTES_MAX:\n",
            ),
        ),
        ("tests/gateway/test_grpc.py::test_largest_request_is_taken_and_a_large_answer_arrives_whole",),
    ),
    Mutant(
        "a transaction with a put is treated as a read",
        "M10",
        (
            Edit(
                "storage/etcray_storage/machine/validate.py",
                '    return all(op.HasField("request_range") for ops in',
                '    return any(op.HasField("request_range") for ops in',
            ),
        ),
        ("tests/storage/test_validate.py::test_only_ranges_make_a_txn_read_only",),
    ),
    Mutant(
        "the code of an error is another one",
        "G4",
        (
            Edit(
                "storage/etcray_storage/errors.py",
                "FUTURE_REV: Final = _define(10, Code.OUT_OF_RANGE,",
                "FUTURE_REV: Final = _define(10, Code.INVALID_ARGUMENT,",
            ),
        ),
        ("tests/client/test_client.py::test_compacted_and_future_revisions_have_their_own_errors",),
    ),
    Mutant(
        "two errors have swapped their numbers",
        "G4",
        (
            Edit(
                "storage/etcray_storage/errors.py",
                "COMPACTED: Final = _define(9, ",
                "COMPACTED: Final = _define(10, ",
            ),
            Edit(
                "storage/etcray_storage/errors.py",
                "FUTURE_REV: Final = _define(10, ",
                "FUTURE_REV: Final = _define(9, ",
            ),
        ),
        ("tests/storage/test_errors.py::test_numbers_never_change_their_meaning",),
    ),
    Mutant(
        "health is green without a read",
        "G19",
        (
            Edit(
                _GATEWAY + "health_checks.py",
                "        try:\n"
                "            await self._read(serializable=serializable)\n"
                "        except EtcdError as error:\n"
                '            raise IllError(f"RANGE ERROR',
                "        try:\n            pass\n        except EtcdError as error:\n"
                '            raise IllError(f"RANGE ERROR',
            ),
        ),
        ("tests/gateway/test_http.py::test_health_is_red_while_linearizable_reads_hang",),
    ),
    Mutant(
        "alarms do not matter to health",
        "G19",
        (
            Edit(
                _GATEWAY + "health_checks.py",
                "            if name not in excluded:\n",
                "            if False:\n",
            ),
        ),
        ("tests/gateway/test_http.py::test_health_tells_alarms_unless_excluded",),
    ),
    Mutant(
        "a lock's waiter waits for the oldest key",
        "G4",
        (
            Edit(
                _GATEWAY + "waiting_line.py",
                "            before = _by_age(prefix, rpc.RangeRequest.DESCEND)\n"
                "            before.max_create_revision = place.revision - 1\n"
                "            while (answer",
                "            before = _by_age(prefix, rpc.RangeRequest.ASCEND)\n"
                "            before.max_create_revision = place.revision - 1\n"
                "            if (answer",
            ),
        ),
        (_LOCK + "one_client_at_a_time_holds_the_lock",),
    ),
    Mutant(
        "a waiter whose lease ended gets the lock",
        "L3",
        (
            Edit(
                _GATEWAY + "waiting_line.py",
                "        return own.header if there else None\n",
                "        return own.header\n",
            ),
        ),
        (_LOCK + "waiter_whose_lease_ended_is_told_so",),
    ),
    Mutant(
        "a waiter that leaves keeps its place",
        "G10",
        (
            Edit(
                _GATEWAY + "waiting_line.py",
                "            self._leave_later(place, call)\n            raise\n        there",
                "            raise\n        there",
            ),
        ),
        (_LOCK + "waiter_that_leaves_gives_up_its_place",),
    ),
    Mutant(
        "the client repeats a write that was sent",
        "G3",
        (
            Edit(
                "actors/etcray/client/retry.py",
                "(code is Code.UNAVAILABLE and not self._writes)",
                "code is Code.UNAVAILABLE",
            ),
        ),
        ("tests/client/test_retry.py::test_write_that_was_sent_is_never_repeated",),
    ),
)
