"""How fast etcray is, measured so that the answer can be trusted.

    etcray bench put --clients 64                       # one load on anything that speaks etcd's API
    python -m etcray_bench.versus_etcd                  # a real etcd and etcray, side by side
    python -m etcray_bench.watch_versus_etcd            # the same for watches
    python -m etcray_bench.history_versus_etcd          # questions about the past, in SQL and by etcd's API

`load` drives anything that speaks the etcd v3 API; its essay says what its figures mean and what it checks.
`bench_command` is its command. `versus_etcd` starts three members of a real etcd and three of etcray on this
machine, and gives both the same loads in turns; `watch_versus_etcd` does so with watchers.

What a comparison means
-----------------------
- CPU seconds are those of the processes of each role within the measured time; a log entry is a
  batch in etcray and a request in etcd. Work that a process does in the background (flushing,
  compacting) is in the figure, the kernel's work for nobody in particular is not.
- Reads of etcd go to the member to which the client is connected, and clients are spread over all
  three members; etcray's clients are spread over its gateways.

Watches
-------
- All watchers of a load watch all keys of its writers, each on a stream of its own unless told
  otherwise. Their streams share nine connections, spread over the endpoints.
- The loop is closed here too: a writer's next put is sent when its last one is answered and every
  watcher has the event. The rate is therefore one that all watchers keep up with, and says nothing of
  a watcher that falls behind. With one writer it tells how long a put and its fan-out take; with
  several, also what a system gains by putting several events into one response.
- A delivery's latency runs from handing the put to the socket until the event was read, once for each
  watcher. The generator reads the last of a thousand events after the first, which is in the figure.
- Every event at every watcher is checked: it is the next revision, and holds what was written. The
  bytes that a thousand watchers have in common are decoded once: about 1 us of CPU per event if many
  come in one response, 4 us if each has its own, up to 10 us if the generator mostly sleeps.
- Idle watchers have a key each, are created on a few streams, and are measured once, before any load.
  Memory is what a process shares with no other. Of etcd's members each holds a third of the watchers;
  etcray's are all in its gateway.

Questions about the past
------------------------
- Both stores get the same changes in the same transactions, and must give the same answers.
- What etcd's API has no answer for is counted in a Python client: watching everything costs mostly that
  client's CPU, as it would cost the one of any user. The figure says what is to be had, not who is to blame.
- A ratio above 1 means that SQL is quicker. A range at a revision is what etcd is made for.

What it leaves out
------------------
Several machines, a network with latency, TLS, and watchers that are slow or begin in the past. On one
machine, three members share cores and a disk, so figures say who uses less, not what a cluster of three
machines would do.

    load                 the load generator
    bench_command        the command `etcray bench`
    etcd, systems        start and stop the servers
    processes            CPU seconds and memory by role
    versus_etcd          the comparison and its tables
    watch_versus_etcd    the comparison of watches and its tables
    history_versus_etcd  the comparison of questions about the past, and what the history costs
"""
