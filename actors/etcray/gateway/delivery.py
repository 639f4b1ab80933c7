"""Bring every parcel to a member until it is answered: who leads, where to send, when to send again.

Pure: `now` is given, nothing is sent from here. The caller asks for `sends(now)`, performs them, and
reports what came of each.

Two kinds of parcels: for the leader (batches of proposals, linearizable reads, renewals of
leases), and for any member (serializable reads; one member is kept as long as it answers). Sending a
parcel twice is harmless: reads change nothing, a lease may be renewed twice, and the state machine
applies a batch once. So the rules are simple:

- whoever answers decides; an answer to an older attempt is as good as one to the newest;
- NOT_LEADER, or a call that failed: the parcel goes to the leader that is known next;
- no reply for `SILENCE_SECONDS`: the caller looks around with status polls (`should_probe`), and when
  another member leads in a higher term, the parcel goes there without waiting for the old call;
- no reply for `RESEND_SECONDS` although the addressee leads: sent there again (the call may be lost).

The race that the rule about terms prevents: 1. A leads in term 4, is cut off, and we learn that B leads
in term 5. 2. A, which does not know, still answers a poll with "I lead in term 4". 3. Without the
rule we would send everything back to A, and hang until A steps down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from etcray_storage.types import NOBODY, MemberId, Term

SILENCE_SECONDS: Final = 0.25
"""A healthy round takes some milliseconds; after this much silence something is wrong or stuck."""
PROBE_INTERVAL_SECONDS: Final = 0.05
RESEND_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 0.02
"""Before a parcel goes again to a member that refused it: busy, or not the leader it was said to be."""


class Lane(Enum):
    """Which call of a member a parcel is for, and who may answer it."""

    PROPOSE = "propose"
    READ_LINEARIZABLE = "read from the leader"
    READ_SERIALIZABLE = "read from any member"
    KEEP_ALIVE = "renew leases at the leader"


class Send(NamedTuple):
    """One call that the caller has to make now."""

    parcel: int
    attempt: int
    lane: Lane
    member: MemberId
    data: bytes


class _Parcel:
    __slots__ = ("attempt", "data", "lane", "member", "not_before", "number", "sent_at")

    def __init__(self, number: int, lane: Lane, data: bytes) -> None:
        self.number = number
        self.lane = lane
        self.data = data
        """Byte-identical in every attempt."""
        self.member = NOBODY
        """Where the newest attempt went; nobody while it waits to be sent."""
        self.attempt = 0
        self.sent_at = 0.0
        self.not_before = 0.0


class Delivery:
    """The parcels under way, and what is known about the leader."""

    def __init__(self, members: Iterable[MemberId]) -> None:
        self._members: tuple[MemberId, ...] = tuple(sorted(members))
        self._parcels: dict[int, _Parcel] = {}
        self._waiting: dict[int, _Parcel] = {}
        """Those that are not on their way, in the order in which they are to leave."""
        self._next_number = 1
        self.leader: MemberId = NOBODY
        self.term: Term = Term(0)
        """The highest term that had a leader, as far as we heard. `leader` leads in it, or is nobody."""
        self._preferred: MemberId = self._members[0] if self._members else NOBODY
        self._suspected: dict[MemberId, Term] = {}
        """Leaders whose call failed, and in which term: no longer believed to lead it by hearsay."""
        self._probe_not_before = 0.0
        self.resend_count = 0

    def set_members(self, members: Sequence[MemberId]) -> None:
        self._members = tuple(sorted(members))
        if self._preferred not in self._members:
            self._preferred = self._members[0] if self._members else NOBODY
        if self.leader not in self._members:
            self.leader = NOBODY
        for parcel in self._parcels.values():
            if parcel.member != NOBODY and parcel.member not in self._members:
                self._put_back(parcel, 0.0)

    # --- parcels ----------------------------------------------------------------------------------

    def add(self, lane: Lane, data: bytes) -> int:
        number = self._next_number
        self._next_number += 1
        parcel = _Parcel(number, lane, data)
        self._parcels[number] = parcel
        self._waiting[number] = parcel
        return number

    def attempts(self, number: int) -> int:
        return self._parcels[number].attempt

    def remove(self, number: int) -> None:
        """The parcel is answered, or nobody waits for it any more. Late reports about it are ignored."""
        self._parcels.pop(number, None)
        self._waiting.pop(number, None)

    def is_open(self, number: int) -> bool:
        return number in self._parcels

    def sends(self, now: float) -> list[Send]:
        """Everything that can leave now. Each is reported once, as under way to that member."""
        if not self._waiting:
            return []
        sends: list[Send] = []
        for parcel in list(self._waiting.values()):
            member = self._addressee(parcel.lane)
            if member == NOBODY or now < parcel.not_before:
                continue
            del self._waiting[parcel.number]
            if parcel.attempt:
                self.resend_count += 1
            parcel.attempt += 1
            parcel.member = member
            parcel.sent_at = now
            sends.append(Send(parcel.number, parcel.attempt, parcel.lane, member, parcel.data))
        return sends

    def _addressee(self, lane: Lane) -> MemberId:
        """Serializable reads go to the leader as well while one is known: it has applied whatever
        it answered, so a client reads its own writes, as it does at an etcd member."""
        if lane is Lane.READ_SERIALIZABLE and self.leader == NOBODY:
            return self._preferred
        return self.leader

    def _put_back(self, parcel: _Parcel, not_before: float) -> None:
        parcel.member = NOBODY
        parcel.not_before = not_before
        self._waiting[parcel.number] = parcel

    # --- what came of a send ----------------------------------------------------------------------

    def answered(self, number: int, member: MemberId, leader: MemberId, term: Term) -> None:
        """A member answered this parcel for good."""
        self.heard(member, leader, term)
        self.remove(number)

    def refused(self, now: float, send: Send, leader: MemberId, term: Term) -> None:
        """The member does not lead (any more): on to the one that it names, or to whoever turns up."""
        if self.leader == send.member and term >= self.term:
            self.leader = NOBODY  # it must know
        self.heard(send.member, leader, term)
        self._again(now, send, PAUSE_SECONDS if self._addressee(send.lane) == send.member else 0.0)

    def busy(self, now: float, send: Send) -> None:
        self._again(now, send, PAUSE_SECONDS)

    def unreachable(self, now: float, send: Send) -> None:
        """The call failed. Whether the member received it is unknown."""
        self._suspect(send.member)
        pause = PAUSE_SECONDS if self._addressee(send.lane) == send.member else 0.0
        self._again(now, send, pause)

    def member_died(self, member: MemberId) -> None:
        """Whoever watches its process says so: its calls need not be waited for."""
        self._suspect(member)
        for parcel in list(self._parcels.values()):
            if parcel.member == member:
                self._put_back(parcel, 0.0)

    def _again(self, now: float, send: Send, pause: float) -> None:
        parcel = self._parcels.get(send.parcel)
        if parcel is not None and parcel.attempt == send.attempt and parcel.member == send.member:
            self._put_back(parcel, now + pause)

    def _suspect(self, member: MemberId) -> None:
        if self.leader == member:
            self.leader = NOBODY
            self._suspected[member] = self.term
        if self._preferred == member:
            self._rotate()

    def _rotate(self) -> None:
        if self._members:
            position = self._members.index(self._preferred) if self._preferred in self._members else -1
            self._preferred = self._members[(position + 1) % len(self._members)]

    # --- who leads --------------------------------------------------------------------------------

    def heard(self, member: MemberId, leader: MemberId, term: Term) -> None:
        """Some member says who leads in which term. Only a leader's name counts, never a term alone: a
        member that is cut off from its peers, but not from us, may be a candidate in a high term for
        ever. A leader whose call failed is believed only if it says itself that it leads."""
        if leader not in self._members or term < self.term:
            return
        if term == self.term and self.leader != NOBODY:
            return
        if leader == member:
            self._suspected.pop(leader, None)
        elif self._suspected.get(leader, Term(-1)) >= term:
            return
        self.term = term
        if leader != self.leader:
            self.leader = leader
            self._redirect()

    def _redirect(self) -> None:
        """A leader is new: whatever is on its way to another member goes there too."""
        for parcel in self._parcels.values():
            if parcel.lane is not Lane.READ_SERIALIZABLE and parcel.member not in (NOBODY, self.leader):
                self._put_back(parcel, 0.0)

    def should_probe(self, now: float) -> bool:
        """Whether the caller should ask all members for their status now. Counts as done."""
        if now < self._probe_not_before or not self._parcels:
            return False
        if not any(self._is_stuck(parcel, now) for parcel in self._parcels.values()):
            return False
        self._probe_not_before = now + PROBE_INTERVAL_SECONDS
        return True

    def _is_stuck(self, parcel: _Parcel, now: float) -> bool:
        if parcel.member == NOBODY:
            return self._addressee(parcel.lane) == NOBODY
        return now - parcel.sent_at >= SILENCE_SECONDS

    def tick(self, now: float) -> None:
        """Time passed: give up on silent calls."""
        for parcel in self._parcels.values():
            if parcel.member == NOBODY:
                continue
            silence = now - parcel.sent_at
            if parcel.lane is Lane.READ_SERIALIZABLE and silence >= SILENCE_SECONDS:
                self._suspect(parcel.member)
                self._put_back(parcel, 0.0)
            elif silence >= RESEND_SECONDS:
                self._put_back(parcel, 0.0)

    def next_wakeup(self, now: float) -> float | None:
        """When to call `tick` and `should_probe` again; nothing to do while nothing is under way."""
        return now + PROBE_INTERVAL_SECONDS if self._parcels else None
