"""The laboratory: how fast etcray is, and why, measured so that the answer can be trusted.

    etcray bench put --clients 64                       # one load on whatever speaks etcd's API
    etcray experiment list                              # questions that can be asked of real clusters
    etcray experiment run clients --quick               # ask one
    etcray experiment versus-etcd                       # a real etcd and etcray, side by side
    etcray experiment report etcray-results.duckdb      # a page with plots
    etcray experiment compare before.duckdb after.duckdb

What a figure means
-------------------
- Both sides of a comparison run on one machine at one time, are driven by one generator, and are measured
  in turns. Absolute figures of different days cannot be compared, ratios of one run can.
- After each load the store is checked against what the clients were told. Speed without the data being
  there is no result: a failed check is a failed point.
- Nothing counts before the warm-up is over.
- CPU seconds are those of the processes of each role within the measured time; a log entry is a batch in
  etcray and a request in etcd. Work that a process does in the background (flushing, compacting) is in the
  figure, the kernel's work for nobody in particular is not.
- Reads of etcd go to the member to which a client is connected, and clients are spread over all members;
  etcray's clients are spread over its gateways.
- A median is of whole repetitions, and is shown with its lowest and highest. What a busy machine did to a
  point is in its load average, which is kept with it.

What it leaves out
------------------
TLS, a network with latency (unless the Ray cluster has one), and watchers that are slow. On one machine,
three members share cores and a disk, so figures say who uses less, not what three machines would do.

    load           the load generator, see its own page
    etcd           a real etcd on this machine
    processes      CPU seconds and memory
    systems        clusters for experiments, etcray's and etcd's behind one face
    experiments    one module per question, and how a sweep goes
    parts          what the parts of a put cost by themselves
    results        the DuckDB file that all of it is written to
    report         pages, comparisons, tables, from that file alone
"""
