"""The replicated state machine: what a cluster agrees on, besides the log.

What it promises
----------------
Every member applies the same log entries in the same order, and so has the same state, gives the same
answers, and hands the same rows to its tables. That needs more than good intentions:

- No clock is read here: an entry carries the time at which the leader proposed it (`clock`).
- There is no randomness, and nothing is visible that depends on the order of a set: either it is
  sorted, or its order is itself decided by the log.
- A command that fails changes nothing. Checks come first and writes cannot fail, so there is nothing
  to undo.
- Whatever bytes a client sends end as an answer, which may be an error. The alternative, an exception,
  would stop all members, at the same entry, each time they start. So apply repeats the static checks of
  the gateways, and knows what to say about bytes that are no message, an enum that has no such
  value, and a command of a kind that does not exist.
- Whatever else goes wrong is an `assert` or an exception that leaves `apply`, and ends the process:
  continuing with a state that may differ from the other members' is worse.

How it works
------------
`machine.StateMachine.apply` takes an entry, decodes its payload into batches, asks `sessions` whether
each batch is new, and runs its commands one by one. The work is done by

- `operations` and `txn`: Put, DeleteRange and Txn, over the store of the `mvcc` package;
- `leases`: grants, revokes, and what the leader decides about leases;
- `alarms`: flags that forbid writes;
- `members`: who is a member and who of them votes, changed by entries of a kind of their own;
- `validate`: what can be said about a request without any state, shared with the gateways.

`read` answers from the same state, outside of the log. Whether the state is fresh enough for a
linearizable read is decided before, by Raft's ReadIndex.

Answers are bytes without a header. A ResponseHeader names the member and the term, so it would differ
between members; it is put in front by whoever talks to the client (`wire.response_header`). Pairs in
answers are the stored bytes; no message object is built for them.

Exactly once
------------
Batches are named by session and sequence, and their answers are part of the state (`sessions` tells
the stories). That is why a gateway may send a batch again after a leader was lost, and why the client
does not see the failover as an error. What the leader itself proposes has session 0, and is not
remembered: it does no harm twice.

Memory and disk
---------------
The machine never writes. `take_flush` hands out what changed since the last call: rows, and items of
the small state (leases, sessions, alarms, members). `restore` is the way back. A machine that was restored
answers every later entry exactly as one that never stopped.

Do the members still agree?
---------------------------
That they should, by all of the above, does not mean that they do: a bit flips, a check depends on something
it should not. So `state_hash` rolls one number over everything that apply does. Members tell it to each
other with the index that it belongs to, and whoever differs is found at once. `find_difference` looks at
the same question from the side of the disk: whether a stored row is what memory holds.

Membership
----------
A change of members counts from the moment at which its entry is applied. Consensus has to know of it, so
such an entry is of its own kind and holds one change; apply refuses a change that comes in any other way.
What follows from the list alone is checked here (`members`); what only a leader can know, such as how far
a learner is, the leader checks before it proposes. It must not do so for a batch that was applied already
and comes again, so it asks `remembers` first: the repeated batch gets its first answer.

What it leaves out
------------------
When a lease ends, and when a disk is full, is decided by the leader, which has a clock and can look; both
arrive as commands. There is no authentication: the author of every row is empty. An alarm that names a
member stays when the member is removed, as in etcd.

etcd's behaviour is followed with its quirks; each one is described where it is implemented. Stricter
than etcd in one rule, the one in `validate`: no key changes twice in a transaction, not even in the two
shapes that slip through etcd's own check.
"""
