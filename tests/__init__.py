"""etcray's tests, in rings: each ring trusts the one before.

1. `raft/`, `storage/`, `supervisor/`: the rules of the paper and of etcd, as unit tests of the pure parts.
2. `raft/scripts/`: scenarios with recorded event logs.
3. `*_properties.py` and the random-network test: property tests against naive models.
4. `simulation/`: the real code of whole clusters, threads included, under a seed: networks, disks, clocks
   and crashes are simulated, and everything else is not.
5. `node/`, `gateway/`, `watch/`, `client/`, `history/`: whole members, and real protocols over loopback, in
   one process; `differential/` compares generated requests with a real etcd. `crash_images/` starts
   members on what a power loss may leave.
6. `cluster/`: real Ray actors, killed and restarted, with real `etcdctl` as the client and a real
   etcd as the oracle; `consistency/` judges what clients of real clusters saw under faults. These carry
   the marker `cluster`.

`mutants/` tests the tests: mistakes that are planted in the source, and who notices them. `tidy/` checks the
source itself: which module may import which, sizes, leftovers. `README.md` has the figures.
"""
