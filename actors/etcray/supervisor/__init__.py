"""The actor that keeps a cluster alive: creates its actors, introduces them, heals them, and replaces what
does not heal.

What it promises
----------------
- An actor that ends is created again, at once and where its data is; one that keeps ending, after pauses.
- The actors follow the *replicated* member list: whoever is added gets an actor, also by a plain `etcdctl
  member add`; whoever is removed loses it, and its directory is set aside.
- A voter whose disk is damaged or lost, or whose Ray node is gone for longer than a deadline, is replaced
  by a new one: other id, other directory, on the node with the fewest members. One at a time, through the
  log, and never so that a majority becomes harder to reach.
- Its own death costs nothing but the time without it. It is detached and restarted by Ray with the
  arguments of its first day; which actors live, what they do, who is a member and how far a replacement
  has come can all be found out again.

How it is built
---------------
    actor       the Ray shell: one thread that goes round, and the calls of others
    keeper      the life of actors: create, open, introduce, ask, bury; and news of them
    watched     the kinds of actors, and what is particular about each
    goals       what a person may want of the membership, and the steps toward it
    reconciler  pure: from facts to the next step
    membership  from what the keeper heard to facts; from steps to calls
    book        the cluster's spec, on disk and in copies
    report      what `etcray status` shows

`etcray.supervision` is beside this package, because others share its words: the circle in which each actor
goes round, as a pure decider.

Who decides what
----------------
The replicated list decides who is a member, the state machine whether a change is allowed, the leader
whether it is safe now. The supervisor only asks for changes. So two supervisors at once, which Ray may
bring about for a moment, or one with old news, can do nothing that is wrong: an id is derived from a name
and never comes back, and a change that was made already is refused.

What it leaves out
------------------
Members do not move to spread again when a node comes back; only new ones are placed. A member that a
CORRUPT alarm names goes on until a person removes it: why two members differ is worth a look first. A
cluster that lost its majority is not its business: see `etcray recover`.
"""
