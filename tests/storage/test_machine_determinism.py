"""Machines that apply the same entries hand out the same flushes, whatever their process is like."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys

from etcray_storage.commands import Batch, LeaseCheckpoint, LeaseExpiry, encode_lease_command
from etcray_storage.proto.rpc_pb2 import (
    CORRUPT,
    AlarmRequest,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

from .machine_driver import MachineDriver


def fingerprint() -> str:
    """A long random history through many sessions; a hash of every flush and every answer."""
    source = random.Random(7)
    driver = MachineDriver()
    seen = hashlib.sha256()
    everything = RangeRequest(
        key=b"\0", range_end=b"\0", sort_order=RangeRequest.DESCEND, sort_target=RangeRequest.VERSION
    )
    for n in range(600):
        key = b"k%d" % source.randrange(30)
        end = b"k%d" % source.randrange(30)
        lease = source.choice([1, 2, 3, -4])
        put = PutRequest(key=key, value=b"%d" % n, prev_kv=True, lease=source.choice([0, lease]))
        delete = DeleteRangeRequest(key=key, range_end=end, prev_kv=True)
        ops = [
            RequestOp(request_put=put),
            RequestOp(request_range=everything),
        ]
        alarm = AlarmRequest(action=1 + n % 2, memberID=source.randrange(9), alarm=CORRUPT + 1)  # type: ignore[arg-type]
        commands = [
            (1, put.SerializeToString()),
            (2, delete.SerializeToString()),
            (3, TxnRequest(success=ops).SerializeToString()),
            (4, CompactionRequest(revision=max(0, driver.revision - 40)).SerializeToString()),
            (5, alarm.SerializeToString()),
            (6, LeaseGrantRequest(ID=lease, TTL=n).SerializeToString()),
            (7, LeaseRevokeRequest(ID=lease).SerializeToString()),
            (8, encode_lease_command(LeaseExpiry([lease, -lease, lease + 1], n))),
            (9, encode_lease_command(LeaseCheckpoint([lease, lease + 1], [n, n * 7], n))),
        ]
        chosen = source.choices(commands, [30, 5, 20, 2, 4, 6, 1, 1, 3], k=source.randrange(4))
        session = source.randrange(1, 40)
        sequence = source.randrange(1, 60)
        batch = Batch(
            session, sequence, source.randrange(sequence), bytes(k for k, _ in chosen), [r for _, r in chosen]
        )
        answers = driver.apply_batches(Batch(session, 0, 0, b"", []), batch)
        seen.update(repr(answers).encode())
        if source.random() < 0.1:
            seen.update(repr(driver.flush()).encode())
        if source.random() < 0.02:
            driver.restart()
    return seen.hexdigest()


def test_the_hash_seed_of_the_process_does_not_matter() -> None:
    code = "from tests.storage.test_machine_determinism import fingerprint; print(fingerprint())"
    prints = {fingerprint()}
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        prints.add(run.stdout.strip())
    assert len(prints) == 1
