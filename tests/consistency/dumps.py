"""Whether all members hold the same: every event since the last look, and the whole state, byte for byte."""

from __future__ import annotations

from tests.consistency.faults import Faults
from tests.consistency.mix import EVERYTHING
from tests.consistency.recorder import Clients
from tests.consistency.running import RunningCluster

FIRST_REVISION = 2


class Dumps:
    """Of one cluster, while its clients go on."""

    def __init__(self, cluster: RunningCluster, clients: Clients, faults: Faults) -> None:
        self._cluster = cluster
        self._clients = clients
        self._faults = faults
        self.revision = FIRST_REVISION - 1
        """Everything up to here was compared."""
        self.comparisons = 0
        self.differing: list[str] = []
        """After what the members did not hold the same."""

    async def compare(self, when: str) -> None:
        """All members at one revision, which is the newest one when this is called."""
        last = (await self._clients.ask_until_answered(EVERYTHING)).revision
        status = await self._faults.healed()
        names = [member["name"] for member in status["members"]]
        digests = {name: await self._cluster.dump(name, self.revision + 1, last) for name in names}
        if len(set(digests.values())) != 1:
            self.differing.append(f"{when}: revisions {self.revision + 1} to {last}: {digests}")
        self.comparisons += 1
        self.revision = last

    async def compare_all(self, when: str) -> None:
        """As `compare`, of the whole history."""
        self.revision = FIRST_REVISION - 1
        await self.compare(when)
