"""The durable log of one member (Raft paper, figure 2: persistent state).

What it promises
----------------
- When `Log.append` returns, the record is on disk: the hard state (term, vote, commit) and the entries
  that need it, together or not at all. A reply that counts as a vote or as an acknowledgement may leave
  only then. `LogWriter` turns this into a callback, on the one thread that appends.
- After a crash, the log holds everything that was acknowledged. At most the one record that was being
  written may be there in addition.
- If it cannot hold that promise, it does not open. A damaged, shortened or missing file is a
  `StorageCorruptError`, never a shorter log: a member that forgot a vote or an entry that it had
  acknowledged would break Raft's safety without a sign. It must be rebuilt from its peers.
- No space left (`StorageFullError`): memory and disk are as they were before the call, and a later
  append may succeed. Any other failure (`StorageFatalError`) ends the log: after a failed sync nobody
  knows what is on disk, and trying again would report success for lost pages. Every later call raises.

How it works
------------
A record becomes one row, written by one INSERT that commits by itself: a third cheaper than BEGIN,
INSERT, COMMIT; most of its cost is per commit and per column, hardly any per byte. Of 0.45 ms of CPU for
300 bytes the sync is 0.1, and 19 kB take 0.8; with half a segment of rows before it 0.2 more, because DuckDB
reads a whole vector of rows again to write the newest one into its WAL. Tried, and no cheaper: an appender
that is kept open, PREPARE and EXECUTE with a variable, blocks of 16 kB, a list of small blobs, and several
rows of less than 4 kB (a tenth cheaper between 10 and 20 kB, dearer above). Rows are only ever appended; each
is one blob (`record`) with these fields:

    sequence  term  vote  commit  first_index  last_index  checksum           payload
    7         3     1     41      42           43          of this and row 6  entries 42 and 43
    8         4     2     41      44           43          of this and row 7  nothing: a vote
    9         4     2     41      43           45          of this and row 8  entries 43 to 45: 43 is replaced

A conflicting suffix is replaced by a row that begins at or below the last index: reading the rows in
order gives the log. There is no DELETE, no UPDATE, no key and no index, which is where the known faults
of DuckDB's WAL replay are.

Rows live in segments (`segment`), DuckDB files that are attached to one instance in memory. A segment
is closed after so many bytes or rows; the next one is prepared ahead, off the path of appends. Forgetting
the front of the log is removing files, and costs the same for any number of entries. Each segment opens
with a row that says which entry precedes it, repeats the hard state, and carries the checksum before it:
so the older ones can go. The same row, marked `resets`, is how a log starts again after an installed
snapshot, in one commit:

1. `reset(100, 5)` commits the first row of a new segment: base 100, term 5, everything before is void.
2. The tip says, synced, that older segments are void; then they are removed.
3. A crash before 1 leaves the old log. A crash after it leaves the new one, and the next start finishes
   step 2. No crash leaves entries of both.

What DuckDB does not notice is noticed here (`tip`, `recovery`). It opens a database without its WAL as
an empty one; one flipped bit in a length makes it drop all commits from there on, silently; it never
syncs a directory. So the rows are chained by checksums, segments are numbered without a gap, directories
are synced after every creation, removal and checkpoint, and a second small file, the tip, says how far
the log went. The tip follows the log by less than a moment and never leads it.

Where entries are is kept in memory (`positions`): runs of terms, the place of each row, and the newest
entries themselves, so that a follower that is a little behind is served without a disk read.

What rots while nobody reads it is found by `verification`: in small steps, everything is read from the
disk again along the chain of checksums.

Threads: one appends (and resets), one calls `maintain` and `compact`, any may read. None of them waits
for another's disk access: each has its own connection, and a checkpoint of a closed segment runs beside
commits to the open one.

What it leaves out
------------------
- Repair. A damaged log is replaced as a whole, from peers; no tail is cut off to make a file open. A tail
  that was never acknowledged is another thing: DuckDB drops a torn last commit, and the tip confirms
  that nothing more is missing.
- Defence against an attacker: the checksums are CRC-32.
- Several logs of which some lose power and their tips *and* WALs are removed by hand before the next
  start. The tip's sync is off the path of appends, so it covers all but the last fraction of a second.
- What entries mean, and when they may be forgotten: the driver calls `compact` once the tables are
  flushed, and keeps some entries for followers that are a little behind.
"""

from etcray_storage.log.log import CompactedError, Log
from etcray_storage.log.record import Record
from etcray_storage.log.writer import LogWriter

__all__ = ["CompactedError", "Log", "LogWriter", "Record"]
