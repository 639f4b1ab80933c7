"""From the tables on disk to the state machine in memory: the one place where the two meet at a start."""

from __future__ import annotations

from collections.abc import Sequence

from etcray_storage.machine.machine import StateMachine
from etcray_storage.machine.members import Member
from etcray_storage.mvcc.tables import Tables


def load_machine(tables: Tables, founders: Sequence[Member]) -> StateMachine:
    """The state machine as the tables have it: the in-memory index is built anew. `founders` are the
    members of a store that has not stored any."""
    machine = StateMachine(tables, founders)
    machine.restore(
        tables.applied_index,
        tables.applied_term,
        tables.revision,
        tables.compact_revision,
        tables.load_history(),
        tables.load_current(),
        tables.load_items(),
    )
    return machine
