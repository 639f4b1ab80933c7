"""From a data directory to a member's state: what is on disk, made whole.

The log and the tables are written by different threads, so after a crash they end at different
points. Which combinations are possible, and what each means:

1. The tables are behind the log. Normal: the entries between are applied again.
2. The tables end with an entry that the log does not have: it is shorter, or has another one there, of
   an older term. Only an interrupted snapshot install leaves this: the new tables were committed, the
   log was not yet reset. The reset is finished here.
3. The log begins after the tables' applied index. Entries in between are lost: the log is only
   trimmed behind what the tables have stored, so one of the two was damaged or replaced.
4. There is no log. Only a member that was never complete may create one: a log that was lost takes
   with it votes and acks on which others rely (failure mode B7).

What cannot be made whole is put into quarantine, durably: nobody votes from this directory again, not even
if somebody puts the lost files back. Files that were copied back may be older than what the member last
promised, and nothing in them would say so.
"""

from __future__ import annotations

from typing import NamedTuple

from etcray.spec import ClusterSpec, peer_url
from etcray.tuning import Durability
from etcray_storage.data_directory import DataDirectory
from etcray_storage.errors import StorageCorruptError
from etcray_storage.loading import load_machine
from etcray_storage.log import Log
from etcray_storage.machine.machine import StateMachine
from etcray_storage.machine.members import Member as ClusterMember
from etcray_storage.mvcc.tables import Tables
from etcray_storage.types import NOBODY, HardState, Index, Membership


class Recovered(NamedTuple):
    """The parts of a member as its disk has them."""

    log: Log
    tables: Tables
    machine: StateMachine
    commit_index: Index
    """What is known to be committed; the member is ready once it has applied this."""


def recover(directory: DataDirectory, cluster: ClusterSpec) -> Recovered:
    """Open everything in `directory`. Raises QuarantinedError; nothing stays open then."""
    try:
        return _recover(directory, cluster)
    except StorageCorruptError as e:
        raise directory.quarantine(str(e)) from e


def _recover(directory: DataDirectory, cluster: ClusterSpec) -> Recovered:
    tables = Tables.open(directory.path / "tables")
    log: Log | None = None
    try:
        if not tables.membership.voters:
            founders = sorted(founder.id for founder in cluster.first_members)
            tables.bootstrap(Membership(voters=tuple(founders)))
        is_synced = cluster.tuning.durability is Durability.SYNCED
        log = Log.open(directory.path / "log", is_synced=is_synced)
        _align(log, tables, directory)
        machine = machine_of(tables, cluster)
        directory.mark_complete()
    except BaseException:
        if log is not None:
            log.close()
        tables.close()
        raise
    commit = max(log.hard_state.commit, tables.applied_index)
    return Recovered(log, tables, machine, commit)


def _align(log: Log, tables: Tables, directory: DataDirectory) -> None:
    applied, term = tables.applied_index, tables.applied_term
    if log.is_new and directory.identity.complete:
        raise StorageCorruptError(
            f"{directory.path}: the log is gone, and with it votes and acks that this member gave. "
            "Rebuild this member from its peers."
        )
    if log.base_index > applied:
        raise StorageCorruptError(
            f"{directory.path}: the log begins after entry {log.base_index}, but the tables end at entry "
            f"{applied}: entries between them are lost. Rebuild this member from its peers."
        )
    if log.last_index < applied or log.term(applied) != term:
        known = log.hard_state
        # The leader's term may have been on its way to the log when its snapshot took effect: what was
        # promised in it has not left this member.
        hard_state = known if known.term >= term else HardState(term, NOBODY, known.commit)
        log.reset(applied, term, hard_state)


def machine_of(tables: Tables, cluster: ClusterSpec) -> StateMachine:
    """The state machine as the tables have it, in a cluster that began with these members."""
    founders = [
        ClusterMember(
            id=founder.id,
            name=founder.name,
            peer_urls=(peer_url(cluster.name, founder.name),),
            client_urls=(),
        )
        for founder in cluster.first_members
    ]
    return load_machine(tables, founders)
