"""The replicated list of members: etcd's rules, against a naive model, with restarts and repeats."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcray_storage import errors
from etcray_storage.commands import (
    Batch,
    CommandKind,
    MemberAdd,
    MemberPromote,
    MemberPublish,
    MemberRemove,
    MemberUpdate,
    ReadKind,
    encode_batch,
    encode_member_command,
)
from etcray_storage.machine import members
from etcray_storage.proto.rpc_pb2 import Member as MemberMessage
from etcray_storage.proto.rpc_pb2 import (
    MemberAddResponse,
    MemberListResponse,
    MemberPromoteResponse,
    MemberRemoveResponse,
    PutRequest,
)
from etcray_storage.types import EntryKind, MemberId, Membership

from .machine_driver import SESSION, MachineDriver

ONE, TWO, THREE, FOUR = (MemberId(id_) for id_ in (11, 12, 13, 14))


def add(id_: int, url: str, *, learner: bool = False, name: str = "") -> MemberAdd:
    return MemberAdd(MemberId(id_), name, (url,), learner)


def listed(driver: MachineDriver) -> list[MemberMessage]:
    answer = driver.machine.read(ReadKind.MEMBER_LIST, b"")
    assert (answer.error, answer.revision) == (0, 0)
    return list(MemberListResponse.FromString(answer.body).members)


def test_founders_are_the_members_until_the_first_change_and_take_no_room() -> None:
    driver = MachineDriver()
    assert driver.machine.membership == Membership((ONE,), (TWO,))
    assert [member.id for member in driver.machine.members] == [ONE, TWO]
    flush = driver.flush()
    assert flush is not None
    assert flush.membership == driver.machine.membership
    assert members.PART not in {item.part for item in flush.items}


def test_first_change_writes_the_whole_list() -> None:
    driver = MachineDriver()
    assert driver.change(add(13, "http://three:2380"))[0] == 0
    flush = driver.flush()
    assert flush is not None
    assert flush.membership == Membership((ONE, THREE), (TWO,))
    written = [item.key for item in flush.items if item.part == members.PART]
    assert written == [id_.to_bytes(8, "big") for id_ in (ONE, TWO, THREE)]
    before = listed(driver)
    driver.restart()
    assert listed(driver) == before


def test_added_member_is_answered_with_all_members_and_has_no_name_yet() -> None:
    driver = MachineDriver()
    error, body = driver.change(add(13, "http://three:2380"))
    response = MemberAddResponse.FromString(body)
    assert (error, response.member.ID, response.member.name) == (0, 13, "")
    assert [member.ID for member in response.members] == [11, 12, 13]
    assert driver.change(MemberPublish(THREE, "three", ("http://three:2379",)))[0] == 0
    (three,) = [member for member in listed(driver) if member.ID == THREE]
    assert (three.name, list(three.clientURLs)) == ("three", ["http://three:2379"])
    assert three.peerURLs == ["http://three:2380"]


def test_addition_is_refused_as_in_etcd() -> None:
    driver = MachineDriver()
    assert driver.change(add(11, "http://new:2380"))[0] == errors.MEMBER_EXIST.number
    assert driver.change(add(13, "http://one:2380"))[0] == errors.PEER_URL_EXIST.number
    learner = add(13, "http://three:2380", learner=True)
    assert driver.change(learner)[0] == errors.TOO_MANY_LEARNERS.number
    assert driver.change(add(0, "http://three:2380"))[0] == errors.MALFORMED_REQUEST.number
    assert driver.machine.membership == Membership((ONE,), (TWO,))


def test_learner_is_promoted_once() -> None:
    driver = MachineDriver()
    error, body = driver.change(MemberPromote(TWO))
    assert error == 0
    assert not any(member.isLearner for member in MemberPromoteResponse.FromString(body).members)
    assert driver.machine.membership == Membership((ONE, TWO))
    assert driver.change(MemberPromote(TWO))[0] == errors.MEMBER_NOT_LEARNER.number
    assert driver.change(MemberPromote(FOUR))[0] == errors.MEMBER_NOT_FOUND.number


def test_removed_member_never_comes_back_not_even_after_a_restart() -> None:
    driver = MachineDriver()
    error, body = driver.change(MemberRemove(TWO))
    assert error == 0
    assert [member.ID for member in MemberRemoveResponse.FromString(body).members] == [ONE]
    for _ in range(2):
        assert driver.machine.is_removed(TWO)
        assert driver.machine.removed_ids == {TWO}
        for command in (
            add(TWO, "http://fresh:2380"),
            MemberRemove(TWO),
            MemberPromote(TWO),
            MemberUpdate(TWO, ("http://fresh:2380",)),
            MemberPublish(TWO, "two", ()),
        ):
            assert driver.change(command)[0] == errors.MEMBER_NOT_FOUND.number
        driver.restart()


def test_last_voter_cannot_be_removed() -> None:
    driver = MachineDriver()
    assert driver.change(MemberRemove(ONE))[0] == errors.MEMBER_NOT_ENOUGH_STARTED.number
    assert driver.change(MemberPromote(TWO))[0] == 0
    assert driver.change(MemberRemove(ONE))[0] == 0
    assert driver.machine.membership == Membership((TWO,))


def test_update_changes_peer_urls_and_nothing_else() -> None:
    driver = MachineDriver()
    before = driver.machine.members[0]
    assert driver.change(MemberUpdate(ONE, ("http://one:1", "http://one:2380")))[0] == 0
    after = driver.machine.members[0]
    assert after.peer_urls == ("http://one:1", "http://one:2380")
    assert (after.name, after.client_urls, after.is_learner) == (before.name, before.client_urls, False)
    assert driver.change(MemberUpdate(TWO, ("http://one:1",)))[0] == errors.PEER_URL_EXIST.number
    assert driver.change(MemberUpdate(ONE, ("http://one:1",)))[0] == 0


def test_name_is_never_taken_back() -> None:
    driver = MachineDriver()
    driver.change(MemberPublish(ONE, "", ("http://elsewhere:1",)))
    assert (driver.machine.members[0].name, driver.machine.members[0].is_started) == ("one", True)


def test_change_that_consensus_was_not_told_of_is_refused() -> None:
    driver = MachineDriver()
    request = encode_member_command(MemberRemove(TWO))
    answer = driver.apply_command(CommandKind.MEMBER_REMOVE, request, EntryKind.COMMANDS)
    assert answer.errors == [errors.MALFORMED_REQUEST.number]
    second = encode_member_command(add(13, "http://three:2380"))
    kinds = bytes([CommandKind.MEMBER_REMOVE, CommandKind.MEMBER_ADD])
    driver.sequence += 1
    batch = Batch(SESSION, driver.sequence, 0, kinds, [request, second])
    (answer,) = driver.apply_raw([encode_batch(batch)], EntryKind.MEMBERSHIP)
    assert answer.errors == [0, errors.MALFORMED_REQUEST.number]
    assert driver.machine.membership == Membership((ONE,))


def test_malformed_member_commands_are_answered() -> None:
    driver = MachineDriver()
    for kind in (10, 11, 12, 13, 14, 15):
        entry_kind = EntryKind.MEMBERSHIP if kind < 14 else EntryKind.COMMANDS
        for request in (b"", b"\xff", b"\x91\xc0", PutRequest(key=b"a").SerializeToString()):
            answer = driver.apply_command(kind, request, entry_kind)
            assert answer.errors == [errors.MALFORMED_REQUEST.number]


def test_machine_remembers_exactly_the_batches_that_must_not_be_examined_again() -> None:
    driver = MachineDriver()
    assert not driver.machine.remembers(SESSION, 1)
    driver.change(MemberRemove(TWO))
    assert driver.machine.remembers(SESSION, 1)
    assert not driver.machine.remembers(SESSION, 2)
    assert not driver.machine.remembers(SESSION + 1, 1)
    driver.restart()
    assert driver.machine.remembers(SESSION, 1)
    driver.put(b"a")  # acknowledges the batch before
    assert driver.machine.remembers(SESSION, 1)


# --- against a naive model ----------------------------------------------------------------------


Changes = MemberAdd | MemberPromote | MemberRemove | MemberUpdate | MemberPublish


class Model:
    """etcd's rules, as plainly as they can be said."""

    def __init__(self) -> None:
        self.members: dict[MemberId, tuple[str, tuple[str, ...], tuple[str, ...], bool]] = {
            ONE: ("one", ("http://one:2380",), ("http://one:2379", "http://one:9"), False),
            TWO: ("two", (), (), True),
        }
        self.removed: set[int] = set()

    def taken(self, urls: tuple[str, ...], but: int) -> bool:
        return any(
            url in peers for id_, (_, peers, _, _) in self.members.items() if id_ != but for url in urls
        )

    def run(self, command: Changes) -> int:
        match command:
            case MemberAdd(id_, name, urls, learner):
                if id_ in self.removed:
                    return errors.MEMBER_NOT_FOUND.number
                if id_ in self.members:
                    return errors.MEMBER_EXIST.number
                if self.taken(urls, 0):
                    return errors.PEER_URL_EXIST.number
                if learner and any(is_learner for *_, is_learner in self.members.values()):
                    return errors.TOO_MANY_LEARNERS.number
                self.members[id_] = (name, urls, (), learner)
                return 0
            case MemberRemove(id_) | MemberPromote(id_) | MemberUpdate(id_) | MemberPublish(id_):
                if id_ not in self.members:
                    return errors.MEMBER_NOT_FOUND.number
        name, urls, clients, learner = self.members[command.id]
        match command:
            case MemberPromote():
                if not learner:
                    return errors.MEMBER_NOT_LEARNER.number
                self.members[command.id] = (name, urls, clients, False)
            case MemberRemove():
                voters = [id_ for id_, (*_, is_learner) in self.members.items() if not is_learner]
                if voters == [command.id]:
                    return errors.MEMBER_NOT_ENOUGH_STARTED.number
                del self.members[command.id]
                self.removed.add(command.id)
            case MemberUpdate():
                if self.taken(command.peer_urls, command.id):
                    return errors.PEER_URL_EXIST.number
                self.members[command.id] = (name, command.peer_urls, clients, learner)
            case MemberPublish():
                self.members[command.id] = (command.name or name, urls, command.client_urls, learner)
        return 0


