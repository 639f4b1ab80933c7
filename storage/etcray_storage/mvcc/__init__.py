"""MVCC: every key with all its revisions, in memory and on disk.

What it promises
----------------
Nothing is overwritten. A change makes a new *main revision*, one for the whole command or transaction;
changes within it are numbered by *sub revision*. A pair knows the main revision of its creation and of
its newest change, and how often it changed since its creation (its version). A deletion is a revision
too, a tombstone, and what follows it is a new life: version 1, a new creation. A read names a revision
and gets the store as it was then, however much has changed since, until a compaction forbids it.

A fresh store is at revision 1, so the first change is 2. The revision never goes back. It does not
move for a command that changes nothing, for a compaction, or for anything that is not about keys.

Two halves
----------
- *Memory* (`key_index`, `store`, `range`): what answers clients. For each key the newest pair, as the
  bytes that a response needs, and the numbers of its older revisions. A read of the present touches
  nothing else. 1M keys of 256 bytes take about 0.6 GiB.
- *Disk* (`tables` and its helpers): a row for each revision ever made and not compacted. It holds the
  old values, which memory does not, serves SQL, and is what a member starts from.

`rows` is the contract between them, and the only module that both import. Memory hands out a `Flush`
from time to time: the rows since the last one, with the index of the log entry up to which they are
complete. The tables store it in one transaction. What is lost in a crash between two flushes is in the
log, and is applied again.

When a read at an old revision needs a value, memory knows exactly which rows it wants (`Point`s), and
asks for all of them in one call. A row that is not handed out yet is still in the store's own list; a
row that is handed out must be found by the reader, on disk or not. There is no time in between, because
the caller holds one lock over handing out and taking over.

One change a key and revision
-----------------------------
A key changes at most once in a main revision, because transactions that would do otherwise are refused
(`machine.validate`). So (key, main) names a row, a key's history in memory is one number a revision,
and old values need no sub revision.

Compaction
----------
Compacting at revision R keeps, for each key, the newest revision at or below R unless that is a
tombstone, and all above R. In memory this is two things. The number takes effect at once, with the
command: reads below R fail from then on, R itself can be read. What has become unreachable is dropped
piece by piece with the entries that follow. A queue of superseded revisions, in order of the revision
that superseded them, makes this cost what is dropped, not what is kept. A read at R or above sees no
difference between dropped and not yet dropped, so members need not be in step. On disk, `rewrite` copies
what is left into a new file when that is worth it.

Is it still right?
------------------
`kv_hash` gives one number for a revision, equal on all members that hold the same history, whatever each
has flushed or dropped. `verification` reads everything from the disk again, bit by bit, in the background.

What it leaves out
------------------
- etcd keeps a key's lives as separate "generations". Here a tombstone is one bit in the history, and
  a read asks only for the newest entry at or below its revision.
- Watchers: `Store.changes` says what an entry changed, with the pairs before and after, and
  `Tables.events` reads older changes as rows, `Tables.feed` all of them as Arrow; who is told of them is
  not known here.
- Leases: a pair carries the id of its lease, and the index finds the pairs by it; which leases there
  are, and when they end, is not known here.
"""
