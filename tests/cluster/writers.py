"""Clients that go on writing whatever happens to the cluster, and remember what they were told."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from etcray import Client, Cluster
from etcray.client import NotAnsweredError, UnavailableError
from etcray.status import ActorReport, ClusterStatus, MemberReport

WAIT_SECONDS = 60.0


class Writers:
    """Each writer puts 1, 2, 3 ... under a key of its own. With `retries` a writer sends a put again
    that was never sent or not answered (a client must, if the gateway itself goes away)."""

    def __init__(self, endpoint: str, count: int = 8, *, retries: bool = False) -> None:
        self._endpoint = endpoint
        self._retries = retries
        self._done = threading.Event()
        self.revisions: list[int] = []
        """Of every acknowledged put."""
        self.errors: list[BaseException] = []
        self.last: dict[bytes, int] = {}
        """By key: the newest acknowledged number."""
        self.resent = 0
        keys = [f"{uuid.uuid4()}".encode() for _ in range(count)]
        self._threads = [threading.Thread(target=self._write, args=(key,)) for key in keys]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def progress(self, more: int = 100) -> None:
        """Wait until this many further puts are acknowledged."""
        enough = len(self.revisions) + more
        wait_for(lambda: self.errors or len(self.revisions) >= enough, f"{more} more puts")

    def _write(self, key: bytes) -> None:
        with Client(self._endpoint) as client:
            number = 0
            while not self._done.is_set() and not self.errors:
                number += 1
                try:
                    self.revisions.append(self._put(client, key, number))
                except Exception as e:
                    self.errors.append(e)
                    return
                self.last[key] = number

    def _put(self, client: Client, key: bytes, number: int) -> int:
        while True:
            try:
                return client.put(key, b"%d" % number).revision
            except (UnavailableError, NotAnsweredError):
                if not self._retries or self._done.is_set():
                    raise
                self.resent += 1
                time.sleep(0.02)

    def check(self, client: Client) -> None:
        """Nothing acknowledged is lost, and nothing was applied twice."""
        assert self.errors == []
        for key, number in self.last.items():
            pair = client.get(key)
            assert pair is not None
            assert pair.value == b"%d" % number
            # The version counts the applied puts: one more for each that was sent again after its
            # acknowledgement was lost together with the gateway.
            assert number <= pair.version <= number + self.resent
        assert len(set(self.revisions)) == len(self.revisions)
        if self.resent == 0:
            assert sorted(self.revisions) == list(range(min(self.revisions), max(self.revisions) + 1))


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s for {what}"
        time.sleep(0.02)


def leader_of(cluster: Cluster) -> MemberReport:
    def find() -> MemberReport | None:
        status = cluster.status()
        leaders = [m for m in status.members if m.role == "leader" and m.process_id and m.phase == "serving"]
        return max(leaders, key=lambda member: member.term, default=None)

    wait_for(find, "a leader")
    found = find()
    assert found is not None
    return found


def kill(actor: ActorReport) -> None:
    os.kill(actor.process_id, signal.SIGKILL)


def is_gone(process_id: int) -> bool:
    """True once the process has ended, whether or not its parent has noticed."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state in ("Z", "X")


def wait_until_healed(cluster: Cluster, before: ClusterStatus) -> ClusterStatus:
    """Wait until everything serves again, and all members have applied what is committed."""

    def healed() -> bool:
        status = cluster.status()
        applied = {member.applied_index for member in status.members}
        return (
            status.ready
            and len(status.members) == len(before.members)
            and all(member.phase == "serving" for member in status.members)
            and not any(is_gone(actor.process_id) for actor in (*status.members, *status.gateways))
            and len(applied) == 1
        )

    wait_for(healed, "a healed cluster")
    return cluster.status()
