"""A cluster that lost its majority, made to go on from one of its members: offline, on the files.

Two questions. Which survivor knows most? The one whose last entry has the highest term, and of those the
highest index: by the rule of elections it has every entry that any other survivor could have been asked to
keep. What may be lost? Nothing at all, if so few voters are lost that every majority had a survivor in it.
Otherwise what the lost ones had acknowledged among themselves, after the survivor's last entry.

The survivor then becomes the only member, in ways that it knows already:
1. Every entry of its log is applied, also those that were never known to be committed: the lost ones may
   have committed them.
2. Entries of a new term are applied after them that promote it, if it was a learner, and remove each
   other member, one by one. So their ids are among the removed ones for ever.
3. The tables are written, and the log begins anew behind them, as after a snapshot.
4. The directory moves to another cluster id. Members of the old one that come back are not heard.
A crash between any two of these leaves a directory on which the same can be done again: 1 and 2 find less
to do. It cannot be opened as a member meanwhile, because the cluster file was changed before 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from etcray_storage.commands import (
    INTERNAL_SESSION,
    Batch,
    CommandKind,
    MemberPromote,
    MemberRemove,
    Payload,
    decode_payload,
    encode_batch,
    encode_member_command,
    encode_payload,
)
from etcray_storage.data_directory import DataDirectory, read_identity
from etcray_storage.errors import (
    DataDirectoryError,
    DataDirectoryInUseError,
    OperatingError,
    StorageCorruptError,
)
from etcray_storage.limits import LOG_RECORD_BYTES_MAX
from etcray_storage.loading import load_machine
from etcray_storage.log import Log
from etcray_storage.machine.members import Member
from etcray_storage.mvcc.tables import Tables
from etcray_storage.types import NOBODY, ClusterId, Entry, EntryKind, HardState, Index, MemberId, Term


class Survivor(NamedTuple):
    """One member's directory, and how far it goes."""

    path: Path
    name: str
    member_id: MemberId
    problem: str
    """Why it cannot be used; what follows means nothing then."""
    epoch: int = 0
    """How many recoveries its cluster had had when it was last a member."""
    last_term: Term = Term(0)
    last_index: Index = Index(0)
    commit: Index = Index(0)
    """What it knew to be committed."""
    revision: int = 0
    """After all its entries."""
    time_ms: int = 0
    """When its last entry was written, by the leader's clock; 0 if it has none in its log."""
    members: tuple[Member, ...] = ()
    """After all its entries."""

    @property
    def reach(self) -> tuple[int, int, int]:
        """Who has the highest knows most. Terms of different epochs cannot be compared."""
        return self.epoch, self.last_term, self.last_index


class Loss(NamedTuple):
    """What a recovery from a survivor may lose."""

    lost_voters: tuple[Member, ...]
    """Nobody can ask them."""
    is_possible: bool
    """A majority of the voters may have acknowledged writes that the survivor never saw."""
    unconfirmed: int
    """Entries that it has and did not know to be committed. They are kept: clients may have been told that
    they succeeded, or that nobody knows."""


def survey(path: Path, cluster_ids: list[ClusterId], founders: list[Member]) -> Survivor:
    """Look at one member's directory: applies its entries in memory, and changes nothing but the count of
    its openings. `cluster_ids` by epoch: the ids that this cluster had and has.

    Raises DataDirectoryInUseError if the member runs: nobody recovers from a majority that is not lost."""
    name, member_id = path.name, NOBODY
    try:
        identity = read_identity(path)
        if identity is None or not identity.complete:
            raise DataDirectoryError(f"{path} was never complete")
        cluster_id = ClusterId(int(identity.cluster_id, 16))
        if cluster_id not in cluster_ids:
            raise DataDirectoryError(f"{path} belongs to cluster {identity.cluster_id}")
        name, member_id = identity.member_name, MemberId(int(identity.member_id, 16))
        directory = DataDirectory.open(
            path, cluster_id, member_id, identity.cluster_name, name, must_exist=True
        )
        try:
            return _look(directory, founders)._replace(epoch=cluster_ids.index(cluster_id))
        finally:
            directory.close()
    except DataDirectoryInUseError:
        raise
    except OperatingError as error:
        return Survivor(path, name, member_id, str(error))


def _look(directory: DataDirectory, founders: list[Member]) -> Survivor:
    name, member_id = directory.identity.member_name, MemberId(int(directory.identity.member_id, 16))
    with _Opened(directory.path, founders) as opened:
        time_ms = opened.apply_all()
        machine = opened.machine
        problem = ""
        if machine.is_removed(member_id):
            problem = f"{name} was removed from the cluster"
        elif all(member.id != member_id for member in machine.members):
            problem = f"{name} had not joined the cluster yet"
        return Survivor(
            directory.path,
            name,
            member_id,
            problem,
            last_term=machine.applied_term,
            last_index=machine.applied_index,
            commit=Index(max(opened.log.hard_state.commit, opened.tables.applied_index)),
            revision=machine.revision,
            time_ms=time_ms,
            members=machine.members,
        )


