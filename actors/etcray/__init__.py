"""etcray: a strongly consistent key-value store that speaks the etcd v3 API, made of Ray actors.

    from etcray import Cluster

    with Cluster.launch(nodes=3) as cluster:       # or Cluster.connect() from any Ray task
        kv = cluster.client()
        kv.put("/jobs/17/state", "running")
        print(kv.get("/jobs/17/state").text, "at", cluster.endpoints)

`etcray up` does the same from a shell, and any etcd client works with what it starts.

What this package promises
--------------------------
- A write that was answered is on the disks of a majority of the members, and no crash, restart or
  loss of a minority takes it back. Reads see every write that was answered before they began.
- A member, a gateway, the history or the supervisor that dies is created again, where its directory and
  its port are, without anybody's help. A cluster that was stopped, or killed as a whole, serves what it
  had when it is launched again on its data directory.
- Two members never use one directory, two launches never use one data directory, and a member that
  lost its disk is not taken for one that never promised anything.

How a cluster is made and kept
------------------------------
    cluster.json      what the cluster is: name, token, ids, members and the machines they live on
    launcher          checks everything, starts or joins Ray, writes the file, creates the supervisor
    supervisor        a detached Ray actor that Ray restarts; it creates all others and heals them
    members           one Ray actor each, never restarted by Ray: only the supervisor knows where
    gateways          stateless Ray actors; clients talk to them
    history           a Ray actor with a copy of every revision, which answers SQL
    run record        a small file by which the commands of one user find the clusters they started

The supervisor watches the processes themselves (the kernel tells a death in microseconds, Ray within
about a second) and does not take silence for death: consensus has its own timers for that, and a
second process could do nothing but wait for the first one's lock. What it decides is in
`supervision`, a pure module; `supervisor` looks and acts.

Whose Ray
---------
Without an address, and in a program that is not connected to any, a launch starts a Ray of its own:
on the loopback interface, with an authentication token, in a temporary directory of its own, without
a dashboard. It ends with the program. With an address, or in a connected program, the cluster lives
in that Ray beside everything else, its members spread over the machines and pinned to them, and goes
on when the launching program ends. All clusters share one Ray namespace and have their names in the
names of their actors, so several can live in one Ray, and each can have its own.

Where to read on
----------------
    raft/         the consensus core, pure
    node/         one member: the core, its log, its state machine and its peers put together
    gateway/      HTTP/2, gRPC and JSON for clients
    history/      the copy of all revisions, and SQL over it
    client/       the Python client
    cli/          the command line
    spec, state_file, run_file, launch, supervision, supervisor, cluster
                  what this page is about
and `etcray_storage`, everything that is true on disk.

What it leaves out
------------------
The loss of Ray's head node takes the cluster down until it is launched again; consensus survives it
on the disks, not in memory. Whoever can reach Ray's own ports with its token can do anything to the
cluster: Ray is a system for trusted networks. The members of a cluster are fixed when it is created.

Importing this package imports neither Ray nor DuckDB nor gRPC; the names below are loaded when they
are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etcray.client import AsyncClient, Client
    from etcray.cluster import Cluster

__all__ = ["AsyncClient", "Client", "Cluster"]


def __getattr__(name: str) -> Any:
    if name == "Cluster":
        from etcray.cluster import Cluster

        return Cluster
    if name in ("Client", "AsyncClient"):
        import etcray.client

        return getattr(etcray.client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
