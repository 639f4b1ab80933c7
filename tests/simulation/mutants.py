"""Planted mistakes: each is one that somebody has made. The simulation must find every one of them.

A mistake is planted from outside, in the globals and classes of the product, and taken away again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from etcray.node.driver import Driver
from etcray.node.leases import LeaseKeeper
from etcray.raft import leader, membership
from etcray.raft.messages import AppendResponse, Message, VoteResponse
from etcray.raft.read_index import ReadState
from etcray.raft.ready import Role
from etcray.raft.state import Leadership, State
from etcray_storage.machine.machine import StateMachine
from etcray_storage.machine.sessions import Sessions
from etcray_storage.mvcc.rows import Flush
from etcray_storage.types import Index
from tests.simulation import files
from tests.simulation.primitives import the
from tests.simulation.substitution import Replacements


class Planted(NamedTuple):
    """A mistake, and the kind of run in which it shows soonest."""

    plant: Callable[[Replacements], None]
    profile: str


def _leaves_at_once(kind: type[Message]) -> Callable[[Replacements], None]:
    def plant(replacements: Replacements) -> None:
        correct = State.send_after_sync

        def send_after_sync(self: State, message: Message) -> None:
            if isinstance(message, kind):
                self.send(message)
            else:
                correct(self, message)

        replacements.set(State, "send_after_sync", send_after_sync)

    return plant


def _commit_by_counting(replacements: Replacements) -> None:
    correct = leader.maybe_commit

    def maybe_commit(state: State, leading: Leadership) -> None:
        first, leading.first_index = leading.first_index, Index(0)
        correct(state, leading)
        leading.first_index = first

    replacements.replace(correct, maybe_commit, "etcray.raft")


def _read_before_first_commit(replacements: Replacements) -> None:
    def read_index(state: State, leading: Leadership) -> int:
        state.last_read_token += 1
        leading.reads.begin(state.last_read_token, state.commit)
        leading.flush_due = True
        return state.last_read_token

    replacements.replace(leader.read_index, read_index, "etcray.raft")


def _read_without_confirmation(replacements: Replacements) -> None:
    def read_index(state: State, leading: Leadership) -> int:
        state.last_read_token += 1
        state.read_states.append(ReadState(state.last_read_token, state.commit))
        return state.last_read_token

    replacements.replace(leader.read_index, read_index, "etcray.raft")


def _double_apply(replacements: Replacements) -> None:
    """Sessions are known, and nobody asks them."""
    correct = Sessions.admit

    def admit(self: Sessions, session: int, sequence: int, *rest: int) -> Any:
        verdict = correct(self, session, sequence, *rest)
        return verdict if isinstance(verdict, bool) else True

    replacements.set(Sessions, "admit", admit)


def _index_apart_from_data(replacements: Replacements) -> None:
    """The tables are told an applied index that is behind the rows."""
    correct = StateMachine.take_flush

    def take_flush(self: StateMachine) -> Flush | None:
        flush = correct(self)
        if flush is None or flush.applied_index < 2:
            return flush
        return flush._replace(applied_index=Index(flush.applied_index - 1))

    replacements.set(StateMachine, "take_flush", take_flush)


def _expiry_by_a_follower(replacements: Replacements) -> None:
    """A follower ends leases when its own clock says so."""
    correct = LeaseKeeper.do_round
    seen: dict[tuple[int, int], float] = {}

    def do_round(self: LeaseKeeper) -> None:
        correct(self)
        with self._applier.state:
            machine = self._applier.machine
            if self._driver.soft_state.role is Role.LEADER:
                return
            for lease, known in sorted(machine.leases.items()):
                since = seen.setdefault((id(self), lease), self._clock())
                if self._clock() > since + known.ttl_seconds:
                    machine.leases.revoke(lease, machine._clock.time_ms)

    replacements.set(LeaseKeeper, "do_round", do_round)


def _two_changes_at_once(replacements: Replacements) -> None:
    """A change of members is proposed while another one is under way."""
    replacements.set(membership, "check_proposal", lambda state, leading: None)


def _snapshot_forgets_sessions(replacements: Replacements) -> None:
    correct = files.prepare_install

    def prepare_install(*arguments: Any) -> Any:
        tables = correct(*arguments)
        tables.items = {name: value for name, value in tables.items.items() if name[0] != "session"}
        return tables

    replacements.replace(correct, prepare_install, "etcray.node")


def _core_learns_late_of_compaction(replacements: Replacements) -> None:
    """The log lets go of entries before the core is told. (This was so, and was found here.)"""
    correct = Driver.log_compacted_to

    def log_compacted_to(self: Driver, index: Index) -> None:
        def tell() -> None:
            the.world.sleep(0.01)
            correct(self, index)

        the.process.spawn(tell, "told late")

    replacements.set(Driver, "log_compacted_to", log_compacted_to)


MUTANTS: dict[str, Planted] = {
    "vote answered before its sync": Planted(_leaves_at_once(VoteResponse), "storm"),
    "ack before its sync": Planted(_leaves_at_once(AppendResponse), "disks"),
    "commit of an old term by counting": Planted(_commit_by_counting, "storm"),
    "ReadIndex before the first commit of the term": Planted(_read_before_first_commit, "replacement"),
    "read without confirmation": Planted(_read_without_confirmation, "storm"),
    "double apply on retry": Planted(_double_apply, "gateways"),
    "applied index apart from the data": Planted(_index_apart_from_data, "crashy"),
    "lease expiry by a follower": Planted(_expiry_by_a_follower, "leases"),
    "two membership changes at once": Planted(_two_changes_at_once, "membership"),
    "the core learns late of a compaction": Planted(_core_learns_late_of_compaction, "snapshots"),
    "snapshot that forgets sessions": Planted(_snapshot_forgets_sessions, "snapshots"),
}