def choose(survivors: list[Survivor]) -> Survivor | None:
    """Who knows most; None if nobody can be used."""
    usable = [survivor for survivor in survivors if not survivor.problem]
    return max(usable, key=lambda survivor: survivor.reach, default=None)


def loss_of(chosen: Survivor, survivors: list[Survivor]) -> Loss:
    """What going on from `chosen` may lose."""
    here = {survivor.member_id for survivor in survivors if not survivor.problem}
    voters = [member for member in chosen.members if not member.is_learner]
    lost = tuple(voter for voter in voters if voter.id not in here)
    majority = len(voters) // 2 + 1
    commit = max((s.commit for s in survivors if not s.problem), default=chosen.commit)
    return Loss(lost, len(lost) >= majority, max(0, chosen.last_index - commit))


def make_sole_member(
    path: Path, old: ClusterId, new: ClusterId, cluster_name: str, founders: list[Member]
) -> None:
    """Make the member of this directory the only one of cluster `new`. Done already, it does nothing.

    Raises OperatingError; the same call finishes what was begun."""
    identity = read_identity(path)
    if identity is None:
        raise DataDirectoryError(f"{path} is no member's directory")
    if identity.cluster_id == f"{new:x}":
        return
    member_id = MemberId(int(identity.member_id, 16))
    directory = DataDirectory.open(path, old, member_id, cluster_name, identity.member_name, must_exist=True)
    try:
        with _Opened(path, founders) as opened:
            opened.apply_all()
            opened.leave_alone(member_id)
            opened.store()
        directory.move_to_cluster(new)
    finally:
        directory.close()


class _Opened:
    """Log, tables and state machine of a directory that is locked."""

    def __init__(self, path: Path, founders: list[Member]) -> None:
        self.path = path
        self.tables = Tables.open(path / "tables")
        try:
            self.log = Log.open(path / "log")
        except BaseException:
            self.tables.close()
            raise
        try:
            self.machine = load_machine(self.tables, founders)
        except BaseException:
            self.log.close()
            self.tables.close()
            raise

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_error: object) -> None:
        self.log.close()
        self.tables.close()

    def apply_all(self) -> int:
        """Apply what the log has beyond the tables. The time of the last entry that has one."""
        log, machine = self.log, self.machine
        if log.is_new or log.base_index > machine.applied_index:
            raise StorageCorruptError(
                f"{self.path}: entries are missing between the tables, which end at {machine.applied_index}, "
                f"and the log, which begins after {log.base_index}: this member cannot be recovered from"
            )
        time_ms = 0
        while machine.applied_index < log.last_index:
            first = Index(machine.applied_index + 1)
            for entry in log.entries(first, log.last_index, LOG_RECORD_BYTES_MAX):
                machine.apply(entry)
                if entry.data:
                    time_ms = max(time_ms, decode_payload(entry.data).time_ms)
            self._flush()
        return time_ms

    def _flush(self) -> None:
        """Into the staging area only, where reads find it; nothing is on disk before `store`."""
        flush = self.machine.take_flush()
        if flush is not None:
            self.tables.stage(flush)

    def leave_alone(self, member_id: MemberId) -> None:
        """Apply entries that make this member the only one."""
        machine = self.machine
        term = Term(max(machine.applied_term, self.log.hard_state.term) + 1)
        own = next((member for member in machine.members if member.id == member_id), None)
        if own is None:
            raise DataDirectoryError(f"{self.path}: its member is not in the cluster")
        if own.is_learner:
            self._apply(term, CommandKind.MEMBER_PROMOTE, encode_member_command(MemberPromote(member_id)))
        for other in [member.id for member in machine.members if member.id != member_id]:
            self._apply(term, CommandKind.MEMBER_REMOVE, encode_member_command(MemberRemove(other)))
        assert [member.id for member in machine.members] == [member_id], f"left are {machine.members}"

    def _apply(self, term: Term, kind: CommandKind, request: bytes) -> None:
        batch = encode_batch(Batch(INTERNAL_SESSION, 0, 0, bytes([kind]), [request]))
        data = encode_payload(Payload(0, [batch]))
        index = Index(self.machine.applied_index + 1)
        answer = self.machine.apply(Entry(index, term, EntryKind.MEMBERSHIP, data))[0]
        assert answer.errors == [0], f"{kind.name} was refused with error {answer.errors}"

    def store(self) -> None:
        """Durably: the tables, then the log."""
        self._flush()
        self.tables.write()
        machine = self.machine
        term = Term(max(machine.applied_term, self.log.hard_state.term))
        self.log.reset(
            machine.applied_index, machine.applied_term, HardState(term, NOBODY, machine.applied_index)
        )
