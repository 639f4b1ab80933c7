"""The tester is tested: mistakes that somebody could make, and the tests that notice them.

A test that never failed may be one that cannot fail. So here is a catalogue of mistakes, each a small
change of the product's source: a vote that leaves before it is durable, a compaction that takes one
revision too much, a batch that is applied twice. Nearly all of them were made before, by etcd or by another
implementation of Raft, or while this one was written. For each, the catalogue names the tests that
must fail with it. A mutant that survives is a hole in the tests: the test that is missing is written, and
named here.

How it works
------------
`mutant.Mutant` is one mistake: exact replacements of text, each of which must fit exactly once. So a
mutant that no longer fits its source is an error, not a success. `workshop` copies the sources, applies
one mutant to the copy, runs the named tests with that copy in front of the path, and takes the
mutant away again. `runner` judges: *caught* if a test failed by what it demands; *SURVIVED* if all
passed; *BROKEN* if the tests could not be run, or the mutant is no program. A test that catches by its time
limit counts as well: a mistake that makes everything stand still is one.

    python -m tests.mutants                       all of them, about half an hour on two cores
    python -m tests.mutants --only watch --jobs 1      those of one area, or with a word in their name
    python -m tests.mutants --results FILE        what came of each, as JSON lines; goes on where it was ended
    python -m tests.mutants --list                the table of all, as Markdown

Before, every named test is run once on the sources as they are, and must pass; from how long it took
follows how long it may take with a mutant. `test_mutants`, which
belongs to every run of the tests, checks that all mutants still fit and that all named tests exist, and
runs a few of them for real.

Where to read what
------------------
The catalogue has one module for each area: `raft`, `raft_membership`, `log`, `mvcc`, `machine`,
`leases_and_members`, `node`, `watch`, `gateway`, `supervisor`; `catalogue` puts them together. Mistakes that
only a whole cluster can show, over many steps, are planted by the simulation itself:
`tests.simulation.mutants`. They are in the table too, and are run with the simulation's tests.

Rows
----
Each mutant names the kind of failure that it stands for, by a letter and a number. R: consensus, S: storage,
M: keys and revisions, W: watches, L: leases, A: ranges and rights, B: membership, G: gateways and
processes, F: input. `catalogue.ROWS` says what each of those numbers is.

What it leaves out
------------------
Mistakes of speed and size: benchmarks measure those. Mistakes that only show after a power loss
(`tests.crash_images`): those campaigns are too long for one mistake at a time. On several real processes
under faults `tests.consistency.test_mistakes` plants two of the simulation's.
"""
