"""Mistakes in keys, revisions, compaction, tables and snapshots."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_MVCC = "storage/etcray_storage/mvcc/"
_INDEX = "tests/storage/test_mvcc_key_index.py"
_RANGE = "tests/storage/test_range.py"
_MACHINE = "tests/storage/test_machine.py"
_TABLES = "tests/storage/test_tables.py"
_SNAPSHOT = "tests/storage/test_snapshot.py"
_DURABLE = (
    "tests/storage/test_tables_crash.py"
    "::test_file_is_durable_before_it_gets_its_name_and_the_name_before_anybody_relies_on_it"
)

MUTANTS = (
    Mutant(
        "a key that is created again keeps its version",
        "M8",
        (
            Edit(
                _MVCC + "key_index.py",
                "            record.create_revision = main\n            record.version = 1\n",
                "            record.create_revision = main\n            record.version += 1\n",
            ),
            Edit(
                _MVCC + "key_index.py",
                "            record.create_revision = record.version = record.lease = 0\n",
                "            record.create_revision = record.lease = 0\n",
            ),
        ),
        (_RANGE + "::test_a_recreated_key_starts_over",),
    ),
    Mutant(
        "a key that is created again keeps its create revision",
        "M8",
        (
            Edit(
                _MVCC + "key_index.py",
                "            record.create_revision = main\n            record.version = 1\n",
                "            record.version = 1\n",
            ),
            Edit(
                _MVCC + "key_index.py",
                "            record.create_revision = record.version = record.lease = 0\n",
                "            record.version = record.lease = 0\n",
            ),
        ),
        (_RANGE + "::test_a_recreated_key_starts_over",),
    ),
    Mutant(
        "all changes of a transaction have the same sub-revision",
        "M4",
        (
            Edit(
                _MVCC + "store.py",
                "            self._sub,\n            key,\n",
                "            0,\n            key,\n",
            ),
        ),
        ("tests/storage/test_txn.py::test_one_revision_for_all_changes_numbered_by_sub_revision",),
    ),
    Mutant(
        "the compacted revision itself cannot be read",
        "M6",
        (
            Edit(
                _MVCC + "store.py",
                "        if revision < self.compact_revision:\n            raise",
                "        if revision <= self.compact_revision:\n            raise",
            ),
        ),
        (_RANGE + "::test_the_compacted_revision_can_be_read_and_those_below_cannot",),
    ),
    Mutant(
        "revisions below the compacted one can be read",
        "M6",
        (
            Edit(
                _MVCC + "store.py",
                "        if revision < self.compact_revision:\n            raise",
                "        if revision < self.compact_revision - 1:\n            raise",
            ),
        ),
        (_RANGE + "::test_the_compacted_revision_can_be_read_and_those_below_cannot",),
    ),
    Mutant(
        "future revisions are answered",
        "M6",
        (
            Edit(
                _MVCC + "store.py",
                "        if revision > newest:\n            raise",
                "        if revision > newest + 1:\n            raise",
            ),
        ),
        (_RANGE + "::test_future_revisions_are_refused",),
    ),
    Mutant(
        "what is compacted can be compacted again",
        "M6",
        (
            Edit(
                _MVCC + "store.py",
                "        if revision <= self.compact_revision:\n",
                "        if revision < self.compact_revision:\n",
            ),
        ),
        (_MACHINE + "::test_compaction_of_what_is_compacted_is_refused_and_of_the_newest_is_not",),
    ),
    Mutant(
        "the errors for compacted and future revisions are swapped",
        "M6",
        (
            Edit(
                _MVCC + "store.py",
                "raise error_by_number(errors.FUTURE_REV.number)\n        if revision < self",
                "raise error_by_number(errors.COMPACTED.number)\n        if revision < self",
            ),
        ),
        (_RANGE + "::test_future_revisions_are_refused",),
    ),
    Mutant(
        "trimming takes the newest revision at the compacted one",
        "M1",
        (
            Edit(
                _MVCC + "key_index.py",
                "        position = bisect_right(history, compact_revision << 1 | 1) - 1\n"
                "        if position < 0:\n"
                "            return\n",
                "        position = bisect_right(history, compact_revision << 1 | 1)\n"
                "        if position < 0:\n"
                "            return\n        position = min(position, len(history) - 1)\n",
            ),
        ),
        (_INDEX + "::test_trimming_goes_in_bounded_steps_that_reads_do_not_notice",),
    ),
    Mutant(
        "a deleted key is forgotten while its history can be read",
        "M3",
        (
            Edit(
                _MVCC + "key_index.py",
                "        if record.mod_revision <= compact_revision:\n            record.history",
                "        if record.mod_revision <= compact_revision + 1:\n            record.history",
            ),
        ),
        (_INDEX + "::test_what_was_before_a_deletion_is_kept_by_a_compaction_right_before_it",),
    ),
    Mutant(
        "a rewrite drops the deletion at the compact revision",
        "M3",
        (
            Edit(
                _MVCC + "schema.py", "AND (NOT tombstone OR main = {compact_revision}))", "AND NOT tombstone)"
            ),
        ),
        (
            "tests/storage/test_tables_space.py::test_tombstone_at_the_compact_revision_stays_and_older_ones_go",
        ),
    ),
    Mutant(
        "a limit gives one pair more",
        "M7",
        (Edit(_MVCC + "range.py", "        del records[limit:]\n", "        del records[limit + 1 :]\n"),),
        (_RANGE + "::test_limit_cuts_and_says_more_while_count_counts_all",),
    ),
    Mutant(
        "exactly as many pairs as the limit are said to be followed by more",
        "M7",
        (
            Edit(
                _MVCC + "range.py",
                "    more = limit is not None and len(records) > limit\n",
                "    more = limit is not None and len(records) >= limit\n",
            ),
        ),
        (_RANGE + "::test_limit_cuts_and_says_more_while_count_counts_all",),
    ),
    Mutant(
        "the limit is taken before the sort",
        "M7",
        (
            Edit(
                _MVCC + "range.py",
                "if limit is not None and not filtered and not ordered else None",
                "if limit is not None and not filtered else None",
            ),
        ),
        (_RANGE + "::test_sort_happens_before_the_limit_when_an_order_is_given",),
    ),
    Mutant(
        "filters leave out their own bounds",
        "M7",
        (Edit(_MVCC + "range.py", "r.mod_revision <= bound", "r.mod_revision < bound"),),
        (_RANGE + "::test_filters_are_inclusive",),
    ),
    Mutant(
        "a range of the past shows what was deleted by then",
        "M12",
        (
            Edit(
                _MVCC + "key_index.py",
                "    if position < 0 or history[position] & 1:\n",
                "    if position < 0:\n",
            ),
        ),
        (_INDEX + "::test_a_key_is_not_there_between_two_of_its_lives",),
    ),
    Mutant(
        "the previous pair is the new one",
        "W11",
        (
            Edit(
                _MVCC + "store.py",
                "(main, key, record.key_value, previous)",
                "(main, key, record.key_value, record.key_value)",
            ),
        ),
        ("tests/watch/test_history.py::test_past_is_complete_in_order_and_with_previous_pairs",),
    ),
    Mutant(
        "rows are written without the applied index that goes with them",
        "S1",
        (
            Edit(
                _MVCC + "tables.py",
                "                schema.insert_meta(engine, meta)\n            # The first",
                "            schema.insert_meta(engine, meta)\n            # The first",
            ),
        ),
        (
            "tests/storage/test_tables_crash.py::test_rows_and_their_applied_index_are_stored_together_or_not_at_all",
        ),
    ),
    Mutant(
        "the directory is not synced when a file is published",
        "S4",
        (
            Edit(
                _MVCC + "generations.py",
                "        building.rename(generation_path(directory, number))\n"
                "    sync_directory(directory)\n",
                "        building.rename(generation_path(directory, number))\n",
            ),
        ),
        (_DURABLE,),
    ),
    Mutant(
        "a file is published before its content is durable",
        "S18",
        (Edit(_MVCC + "generations.py", "        sync_file(self.path)\n", ""),),
        (_DURABLE,),
    ),
    Mutant(
        "files of an interrupted rewrite stay for ever",
        "S16",
        (
            Edit(
                _MVCC + "generations.py",
                "        if not of_newest:\n            _remove(path)\n    sync",
                "        if not of_newest and path.suffix != BUILDING:\n            _remove(path)\n    sync",
            ),
        ),
        (_TABLES + "::test_open_takes_the_newest_generation_and_removes_all_else",),
    ),
    Mutant(
        "rows beyond what the meta row says are believed",
        "S1",
        (
            Edit(
                _MVCC + "tables.py",
                "        if newest > self._meta.revision:\n",
                "        if False:\n",
            ),
        ),
        (_TABLES + "::test_revisions_beyond_the_meta_row_are_corrupt",),
    ),
    Mutant(
        "a snapshot's digest is not looked at",
        "S15",
        (Edit(_MVCC + "snapshot.py", "    if actual != sha256:\n", "    if False:\n"),),
        (_SNAPSHOT + "::test_flipped_bit_anywhere_is_refused",),
    ),
    Mutant(
        "a snapshot that lacks rows is installed",
        "S15",
        (
            Edit(
                _MVCC + "install.py",
                "    if (revisions, items) != expected or newest > manifest.revision:\n",
                "    if newest > manifest.revision:\n",
            ),
        ),
        (_SNAPSHOT,),
    ),
    Mutant(
        "a chunk behind a gap is accepted",
        "S15",
        (
            Edit(
                _MVCC + "snapshot.py",
                "            if 0 <= skip < len(chunk):\n",
                "            skip = max(skip, 0)\n            if skip < len(chunk):\n",
            ),
        ),
        (_SNAPSHOT + "::test_receiver_asks_for_what_is_missing_after_a_gap_or_a_restart",),
    ),
    Mutant(
        "a received snapshot is not verified",
        "S15",
        (
            Edit(
                _MVCC + "snapshot.py",
                "        if size != total_bytes or file_sha256(path) != sha256:\n",
                "        if size != total_bytes:\n",
            ),
        ),
        (_SNAPSHOT + "::test_receiver_forgets_a_damaged_or_short_snapshot",),
    ),
    Mutant(
        "a snapshot has the membership of another moment",
        "B2",
        (
            Edit(
                _MVCC + "install.py",
                "manifest.compact_revision, manifest.membership)\n",
                "manifest.compact_revision, type(manifest.membership)())\n",
            ),
        ),
        (_SNAPSHOT + "::test_install_replaces_the_state_for_good",),
    ),
    Mutant(
        "the hash of keys does not cover versions",
        "M11",
        (Edit(_MVCC + "kv_hash.py", "(main, sub, create, version, lease,", "(main, sub, create, 0, lease,"),),
        ("tests/storage/test_kv_hash.py::test_every_column_counts",),
    ),
    Mutant(
        "a staged row is not found while it is being written",
        "M12",
        (
            Edit(
                _MVCC + "tables.py",
                "            self._meta = meta\n            with self._staged_lock:\n"
                "                self._staged = self._staged[len(staged) :]\n",
                "            self._meta = meta\n",
            ),
            Edit(
                _MVCC + "tables.py",
                "            engine = self._file.writer\n            with engine.transaction():\n",
                "            engine = self._file.writer\n            with self._staged_lock:\n"
                "                self._staged = self._staged[len(staged) :]\n"
                "            with engine.transaction():\n",
            ),
        ),
        (_TABLES + "::test_staged_rows_are_found_before_during_and_after_the_write",),
    ),
    Mutant(
        "what a rewrite copies ends with its beginning",
        "S23",
        (
            Edit(
                _MVCC + "tables.py",
                "reached = rewrite.catch_up()",
                "reached = self._meta",
            ),
        ),
        ("tests/storage/test_tables_space.py::test_rewrite_takes_along_what_is_written_meanwhile",),
    ),
)
