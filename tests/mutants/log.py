"""Mistakes in the durable log, its recovery and the data directory."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_LOG = "storage/etcray_storage/log/"
_DIRECTORY = "storage/etcray_storage/data_directory.py"
_RECOVERY = "actors/etcray/node/recovery.py"
_TEST_LOG = "tests/storage/test_log.py"
_TEST_CRASH = "tests/storage/test_log_crash.py"
_TEST_WRITER = "tests/storage/test_log_writer.py"
_TEST_DIRECTORY = "tests/storage/test_data_directory.py"
_TEST_RECOVERY = "tests/node/test_recovery.py"
_TEST_VERIFICATION = "tests/storage/test_verification.py"

MUTANTS = (
    Mutant(
        "a log that is shorter than its tip is believed",
        "S2",
        (Edit(_LOG + "recovery.py", "    if recovered.sequence < tip.sequence:\n", "    if False:\n"),),
        (
            _TEST_CRASH + "::test_shortened_file_is_refused_or_harmless",
            _TEST_CRASH + "::test_missing_file_is_refused",
        ),
    ),
    Mutant(
        "the chain of checksums is not looked at",
        "S3",
        (Edit(_LOG + "recovery.py", "        if row.checksum != checksum:\n", "        if False:\n"),),
        (_TEST_CRASH + "::test_row_of_another_log_in_its_place_is_refused",),
    ),
    Mutant(
        "a row that is not the one that the tip names is believed",
        "S21",
        (
            Edit(
                _LOG + "recovery.py",
                "        if row.sequence == self._tip.sequence and row.checksum != self._tip.checksum:\n",
                "        if False:\n",
            ),
        ),
        (_TEST_CRASH + "::test_whole_log_beside_the_tip_of_another_is_refused",),
    ),
    Mutant(
        "a log without its segments is a new one",
        "S4,B7",
        (
            Edit(
                _LOG + "recovery.py",
                "        if tip.sequence:\n            _refuse(",
                "        if False:\n            _refuse(",
            ),
            Edit(_LOG + "recovery.py", "    if recovered.sequence < tip.sequence:\n", "    if False:\n"),
        ),
        (_TEST_CRASH + "::test_all_segments_missing_is_refused",),
    ),
    Mutant(
        "the tip is ahead of the log",
        "S2",
        (
            Edit(
                _LOG + "log.py",
                "self._tip_file.advance(self._sequence, self",
                "self._tip_file.advance(self._sequence + 1, self",
            ),
        ),
        (_TEST_LOG + "::test_hard_state_without_entries_survives_reopening", _TEST_LOG),
    ),
    Mutant(
        "a slot of the tip is overwritten by the next write",
        "S17",
        (Edit(_LOG + "tip.py", "number % 2 * _SLOT_DISTANCE)", "0)"),),
        (_TEST_LOG + "::test_torn_write_of_the_tip_leaves_the_one_before",),
    ),
    Mutant(
        "segments are removed before the tip says that they are void",
        "S22",
        (
            Edit(
                _LOG + "tip.py",
                "            self._write(Tip(*end, base_index, base_term, first_segment))\n"
                "        self.sync()\n",
                "            self._write(Tip(*end, base_index, base_term, first_segment))\n",
            ),
        ),
        (_TEST_LOG + "::test_tip_is_durable_before_segments_are_removed",),
    ),
    Mutant(
        "the directory is not synced when a segment is begun",
        "S4",
        (
            Edit(
                _LOG + "log.py",
                "        # The first commit created the WAL. From here on its loss would be noticed.\n"
                "        with self._poisoning():\n"
                "            sync_directory(self.directory)\n",
                "",
            ),
        ),
        (_TEST_LOG + "::test_name_of_a_segments_wal_is_durable_before_its_first_row_is_acknowledged",),
    ),
    Mutant(
        "a record is said to be durable before it is written",
        "R4",
        (
            Edit(
                _LOG + "writer.py",
                "                self._store(jobs)\n                self._check_owned()\n"
                "                for each in jobs:\n                    each.on_durable()\n",
                "                for each in jobs:\n                    each.on_durable()\n"
                "                self._store(jobs)\n                self._check_owned()\n",
            ),
        ),
        (_TEST_WRITER + "::test_callbacks_come_in_order_after_the_record_is_durable",),
    ),
    Mutant(
        "a record after a failed one is stored",
        "S5",
        (
            Edit(
                _LOG + "log.py",
                "        except Exception as e:\n            self._failure = e\n            raise",
                "        except Exception as e:\n            raise",
            ),
        ),
        (_TEST_LOG + "::test_a_failed_write_ends_the_log",),
    ),
    Mutant(
        "entries that a later record replaces are merged twice",
        "R9",
        (
            Edit(
                _LOG + "record.py",
                "                del entries[max(first - entries[0].index, 0) :]\n",
                "                pass\n",
            ),
        ),
        (_TEST_WRITER + "::test_merged_record_leaves_what_the_records_would",),
    ),
    Mutant(
        "a reset joins the records around it",
        "R20",
        (
            Edit(
                _LOG + "writer.py",
                "if job is None or isinstance(job.work, _Reset) or isinstance(first.work, _Reset):",
                "if job is None:",
            ),
        ),
        (_TEST_WRITER + "::test_reset_keeps_its_place_among_the_records",),
    ),
    Mutant(
        "term and vote are not repeated in a new segment",
        "R3",
        (
            Edit(
                _LOG + "log.py",
                "            self._insert(segment, hard_state, first, base_index, encode_header(header))\n",
                "            self._insert(segment, HardState(), first, base_index, encode_header(header))\n",
            ),
        ),
        (_TEST_LOG + "::test_compaction_removes_files_and_keeps_the_hard_state", _TEST_LOG),
    ),
    Mutant(
        "a directory may be opened twice",
        "G1",
        (Edit(_DIRECTORY, "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB"),),
        (_TEST_DIRECTORY + "::test_second_open_is_refused_and_names_the_process",),
    ),
    Mutant(
        "a directory that was replaced under the member is not noticed",
        "S14",
        (
            Edit(
                _DIRECTORY,
                "        if (held.st_dev, held.st_ino) != (there.st_dev, there.st_ino):\n",
                "        if False:\n",
            ),
        ),
        (_TEST_DIRECTORY + "::test_the_holder_notices_that_its_directory_is_another_one",),
    ),
    Mutant(
        "incarnations are not counted",
        "G1",
        (
            Edit(
                _DIRECTORY,
                "known.incarnation + 1 if known is not None else 1",
                "known.incarnation if known is not None else 1",
            ),
        ),
        (_TEST_DIRECTORY + "::test_creates_a_private_directory_and_counts_incarnations",),
    ),
    Mutant(
        "the background check believes every row of the log",
        "S20",
        (Edit(_LOG + "verification.py", "        if row.checksum != expected:\n", "        if False:\n"),),
        (_TEST_VERIFICATION + "::test_row_that_was_replaced_by_another_sound_row_is_found",),
    ),
    Mutant(
        "the background check does not miss rows at a segment's end",
        "S20",
        (
            Edit(
                _LOG + "verification.py",
                "        if self._row < end:\n            _refuse",
                "        if False:\n            _refuse",
            ),
        ),
        (_TEST_VERIFICATION + "::test_row_that_is_gone_is_found",),
    ),
    Mutant(
        "what follows a segment that went while it was half checked looks damaged",
        "S20",
        (
            Edit(
                _LOG + "verification.py",
                "self._goes_on = 0 < finished == segment.number - 1",
                "self._goes_on = 0 < self._segment == segment.number - 1",
            ),
        ),
        (
            _TEST_VERIFICATION + "::test_segments_that_go_while_a_pass_is_under_way_are_passed_over",
            _TEST_VERIFICATION + "::test_sound_log_is_never_called_damaged",
        ),
    ),
    Mutant(
        "a member that promised things starts with an empty directory",
        "B7,B8",
        (Edit(_DIRECTORY, "        if must_exist and not (path", "        if False and not (path"),),
        (_TEST_DIRECTORY + "::test_a_member_that_promised_things_does_not_start_empty",),
    ),
    Mutant(
        "the directory of another member is taken",
        "R24",
        (Edit(_DIRECTORY, "    if int(known.member_id, 16) != member_id:\n", "    if False:\n"),),
        (_TEST_DIRECTORY + "::test_other_cluster_and_other_member_are_refused_and_nothing_changes",),
    ),
    Mutant(
        "a quarantine ends with the process",
        "S3",
        (
            Edit(
                _DIRECTORY,
                '            _write_durably(self.path, _QUARANTINE, reason.encode() + b"\\n")\n',
                "            pass\n",
            ),
        ),
        (_TEST_DIRECTORY + "::test_quarantine_outlasts_every_restart_and_says_why",),
    ),
    Mutant(
        "a newer format is opened",
        "S19",
        (Edit(_DIRECTORY, "        if stored > FORMAT:\n", "        if False:\n"),),
        (_TEST_DIRECTORY + "::test_newer_format_is_refused_and_nothing_changes",),
    ),
    Mutant(
        "a lost log is created anew",
        "B7",
        (Edit(_RECOVERY, "    if log.is_new and directory.identity.complete:\n", "    if False:\n"),),
        (_TEST_RECOVERY + "::test_a_lost_log_is_noticed",),
    ),
    Mutant(
        "tables that end before the log begins are believed",
        "S22",
        (Edit(_RECOVERY, "    if log.base_index > applied:\n", "    if False:\n"),),
        (_TEST_RECOVERY + "::test_tables_older_than_the_log_begins_are_noticed",),
    ),
    Mutant(
        "an interrupted install is not finished at the next start",
        "R20",
        (
            Edit(
                _RECOVERY,
                "        log.reset(applied, term, hard_state)\n",
                "        pass\n",
            ),
        ),
        (_TEST_RECOVERY + "::test_tables_with_an_entry_that_the_log_does_not_have_begin_it_anew[True-0]",),
    ),
    Mutant(
        "a longer log of an older term stays beside the tables of a snapshot",
        "R20",
        (Edit(_RECOVERY, " or log.term(applied) != term:", ":"),),
        (_TEST_RECOVERY + "::test_tables_with_an_entry_that_the_log_does_not_have_begin_it_anew[True-50]",),
    ),
    Mutant(
        "the term of an interrupted install is not taken over",
        "R3,R20",
        (Edit(_RECOVERY, "known if known.term >= term else", "known if known.term else"),),
        (_TEST_RECOVERY + "::test_tables_with_an_entry_that_the_log_does_not_have_begin_it_anew[False-0]",),
    ),
)
