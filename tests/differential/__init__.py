"""The differential test: the same requests to a real etcd and to etcray, and every answer compared.

A seeded `generator` makes KV requests out of few keys and values, so that they collide, with every
option, odd numbers and sizes at the limits. `comparison` sends each to both sides, one at a time, so
that both stores go through the same history. The code, the message and the whole response must be
equal, `header.revision` included; only the ids and the term in the header are left out.

The oracle is an older etcd (3.5.1, or what else is installed) while etcray speaks as 3.7 does. What is
meant to differ is in the tables of `meant`, each entry with its reason and a predicate on the request
and both answers. Add to them only what a newer etcd, or a decision of etcray's, really explains.

By hand:

    python -m tests.differential --requests 100000 --seed 7
    python -m tests.differential --seed 7 --requests 1501 --shrink     # request 1500 differed
    python -m tests.differential --subject cluster                     # three members on Ray
    python -m tests.differential --subject 3.4                         # two etcds: tests the test

A run is repeated by its seed, and a shorter run of a seed is a prefix of a longer one. `--shrink`
takes requests out, on fresh stores each time, until only those are left that make the difference.
`ETCRAY_DIFFERENTIAL_REQUESTS` makes the run in the test suite longer or shorter.

Left out: RangeStream (3.7 only; `test_range_stream` compares it with Range instead), leases that
exist, authentication, watches. With a whole cluster as the subject also serializable reads, because a
member that is behind may answer them.
"""
