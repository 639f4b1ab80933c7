"""Crash images: what a power loss may leave of a member's files, and that it starts on all of it.

A process crash loses nothing that was written; a power loss does. Between two syncs the disk may hold
any part of what was written: nothing, all of it, a later write without an earlier one, half of a write,
zeros where a file had just grown, a file without its name. `kill -9` shows none of this.

How it works
------------
1. `workload` runs three real members in one process: writes, compactions, checkpoints, rewrites,
   elections, a clean restart, a snapshot install. `recorder.c`, preloaded, notes every call that changes
   a file below the first member's directory, with its bytes, in the order in which the calls took effect.
   Between them it notes what the member has *promised*: each vote and acknowledgement, just before it
   leaves, and each entry that it applied.
2. `journal` reads the record, `disk` plays it back on a model of a file system that knows what was synced:
   a file's bytes are safe after fsync or fdatasync of the file, a name after fsync of its directory.
3. At each boundary between two calls `disk` makes images: everything; only what was synced; everything
   but one unsynced write; the last write torn at a multiple of 512 bytes; zeros instead of the last
   write; all bytes but no unsynced name.
4. `check` opens the member on the image with the code that opens it in production, and judges: it starts,
   its term and vote are not behind what was promised, its log holds every entry that was acknowledged,
   and its state after applying them is the state that the cluster had at that index. A refusal is
   counted; it must name the directory, say what is wrong and what to do.

`python -m tests.crash_images --images 10000 --jobs 2` prints the counts; pytest runs a part of it.

What it leaves out
------------------
Ordering guarantees of a particular file system: the model is harsher than ext4, which would not lose
the name of a synced file. Damage to bytes that were synced long ago: `tests/storage` flips bits.
Sources: the method is that of ALICE (Pillai and others, OSDI 2014).
"""
