"""Mistakes in watches: the ring of events, history, the gateways' hub."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_GATEWAY = "actors/etcray/gateway/"
_RING = "actors/etcray/node/event_ring.py"
_HISTORY = "actors/etcray/node/history.py"
_TEST_RING = "tests/watch/test_event_ring.py::test_"
_TEST_HISTORY = "tests/watch/test_history.py::test_"
_TEST_HUB = "tests/watch/test_hub_random.py"
_TEST_WATCH = "tests/gateway/test_watch.py::test_"

MUTANTS = (
    Mutant(
        "a poll behind the floor is not told that it missed something",
        "W2",
        (Edit(_RING, "            if after < self._floor:\n", "            if False:\n"),),
        (_TEST_RING + "poll_behind_the_floor_is_told_that_it_missed_something",),
    ),
    Mutant(
        "the floor of the ring is one revision too low",
        "W2",
        (
            Edit(
                _RING,
                "                self._floor = dropped.last\n",
                "                self._floor = dropped.last - 1\n",
            ),
        ),
        (_TEST_RING + "old_events_are_dropped_at_either_bound",),
    ),
    Mutant(
        "a snapshot leaves a gap in the ring",
        "W2",
        (
            Edit(
                _RING,
                "            self._pieces.clear()\n"
                "            self._bytes = 0\n"
                "            self._floor = self._revision = revision\n",
                "            self._revision = revision\n",
            ),
        ),
        (_TEST_RING + "installed_snapshot_leaves_nothing_from_before",),
    ),
    Mutant(
        "a member that lags behind answers a poll",
        "W5",
        (
            Edit(
                _RING,
                "            if self._closed or self._revision < after:\n",
                "            if self._closed:\n",
            ),
        ),
        (_TEST_RING + "poll_of_a_member_that_lags_behind_is_refused",),
    ),
    Mutant(
        "a poll cuts a revision in two",
        "W7",
        (
            Edit(
                _RING,
                "            if change.main != main:\n                if size",
                "            if True:\n                if size",
            ),
        ),
        (_TEST_RING + "a_revision_is_never_cut_however_large_it_is",),
    ),
    Mutant(
        "the ring never forgets",
        "W12",
        (
            Edit(
                _RING,
                "            while self._bytes > self._bytes_max or revision",
                "            while False and revision",
            ),
        ),
        (_TEST_RING + "old_events_are_dropped_at_either_bound",),
    ),
    Mutant(
        "a compaction in the middle of a read of history is not noticed",
        "W8",
        (
            Edit(
                _HISTORY,
                "        if request.from_revision < compact_revision:\n",
                "        if False:\n",
            ),
        ),
        (_TEST_HISTORY + "compaction_right_before_the_rows_are_read_is_noticed",),
    ),
    Mutant(
        "history that is not applied yet is answered",
        "W5",
        (
            Edit(
                _HISTORY,
                "            if machine.revision < request.to_revision:\n",
                "            if False:\n",
            ),
        ),
        (_TEST_HISTORY + "revision_that_is_not_applied_yet_is_not_answered",),
    ),
    Mutant(
        "history leaves out deletions at the compact revision",
        "M3",
        (
            Edit(
                _HISTORY,
                "            if request.from_revision < machine.compact_revision:\n",
                "            if request.from_revision <= machine.compact_revision:\n",
            ),
        ),
        (_TEST_HISTORY + "deletion_at_the_compact_revision_is_still_there",),
    ),
    Mutant(
        "the past is read from tables that lack the newest rows",
        "W2",
        (Edit(_HISTORY, "                tables.stage(flush)\n", "                pass\n"),),
        (_TEST_HISTORY + "past_is_complete_in_order_and_with_previous_pairs",),
    ),
    Mutant(
        "watchers that are behind get live events as well",
        "W1",
        (
            Edit(
                _GATEWAY + "watch_hub.py",
                "                if not watcher.synced or watcher.position > piece.through:\n",
                "                if watcher.position > piece.through:\n",
            ),
        ),
        (_TEST_HUB,),
    ),
    Mutant(
        "a watcher is handed over with a revision missing",
        "W2",
        (
            Edit(
                _GATEWAY + "watch_hub.py",
                "        if position > self.position:\n            watcher.synced = True\n",
                "        if position >= self.position:\n            watcher.synced = True\n",
            ),
        ),
        (_TEST_HUB,),
    ),
    Mutant(
        "a read of the past is delivered from its beginning",
        "W1",
        (
            Edit(
                _GATEWAY + "watch_responses.py",
                "        return bisect_left(hits, revision, key=self.revisions.__getitem__)\n",
                "        return 0\n",
            ),
        ),
        (_TEST_HUB,),
    ),
    Mutant(
        "watchers that missed events go on as if nothing had happened",
        "W2",
        (
            Edit(
                _GATEWAY + "watch_hub.py",
                "                if watcher.synced and watcher.position <= revision:\n",
                "                if False:\n",
            ),
        ),
        (_TEST_HUB,),
    ),
    Mutant(
        "a batch's first response names the revision of the last",
        "W3",
        (
            Edit(
                _GATEWAY + "watch_responses.py",
                "self._responses(group, group_size, group_first, last, watcher.fragment)",
                "self._responses(group, group_size, group_first, self.through, watcher.fragment)",
            ),
        ),
        ("tests/watch/test_responses.py::test_header_never_promises_more_than_was_sent_so_far",),
    ),
    Mutant(
        "progress is reported for watchers that are behind",
        "W3",
        (
            Edit(
                _GATEWAY + "watch_hub.py",
                " or not stream.all_synced(self.position):",
                ":",
            ),
        ),
        (_TEST_WATCH + "requested_progress_is_for_the_whole_stream_and_only_if_all_are_there",),
    ),
    Mutant(
        "a watcher of the future is told of progress",
        "W5",
        (
            Edit(
                _GATEWAY + "watch_stream.py",
                "all(w.synced and revision >= w.progress_from for w",
                "all(w.synced for w",
            ),
        ),
        ("tests/watch/test_hub.py::test_watcher_of_the_future_hears_nothing_before_it",),
    ),
    Mutant(
        "an idle watcher hears of no progress",
        "W6",
        (
            Edit(
                _GATEWAY + "watch_hub.py",
                "            watcher.quiet = True\n        if wanting:\n",
                "        if wanting:\n",
            ),
        ),
        ("tests/watch/test_hub.py::test_idle_watcher_hears_how_far_the_store_is_while_others_write",),
    ),
    Mutant(
        "a watcher that found no room is forgotten",
        "W4",
        (
            Edit(
                _GATEWAY + "watch_hub.py",
                "            for watcher in stream.parked:\n"
                "                self.catch_ups.wait(watcher)\n"
                "            stream",
                "            stream",
            ),
        ),
        (_TEST_HUB,),
    ),
    Mutant(
        "a stream's queue has no bound",
        "W12",
        (
            Edit(
                _GATEWAY + "watch_stream.py",
                "        if crowded or len(self.queue) >= WATCH_STREAM_RESPONSES_MAX:\n"
                "            return False\n"
                "        return self.queued_bytes + size <= WATCH_STREAM_BYTES_MAX\n",
                "        return True\n",
            ),
        ),
        ("tests/gateway/test_watch.py", _TEST_HUB),
    ),
    Mutant(
        "a watcher whose past is compacted waits for ever",
        "W8",
        (
            Edit(
                _GATEWAY + "watch_catch_up.py",
                "                    hub.cancel_compacted(watcher, reply.compact_revision)\n",
                "                    self.wait(watcher)\n",
            ),
        ),
        (_TEST_WATCH + "compacted_start_is_created_and_then_canceled",),
    ),
    Mutant(
        "a watch id may be given twice",
        "W9",
        (
            Edit(
                _GATEWAY + "watch_hub.py",
                "        if request.watch_id and request.watch_id in stream.watchers:\n",
                "        if False:\n",
            ),
        ),
        ("tests/watch/test_hub.py::test_id_that_is_taken_is_refused_and_its_watch_goes_on",),
    ),
    Mutant(
        "a client's own earlier write is news",
        "W5",
        (
            Edit(
                _GATEWAY + "watch_hub.py",
                "        current = max(self.position, answered_revision)\n",
                "        current = self.position\n",
            ),
        ),
        (_TEST_WATCH + "own_earlier_write_is_never_news",),
    ),
    Mutant(
        "the filters for puts and deletions are swapped",
        "W11",
        (
            Edit(
                _GATEWAY + "watch_responses.py",
                "            if watcher.no_delete if event[0] == _DELETION else watcher.no_put:\n",
                "            if watcher.no_put if event[0] == _DELETION else watcher.no_delete:\n",
            ),
        ),
        (_TEST_WATCH + "filters_leave_out_what_is_not_wanted",),
    ),
    Mutant(
        "a revision is split although no fragments were asked for",
        "W7",
        (
            Edit(
                _GATEWAY + "watch_responses.py",
                "        if not fragment or size < WATCH_FRAGMENT_BYTES:\n",
                "        if size < WATCH_FRAGMENT_BYTES:\n",
            ),
        ),
        ("tests/watch/test_responses.py::test_header_never_promises_more_than_was_sent_so_far",),
    ),
    Mutant(
        "a range's end belongs to it",
        "A6",
        (
            Edit(
                _GATEWAY + "watch_index.py",
                "(self.range_end == UNBOUNDED or key < self.range_end)",
                "(self.range_end == UNBOUNDED or key <= self.range_end)",
            ),
        ),
        ("tests/watch/test_index.py",),
    ),
)
