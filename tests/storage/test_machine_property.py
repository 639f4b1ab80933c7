"""The machine against the naive model, over random histories with flushes, compactions and restarts."""

from __future__ import annotations

from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcray_storage.commands import LeaseCheckpoint, LeaseExpiry, ReadKind
from etcray_storage.errors import EtcdError
from etcray_storage.machine.machine import StateMachine
from etcray_storage.machine.validate import is_read_only_txn
from etcray_storage.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

from .machine_driver import MachineDriver
from .model import Model

KEYS = st.sampled_from([b"a", b"ab", b"b", b"c", b"\x00", b"\xff\xff"])
ENDS = st.sampled_from([b"", b"", b"\x00", b"b", b"c", b"\xff"])
VALUES = st.sampled_from([b"", b"1", b"2", b"\xff"])
RESULTS = [Compare.EQUAL, Compare.GREATER, Compare.LESS, Compare.NOT_EQUAL]
TARGETS = [Compare.VERSION, Compare.CREATE, Compare.MOD, Compare.VALUE, Compare.LEASE]
EXTREMES = st.sampled_from([-(1 << 63), (1 << 63) - 1])
REVISIONS = st.one_of(st.just(0), st.integers(-2, 15), st.integers(-2, 15), EXTREMES)
BOUNDS = st.one_of(st.just(0), st.just(0), st.integers(-1, 12), EXTREMES)

puts = st.builds(
    PutRequest,
    key=KEYS,
    value=VALUES,
    lease=st.sampled_from([0, 0, 5, -3, 7]),
    prev_kv=st.booleans(),
)
keeping_puts = st.builds(
    PutRequest, key=KEYS, ignore_value=st.booleans(), ignore_lease=st.booleans(), prev_kv=st.booleans()
)
LEASES = st.sampled_from([5, 5, 5, -3, -3, 0, 7, (1 << 63) - 1, -(1 << 63)])
TTLS = st.sampled_from([-1, 0, 1, 2, 3, 600, 9_000_000_000, 9_000_000_001, (1 << 63) - 1, -(1 << 63)])
grants = st.builds(LeaseGrantRequest, ID=LEASES, TTL=TTLS)
revokes = st.builds(LeaseRevokeRequest, ID=LEASES)
times_to_live = st.builds(LeaseTimeToLiveRequest, ID=LEASES, keys=st.booleans())
expiries = st.builds(lambda leases: LeaseExpiry(leases, 1 << 60), st.lists(LEASES, max_size=4))
checkpoints = st.builds(
    lambda lease, remaining_ms: LeaseCheckpoint([lease], [remaining_ms], 1 << 60),
    LEASES,
    st.integers(0, 5_000_000),
)
deletes = st.builds(DeleteRangeRequest, key=KEYS, range_end=ENDS, prev_kv=st.booleans())
ranges = st.builds(
    RangeRequest,
    key=KEYS,
    range_end=ENDS,
    limit=st.one_of(st.integers(-1, 4), EXTREMES),
    revision=REVISIONS,
    sort_order=st.integers(0, 2),
    sort_target=st.integers(0, 4),
    keys_only=st.booleans(),
    count_only=st.sampled_from([False, False, True]),
    min_mod_revision=BOUNDS,
    max_mod_revision=BOUNDS,
    min_create_revision=BOUNDS,
    max_create_revision=BOUNDS,
)
compactions = st.builds(CompactionRequest, revision=st.one_of(st.integers(-2, 12), EXTREMES))


@st.composite
def compares(draw: st.DrawFn) -> Compare:
    compare = Compare(
        key=draw(KEYS),
        range_end=draw(ENDS),
        result=draw(st.sampled_from(RESULTS)),
        target=draw(st.sampled_from(TARGETS)),
    )
    union = draw(st.sampled_from(["version", "create_revision", "mod_revision", "value", "lease", None]))
    if union is not None:
        setattr(compare, union, draw(VALUES if union == "value" else st.integers(-1, 8)))
    return compare


def transactions(depth: int) -> st.SearchStrategy[TxnRequest]:
    choices: list[st.SearchStrategy[RequestOp]] = [
        st.builds(RequestOp, request_range=ranges),
        st.builds(RequestOp, request_put=st.one_of(puts, keeping_puts)),
        st.builds(RequestOp, request_delete_range=deletes),
    ]
    if depth:
        choices.append(st.builds(RequestOp, request_txn=transactions(depth - 1)))
    ops = st.lists(st.one_of(choices), max_size=3)
    return st.builds(TxnRequest, compare=st.lists(compares(), max_size=2), success=ops, failure=ops)


