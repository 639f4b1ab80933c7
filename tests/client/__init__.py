"""The Python client, as users see it: the same tests for both clients, against a real etcd."""
