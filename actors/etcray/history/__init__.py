"""The history actor: a copy of every revision, and SQL over it, away from the members.

What it promises
----------------
- A query sees at least everything that was committed when it was asked; a stale one does not wait for that.
  Both name the revision that they saw, and see nothing beyond it.
- What the cluster compacts stays here, for as long as the history's own retention says.
- Nothing that happens here harms the members: users' SQL runs in processes of its own, following takes
  little of them and is slowed down by the history's disk, and when the actor dies nobody but those who ask
  at that moment notices.
- Its directory may be lost at any time. It is filled again from the members, as far back as they remember.

How rows come here
------------------
::

    member: applied rows on their way to the tables, or the tables --history_rows--> follower thread
    follower thread --HistoryStore.append, durable--> position moves --> queries that wait go on

The follower asks for what comes behind its position and gets whole revisions as Arrow. Far behind, it asks
one call after the other for pieces of some MiB; close behind, a call waits at the leader for the next
revision, and the calls are `PACE_SECONDS` apart, so that a busy leader pays for five a second and not for
one a batch. A query that waits for a revision ends the pause, so only `--stale` ones see that much less.

What compaction does to it
--------------------------
A compaction takes no row from the members' tables at once: it only forbids to read. The rows go when the
tables are rewritten, and members say from which revision on theirs are whole. As long as the position is not
behind that, nothing is lost, whatever was compacted meanwhile. If it is (history was switched off for long,
or its directory was lost), the store begins anew behind a gap, with the state at the compact revision, and
says from which revision on it can be asked.

Damage
------
Parts have checksums and the tail its own file. What is damaged when the store is opened is thrown away with
everything behind it, and fetched again. A failure while it is open ends the process, and the next one looks.
Two processes never have one store: a lock file is held while it is open.

What it leaves out
------------------
Leases and members have no history. Their tables show what the leader knows when the query begins.

Modules: `follower` decides whom to ask for what, `following` is the thread that does it, `channels` the way
to the members, `cluster_reads` the read index and what has no revisions, `service` puts them together with
the store and the pool of `etcray_storage.history`, `api` has the messages, `actor` is the Ray shell.
"""
