"""Raft: how members agree on one log, as a pure function of messages and time.

Promises
    Every member applies the same entries in the same order; an entry that was handed out for apply
    anywhere is durable on a majority, and is never lost while a majority of disks survives. A read
    that `read_index` confirms sees everything that was applied anywhere before it began. While a
    majority runs and hears each other, there is soon a leader, and it makes progress.

How to use it
    `Raft` (raft.py) does nothing by itself. A driver tells it what happened, with the time:

        step(message)  tick()  propose(data, kind)  read_index()  transfer_leadership(to)
        leader_suspected(member)  stable_to(index, term)  membership_applied(index, membership)
        snapshot_installed(meta)  snapshot_sent(...)  log_compacted_to(index)

    and then, while `has_ready()`, performs what `ready()` hands out. Each field of `Ready` says when
    it may be acted on. Disk writes are asynchronous: the next ready may be taken while the records of
    earlier ones are still being written, and `stable_to` reports them one by one. The core holds no
    lock, starts nothing, reads no clock, and draws random numbers only from the generator it is given:
    the same calls always have the same effects. The tests and the simulator rely on that.

Where to read what
    messages.py     what members say to each other, and what is refused as malformed
    ready.py        what the core wants done; what it tells about itself
    raft.py         the face: which message goes to which handler, what is handed out when
    state.py        what a member remembers; changes of term, vote and role
    election.py     pre-vote, vote; who gets one                       paper 5.2, 5.4.1; thesis 9.6
    follower.py     taking over a leader's log; snapshots              paper 5.3, 7
    leader.py       replication, commit, reads, check-quorum           paper 5.3, 5.4.2; thesis 6.2, 6.4
    membership.py   changes of membership, and why they are safe       thesis 4
    transfer.py     handing leadership over; leaders that are removed  thesis 3.10, 4.2.2
    progress.py     what a leader knows of one peer: probe, replicate, snapshot
    read_index.py   rounds that confirm reads                          thesis 6.4
    log.py          the log's ends, its newest entries in memory, late reports of the disk
    quorum.py       majorities
    invariants.py   what is true of a member after every step
    describe.py     all of this for people

Decisions
    Pre-vote and check-quorum are always on. A member that was cut off cannot depose a leader when it
    comes back; a leader that hears no majority for an election timeout steps down; nobody votes
    against a leader that it has heard within an election timeout, unless that leader asked for the
    election to hand over. `leader_suspected` lifts that last
    protection at one member: a failed call is better evidence than silence. It is not proof, so an
    election needs a majority of members that came to the same view.

    Vote requests leave after the candidate's own vote is durable, appends leave before the leader's
    own entries are: a leader counts itself only up to what its disk has, so the slowest disk of a
    majority decides, not the leader's. An entry is handed out for apply when it is committed *and*
    durable on this member. So the tables are never ahead of the log beside them.

    An acknowledgement of what is durable already leaves at once; any other waits for the sync. So a
    heartbeat that confirms a read does not wait for a disk.

    A heartbeat is an append without entries that claims what the peer should have by now. It is
    refused if an append was lost on the way, so no separate timer watches for lost messages. It goes
    only to peers that were sent nothing else for the interval, and to all when a change of membership
    is applied. No other message has the only purpose to spread the commit index: followers learn it
    from the next append or heartbeat.

    The commit index is stored with whatever record is written next, and by a write of its own only if
    it covers a change of membership. A restarted member may therefore know less than it did; it
    knows at least what its tables hold.

    A peer at fault cannot stop a member: what no correct member can send is dropped, hints are bent
    into the range that makes sense, and asserts guard only what this program does itself. This is no
    protection against a peer that lies consistently: Raft has none.

    Members change one at a time, and a change counts from the moment at which it is applied, as in etcd.
    So what a member counts by always follows from its tables, and a change that is replaced in the
    log needs no undoing. The price is a rule on who may campaign: see membership.py.

    Requests are taken from anybody, answers from members only. Who joins knows nobody yet, and who was
    away may not know its leader; but a count needs to know whom it counts.

    A single voter elects itself without waiting and without its disk. Its learners see nothing before
    it is durable: see `_send_append` in leader.py.

What it leaves out
    Joint consensus: several changes at once are several changes after another. Whether a change is
    wise: it may take away the quorum that is up, or promote a learner that is far behind; that is asked
    before it is proposed. Reads by leases: they would trust clocks. Answers to reads at followers: a
    follower asks the leader, or is not linearizable. How snapshots travel: the driver carries them, the
    core says to whom and when. Who a sender really is: the driver checks that.

Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm (Extended
Version)", 2014, called the paper; Ongaro, "Consensus: Bridging Theory and Practice", 2014, called the
thesis.
"""
