"""What is done to a running cluster, kind by kind.

Each fault ends healed: whoever was stopped goes on, whoever was cut off is connected. Killed processes come
back by themselves, which is the cluster's own work.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from etcray_bench.systems.system import SystemFailedError
from tests.consistency.fault_files import (
    ENTRIES_KEPT,
    SILENT,
    broken_file,
    clock_file,
    count_snapshots,
    cut_file,
    gateway_place,
    member_place,
    slow_file,
)
from tests.consistency.mix import EVERYTHING
from tests.consistency.recorder import Clients, Truth
from tests.consistency.running import RunningCluster, is_gone

HEAL_SECONDS_MAX: Final = 240.0
"""A machine that is busy with other things takes a minute to start three members again."""
SNAPSHOT_LAG_ENTRIES: Final = 3 * ENTRIES_KEPT
SNAPSHOT_SECONDS_MAX: Final = 25.0
RESIZES_MAX: Final = 3

Link = tuple[str, str]
"""From one place to another, as `fault_files` calls them."""


class NotHealedError(Exception):
    """The cluster was left alone, and did not come back."""


class Faults:
    """Does things to one cluster, at random but repeatably chosen."""

    def __init__(self, cluster: RunningCluster, clients: Clients, truth: Truth, seed: int) -> None:
        self._cluster = cluster
        self._clients = clients
        self._truth = truth
        self._random = random.Random(f"faults {seed}")
        self.restarts: dict[int, list[tuple[float, float]]] = {}
        """By member: between which times each of its incarnations was ended."""
        self.snapshots = 0
        """Pieces of snapshots that were sent to members that had been cut off."""
        self.kinds: dict[str, Callable[[], Awaitable[str]]] = {
            "kill": self.kill,
            "majority": self.kill_several,
            "pause": self.pause,
            "cut": self.cut,
            "gateway-cut": self.gateway_cut,
            "deposed": self.deposed,
            "clock": self.clock,
            "slow-disk": self.slow_disk,
            "broken-disk": self.broken_disk,
            "gateway": self.gateway,
            "supervisor": self.supervisor,
            "gcs": self.gcs,
            "compaction": self.compaction,
            "snapshot": self.snapshot,
            "membership": self.membership,
        }

    async def do(self, kind: str) -> str:
        """Do it and heal it; says what was done."""
        return await self.kinds[kind]()

    # --- processes ------------------------------------------------------------------------------

    async def kill(self) -> str:
        """The leader or another one."""
        member = await self._choose_member()
        self._kill_members([member])
        return f"killed {member['name']} ({member['role']})"

    async def kill_several(self) -> str:
        """Most or all of them at once: nothing but the disks is left of their state."""
        members = list((await self._status())["members"])
        self._random.shuffle(members)
        victims = members[: self._random.randint(len(members) // 2 + 1, len(members))]
        self._kill_members(victims)
        return f"killed {len(victims)} members at once"

    async def pause(self) -> str:
        """Long enough, mostly, for the others to elect another leader: then a zombie wakes up."""
        member = await self._choose_member()
        seconds = self._random.choice((0.3, 1.0, 2.0, 4.0))
        await self._stand_still([member["process_id"]], seconds)
        return f"paused {member['name']} ({member['role']}) for {seconds} s"

    async def gateway(self) -> str:
        gateway = self._random.choice((await self._status())["gateways"])
        if self._random.random() < 0.5:
            _end(gateway["process_id"])
            return f"killed {gateway['name']}"
        seconds = self._random.choice((0.5, 2.0, 4.0))
        await self._stand_still([gateway["process_id"]], seconds)
        return f"paused {gateway['name']} for {seconds} s"

    async def supervisor(self) -> str:
        """And half of the time a member, while nobody looks after it."""
        status = await self._status()
        _end(status["supervisor"]["process_id"])
        if self._random.random() < 0.5:
            return "killed the supervisor"
        member = self._random.choice(status["members"])
        self._kill_members([member])
        return f"killed the supervisor and {member['name']}"

    async def gcs(self) -> str:
        """Ray's control service dies, and with it this Ray: a new one starts on the same directories."""
        status = await self._status()
        began = time.perf_counter()
        _end(status["ray"]["gcs_server"])
        await asyncio.sleep(self._random.choice((0.0, 1.0, 3.0)))
        await asyncio.to_thread(self._cluster.restart)
        for member in status["members"]:
            self.restarts.setdefault(member["id"], []).append((began, time.perf_counter()))
        return "killed Ray's control service, started in a new Ray"

    def _kill_members(self, members: Iterable[dict[str, Any]]) -> None:
        for member in members:
            before = time.perf_counter()
            _end(member["process_id"])
            self.restarts.setdefault(member["id"], []).append((before, time.perf_counter()))

    async def _stand_still(self, processes: list[int], seconds: float) -> None:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    # --- links and disks ------------------------------------------------------------------------

    async def cut(self) -> str:
        status = await self._status()
        ids = [member["id"] for member in status["members"]]
        alone = status["leader"] if status["leader"] in ids and self._random.random() < 0.6 else None
        alone = alone or self._random.choice(ids)
        others = [member_place(member) for member in ids if member != alone]
        one = member_place(alone)
        shape, links = self._random.choice(
            (
                ("both ways", both_ways(one, others)),
                ("both ways", both_ways(one, others)),
                ("outward", [(one, other) for other in others]),
                ("inward", [(other, one) for other in others]),
                ("from one", both_ways(one, others[:1])),
            )
        )
        seconds = self._random.choice((0.5, 1.5, 3.0, 5.0))
        await self._sever(links, asyncio.sleep(seconds))
        role = "leader" if alone == status["leader"] else "follower"
        return f"cut {one} ({role}) off, {shape}, for {seconds} s"

    async def gateway_cut(self) -> str:
        """A gateway loses its way to some members, or their answers: it has to ask others, or again."""
        status = await self._status()
        ids = [member["id"] for member in status["members"]]
        gateway = gateway_place(self._random.choice(status["gateways"])["index"])
        leader = status["leader"] if status["leader"] in ids else ids[0]
        shape, chosen = self._random.choice(
            (
                ("the leader", [leader]),
                ("the leader", [leader]),
                ("a member", [self._random.choice(ids)]),
                ("all but the leader", [member for member in ids if member != leader]),
                ("all members", ids),
            )
        )
        members = [member_place(member) for member in chosen]
        way, links = self._random.choice(
            (
                ("both ways", both_ways(gateway, members)),
                ("answers only", [(member, gateway) for member in members]),
                ("answers only", [(member, gateway) for member in members]),
            )
        )
        text = self._random.choice(("", SILENT))
        seconds = self._random.choice((0.3, 1.0, 3.0))
        await self._sever(links, asyncio.sleep(seconds), text)
        return f"cut {gateway} off from {shape}, {way}, {text or 'failing'}, for {seconds} s"

    async def deposed(self) -> str:
        """The leader hears of nobody, and its clock is slow, so that it takes itself for the leader long
        after the others have elected another one; and a gateway reaches nobody else."""
        status = await self._status()
        ids = [member["id"] for member in status["members"]]
        leader = status["leader"] if status["leader"] in ids else ids[0]
        one, others = member_place(leader), [member_place(member) for member in ids if member != leader]
        gateway = gateway_place(self._random.choice(status["gateways"])["index"])
        links = both_ways(one, others) + both_ways(gateway, others)
        rate, seconds = self._random.choice((0.1, 0.1, 0.3)), self._random.choice((3.0, 5.0))
        with self._clock_at(leader, rate):
            await self._sever(links, asyncio.sleep(seconds))
        return f"left {one} (leader) with {gateway} alone and a clock at {rate} for {seconds} s"

    async def clock(self) -> str:
        """Clocks need not agree: nothing but waiting may depend on them."""
        status = await self._status()
        member = self._random.choice(status["members"])
        rate, seconds = self._random.choice((0.5, 0.7, 1.4, 2.0)), self._random.choice((2.0, 4.0))
        with self._clock_at(member["id"], rate):
            await asyncio.sleep(seconds)
        return f"had the clock of {member['name']} ({member['role']}) run at {rate} for {seconds} s"

    @contextmanager
    def _clock_at(self, member: int, rate: float) -> Iterator[None]:
        file = clock_file(self._cluster.faults, member)
        file.write_text(str(rate))
        try:
            yield
        finally:
            file.unlink()

    async def snapshot(self) -> str:
        """A follower is cut off until the others have forgotten the entries that it needs."""
        status = await self._status()
        followers = [m for m in status["members"] if m["id"] != status["leader"]]
        alone = self._random.choice(followers)
        others = [member_place(m["id"]) for m in status["members"] if m["id"] != alone["id"]]
        links = both_ways(member_place(alone["id"]), others)
        before = count_snapshots(self._cluster.faults)
        lag = await self._sever(links, self._lag_behind(alone["id"]))
        await self.healed()
        self.snapshots += (sent := count_snapshots(self._cluster.faults) - before)
        return f"cut {alone['name']} off until it was {lag} entries behind, {sent} pieces of a snapshot"

    async def _lag_behind(self, member_id: int) -> int:
        deadline = time.monotonic() + SNAPSHOT_SECONDS_MAX
        while True:
            applied = {m["id"]: m["applied_index"] for m in (await self._status())["members"]}
            lag: int = max(applied.values()) - applied[member_id]
            if lag > SNAPSHOT_LAG_ENTRIES or time.monotonic() > deadline:
                await asyncio.sleep(1.0)  # For the tables to be written, and the log cut behind them.
                return lag
            await asyncio.sleep(0.2)

    async def _sever(self, links: list[Link], meanwhile: Awaitable[Any], text: str = "") -> Any:
        files = [cut_file(self._cluster.faults, *link) for link in links]
        try:
            for file in files:
                file.write_text(text)
            return await meanwhile
        finally:
            for file in files:
                file.unlink(missing_ok=True)

    async def slow_disk(self) -> str:
        if not self._cluster.has_faulty_disks:
            return "nothing: there is no C compiler here"
        status = await self._status()
        members = self._random.sample(status["members"], self._random.choice((1, 1, 2)))
        milliseconds = self._random.choice((20, 100, 400))
        files = [slow_file(self._cluster.faults, member["process_id"]) for member in members]
        seconds = self._random.choice((2.0, 4.0))
        try:
            for file in files:
                file.write_text(str(milliseconds))
            await asyncio.sleep(seconds)
        finally:
            for file in files:
                file.unlink()
        names = " and ".join(member["name"] for member in members)
        return f"syncs of {names} took {milliseconds} ms more for {seconds} s"

    async def broken_disk(self) -> str:
        """Nothing that a disk has failed to write may be promised: the process has to end by itself. It is
        started again where the disk works."""
        if not self._cluster.has_faulty_disks:
            return "nothing: there is no C compiler here"
        member = await self._choose_member()
        began = time.perf_counter()
        file = broken_file(self._cluster.faults, member["process_id"])
        file.touch()
        try:
            await self._gone(member["process_id"])
        finally:
            file.unlink()
        self.restarts.setdefault(member["id"], []).append((began, time.perf_counter()))
        return f"{member['name']} ({member['role']}) could not write any more, and ended"

    async def _gone(self, process_id: int) -> None:
        deadline = time.monotonic() + HEAL_SECONDS_MAX
        while not is_gone(process_id):
            if time.monotonic() > deadline:
                raise NotHealedError(f"process {process_id} goes on although it cannot write")
            await asyncio.sleep(0.02)

    async def compaction(self) -> str:
        """Only of what the truth has seen: it could not go on otherwise."""
        seen = self._truth.revision
        revision = max(2, seen - self._random.choice((0, 50, 1_000, 5_000)))
        await self._clients.compact(revision)
        return f"compacted up to {revision} of {seen}"

    # --- membership -----------------------------------------------------------------------------

    async def membership(self) -> str:
        """Members come and go, or leadership is handed over; half of the time somebody is killed or
        paused meanwhile. Whatever came of it, there are as many voters as before at the end."""
        status = await self._status()
        change = asyncio.create_task(self._change(status))
        disturbed = ""
        if self._random.random() < 0.5:
            await asyncio.sleep(self._random.random() * 3)
            member = self._random.choice(status["members"])
            if self._random.random() < 0.5:
                self._kill_members([member])
                disturbed = f"; meanwhile killed {member['name']}"
            else:
                await self._stand_still([member["process_id"]], 2.0)
                disturbed = f"; meanwhile paused {member['name']}"
        told = await change
        for attempt in range(RESIZES_MAX):
            try:
                await self._cluster.change(do="resize", voters=self._cluster.nodes)
                break
            except SystemFailedError:
                if attempt == RESIZES_MAX - 1:
                    raise
        return told + disturbed

    async def _change(self, status: dict[str, Any]) -> str:
        chosen = self._random.choice(status["members"])["name"]
        what = self._random.choice(("replace", "replace", "lead", "resize"))
        try:
            if what == "lead":
                await self._cluster.change(do="lead", member=chosen)
                return f"had {chosen} lead"
            if what == "resize":
                await self._cluster.change(do="resize", voters=self._cluster.nodes + 2)
                return "added two members and removed two"
            added = (await self._cluster.change(do="add"))["added"]
            await self._cluster.change(do="remove", member=chosen)
            return f"replaced {chosen} by {added}"
        except SystemFailedError as error:
            return f"tried to {what} ({chosen}): {error}"

    # --- looking --------------------------------------------------------------------------------

    async def _choose_member(self) -> dict[str, Any]:
        """The leader half of the time."""
        status = await self._status()
        leader = [member for member in status["members"] if member["id"] == status["leader"]]
        chosen: dict[str, Any]
        if leader and self._random.random() < 0.5:
            chosen = leader[0]
        else:
            chosen = self._random.choice(status["members"])
        return chosen

    async def _status(self) -> dict[str, Any]:
        """Of a cluster all of whose processes are known."""
        status = await self._cluster.status()
        deadline = time.monotonic() + HEAL_SECONDS_MAX
        while not is_whole(status):
            if time.monotonic() > deadline:
                raise NotHealedError(f"not all serve: {status}")
            await asyncio.sleep(0.1)
            status = await self._cluster.status()
        return status

    async def healed(self) -> dict[str, Any]:
        """Wait until clients are served, and every member is there and has what they see now."""
        probe = await self._clients.ask_until_answered(EVERYTHING)
        deadline = time.monotonic() + HEAL_SECONDS_MAX
        while True:
            status = await self._cluster.status()
            if is_whole(status) and all(m["revision"] >= probe.revision for m in status["members"]):
                return status
            if time.monotonic() > deadline:
                raise NotHealedError(f"revision {probe.revision} is not everywhere: {status}")
            await asyncio.sleep(0.1)


def both_ways(one: str, others: Iterable[str]) -> list[Link]:
    return [link for other in others for link in ((one, other), (other, one))]


def is_whole(status: dict[str, Any]) -> bool:
    actors = [*status["members"], *status["gateways"]]
    return (
        bool(status["ready"])
        and not status["membership"]
        and all(
            actor["phase"] == "serving" and actor["process_id"] and not is_gone(actor["process_id"])
            for actor in actors
        )
    )


def _end(process_id: int) -> None:
    assert process_id > 0, "a process that nobody knows"
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)
