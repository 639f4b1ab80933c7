"""Locks and elections of both clients, against a real etcd and together with its own command line."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
import time
from itertools import islice, pairwise
from pathlib import Path

import pytest

from etcray.client import (
    Client,
    LeaseLostError,
    LockLostError,
    LockTimeoutError,
    NotLeaderError,
    Put,
)
from etcray_bench.etcd import EtcdCluster, find_etcd
from tests.client.conftest import Maker
from tests.client.test_leases import until_set

CONTENDERS = 20


def etcdctl(etcd: EtcdCluster, *arguments: str) -> subprocess.Popen[str]:
    program: Path = find_etcd().with_name("etcdctl")
    command = [str(program), f"--endpoints={etcd.endpoints[0]}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)


def until_queued(store: Client, name: str, count: int) -> None:
    deadline = time.monotonic() + 10
    while store.get_prefix(f"{name}/").count < count:
        assert time.monotonic() < deadline, "nobody joined the queue"
        time.sleep(0.02)


def test_lock_is_a_key_with_its_lease_and_goes_with_the_block(store: Client) -> None:
    with store.lock("jobs") as lock:
        pair = store.get(lock.key)
        assert pair is not None
        assert lock.key == b"jobs/%x" % pair.lease
        assert lock.fencing_token == pair.create_revision
        lock.check()
        assert not lock.lost.is_set()
    assert store.get_prefix("").count == 0
    assert lock.acquire(timeout=0)  # the object can be used again
    lock.release()


def test_held_lock_is_not_to_be_had(store: Client) -> None:
    with store.lock("jobs") as held:
        other = store.lock("jobs", timeout=0.2)
        assert not other.acquire(timeout=0)
        assert not other.acquire(timeout=0.1)
        with pytest.raises(LockTimeoutError, match=r"did not become free in 0\.2 s"), other:
            pass
        assert [kv.key for kv in store.get_prefix("jobs/")] == [held.key]
        with store.lock("elsewhere", timeout=0):
            pass


def test_locks_share_a_session_and_leave_it_alone(store: Client) -> None:
    with store.session(30) as session:
        with store.lock("a", session=session) as first, store.lock("b", session=session) as second:
            assert first.key.split(b"/")[1] == second.key.split(b"/")[1] == b"%x" % session.lease.id
        assert store.get_prefix("").count == 0
        session.check()


def test_transaction_is_guarded_by_the_lock(store: Client) -> None:
    with store.lock("jobs") as lock:
        assert store.txn().compare(lock.is_held).then(Put("result", "1")).commit().succeeded
        store.delete(lock.key)
        assert not store.txn().compare(lock.is_held).then(Put("result", "2")).commit().succeeded


def test_contenders_exclude_each_other_and_tokens_grow(make_client: Maker, store: Client) -> None:
    clients = [make_client(store.endpoints) for _ in range(CONTENDERS)]
    held: list[tuple[int, int, int]] = []

    def contend(client: Client) -> None:
        with client.lock("jobs") as lock:
            entered = client.txn().compare(lock.is_held).then(Put("inside", "")).commit()
            left = client.txn().compare(lock.is_held).then(Put("inside", "")).commit()
            assert entered.succeeded
            assert left.succeeded
            held.append((entered.revision, left.revision, lock.fencing_token))

    threads = [threading.Thread(target=contend, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(held) == CONTENDERS
    by_revision = sorted(held)
    for (_, left, token), (entered, _, next_token) in pairwise(by_revision):
        assert left < entered, "two held the lock at once"
        assert token < next_token


def test_lease_lost_under_a_held_lock_is_said(store: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    def lose() -> None:
        with store.lock("jobs", ttl=2) as lock:
            store.find_lease(lock.place.lease_id).revoke()
            until_set(lock.lost)
            with pytest.raises(LockLostError):
                lock.check()

    with pytest.raises(LockLostError):
        lose()
    with store.lock("jobs", timeout=5) as next_one:
        assert next_one.fencing_token > 0


def test_an_error_of_the_block_is_not_hidden_by_the_release(store: Client) -> None:
    with pytest.raises(KeyError), store.lock("jobs"):
        raise KeyError("mine")
    assert store.get_prefix("jobs/").count == 0


def test_waiter_whose_lease_is_lost_stops_waiting(make_client: Maker, store: Client) -> None:
    waiting = make_client(store.endpoints)

    def revoke(lease_id: int) -> None:
        until_queued(store, "jobs", 2)
        store.find_lease(lease_id).revoke()

    def wait() -> None:
        with waiting.session(2) as session:
            thread = threading.Thread(target=revoke, args=(session.lease.id,))
            thread.start()
            try:
                waiting.lock("jobs", session=session).acquire()
            finally:
                thread.join()

    with store.lock("jobs"), pytest.raises(LeaseLostError):
        wait()


def test_lock_waits_for_etcdctl_and_etcdctl_for_it(store: Client, etcd: EtcdCluster) -> None:
    theirs = etcdctl(etcd, "lock", "jobs")
    assert first_line(theirs).startswith("jobs/")
    assert not store.lock("jobs").acquire(timeout=0.2)
    threading.Timer(0.2, end, (theirs,)).start()
    with store.lock("jobs", timeout=10) as lock:
        assert lock.fencing_token > 0
        next_one = etcdctl(etcd, "lock", "jobs", "echo", "got it")
        until_queued(store, "jobs", 2)
    assert next_one.communicate(timeout=10)[0] == "got it\n"


def test_leader_proclaims_resigns_and_is_followed(make_client: Maker, store: Client) -> None:
    assert store.election("top").leader() is None
    rival = make_client(store.endpoints)
    second = rival.election("top")
    with store.election("top") as first:
        with pytest.raises(NotLeaderError):
            first.proclaim("too early")
        first.campaign("one")
        thread = threading.Thread(target=second.campaign, args=("two",))
        thread.start()
        until_queued(store, "top", 2)
        first.proclaim("one again")
        leader = first.leader()
        assert leader is not None
        assert (leader.text, leader.key) == ("one again", first.key)
        first.resign()
        thread.join(10)
        leader = first.leader()
        assert leader is not None
        assert (leader.text, leader.create_revision) == ("two", second.fencing_token)
        assert store.txn().compare(second.is_held).then(Put("x", "")).commit().succeeded
    second.campaign("two, differently")
    leader = second.leader()
    assert leader is not None
    assert leader.text == "two, differently"
    second.close()
    assert store.get_prefix("top/").count == 0


def test_observer_sees_every_leader_and_every_proclamation(make_client: Maker, store: Client) -> None:
    seen: list[str] = []
    observer = make_client(store.endpoints)

    def observe() -> None:
        news = observer.election("top").observe()
        for kv in islice(news, 4):
            seen.append(kv.text)
            looks.set()
        news.close()

    looks = threading.Event()
    thread = threading.Thread(target=observe)
    thread.start()
    with store.election("top") as first:
        first.campaign("a")
        assert looks.wait(30)  # who looks only after "b" was said learns of "b" first
        first.proclaim("b")
        first.proclaim("c")
    with store.election("top") as second:
        second.campaign("d")
        thread.join(10)
    assert not thread.is_alive()
    assert seen == ["a", "b", "c", "d"]


def test_election_is_shared_with_etcdctl(store: Client, etcd: EtcdCluster) -> None:
    theirs = etcdctl(etcd, "elect", "top", "etcdctl")
    assert first_line(theirs).startswith("top/")
    leader = store.election("top").leader()
    assert leader is not None
    assert leader.text == "etcdctl"
    threading.Timer(0.2, end, (theirs,)).start()
    with store.election("top") as ours:
        ours.campaign("python")
        listener = etcdctl(etcd, "elect", "-l", "top")
        assert [first_line(listener), first_line(listener)] == [ours.key.decode(), "python"]
        end(listener)
