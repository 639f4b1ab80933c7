"""Exactly once: what sessions remember, and what they refuse."""

from __future__ import annotations

from etcray_storage.commands import Batch, BatchAnswer
from etcray_storage.errors import SESSION_EXPIRED
from etcray_storage.limits import SESSION_ANSWERS_MAX, SESSIONS_MAX
from etcray_storage.proto.rpc_pb2 import PutRequest, RangeRequest

from .machine_driver import SESSION, MachineDriver

PUT = PutRequest(key=b"a", prev_kv=True).SerializeToString()


def batch(sequence: int, acknowledged: int = 0, session: int = SESSION, commands: int = 1) -> Batch:
    return Batch(session, sequence, acknowledged, b"\x01" * commands, [PUT] * commands)


def refused(answer: BatchAnswer) -> bool:
    assert set(answer.bodies) == {b""}
    assert len(answer.revisions) == len(answer.errors) == len(answer.bodies)
    return set(answer.errors) == {SESSION_EXPIRED.number}


def test_opening_answers_nothing_and_may_be_repeated() -> None:
    driver = MachineDriver()
    assert driver.apply_batches(Batch(9, 0, 0, b"", [])) == [BatchAnswer(9, 0, [], [], [])]
    (first,) = driver.apply_batches(batch(1, session=9))
    driver.apply_batches(Batch(9, 0, 0, b"", []))
    assert driver.apply_batches(batch(1, session=9)) == [first]
    assert driver.revision == 2


def test_commands_in_an_opening_batch_are_refused() -> None:
    driver = MachineDriver()
    (answer,) = driver.apply_batches(batch(0, session=9))
    assert refused(answer)
    assert driver.revision == 1


def test_a_batch_of_an_unknown_session_is_refused_as_a_whole() -> None:
    driver = MachineDriver()
    (answer,) = driver.apply_batches(batch(1, session=5, commands=3))
    assert (answer.session, answer.sequence, answer.revisions) == (5, 1, [1, 1, 1])
    assert refused(answer)
    assert driver.read(RangeRequest(key=b"a")).count == 0


def test_a_batch_that_arrives_again_gets_its_answer_and_changes_nothing() -> None:
    driver = MachineDriver()
    first, again = driver.apply_batches(batch(1, commands=2), batch(1, commands=2))
    assert first.revisions == [2, 3]
    assert first == again
    assert driver.apply_batches(batch(1, commands=2)) == [first]
    assert driver.revision == 3


def test_batches_may_come_out_of_order() -> None:
    driver = MachineDriver()
    answers = driver.apply_batches(batch(3), batch(1), batch(2, acknowledged=1), batch(1), batch(3))
    assert [answer.revisions for answer in answers[:3]] == [[2], [3], [4]]
    assert refused(answers[3])
    assert answers[4] == answers[0]


def test_an_acknowledged_answer_is_forgotten_and_its_batch_never_applied_again() -> None:
    driver = MachineDriver()
    driver.apply_batches(batch(1), batch(2), batch(3, acknowledged=2))
    assert list(driver.machine._sessions._sessions[SESSION].answers) == [3]
    for sequence in (1, 2):
        (answer,) = driver.apply_batches(batch(sequence))
        assert refused(answer)
    assert driver.revision == 4


def test_too_many_unacknowledged_answers_push_out_the_lowest() -> None:
    driver = MachineDriver()
    driver.apply_batches(*(batch(n) for n in range(1, SESSION_ANSWERS_MAX + 2)))
    before = driver.revision
    (lowest,) = driver.apply_batches(batch(1))
    (next_one,) = driver.apply_batches(batch(2))
    assert refused(lowest)
    assert next_one.revisions == [3]
    assert driver.revision == before
    assert len(driver.machine._sessions._sessions[SESSION].answers) == SESSION_ANSWERS_MAX


def test_a_late_batch_below_all_remembered_ones_is_applied_but_not_remembered() -> None:
    driver = MachineDriver()
    driver.apply_batches(*(batch(n) for n in range(2, SESSION_ANSWERS_MAX + 2)))
    before = driver.revision
    late, again = driver.apply_batches(batch(1), batch(1))
    assert late.revisions == [before + 1]
    assert refused(again)
    assert driver.revision == before + 1


def test_the_longest_unused_session_is_forgotten_first() -> None:
    driver = MachineDriver()
    driver.apply_batches(*(Batch(n, 0, 0, b"", []) for n in range(1000, 1000 + SESSIONS_MAX - 1)))
    driver.apply_batches(batch(1))  # the driver's own session, the oldest, is used again
    driver.flush()
    driver.apply_batches(Batch(5000, 0, 0, b"", []))
    sessions = driver.machine._sessions._sessions
    assert len(sessions) == SESSIONS_MAX
    assert SESSION in sessions
    assert 1000 not in sessions
    flush = driver.flush()
    assert flush is not None
    assert [(int.from_bytes(i.key, "big"), i.value is None) for i in flush.items if i.part == "session"] == [
        (1000, True),
        (5000, False),
    ]


def test_a_restored_machine_remembers_answers_floors_and_order_of_use() -> None:
    driver = MachineDriver()
    driver.apply_batches(*(Batch(n, 0, 0, b"", []) for n in (300, 100, 200)))
    driver.apply_batches(batch(2, acknowledged=1), batch(1, session=100), batch(3))
    before = driver.machine._sessions._sessions
    driver.restart()
    after = driver.machine._sessions._sessions
    assert before is not after
    assert list(after.items()) == list(before.items())
    assert list(after) == [300, 200, 100, SESSION]
    (answer,) = driver.apply_batches(batch(1))
    assert refused(answer)


def test_only_sessions_that_were_used_are_flushed() -> None:
    driver = MachineDriver()
    driver.apply_batches(Batch(9, 0, 0, b"", []))
    driver.flush()
    driver.apply_batches(batch(1))
    flush = driver.flush()
    assert flush is not None
    assert [(item.part, item.key) for item in flush.items if item.part == "session"] == [
        ("session", SESSION.to_bytes(8, "big"))
    ]


def test_flushed_sessions_are_in_order_of_their_ids() -> None:
    driver = MachineDriver()
    driver.flush()
    ids = [(1 << 64) - 1, 64, 8, 1 << 40, 1, 72]
    driver.apply_batches(*(Batch(session, 0, 0, b"", []) for session in ids))
    flush = driver.flush()
    assert flush is not None
    assert [int.from_bytes(item.key, "big") for item in flush.items if item.part == "session"] == sorted(ids)
