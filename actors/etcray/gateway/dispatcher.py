"""The asyncio shell around the pure dispatch: it performs sends, and it keeps time.

One `Dispatcher` serves one gateway, on one event loop. A submission comes with a ticket, which is settled
later, or returns a future at once; all submissions of one turn of the loop leave in the same batch.
Nothing is sent from here but what `Delivery` says.

Every background task is watched: an exception in one of them is a defect of ours, after which nobody
knows which clients still wait. It ends the dispatcher: `failed` gets the exception, everything that
waits gets an error, and so does everything that comes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from etcray.gateway.delivery import Delivery, Lane, Send
from etcray.gateway.keep_alives import KeepAlives
from etcray.gateway.proposals import Proposals, Settled
from etcray.gateway.reads import Reads
from etcray.node import api
from etcray.tuning import DEFAULT_TUNING, Tuning
from etcray_storage.commands import CommandKind, ReadKind
from etcray_storage.errors import STOPPED, EtcdError, error_by_number
from etcray_storage.types import NOBODY, MemberId, Term

PROBE_SECONDS_MAX: Final = 0.3
"""A status poll that is not answered by then is not waited for."""
LEADER_CONFIRMED_SECONDS: Final = 1.0
"""For how long an answer of the leader proves that there is one."""


class MemberUnreachableError(Exception):
    """The call failed: the member is dead, or the way to it is. It may have been carried out."""


class MemberChannel(Protocol):
    """The way to one member. Every method may raise `MemberUnreachableError`, or never return."""

    async def propose(self, batch: bytes) -> bytes:
        """Give an encoded `Batch`, get an encoded `api.ProposeReply`."""

    async def read(self, request: bytes) -> bytes:
        """Give an encoded `api.ReadRequest`, get an encoded `api.ReadReply`."""

    async def keep_alive(self, request: bytes) -> bytes:
        """Give an encoded `api.KeepAliveRequest`, get an encoded `api.KeepAliveReply`."""

    async def watch(self, poll: bytes) -> bytes:
        """Give an encoded `api.WatchPoll`, get an encoded `api.WatchEvents`, which may take a while."""

    async def history(self, request: bytes) -> bytes:
        """Give an encoded `api.HistoryRequest`, get an encoded `api.HistoryReply`."""

    async def status(self) -> bytes:
        """Get an encoded `api.MemberStatus`."""

    async def transfer_leadership(self, request: bytes) -> bytes:
        """Give an encoded `api.TransferRequest`, get an encoded `api.TransferReply`."""

    async def hash_kv(self, request: bytes) -> bytes:
        """Give an encoded `api.HashKVRequest`, get an encoded `api.HashKVReply`; may take seconds."""

    async def defragment(self) -> bytes:
        """Get an encoded `api.DefragmentReply`; may take long."""


class Reply(NamedTuple):
    """A successful answer of the cluster."""

    revision: int
    body: bytes
    """The response message without its header."""
    member: MemberId
    term: Term


class Ticket(Protocol):
    """Who waits for an answer: an asyncio future, or what looks like one. It is settled from within a
    callback of the loop, so its methods must neither raise nor submit anything."""

    def done(self) -> bool:
        """Nobody waits any more."""

    def set_result(self, reply: Reply, /) -> None: ...

    def set_exception(self, error: EtcdError, /) -> None: ...


class Dispatcher:
    """Carries commands and reads of one gateway to the cluster and the answers back."""

    def __init__(
        self,
        channels: Mapping[MemberId, MemberChannel],
        rng: random.Random,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._channels = dict(channels)
        self.delivery = Delivery(channels)
        self.proposals = Proposals(self.delivery, rng, tuning)
        self.linearizable_reads = Reads(self.delivery, linearizable=True, tuning=tuning)
        self.serializable_reads = Reads(self.delivery, linearizable=False, tuning=tuning)
        self.keep_alives = KeepAlives(self.delivery)
        self._sources = (
            self.proposals,
            self.linearizable_reads,
            self.serializable_reads,
            self.keep_alives,
        )
        self._advance_scheduled = False
        self._hold_timer: asyncio.TimerHandle | None = None
        """Fires when a batch has waited long enough for more requests."""
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._probed: set[MemberId] = set()
        """Members that are being asked who leads."""
        self._leader_confirmed_at = float("-inf")
        self.highest_revision = 0
        """The highest that any client of this gateway was answered: what a new watch starts behind."""
        self._stopped = False
        self.failed: asyncio.Future[None] = self._loop.create_future()
        """Gets the exception that ended the dispatcher."""

    # --- what the services call -------------------------------------------------------------------

    def submit(self, kind: CommandKind, request: bytes, ticket: Ticket) -> None:
        """Have a validated command applied, exactly once."""
        self._check_running()
        self.proposals.submit(self._loop.time(), kind, request, ticket)
        self._schedule_advance()

    def submit_read(self, kind: ReadKind, request: bytes, ticket: Ticket, *, serializable: bool) -> None:
        """Have a validated read answered."""
        self._check_running()
        reads = self.serializable_reads if serializable else self.linearizable_reads
        reads.submit(self._loop.time(), kind, request, ticket)
        self._schedule_advance()

    def propose(self, kind: CommandKind, request: bytes) -> asyncio.Future[Reply]:
        """As `submit`. The future fails with `EtcdError`."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.submit(kind, request, future)
        return future

    def read(self, kind: ReadKind, request: bytes, *, serializable: bool) -> asyncio.Future[Reply]:
        """As `submit_read`. The future fails with `EtcdError`."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.submit_read(kind, request, future, serializable=serializable)
        return future

    def keep_alive(self, lease: int) -> asyncio.Future[Reply]:
        """Have a lease renewed. The future fails with `EtcdError`."""
        self._check_running()
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.keep_alives.submit(self._loop.time(), lease, future)
        self._schedule_advance()
        return future

    def _check_running(self) -> None:
        if self._stopped:
            raise error_by_number(STOPPED.number)

    def channel(self, member: MemberId) -> MemberChannel | None:
        """The way to a member, for calls that are not about a batch."""
        return self._channels.get(member)

    @property
    def members(self) -> list[MemberId]:
        return list(self._channels)

    async def has_leader(self) -> bool:
        """Whether a leader is known, asking around when the newest proof is old."""
        if self._loop.time() - self._leader_confirmed_at > LEADER_CONFIRMED_SECONDS:
            return any(status.leader != NOBODY for status in await self.statuses())
        return True

    async def statuses(self) -> list[api.MemberStatus]:
        """The status of every member that answers in time, the leader's first."""
        polls = [self._poll(member) for member in self._channels]
        answers = await asyncio.gather(*polls)
        statuses = [status for status in answers if status is not None]
        statuses.sort(key=lambda status: (-status.term, status.role != "leader", status.member))
        return statuses

    def set_channels(self, channels: Mapping[MemberId, MemberChannel]) -> None:
        """The members changed, or were re-created: what is under way to a replaced channel goes on by
        the rules for a silent member."""
        self._channels = dict(channels)
        self.delivery.set_members(list(channels))
        self._schedule_advance()

    def member_died(self, member: MemberId) -> None:
        """Its process is gone: look for the next leader now, not when the calls to it fail."""
        self.delivery.member_died(member)
        self._schedule_advance()

    async def stop(self) -> None:
        """Answer everything that waits with an error and end the background tasks."""
        self._end(error_by_number(STOPPED.number))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the loop ---------------------------------------------------------------------------------

    def _schedule_advance(self) -> None:
        if not self._advance_scheduled:
            self._advance_scheduled = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        """Send what is due; look around when something is stuck; come back in time."""
        self._advance_scheduled = False
        if self._stopped:
            return
        try:
            self._send_what_is_due()
        except Exception as error:  # a callback's exception would only be logged by the loop
            self._end(error)

    def _send_what_is_due(self) -> None:
        now = self._loop.time()
        for source in self._sources:
            source.advance(now)
            if now < source.gathering.hold_until and source.pending_count:
                self._hold(source.gathering.hold_until)
        for send in self.delivery.sends(now):
            self.start(self._perform(send))
        if self.delivery.should_probe(now):
            self._look_around()
        wakeup = self.delivery.next_wakeup(now)
        if wakeup is not None and self._timer is None:
            self._timer = self._loop.call_at(wakeup, self._tick)

    def _hold(self, until: float) -> None:
        """Come back then, or earlier: an early turn finds out itself what still has to wait."""
        if self._hold_timer is None:
            self._hold_timer = self._loop.call_at(until, self._hold_over)

    def _hold_over(self) -> None:
        self._hold_timer = None
        self._advance()

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        try:
            self.delivery.tick(now)
            for source in self._sources:
                self._settle(source.tick(now))
        except Exception as error:
            self._end(error)
        self._advance()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this in the background. An exception in it ends the dispatcher."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        if self._stopped:
            return
        self._stopped = True
        for timer in (self._timer, self._hold_timer):
            if timer is not None:
                timer.cancel()
        if not isinstance(error, EtcdError) and not self.failed.done():
            self.failed.set_exception(error)
        for source in self._sources:
            self._settle(source.tick(float("inf")))

    async def _perform(self, send: Send) -> None:
        channel = self._channels.get(send.member)
        try:
            if channel is None:
                raise MemberUnreachableError(f"member {send.member:x} is not known")
            if send.lane is Lane.PROPOSE:
                self._proposed(send, api.decode_propose_reply(await channel.propose(send.data)))
            elif send.lane is Lane.KEEP_ALIVE:
                self._kept_alive(send, api.decode_keep_alive_reply(await channel.keep_alive(send.data)))
            else:
                self._read(send, api.decode_read_reply(await channel.read(send.data)))
        except MemberUnreachableError:
            self.delivery.unreachable(self._loop.time(), send)
        self._schedule_advance()

    def _proposed(self, send: Send, reply: api.ProposeReply) -> None:
        if reply.outcome is api.Outcome.ANSWERED:
            assert reply.answer is not None, "ANSWERED without an answer"
            self._confirm_leader()
            self._settle(
                self.proposals.answered(
                    self._loop.time(), send.parcel, reply.answer, reply.member, reply.leader, reply.term
                )
            )
        else:
            self._not_answered(send, reply)

    def _read(self, send: Send, reply: api.ReadReply) -> None:
        if reply.outcome is api.Outcome.ANSWERED:
            if send.lane is Lane.READ_LINEARIZABLE:
                self._confirm_leader()
                reads = self.linearizable_reads
            else:
                reads = self.serializable_reads
            self._settle(reads.answered(self._loop.time(), send.parcel, reply))
        else:
            self._not_answered(send, reply)

    def _kept_alive(self, send: Send, reply: api.KeepAliveReply) -> None:
        if reply.outcome is api.Outcome.ANSWERED:
            self._confirm_leader()
            self._settle(self.keep_alives.answered(self._loop.time(), send.parcel, reply))
        else:
            self._not_answered(send, reply)

    def _not_answered(self, send: Send, reply: api.ProposeReply | api.ReadReply | api.KeepAliveReply) -> None:
        now = self._loop.time()
        if reply.outcome is api.Outcome.BUSY:
            self.delivery.busy(now, send)
        else:
            self.delivery.refused(now, send, reply.leader, reply.term)

    def _confirm_leader(self) -> None:
        self._leader_confirmed_at = self._loop.time()

    def _settle(self, settled: Iterable[Settled]) -> None:
        for ticket, error, revision, body, member, term in settled:
            if revision > self.highest_revision:
                self.highest_revision = revision
            if ticket.done():
                continue  # its client left
            if error is None:
                ticket.set_result(Reply(revision, body, member, term))
            else:
                ticket.set_exception(error)

    # --- looking around ---------------------------------------------------------------------------

    def _look_around(self) -> None:
        """Ask everybody who leads. Answers are heard as they come; nobody is waited for."""
        for member in self._channels:
            if member not in self._probed:
                self._probed.add(member)
                self.start(self._probe(member))

    async def _probe(self, member: MemberId) -> None:
        await self._poll(member)
        self._probed.discard(member)
        self._schedule_advance()

    async def _poll(self, member: MemberId) -> api.MemberStatus | None:
        channel = self._channels.get(member)
        try:
            if channel is None:
                return None
            async with asyncio.timeout(PROBE_SECONDS_MAX):
                status = api.decode_status(await channel.status())
        except (MemberUnreachableError, TimeoutError):
            return None
        self.delivery.heard(status.member, status.leader, status.term)
        if status.role == "leader":
            self._confirm_leader()
        return status
