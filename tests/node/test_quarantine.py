"""Damage that is found, at a start or in passing: the member never votes from that directory again."""

from __future__ import annotations

import random
import time
from pathlib import Path

import msgspec
import pytest

from etcray.node.opened import EXIT_FATAL
from etcray.node.peers import PeerUnreachableError
from etcray.spec import Timing
from etcray_storage.commands import Batch, encode_batch
from etcray_storage.errors import QuarantinedError
from tests.node.local_cluster import LocalCluster, make_spec, put_batch
from tests.node.member_process import MemberProcess

SESSION = 41


def damage(file: Path) -> bytes:
    """Flip a bit in every few kilobytes behind the file's header, so that whatever block holds the rows
    is hit, and return what the file held."""
    content = file.read_bytes()
    with file.open("r+b") as target:
        for offset in range(min(16_384, len(content) // 2), len(content), 8_192):
            target.seek(offset)
            target.write(bytes([content[offset] ^ 1]))
    return content


def the_file(directory: Path, pattern: str) -> Path:
    (file,) = directory.glob(pattern)
    return file


@pytest.mark.parametrize("part", ["log/*.wal", "tables/*.duckdb"])
def test_a_damaged_member_is_refused_for_ever_and_replaced_by_a_new_one(tmp_path: Path, part: str) -> None:
    with LocalCluster(tmp_path) as cluster:
        cluster.open_session(SESSION)
        expected = {}
        for sequence in range(1, 31):
            key = b"key%d" % sequence
            cluster.put(SESSION, sequence, key, b"value" * 1000)
            expected[key] = b"value" * 1000
        victim = next(m for m in cluster.spec.members if m.id != cluster.leader().spec.id)
        cluster.stop(victim.id)
        file = the_file(Path(victim.data_directory), part)
        content = damage(file)
        with pytest.raises(QuarantinedError, match="replace this member"):
            cluster.start(victim.id)
        file.write_bytes(content)  # as good as new, or an old backup: nobody can tell
        with pytest.raises(QuarantinedError, match="in quarantine"):
            cluster.start(victim.id)
        cluster.grow("m4")
        assert cluster.remove(victim.id) == 0
        assert cluster.wait_until_equal() == expected


def test_a_running_member_finds_damage_by_itself_and_ends(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, 1, Timing(heartbeat_ms=30, election_ms=100))
    directory = tmp_path / "m1"
    with MemberProcess(spec, tmp_path, "m1") as process:
        assert process.opened() is None
        while process.status().role != "leader":
            time.sleep(0.05)
        process.propose(encode_batch(Batch(SESSION, 0, 0, b"", [])))
        for sequence in range(1, 301):
            value = random.Random(sequence).randbytes(20_000)
            process.propose(encode_batch(put_batch(SESSION, sequence, {b"key%d" % sequence: value})))
        process.call("defragment")  # so that all of it is in the tables' file, not in its WAL
        damage(the_file(directory, "tables/*.duckdb"))
        assert process.process.wait(60) == EXIT_FATAL
        with pytest.raises(PeerUnreachableError):
            process.status()
    with MemberProcess(spec, tmp_path, "m1") as again:
        refused = again.opened()
        assert refused is not None
        assert refused.error == "QuarantinedError"
    assert "checksum" in (directory / "QUARANTINE").read_text()
    assert msgspec.json.decode((directory / "identity.json").read_bytes())["incarnation"] == 1
