"""Streams that asked for a leader (`hasleader`) end when there has been none for a while.

A call that asks for one is refused at its beginning by `ServiceContext.admit`; this is about the time
after. All such streams share one task, which asks nobody while proofs of a leader come in anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from etcray.gateway.dispatcher import Dispatcher
from etcray_storage.errors import NO_LEADER, EtcdError, error_by_number

INTERVAL_SECONDS: Final = 1.0
MISSES_MAX: Final = 3
"""So many looks in a row without a leader, an election time-out apart."""

Lost = Callable[[EtcdError], None]


class LeaderGuard:
    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._streams: dict[Lost, None] = {}
        self._running = False

    def enter(self, lost: Lost) -> None:
        """Have `lost` called, once, when there is no leader; call `leave` with it when the stream ends."""
        self._streams[lost] = None
        if not self._running:
            self._running = True
            self._dispatcher.start(self._run())

    def leave(self, lost: Lost) -> None:
        self._streams.pop(lost, None)

    async def _run(self) -> None:
        misses = 0
        while self._streams:
            await asyncio.sleep(INTERVAL_SECONDS)
            misses = 0 if await self._dispatcher.has_leader() else misses + 1
            if misses >= MISSES_MAX:
                streams, self._streams = self._streams, {}
                for lost in streams:
                    lost(error_by_number(NO_LEADER.number))
        self._running = False
