"""The asyncio shell around the watch hub: it asks members for events and for the past, and keeps time.

From whom the events come: the leader, if it is known. It applies first, and a follower learns that an
entry is committed only with the next message, so a put's event would take one more call between members;
and the leader's answer to the put takes the same way at the same time. A poll costs the leader one thread
that sleeps and one answer per round of consensus and gateway. Reads of the past cost a member real work,
so they go to followers first; except a new watcher's first, because the leader knows of every compaction
that a client was told of.

A member that fails, is silent, or knows no leader is left for the next one at once. The hub's position
goes along, so nothing is lost or repeated by a change. Then the pause between attempts grows, up to
`RETRY_SECONDS_MAX`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable
from typing import Final

from etcray.gateway.dispatcher import Dispatcher, MemberUnreachableError
from etcray.gateway.watch_catch_up import CatchUp
from etcray.gateway.watch_hub import PROGRESS_SECONDS, WatchHub
from etcray.node import api
from etcray_storage.errors import STOPPED, error_by_number
from etcray_storage.limits import WATCH_POLL_SECONDS
from etcray_storage.types import NOBODY, ClusterId, MemberId

POLL_TIMEOUT_SECONDS: Final = WATCH_POLL_SECONDS + 1.0
HISTORY_TIMEOUT_SECONDS: Final = 10.0
LEADER_CHECK_SECONDS: Final = 0.25
AVOID_SECONDS: Final = 5.0
"""A member whose poll failed is not asked for so long, if another one answers."""
RETRY_SECONDS_MIN: Final = 0.02
RETRY_SECONDS_MAX: Final = 0.5


class WatchFeed:
    """Runs for as long as the gateway does, and sleeps while nobody watches."""

    def __init__(
        self,
        cluster_id: ClusterId,
        dispatcher: Dispatcher,
        rng: random.Random,
        progress_seconds: float = PROGRESS_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dispatcher = dispatcher
        self.hub = WatchHub(cluster_id, rng, self._schedule, progress_seconds)
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._polling = False
        self._poll_member = NOBODY
        self._failed_at: dict[MemberId, float] = {}
        """When a poll last failed there."""
        self._positioned: asyncio.Future[None] = self._loop.create_future()
        """Replaced whenever the hub has lost its position."""
        self._stopped = False

    async def ready(self) -> None:
        """Return in a turn of the loop in which the hub knows its position. There is an open stream."""
        while self.hub.position is None and not self._stopped:
            self._schedule()
            await asyncio.shield(self._positioned)

    def stop(self) -> None:
        """End every stream; the dispatcher ends the background tasks."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for stream in list(self.hub.streams):
            self.hub.end_stream(stream, error_by_number(STOPPED.number))
        if not self._positioned.done():
            self._positioned.set_result(None)

    # --- the loop -----------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        try:
            self.hub.tick(self._loop.time())
            if not self._polling and self.hub.streams:
                self._polling = True
                self._dispatcher.start(self._poll_while_watched())
            for catch_up in self.hub.catch_ups.next_reads():
                self._dispatcher.start(self._read(catch_up))
            self._set_timer()
        except Exception as error:  # a callback's exception would only be logged by the loop
            self._dispatcher.start(_fail(error))

    def _set_timer(self) -> None:
        wakeup = self.hub.next_wakeup()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wakeup is not None:
            self._timer = self._loop.call_at(wakeup, self._advance)

    # --- events -------------------------------------------------------------------------------

    async def _poll_while_watched(self) -> None:
        pause = 0.0
        while (poll := self.hub.poll()) is not None:
            encoded = api.encode(poll)
            self._poll_member = self._choose()
            reply = await self._call_watch(self._poll_member, encoded)
            if reply is not None and reply.outcome is api.Outcome.ANSWERED:
                pause = 0.0
                self.hub.polled(reply)
                self._announce_position()
                self._advance()
            else:
                self._failed_at[self._poll_member] = self._loop.time()
                pause = min(max(2 * pause, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX)
                await asyncio.sleep(pause)
        self._polling = False
        if self._positioned.done():
            self._positioned = self._loop.create_future()

    def _announce_position(self) -> None:
        if not self._positioned.done():
            self._positioned.set_result(None)

    def _choose(self) -> MemberId:
        """The leader, else the same member again, else the next one; but not one that has just failed,
        unless all have."""
        members = self._dispatcher.members
        if not members:
            return NOBODY
        now = self._loop.time()
        good = [member for member in members if self._failed_at.get(member, -math.inf) < now - AVOID_SECONDS]
        for member in (self._dispatcher.delivery.leader, self._poll_member):
            if member in good:
                return member
        return min(good or members, key=lambda member: self._failed_at.get(member, -math.inf))

    async def _call_watch(self, member: MemberId, poll: bytes) -> api.WatchEvents | None:
        """The answer; None if there is none, or if another member leads by now: this one may be cut off."""
        channel = self._dispatcher.channel(member)
        if channel is None:
            return None
        leader = self._dispatcher.delivery.leader
        call = asyncio.ensure_future(channel.watch(poll))
        deadline = self._loop.time() + POLL_TIMEOUT_SECONDS
        try:
            while not call.done():
                await asyncio.wait({call}, timeout=LEADER_CHECK_SECONDS)
                known = self._dispatcher.delivery.leader
                elsewhere = known not in (NOBODY, leader, member)
                if not call.done() and (elsewhere or self._loop.time() >= deadline):
                    return None
            return api.decode_watch_events(call.result())
        except MemberUnreachableError:
            return None
        finally:
            call.cancel()

    # --- the past -----------------------------------------------------------------------------

    async def _read(self, catch_up: CatchUp) -> None:
        """Ask each member once. The one that sends the events has surely applied as far as is asked; it
        comes first for new watchers, else last."""
        encoded = api.encode(catch_up.request)
        members = self._dispatcher.members
        members.sort(key=lambda member: (member == self._poll_member) != catch_up.unchecked)
        for member in members:
            channel = self._dispatcher.channel(member)
            if channel is None:
                continue
            data = await _within(HISTORY_TIMEOUT_SECONDS, channel.history(encoded))
            reply = None if data is None else api.decode_history_reply(data)
            if reply is not None and reply.outcome is api.Outcome.ANSWERED:
                self.hub.catch_ups.answered(catch_up, reply)
                self._advance()
                return
        await asyncio.sleep(RETRY_SECONDS_MAX)
        self.hub.catch_ups.failed(catch_up)
        self._schedule()


async def _fail(error: Exception) -> None:
    """Run by the dispatcher, which ends with it."""
    raise error


async def _within(seconds: float, call: Awaitable[bytes]) -> bytes | None:
    """The call's answer; None if it failed or took too long. It may go on behind our back."""
    try:
        async with asyncio.timeout(seconds):
            return await call
    except (MemberUnreachableError, TimeoutError):
        return None