writes = st.one_of(
    puts,
    puts,
    keeping_puts,
    grants,
    grants,
    revokes,
    deletes,
    transactions(2),
    transactions(0),
    compactions,
)
decisions = st.one_of(expiries, checkpoints)
steps = st.one_of(
    writes,
    decisions,
    ranges,
    times_to_live,
    st.just(LeaseLeasesRequest()),
    st.sampled_from(["flush", "restart", "compact tables", "no-op"]),
)


def expected(model: Model, request: Message) -> Message | int:
    try:
        match request:
            case PutRequest():
                return model.put(request)
            case DeleteRangeRequest():
                return model.delete_range(request)
            case TxnRequest():
                return model.txn(request)
            case RangeRequest():
                return model.range(request)
            case CompactionRequest():
                model.compact(request)
                return CompactionResponse()
            case LeaseGrantRequest():
                return model.grant(request)
            case LeaseRevokeRequest():
                return model.revoke(request)
            case LeaseTimeToLiveRequest():
                return model.time_to_live(request)
            case LeaseLeasesRequest():
                return model.list_leases()
    except EtcdError as error:
        return error.number
    raise AssertionError(request)


RESPONSES: dict[type[Message], type[Message]] = {
    PutRequest: PutResponse,
    DeleteRangeRequest: DeleteRangeResponse,
    TxnRequest: TxnResponse,
    RangeRequest: RangeResponse,
    CompactionRequest: CompactionResponse,
    LeaseGrantRequest: LeaseGrantResponse,
    LeaseRevokeRequest: LeaseRevokeResponse,
    LeaseTimeToLiveRequest: LeaseTimeToLiveResponse,
    LeaseLeasesRequest: LeaseLeasesResponse,
}


READS: dict[type[Message], ReadKind] = {
    RangeRequest: ReadKind.RANGE,
    LeaseTimeToLiveRequest: ReadKind.LEASE_TIME_TO_LIVE,
    LeaseLeasesRequest: ReadKind.LEASE_LEASES,
}


def actual(driver: MachineDriver, request: Message) -> Message | int:
    if type(request) in READS:
        answer = driver.machine.read(READS[type(request)], request.SerializeToString())
        error, body = answer.error, answer.body
    elif isinstance(request, TxnRequest) and is_read_only_txn(request):
        answer = driver.machine.read(ReadKind.TXN, request.SerializeToString())
        error, body = answer.error, answer.body
        assert driver.answer(request) == (error, body), "the log and the read path disagree"
    else:
        error, body = driver.answer(request)
    return error or RESPONSES[type(request)].FromString(body)


def everything(machine: StateMachine) -> list[tuple[int, bytes]]:
    """All that clients can read: every pair at every revision."""
    found = []
    for revision in range(machine.revision + 1):
        everything_then = RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
        answer = machine.read(ReadKind.RANGE, everything_then.SerializeToString())
        found.append((answer.error, answer.body))
    leases = machine.read(ReadKind.LEASE_LEASES, b"")
    found.append((leases.error, leases.body))
    for lease, _ in sorted(machine.leases.items()):
        request = LeaseTimeToLiveRequest(ID=lease, keys=True)
        answer = machine.read(ReadKind.LEASE_TIME_TO_LIVE, request.SerializeToString())
        found.append((answer.error, answer.body))
    return found


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=25))
def test_machine_answers_as_the_naive_model_does(
    script: list[Message | LeaseExpiry | LeaseCheckpoint | str],
) -> None:
    driver, model = MachineDriver(), Model()
    for step in script:
        match step:
            case "flush":
                driver.flush()
            case "compact tables":
                driver.flush()
                driver.tables.compact()
            case "restart":
                before = everything(driver.machine)
                driver.restart()
                assert everything(driver.machine) == before
            case "no-op":
                driver.apply_raw([])
            case LeaseExpiry():
                assert driver.decide(step) == 0
                model.expire(step.leases)
            case LeaseCheckpoint():
                assert driver.decide(step) == 0
                model.checkpoint(step.leases[0], step.remaining_ms[0])
            case Message():
                assert actual(driver, step) == expected(model, step), step
        assert driver.machine.revision == model.revision
        assert driver.machine.compact_revision == model.compacted
    for revision in range(1, model.revision + 2):
        request = RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
        assert actual(driver, request) == expected(model, request)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(writes | decisions, max_size=20), st.data())
def test_a_restored_machine_goes_on_exactly_like_one_that_never_stopped(
    script: list[Message | LeaseExpiry | LeaseCheckpoint], data: st.DataObject
) -> None:
    steady, restarted = MachineDriver(), MachineDriver()
    for step in script:
        if data.draw(st.booleans()):
            steady.flush()
            restarted.restart()
            if data.draw(st.booleans()):
                restarted.tables.compact()
        if isinstance(step, Message):
            assert steady.answer(step) == restarted.answer(step)
        else:
            assert steady.decide(step) == restarted.decide(step) == 0
    assert steady.flush() == restarted.flush()
    assert everything(steady.machine) == everything(restarted.machine)
