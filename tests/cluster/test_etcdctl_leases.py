"""etcdctl's `lease`, `lock` and `elect`, exact output."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.background import running, until
from tests.etcd_tools import Etcdctl

UNKNOWN = "0000000000000001"


@pytest.fixture(autouse=True)
def empty(ctl: Etcdctl) -> Iterator[None]:
    """Every test starts without keys; revisions go on."""
    ctl.ok("del", "", "--from-key")
    yield
    ctl.ok("del", "", "--from-key")


def grant(ctl: Etcdctl, ttl: int, granted: int | None = None) -> str:
    """The id of a new lease, as etcdctl writes it."""
    told = ctl.ok("lease", "grant", str(ttl))
    matched = re.fullmatch(rf"lease ([0-9a-f]{{16}}) granted with TTL\({granted or ttl}s\)\n", told)
    assert matched is not None, told
    return matched[1]


def test_lease_carries_keys_until_it_is_revoked(ctl: Etcdctl) -> None:
    lease = grant(ctl, 100)
    ctl.ok("put", "a", "1", f"--lease={lease}")
    ctl.ok("put", "b", "2", f"--lease={lease}")
    assert lease in ctl.ok("lease", "list").splitlines()
    told = rf"lease {lease} granted with TTL\(100s\), remaining\(\d+s\)"
    assert re.fullmatch(rf"{told}\n", ctl.ok("lease", "timetolive", lease))
    with_keys = ctl.ok("lease", "timetolive", "--keys", lease)
    # etcd names the keys in no particular order.
    assert re.fullmatch(rf"{told}, attached keys\(\[(a b|b a)\]\)\n", with_keys)
    answer = json.loads(ctl.ok("lease", "timetolive", "--keys", lease, "-w", "json"))
    assert (answer["id"], answer["granted-ttl"]) == (int(lease, 16), 100)
    assert sorted(answer["keys"]) == ["YQ==", "Yg=="]
    kept = ctl.ok("lease", "keep-alive", "--once", lease)
    assert kept == f"lease {lease} keepalived with TTL(100)\n"
    assert ctl.ok("lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert ctl.ok("get", "", "--prefix") == ""
    assert lease not in ctl.ok("lease", "list").splitlines()
    assert ctl.ok("lease", "timetolive", lease) == f"lease {lease} already expired\n"


def test_lease_expires_and_takes_its_keys_along(ctl: Etcdctl) -> None:
    lease = grant(ctl, 1, granted=2)  # etcd's shortest at its usual election timeout
    ctl.ok("put", "k", "v", f"--lease={lease}")
    until(lambda: ctl.ok("get", "k") == "", lambda: ctl.ok("lease", "timetolive", lease))
    assert ctl.ok("lease", "timetolive", lease) == f"lease {lease} already expired\n"


def test_keep_alive_goes_on_until_the_lease_is_revoked(ctl: Etcdctl, tmp_path: Path) -> None:
    lease = grant(ctl, 3)
    kept = f"lease {lease} keepalived with TTL(3)\n"
    with running(ctl, tmp_path, "lease", "keep-alive", lease) as keeping:
        keeping.wait_for(lambda output: output.startswith(kept * 4))
        ctl.ok("lease", "revoke", lease)
        keeping.wait_for(lambda output: output.endswith(f"lease {lease} expired or revoked.\n"))


def test_lease_commands_refuse_what_is_wrong(ctl: Etcdctl) -> None:
    not_found = "etcdserver: requested lease not found"
    assert ctl.refused("lease", "revoke", "1") == (1, f"Error: failed to revoke lease ({not_found})")
    assert ctl.refused("lease", "keep-alive", "--once", "1")[1] == f"Error: {not_found}"
    assert ctl.ok("lease", "keep-alive", "1") == f"lease {UNKNOWN} expired or revoked.\n"
    assert ctl.ok("lease", "timetolive", "1") == f"lease {UNKNOWN} already expired\n"
    too_large = "Error: failed to grant lease (etcdserver: too large lease TTL)"
    assert ctl.refused("lease", "grant", "9000000001") == (1, too_large)


def test_lock_guards_a_command(ctl: Etcdctl, tmp_path: Path) -> None:
    with running(ctl, tmp_path, "lock", "door", "--ttl=20") as holder:
        holder.wait_for(lambda output: output.endswith("\n\n"))  # the key, and its empty value
        key = holder.lines()[0]
        assert re.fullmatch(r"door/[0-9a-f]+", key)
        assert ctl.ok("get", "door/", "--prefix") == f"{key}\n\n"
        with running(ctl, tmp_path, "lock", "door", "--", "sh", "-c", "echo $ETCD_LOCK_KEY") as waiter:
            until(lambda: len(ctl.ok("get", "door/", "--prefix").splitlines()) == 4, waiter.complaints)
            assert waiter.output() == ""
            holder.interrupt()
            waiter.wait_for(lambda output: bool(re.fullmatch(r"door/[0-9a-f]+\n", output)))
            assert waiter.process.wait() == 0
            assert waiter.lines() != [key]
    assert ctl.ok("get", "door/", "--prefix") == ""
    assert ctl.run("lock", "door", "--", "false").code == 1


def test_election_has_one_leader_that_others_observe(ctl: Etcdctl, tmp_path: Path) -> None:
    with running(ctl, tmp_path, "elect", "chair", "first") as first:
        first.wait_for(lambda output: output.endswith("\nfirst\n"))
        with (
            running(ctl, tmp_path, "elect", "-l", "chair") as observer,
            running(ctl, tmp_path, "elect", "chair", "second") as second,
        ):
            observer.shows(first.output())
            until(lambda: len(ctl.ok("get", "chair/", "--prefix").splitlines()) == 4, second.complaints)
            assert second.output() == ""
            first.interrupt()
            second.wait_for(lambda output: output.endswith("\nsecond\n"))
            observer.shows(first.output() + second.output())
            second.interrupt()
    assert ctl.ok("get", "chair/", "--prefix") == ""
