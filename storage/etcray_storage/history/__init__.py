"""The history: every revision of every key, kept longer than the members keep it, and asked with SQL.

What it promises
----------------
- The store is complete from its first known state up to its *position*, but for *gaps*, which it names. A
  batch of rows and the position that it reaches are durable together; a repeated batch changes nothing.
- It may lose what is newest (a torn file, a damaged part), never what is in between without saying so. It
  then stands at an earlier position, and whoever follows the members goes on from there. Nothing that the
  cluster promises depends on it.
- A query sees one snapshot: everything up to a revision, and nothing later, however long it runs.
- Nothing that a query does reaches the store, the members, the files or another query.

On disk
-------
    LOCK                                 held by the process that has the store open
    manifest.json                        which of the following count; replaced by rename, with a checksum
    tail-00000007.duckdb                 rows since the last seal, and the position, in one transaction
    parts/00000003-2-131073.parquet      sealed rows of revisions 2 to 131073, ordered by key, mode 0400
    parts/00000006-base-90000.parquet    what retention left of dropped parts: the state at revision 90000

Rows arrive in the tail (`tail`). When it is large enough it is written as a part (`parts`), and a new tail
begins. The manifest (`manifest`) is what makes this one step: 1. the part is written, synced, renamed. 2. The
new tail is created, holding the position. 3. The manifest is replaced. 4. The old tail is removed. A crash
before 3 leaves the old tail with all its rows; after it, the part has them; and what nothing names is removed
at the next start. `retention` drops parts in the same way and puts a base in their place; `base` begins again
behind a gap, when the members have compacted what the history had not read yet.

A query
-------
The parent (`pool`) has a few worker processes, started ahead. A query goes to one of them with the names of
the parts and with those rows of the tail that the worker has not seen. The worker (`worker`, `sandbox`) makes
an instance of DuckDB in memory, defines the tables over parts and tail (`schema`), locks it, runs the
statement, and sends the result back as an Arrow stream.

SQL is code, and DuckDB has no borders inside. So there are four layers, each of which is enough for the
attacks that were thought of, and stands for those that were not:

1. The syntax tree is checked by what is allowed (`allow_list`, `functions`). It is there because a SELECT
   can hold a DELETE or a COPY, and a table's name can be a file's.
2. The instance is locked (`query_engine`): no file but the parts, no extension, no setting, little memory,
   little time. It is there because the tree does not show what a function does inside.
3. The process is confined by the kernel (`confinement`): it cannot write, execute, connect or grow. It is
   there because DuckDB is a large program in C++, and its locks are conditions in it.
4. The process is disposable: its parent kills it when it overruns, trusts nothing that it says, and starts
   another. It is there because not every loop in DuckDB looks whether it was interrupted, and not every
   allocation is counted.

What it leaves out
------------------
- Merging of parts: there is one for each 131,072 rows, and a query about one key looks into each.
- Repair. Damage is found by size and footer at the start, and by checksum in `verify`; the damaged part goes
  with all that follows it, and is fetched again. What the members have compacted by then is a gap.
- Following: who the members are, which of them has a leader, and when to ask, is the business of the actor.
"""

from etcray_storage.history.base import BaseBuilder
from etcray_storage.history.messages import Answer, Query
from etcray_storage.history.pool import QueryPool
from etcray_storage.history.retention import Retention
from etcray_storage.history.rows import Compaction, Gap, HistoryBatch, SideTables
from etcray_storage.history.store import HistoryStatus, HistoryStore, Snapshot

__all__ = [
    "Answer",
    "BaseBuilder",
    "Compaction",
    "Gap",
    "HistoryBatch",
    "HistoryStatus",
    "HistoryStore",
    "Query",
    "QueryPool",
    "Retention",
    "SideTables",
    "Snapshot",
]
