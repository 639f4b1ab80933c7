"""One member of the cluster: the consensus core, its disk, its state machine, and the threads between.

What it promises
----------------
- An answer to a gateway means: the command is in the log of a majority, synced, and applied here.
- A vote or an ack leaves only after the sync of the record that covers it (`Ready.messages_after_sync`).
- Nothing is applied before it is durable *here*: so the tables on disk never run ahead of the log, and
  a single-member cluster loses nothing either.
- A member whose disk fails, or whose state machine hits something impossible, ends its process rather
  than answer; the supervisor starts it again, and recovery decides what is true.

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
flusher         writes applied rows to the tables, twice a second; trims the log
maintainer      checkpoints, rewrites after compaction, snapshots: what may take seconds
raft timer      elections and heartbeats
lease keeper    four times a second, on a leader: proposes the end of leases, and checkpoints
==============  ===================================================================================

Watching gateways hold a thread each, for up to a second, in a poll of the `event_ring`; reads of the past
(`history`) hold one while they scan the tables, and hold no lock meanwhile.

Locks, in the order in which they may be nested: the driver's mutex (the core), then a peer's condition
or the applier's condition. `Applier.state` (the state machine), then the lease keeper's lock; neither is
ever held together with the driver's mutex. The event ring's lock is the innermost of all. The mutex is
never held over I/O.

Why threads and a mutex, not an event loop: measured, a Ray call to a threaded actor takes 1.2 ms and
to an asyncio actor 2.1 ms, with half the CPU; a DuckDB commit blocks its thread anyway; and there is no
`await` in the middle of a vote through which a second vote could slip (failure mode R2).

Incarnations
------------
Each opening of a data directory takes the next incarnation number, durably, under the directory's lock
file. Envelopes carry it, and a peer stops listening to a lower one than it has heard.

What it leaves out
------------------
Membership is fixed when the cluster is created. Leadership moves only by election.

Modules: `member` puts the parts together, `recovery` reads the disk, `driver` performs the core's
effects, `peers` and `envelope` carry messages, `applier` applies, `flusher` has the background threads,
`snapshots` brings a lagging member back, `lessor` has the leader's deadlines and `leases` acts on them,
`event_ring` has the newest events and `history` the older ones, `watching` gives them to gateways,
`api` says what gateways may ask, `actor` is the Ray shell.
"""
