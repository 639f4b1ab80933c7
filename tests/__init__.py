"""etcray's tests, in rings: each ring trusts the one before.

1. `raft/`, `storage/`: the rules of the paper and of etcd, as unit tests of the pure parts.
2. `raft/scripts/`: scenarios with recorded event logs.
3. `*_properties.py` and the random-network test: property tests against naive models.
4. `node/`, `gateway/`, `watch/`, `client/`: whole members, and real protocols over loopback, in one
   process; `differential/` compares generated requests with a real etcd.
5. `cluster/`: real Ray actors, killed and restarted, with real `etcdctl` as the client and a real
   etcd as the oracle. These carry the marker `cluster`.

`tidy/` checks the source itself: which module may import which, sizes, leftovers.
"""
