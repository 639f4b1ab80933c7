"""Leases under a leader: the thread that ends them, and the calls that keep them alive.

The deadlines are in `lessor`; this is the shell around it. It learns of grants and revokes right after
an entry was applied, before anybody is answered; and what it decides goes through the log like every
other change, in batches of session 0, which nobody has to remember.

Why an old leader ends no lease and renews none that others have given up (failure mode L3):

1. It holds leases only from the moment on when it has applied an entry of its own term: by then it
   knows every grant, renewal and expiry that an earlier leader got into the log.
2. What it proposes must enter the log in the very term in which it was decided. It can be appended
   by a deposed leader, but never committed.
3. A renewal is answered only after a majority has confirmed, since the request came, that there is no
   newer leader. A newer one begins later than that, and lets each lease live for its whole TTL from
   there, or for what the log says about it.
4. If the log says less than the whole TTL, the renewal is not answered before it says that again.

Locks, in the order in which they may be nested: `_proposing`, `Applier.state`, `_lock`; or `_proposing`,
then the driver's mutex.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from etcray.node.applier import Applier
from etcray.node.driver import Driver
from etcray.node.lessor import NOT_LOWERED, LeaseAtStart, Lessor
from etcray.node.waiters import Steps, Wait, Waiter
from etcray.raft.errors import NotLeaderError, ProposalDroppedError
from etcray.raft.ready import Role
from etcray_storage.commands import (
    INTERNAL_SESSION,
    Answer,
    Batch,
    BatchAnswer,
    CommandKind,
    LeaseCheckpoint,
    LeaseExpiry,
    Payload,
    ReadKind,
    encode_batch,
    encode_lease_command,
    encode_payload,
)
from etcray_storage.limits import (
    LEASE_CHECKPOINTS_PER_ROUND_MAX,
    LEASE_EXPIRIES_PER_ROUND_MAX,
    LEASE_EXPIRY_KEYS_PER_ROUND_MAX,
    LEASE_ROUND_SECONDS,
)
from etcray_storage.machine.machine import StateMachine
from etcray_storage.proto.rpc_pb2 import LeaseTimeToLiveResponse
from etcray_storage.types import Entry, Index, Term

NO_TERM: Final = Term(0)

_Command = tuple[CommandKind, LeaseExpiry | LeaseCheckpoint]


class LeaseKeeper:
    """One member's part in leases, which is none unless it leads."""

    def __init__(
        self,
        applier: Applier,
        driver: Driver,
        clock: Callable[[], float],
        time_ms: Callable[[], int],
        extend_seconds: float,
        sequences: Iterator[int],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._applier = applier
        self._driver = driver
        self._clock = clock
        self._time_ms = time_ms
        self._extend_seconds = extend_seconds
        self._on_failure = on_failure
        self._lock = threading.Lock()
        """Guards the next three."""
        self._lessor = Lessor()
        self._term = NO_TERM
        """The leadership to which the lessor's knowledge belongs."""
        self._seen_index = Index(0)
        """The lessor knows every grant and revoke up to here."""
        self._proposing = threading.Lock()
        """Held from a decision about checkpoints until it is proposed. A checkpoint that lowers a lease
        must not enter the log behind the one that raises it again after a renewal."""
        self._sequences = sequences
        """No two leaders may give batches of session 0 the same number: somebody may wait for one."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    # --- what the log says --------------------------------------------------------------------
    def applied(self, entry: Entry, machine: StateMachine) -> None:
        """An entry was applied. Called in order, under `Applier.state`."""
        changed = machine.leases.take_changed()
        state = self._driver.soft_state
        if state.role is not Role.LEADER:
            return
        with self._lock:
            if self._term == state.term:
                self._seen_index = entry.index
                self._learn(changed, machine)
            elif entry.term == state.term:
                self._term = state.term
                self._seen_index = entry.index
                self._lessor.promote(
                    (
                        LeaseAtStart(lease, known.ttl_seconds, known.remaining_ms)
                        for lease, known in machine.leases.items()
                    ),
                    self._clock(),
                    self._extend_seconds,
                )

    def _learn(self, changed: Sequence[int], machine: StateMachine) -> None:
        for lease in changed:
            known = machine.leases.get(lease)
            if known is None:
                self._lessor.revoked(lease)
            else:
                self._lessor.granted(lease, known.ttl_seconds, self._clock())

    def _leads(self) -> bool:
        """Whether the lessor's knowledge is that of the present leadership. Under `_lock`."""
        state = self._driver.soft_state
        return state.role is Role.LEADER and state.term == self._term

    # --- what clients ask ---------------------------------------------------------------------
    def renew(self, leases: Sequence[int], timeout_seconds: float) -> Steps[list[int] | None]:
        """Renew leases, after ReadIndex has confirmed the leadership. The granted TTL of each, 0 for
        one that has ended; None if the leadership is lost, and then nothing is promised."""
        with self._lock:
            if not self._leads():
                return None
            now, term, seen_index = self._clock(), self._term, self._seen_index
            granted = [self._lessor.renew(lease, now) for lease in leases]
            lowered = {
                lease: (ttl_seconds * 1000, self._lessor.lowered(lease))
                for lease, ttl_seconds in zip(leases, granted, strict=True)
                if ttl_seconds and self._lessor.lowered(lease) != NOT_LOWERED
            }
        if lowered:
            full = LeaseCheckpoint(list(lowered), [full_ms for full_ms, _ in lowered.values()], seen_index)
            if not (yield from self._propose_and_wait(full, term, timeout_seconds)):
                return None
            with self._lock:
                for lease, (_, number) in lowered.items():
                    self._lessor.raised(lease, number)
        return granted

    def fill_in_remaining(self, kinds: bytes, answers: Sequence[Answer]) -> list[Answer] | None:
        """The answers with the whole seconds that each lease really has left; None if the leadership
        is lost."""
        with self._lock:
            if not self._leads():
                return None
            return [
                self._with_remaining(answer)
                if kind == ReadKind.LEASE_TIME_TO_LIVE and not answer.error
                else answer
                for kind, answer in zip(kinds, answers, strict=True)
            ]

    def _with_remaining(self, answer: Answer) -> Answer:
        response = LeaseTimeToLiveResponse.FromString(answer.body)
        if response.grantedTTL == 0:  # there is no such lease
            return answer
        remaining = self._lessor.remaining_seconds(response.ID, self._clock())
        response.TTL = 0 if remaining is None else int(remaining)
        return Answer(answer.revision, answer.error, response.SerializeToString())

    # --- what the leader decides --------------------------------------------------------------
    def _run(self) -> None:
        try:
            while not self._closed.wait(LEASE_ROUND_SECONDS):
                self.do_round()
        except BaseException as e:
            self._on_failure(e)
            raise

    def do_round(self) -> None:
        """Look once which leases have ended or need a checkpoint, and propose it."""
        with self._proposing:
            with self._applier.state, self._lock:
                if not self._leads():
                    self._lessor.demote()
                    self._term = NO_TERM
                    return
                now, term, seen_index = self._clock(), self._term, self._seen_index
                ended = self._lessor.expired(
                    now,
                    LEASE_EXPIRIES_PER_ROUND_MAX,
                    self._applier.machine.leases.key_count,
                    LEASE_EXPIRY_KEYS_PER_ROUND_MAX,
                )
                due = self._lessor.checkpoints_due(now, LEASE_CHECKPOINTS_PER_ROUND_MAX)
            commands: list[_Command] = []
            if ended:
                commands.append((CommandKind.LEASE_EXPIRE, LeaseExpiry(ended, seen_index)))
            if due:
                checkpoint = LeaseCheckpoint([lease for lease, _ in due], [ms for _, ms in due], seen_index)
                commands.append((CommandKind.LEASE_CHECKPOINT, checkpoint))
            if commands:
                self._propose(commands, next(self._sequences), term)

    def _propose(self, commands: Sequence[_Command], sequence: int, term: Term) -> bool:
        """False if it did not enter the log. That is no harm: the lessor will say it again."""
        batch = Batch(
            INTERNAL_SESSION,
            sequence,
            0,
            bytes(kind for kind, _ in commands),
            [encode_lease_command(command) for _, command in commands],
        )
        try:
            self._driver.propose(encode_payload(Payload(self._time_ms(), [encode_batch(batch)])), term)
        except (NotLeaderError, ProposalDroppedError):
            return False
        return True

    def _propose_and_wait(self, command: LeaseCheckpoint, term: Term, timeout_seconds: float) -> Steps[bool]:
        batch_id = (INTERNAL_SESSION, next(self._sequences))
        waiter: Waiter[BatchAnswer] = self._applier.expect(batch_id)
        with self._proposing:
            proposed = self._propose([(CommandKind.LEASE_CHECKPOINT, command)], batch_id[1], term)
        if proposed:
            yield Wait(waiter, timeout_seconds)
            if waiter.value is not None:
                return True
        self._applier.forget(batch_id, waiter)
        return False