IDS = st.integers(11, 16).map(MemberId)
URLS = st.lists(
    st.sampled_from([f"http://{n}" for n in ("one:2380", "a:1", "b:1", "c:1", "d:1")]),
    max_size=2,
    unique=True,
).map(tuple)
commands = st.one_of(
    st.builds(MemberAdd, IDS, st.sampled_from(["", "x"]), URLS, st.booleans()),
    st.builds(MemberAdd, IDS, st.just(""), URLS, st.just(False)),
    st.builds(MemberPromote, IDS),
    st.builds(MemberRemove, IDS),
    st.builds(MemberUpdate, IDS, URLS),
    st.builds(MemberPublish, IDS, st.sampled_from(["", "y"]), URLS),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(commands, st.sampled_from(["", "", "restart", "again"])), max_size=25))
def test_members_follow_the_naive_model_through_restarts_and_repeats(
    script: list[tuple[Changes, str]],
) -> None:
    driver, model = MachineDriver(), Model()
    for command, then in script:
        error, body = driver.change(command)
        assert error == model.run(command), command
        if then == "restart":
            driver.restart()
        elif then == "again":  # a copy of the batch, by way of another leader
            driver.sequence -= 1
            before = driver.machine.members
            assert driver.change(command) == (error, body)
            assert driver.machine.members == before
        found = {m.id: (m.name, m.peer_urls, m.client_urls, m.is_learner) for m in driver.machine.members}
        assert found == model.members
        assert list(found) == sorted(found)
        assert driver.machine.removed_ids == model.removed
        voters = sorted(id_ for id_, (*_, learner) in model.members.items() if not learner)
        learners = sorted(id_ for id_, (*_, learner) in model.members.items() if learner)
        assert driver.machine.membership == Membership(tuple(voters), tuple(learners))
        assert [member.ID for member in listed(driver)] == list(found)
