"""Whole clusters in one thread, in virtual time, decided by a seed: the fourth ring of tests.

    python -m tests.simulation --seeds 1000 --jobs 2       # many
    python -m tests.simulation --seed 17                   # one again: the same to the last message
    python -m tests.simulation --seeds 100000 --ray        # over the CPUs of a Ray cluster
    pytest tests/simulation --seeds 5000

What is real
    Everything that a member is in production: `etcray.node.Member` with all its threads, locks, queues
    and time-outs, the consensus core, the state machine, leases, snapshots, recovery, the event ring; and a
    gateway's rules of retry and delivery. Not one line of them knows that it is simulated.

What is simulated
    *Threads and time* (`scheduler`, `primitives`). A thread of the product is a greenlet. It gives up
    control where it waits, and now and then where it takes a lock, so that races between the threads of
    one member are found as well as those between members. Which task goes on is drawn from the seed. Time
    stands still while anybody can run; then it jumps to the next event. Each process has its own clock,
    which may run at half or twice the speed, and a wall clock that may be wrong.
    *Disks* (`disk`, `files`). A write takes time; a crash in the middle decides whether it is there
    afterwards. Disks fill up, fail, slow down, flip bits, and are lost.
    *The network* (`network`). Calls and their replies are lost, late, doubled, held back, cut one way.
    *The supervisor* (`hosts`, `controller`). It starts what died, tells members of each other, changes the
    membership, and replaces members whose disk is damaged by way of the membership protocol.

How the product gets there
    `substitution` replaces globals of the product's modules (`threading`, `time`, `Tables` ...) by their
    stand-ins for the length of one run. Mistakes are planted by the same means (`mutants`).

What is checked
    At every step (`checker`): one leader a term; logs match; a new leader has everything committed; what a
    leader commits is durable on a majority of its configuration, and of its own term; votes and acks leave
    only when they are durable; nothing is applied that could still be lost; every member that applies an
    entry gets the same changes, answers and state hash, and, every few entries and after every restart or
    snapshot, the same whole state; what a gateway is answered is what the log's entry did when it was first
    applied; two configurations in a row share a voter in any two majorities; each core's own invariants.
    By watchers: every event, once, in order, from any member, over compactions and snapshots.
    When the faults are over: every request is answered, broken members are replaced, alarms end, all
    members are in the same state, within a bound of virtual time.
    In the end: the clients' history is strictly serializable, decided exactly by revision
    (`tests.consistency`), and no lease ended before the fastest clock allows.

Profiles
    A seed draws one of `profiles.PROFILES`: calm, lossy, crashy, gateways, disks, snapshots, storm (of
    elections), membership, replacement, clocks, leases, zombies. They differ in faults and limits.

When a seed fails
    The error has the state of all members and the command that runs it again. `--seed` draws the profile
    from the seed; with `--profile` the seed is another run. A seed means something only for one state of
    the source: whoever changes the product or the simulator changes what every seed does. So what a seed
    has found is written down as a story in `test_regressions`, next to the seed.

What it leaves out
    DuckDB, real files and syncs (`tests.crash_images`), Ray and real processes (`tests.cluster`), the
    gateway's protocols. Python's own memory model: a switch happens at calls of primitives only, so a race
    inside a single statement is not found here. Damage that nobody can detect: the simulated checksums find
    every flipped bit.
"""
