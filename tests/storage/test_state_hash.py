"""The state hash: equal where the same was done, different for ever after where it was not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcray_storage.commands import (
    Batch,
    LeaseCheckpoint,
    LeaseExpiry,
    MemberAdd,
    MemberPublish,
    MemberRemove,
    SpaceReport,
)
from etcray_storage.loading import load_machine
from etcray_storage.machine import state_hash
from etcray_storage.machine.machine import StateMachine
from etcray_storage.mvcc.tables import Tables
from etcray_storage.proto.rpc_pb2 import LeaseGrantRequest, PutRequest
from etcray_storage.types import MemberId

from .machine_driver import MEMBERS, SESSION, MachineDriver, MemberCommand
from .test_machine_property import decisions, writes

Step = Message | LeaseExpiry | LeaseCheckpoint | MemberCommand

changes: st.SearchStrategy[MemberCommand] = st.one_of(
    st.builds(
        MemberAdd,
        st.integers(11, 15).map(MemberId),
        st.just(""),
        st.sampled_from([("http://a:1",), ("http://b:1",)]),
        st.booleans(),
    ),
    st.builds(MemberRemove, st.integers(11, 15).map(MemberId)),
    st.builds(
        MemberPublish, st.integers(11, 15).map(MemberId), st.just("x"), st.sampled_from([(), ("http://c:1",)])
    ),
    st.builds(SpaceReport, st.just(MemberId(11)), st.booleans()),
)
steps: st.SearchStrategy[Step] = st.one_of(writes, writes, decisions, changes)


def do(driver: MachineDriver, step: Step) -> None:
    if isinstance(step, Message):
        driver.answer(step)
    elif isinstance(step, LeaseExpiry | LeaseCheckpoint):
        driver.decide(step)
    else:
        driver.change(step)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(steps, st.sampled_from(["", "", "flush", "restart"])), max_size=25))
def test_machines_that_apply_the_same_have_the_same_hash_however_often_they_restart(
    script: list[tuple[Step, str]],
) -> None:
    steady, restless = MachineDriver(), MachineDriver()
    seen = {steady.machine.state_hash}
    for step, then in script:
        do(steady, step)
        do(restless, step)
        if then == "flush":
            restless.flush()
        elif then == "restart":
            restless.restart()
            restless.tables.compact()
        assert restless.machine.state_hash == steady.machine.state_hash
        assert 0 < steady.machine.state_hash < 1 << 64
        seen.add(steady.machine.state_hash)
    assert len(seen) == len(script) + 1, "an entry left the hash as it was"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=1, max_size=15), steps, st.data())
def test_hash_tells_a_history_with_one_other_command_for_ever_after(
    script: list[Step], other: Step, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(script) - 1))
    first, second = MachineDriver(), MachineDriver()
    before = (effect(script, position, script[position]), effect(script, position, other))
    for number, step in enumerate(script):
        do(first, step)
        do(second, other if number == position else step)
        if number >= position and before[0] != before[1]:
            assert first.machine.state_hash != second.machine.state_hash


def effect(script: list[Step], position: int, last: Step) -> object:
    """What a command does after the beginning of a script: everything that leaves the machine."""
    driver = MachineDriver()
    for step in script[:position]:
        do(driver, step)
    driver.flush()
    do(driver, last)
    flush = driver.flush()
    assert flush is not None
    return flush._replace(items=[item for item in flush.items if item.part != state_hash.PART])


def test_every_kind_of_state_that_differs_in_secret_is_told_by_the_next_command_that_meets_it() -> None:
    """The log is the same, one member's memory is not: what the hash is for."""
    right, wrong = MachineDriver(), MachineDriver()
    for driver in (right, wrong):
        driver.put(b"a", b"1")
        driver.grant(5)
    wrong.machine._store.index._records[b"a"].version = 7  # a bit flips in memory
    assert right.machine.state_hash == wrong.machine.state_hash
    for driver in (right, wrong):
        driver.put(b"b", b"1")
    assert right.machine.state_hash == wrong.machine.state_hash
    for driver in (right, wrong):
        driver.put(b"a", b"2")
    assert right.machine.state_hash != wrong.machine.state_hash


def test_expiry_that_finds_another_lease_on_one_member_is_told() -> None:
    right, wrong = MachineDriver(), MachineDriver()
    for driver in (right, wrong):
        driver.grant(5)
    del wrong.machine.leases._leases[5]
    for driver in (right, wrong):
        driver.expire(5)
    assert right.machine.state_hash != wrong.machine.state_hash


def test_deletion_of_another_key_on_one_member_is_told() -> None:
    right, wrong = MachineDriver(), MachineDriver()
    for driver in (right, wrong):
        driver.grant(5)
        driver.put(b"a", lease=5)
        driver.put(b"b")
    wrong.machine._store.index._attached[5] = {b"b"}
    for driver in (right, wrong):
        driver.expire(5)
    assert right.machine.revision == wrong.machine.revision
    assert right.machine.state_hash != wrong.machine.state_hash


def test_hash_goes_with_the_tables_and_with_snapshots(tmp_path: Path) -> None:
    source = Tables.open(tmp_path / "source")
    driver = MachineDriver()
    driver.machine = StateMachine(source, MEMBERS)
    driver.apply_batches(Batch(SESSION, 0, 0, b"", []))
    for number in range(30):
        driver.put(b"k%d" % (number % 7), b"value")
        driver.change(MemberPublish(MemberId(11), f"name{number}", ()))
    flush = driver.machine.take_flush()
    assert flush is not None
    source.stage(flush)
    source.write()
    exported = source.export_snapshot(tmp_path)
    (tmp_path / "target").mkdir()
    installed = Tables.install_snapshot(tmp_path / "target", exported.path, exported.sha256)
    restored = load(installed)
    assert (restored.applied_index, restored.state_hash) == (
        driver.machine.applied_index,
        driver.machine.state_hash,
    )
    assert restored.members == driver.machine.members
    other = MachineDriver()
    other.machine, other.sequence, other.time_ms = restored, driver.sequence, driver.time_ms
    for each in (driver, other):
        each.put(b"after", b"restart")
    assert other.machine.state_hash == driver.machine.state_hash
    source.close()
    installed.close()


def load(tables: Tables) -> StateMachine:
    return load_machine(tables, ())


def test_store_that_has_no_hash_says_so_and_goes_on_saying_so() -> None:
    """A store of an etcray that knew neither the hash nor a change of members."""
    driver = MachineDriver()
    driver.put(b"a")
    driver.flush()
    del driver.tables.items[state_hash.PART, b""]
    driver.restart()
    for _ in range(2):
        driver.put(b"a")
        assert driver.machine.state_hash == state_hash.UNKNOWN
        assert driver.machine.members == MEMBERS
        driver.restart()


def history() -> int:
    driver = MachineDriver()
    for number in range(50):
        driver.answer(LeaseGrantRequest(ID=number % 5 + 1, TTL=number))
        driver.answer(PutRequest(key=b"k%d" % (number % 7), value=b"v", lease=number % 5 + 1))
        driver.expire(3, 1, number)
    return driver.machine.state_hash


def test_hash_is_the_same_in_every_process() -> None:
    code = "from tests.storage.test_state_hash import history; print(history())"
    environment = {**os.environ, "PYTHONHASHSEED": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == history()
