"""One member of the cluster: the consensus core, its disk, its state machine, and the threads between.

What it promises
----------------
- An answer to a gateway means: the command is in the log of a majority, synced, and applied here.
- A vote or an ack leaves only after the sync of the record that covers it (`Ready.messages_after_sync`).
- Nothing is applied before it is durable *here*: so the tables on disk never run ahead of the log, and
  a single-member cluster loses nothing either.
- A member whose disk fails, or whose state machine hits something impossible, ends its process rather
  than answer; the supervisor starts it again, and recovery decides what is true.
- A member whose files are damaged, lost or older than its promises never votes from them again: its
  directory is put into quarantine, durably, whether the damage is found at a start or by the check that
  goes over all files while it runs.
- A member that was removed is not heard any more, and learns that it was removed as soon as it speaks.

How a put passes through
------------------------
::

    gateway --propose(batch)--> Ray thread: Driver.propose            (mutex: the core appends an entry)
                                  |-> log writer: one INSERT, synced  (leader's own disk, in parallel)
                                  |-> outbox -> sender thread --exchange--> follower: step, INSERT, ack
    log writer's callback: stable_to -+
    sender thread: AppendResponse ----+-> commit -> applier: StateMachine.apply -> wakes the Ray thread
    gateway <------ answers of the batch -----------------------------------------------+

A gateway's batch is one log entry, so consensus costs the same for one client request as for a
thousand. While a round is on its way, the gateways gather the next batches.

The threads, and why each exists
--------------------------------
==============  ===================================================================================
Ray's           one for each call that waits: peers in `exchange`, gateways in `propose` and `read`
log writer      commits records; groups what gathered during the last sync
sender, a peer  one blocking call at a time; the return value brings the peer's answers
applier         applies entries; the only work that grows with the number of requests
flusher         twice a second: writes applied rows to the tables, trims the log; ten times: looks at the
                disk's room, and, on a leader, raises and takes back alarms
maintainer      checkpoints, rewrites after compaction, snapshots: what may take seconds; and the check
                of what is stored, a piece at a time
raft timer      elections and heartbeats
lease keeper    four times a second, on a leader: proposes the end of leases, and checkpoints
==============  ===================================================================================

With `--transport direct` there is no call between members and no sender thread: streams carry the same
envelopes, written by whoever lets go of the mutex, and Ray's threads have only control to do
(`etcray.transport`; `serving` is where a member meets its listener). Everything else is the same.

Watching gateways hold a thread each, for up to a second, in a poll of the `event_ring`; reads of the past
(`history`) hold one while they scan the tables, and hold no lock meanwhile. The history actor's call
(`row_feed`) does one, then the other.

Locks, in the order in which they may be nested: the driver's mutex (the core), then a peer's condition
or the applier's condition. `Applier.state` (the state machine), then the lease keeper's lock; neither is
ever held together with the driver's mutex. The event ring's lock is the innermost of all. The mutex is
never held over I/O.

Why threads and a mutex, not an event loop: measured, a Ray call to a threaded actor takes 1.2 ms and
to an asyncio actor 2.1 ms, with half the CPU; a DuckDB commit blocks its thread anyway; and there is no
`await` in the middle of a vote through which a second vote could slip (failure mode R2).

Tried, and not kept (two cores, in turns with what is here): a second follower that gets entries only in
fours or after 60 ms, 0.91 of the CPU for a put of 64 clients, 1.05 times the rate, no difference with 256;
for that, an election after a leader's death would more often have to pass over it. Fewer of Ray's threads for
a member (1, 2, 4 or 16 in place of 64) and Ray without its statistics of events: a call costs the same.

Members that come and go
------------------------
A change of members is a command in an entry of its own kind, and takes effect when it is applied: by the
state machine, which has the list, and then, without a lock in between, by the core (the story is in
`driver`). The leader's rules come before the proposal (`calls`, `reconfiguration`).

A joining member begins with an empty directory and the founders' membership, in which it is not: it
listens, and never campaigns before it has applied its own addition. It need not know who leads: peers
begin to exist when they call (`peers`). A removed member applies its removal if it gets the entry, and is
told by everybody whom it calls if it does not; either way `status` says `removed`, and the supervisor
stops it. A leader that is removed, or is stopped, hands over before it goes.

Incarnations, zombies
---------------------
Each opening of a data directory takes the next incarnation number, durably, under the directory's lock
file. Envelopes carry it, and a peer stops listening to a lower one than it has heard, and to a removed
member for ever. After each sync, before anybody is told of it, the log's writer looks whether the
directory under its path is still the one that it has locked.

When the disk is full
---------------------
Members say in every envelope whether room is low. The leader then raises NOSPACE for them: puts are
refused, deletes, compactions and reads go on, and when there is room again the leader takes the alarm back
(`alarms`). If a write meets a full disk all the same, nothing was stored and nobody was told that it was:
a reserve is given up, and the write is tried once more. If there is no reserve, a write of the tables
waits, because the log has everything; a write of the log ends the process.

When members diverge
--------------------
Every envelope carries the state hash at the sender's applied index. The leader compares, and raises
CORRUPT for the one that differs from the majority (`reports`): within one heartbeat, because each
heartbeat's answer brings a hash, and the first that differs is looked at when it arrives.

What it leaves out
------------------
Which process runs where, and what to do about one that ended: the supervisor's part. Who may call: that
is the network's, and Ray's. Answers to linearizable reads at followers: the gateway asks the leader.

Modules: `member` is a member from outside, `opened` is what has files and threads, `replica` is what has
neither (a simulation can run it), `recovery` reads the disk, `driver` performs the core's effects, `peers`,
`envelope` and `exchange` carry messages, `applier` applies, `calls` are what gateways ask and `waiters` how
a call waits, `reconfiguration` has the rules for changes of members, `reports` and `alarms` what members
say of themselves and what comes of it, `flusher` has the background threads, `snapshots` brings a lagging
member back, `lessor` has the leader's deadlines and `leases` acts on them, `event_ring` has the newest
events and `history` the older ones, `watching` gives them to gateways, `row_feed` gives all revisions to the
history actor, `api` says what may be asked, `actor` is the Ray shell, `serving` the one of streams.
"""
