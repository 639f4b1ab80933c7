"""What is true on disk, and what can be computed from it. Usable without Ray.

The layers, from the disk up
----------------------------
- `engine`: DuckDB behind one door, with the settings and traps that everything else relies on.
- `data_directory`: who owns the directory: identity, lock, incarnation.
- `log`: the durable Raft log: segments, checksum chain, durable tip, one writer thread.
- `mvcc`: the revisions of all keys: the in-memory index, and the tables that hold old values.
- `machine`: the replicated state machine: what each command does. Pure.
- `commands`, `types`, `errors`, `limits`, `wire`, `proto`: the vocabulary that all of it shares.

The order of truth
------------------
The log is the truth: an entry that is in the log of a majority has happened. The tables are a copy of
what applying the log gives, written in the background, each time together with the index of the last
entry that they include. After a crash the entries behind that index are applied again; applying is
deterministic, so the result is the same. Only when the tables hold an entry may the log forget it.

What can go wrong, and who notices
----------------------------------
A commit whose sync failed, a file that DuckDB refuses, a log shorter than its durable tip, a broken
checksum chain: each becomes one of the errors in `errors`, by what an operator can do about it. A
member that finds its log damaged must not vote, because it may have forgotten a promise.

`storage` never imports the package `etcray`: the arrows go one way, and a test enforces it.
"""
