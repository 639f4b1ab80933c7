"""Real clusters for experiments: started, observed, hurt and stopped, etcray's and etcd's behind one face.

    with start(SystemSpec(members=5), directory) as system:
        system.endpoints                   where clients go
        system.usage()                     CPU seconds and memory by role, now
        system.kill_leader()               when it was done, by the monotonic clock

A `SystemSpec` says all that makes one cluster differ from another. Two points of a sweep with equal
specs share a cluster, so what can be varied from load to load (clients, sizes of values) is not in it.

How etcray runs
---------------
In a process of its own (`host`), which launches the cluster through `Cluster.launch_with`, and is told
what to do by one line of JSON after another on its standard input. Three reasons:

- Ray's own threads in the process that launched it would take CPU from the load generator, and be counted
  as the generator's.
- However the laboratory ends, kill -9 included, the host's standard input ends with it, and the host then
  stops the cluster. Nothing is left running by an interrupted sweep.
- What needs Ray (asking for the status, running generators on other nodes) is in one place.

etcd runs as plain processes that are killed at the end; the kernel kills them too if the laboratory dies.

Several nodes
-------------
With the address of a running Ray, members and gateways are spread over its nodes as `Cluster.launch` does
it, each load is driven by one generator per node (a Ray task), and CPU time and memory are read on the
node where a process runs. Gateways then listen on the address of the Ray nodes. Everything else is the same.

Faults
------
A cluster with `can_be_slowed` has members (`slowed`) whose disk or whose answers to their peers can be made
slow while they run. They are the product's members with a sleep at one place each; clusters without it do
not have even that. Killing needs nothing special.

    spec      what is started
    starting  starts it
    system    the face: what both can do
    etcd_system, etcray_system
    host      etcray's process
    hosted    the conversation with it, both ends
    slowed    members that can be made slow
"""
