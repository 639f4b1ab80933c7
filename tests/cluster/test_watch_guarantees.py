"""What a watch promises, checked on everything that some dozens of watchers received while processes were
killed, history was compacted and readers were slow."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from etcray import Cluster
from etcray.client import AsyncClient, AsyncWatch, NotAnsweredError, UnavailableError
from etcray.status import ActorReport
from etcray_storage.proto.kv_pb2 import Event
from etcray_storage.proto.rpc_pb2 import WatchCreateRequest
from tests.cluster.recorders import RecordedStream, Watcher
from tests.cluster.workload import (
    BULK,
    BULK_END,
    LARGE,
    LARGE_END,
    OWN_KEYS,
    SHARED_KEYS,
    Workload,
    check_truth,
)
from tests.cluster.writers import is_gone, kill, leader_of, wait_until_healed
from tests.watch.validators import Recording, is_wanted, validate, validate_prev_kv_complete

pytestmark = pytest.mark.cluster

DELIVERED_MIN: Final = 200_000
WAIT_SECONDS: Final = 60.0
NOPUT: Final = WatchCreateRequest.NOPUT
NODELETE: Final = WatchCreateRequest.NODELETE


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An empty cluster whose processes are killed. The tests of this file use it in their order."""
    directory = tmp_path_factory.mktemp("watched")
    with Cluster.launch(nodes=3, name="watched", data_dir=str(directory), listen="127.0.0.1:0") as cluster:
        yield cluster


def bulk(
    start: int = 0,
    *filters: WatchCreateRequest.FilterType,
    end: bytes = BULK_END,
    prev_kv: bool = False,
    progress: bool = False,
) -> Watcher:
    """A watcher of everything that is written most of the time."""
    return Watcher(
        WatchCreateRequest(
            key=BULK, range_end=end, start_revision=start, filters=filters, prev_kv=prev_kv,
            progress_notify=progress,
        )
    )  # fmt: skip


def narrow(
    key: bytes, end: bytes = b"", start: int = 0, *, fragment: bool = False, prev_kv: bool = False
) -> Watcher:
    return Watcher(
        WatchCreateRequest(key=key, range_end=end, start_revision=start, fragment=fragment, prev_kv=prev_kv)
    )


async def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s for {what}"
        await asyncio.sleep(0.1)


@dataclass(frozen=True)
class Seen:
    """One event as the client's users see it."""

    revision: int
    key: bytes
    value: bytes
    is_delete: bool
    previous: bytes | None


class ClientWatcher:
    """A watch of our own client; what it saw, and what it must have seen."""

    def __init__(self, watch: AsyncWatch, due: WatchCreateRequest, first: int) -> None:
        self._watch = watch
        self._recording = Recording(due)
        self._first = first
        self.seen: list[Seen] = []
        self._task: asyncio.Task[None] | None = None

    def read(self) -> None:
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for e in self._watch:
            previous = e.prev_kv.value if e.prev_kv is not None else None
            self.seen.append(Seen(e.revision, e.key, e.value, e.is_delete, previous))

    def due(self, truth: Sequence[Event]) -> list[Seen]:
        request = self._recording.request
        return [
            Seen(
                e.kv.mod_revision, e.kv.key, e.kv.value, e.type == Event.DELETE,
                e.prev_kv.value if request.prev_kv and e.HasField("prev_kv") else None,
            )
            for e in truth
            if e.kv.mod_revision >= self._first and is_wanted(request, e)
        ]  # fmt: skip

    async def close(self) -> None:
        self._watch.cancel()
        if self._task is not None:
            await self._task


class Audience:
    """All watchers whose responses are recorded, each stream a different kind of reader."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.truth = Watcher(WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=1, prev_kv=True))
        self.straggler = RecordedStream(endpoint, bulk(prev_kv=True), bulk(1))
        self.cancelled = bulk()
        self.mixed = RecordedStream(endpoint, self.cancelled, bulk(), bulk(prev_kv=True, progress=True))
        self.slow = RecordedStream(
            endpoint, *(bulk(prev_kv=True) for _ in range(4)), pause_seconds=3.0, pause_after=150
        )
        self.streams = [
            RecordedStream(endpoint, self.truth),
            self.straggler,
            self.mixed,
            RecordedStream(endpoint, *(bulk() for _ in range(5)), bulk(1, progress=True)),
            RecordedStream(endpoint, bulk(1, prev_kv=True), bulk(2), bulk(end=b"\0"), needs_leader=True),
            RecordedStream(endpoint, bulk(), bulk(prev_kv=True), drop_after=60),
            self.slow,
            RecordedStream(endpoint, bulk(0, NOPUT), bulk(0, NODELETE), bulk(0, NOPUT, NODELETE)),
            RecordedStream(
                endpoint, narrow(OWN_KEYS[0][0]), narrow(SHARED_KEYS[0], prev_kv=True),
                narrow(b"w/1/", b"w/10"), narrow(b"w/1/05", b"w/2/1"),
            ),
            RecordedStream(endpoint, bulk(800)),
            RecordedStream(
                endpoint, narrow(LARGE, LARGE_END, 1, fragment=True, prev_kv=True),
                narrow(LARGE, LARGE_END, 1, prev_kv=True), narrow(LARGE, LARGE_END, 1),
                narrow(LARGE, LARGE_END, 1, fragment=True), drop_after=25,
            ),
        ]  # fmt: skip

    @property
    def watchers(self) -> list[Watcher]:
        return [watcher for stream in self.streams for watcher in stream.watchers]

    def join(self, *watchers: Watcher) -> None:
        self.streams.append(RecordedStream(self.endpoint, *watchers))

    def join_in_the_past(self, revisions: int) -> None:
        """Watchers who want to see again what others have seen already."""
        start = max(1, self.truth.position - revisions)
        self.join(bulk(start, prev_kv=True), narrow(b"\0", b"\0", start, prev_kv=True), bulk(start, NODELETE))

    async def more(self, events: int) -> None:
        """Return when so many more are known to the truth."""
        enough = self.truth.delivered + events
        await self.until(lambda: self.truth.delivered >= enough, f"{events} more events")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Meanwhile everybody asks for progress, so that who has no events does not fall behind."""

        def come_true() -> bool:
            for stream in self.streams:
                stream.check()
                stream.request_progress()
            return condition()

        await wait_for(come_true, what)


async def follow(client: AsyncClient) -> list[ClientWatcher]:
    """Watches of our own client, all from revision 2 on, where the history begins. More bytes come to the
    last one than the client keeps for a consumer who takes nothing."""
    requests = [
        WatchCreateRequest(key=BULK, range_end=BULK_END),
        WatchCreateRequest(key=BULK, range_end=BULK_END, prev_kv=True),
        WatchCreateRequest(key=b"\0", range_end=b"\0", filters=[NOPUT]),
        WatchCreateRequest(key=SHARED_KEYS[1]),
        WatchCreateRequest(key=b"\0", range_end=b"\0", filters=[NODELETE], prev_kv=True),
    ]
    watchers = []
    for request in requests:
        watch = client.watch(
            request.key, request.range_end or None, start_revision=2, prev_kv=request.prev_kv,
            no_put=NOPUT in request.filters, no_delete=NODELETE in request.filters,
        )  # fmt: skip
        watchers.append(ClientWatcher(await watch.started(), request, 2))
    return watchers


async def replaced(cluster: Cluster, victim: ActorReport) -> None:
    """Return when the killed process has a successor that serves."""

    def whole() -> bool:
        status = cluster.status()
        actors = (*status.members, *status.gateways)
        return status.ready and all(a.phase == "serving" and not is_gone(a.process_id) for a in actors)

    deadline = time.monotonic() + WAIT_SECONDS
    while not await asyncio.to_thread(whole):
        assert time.monotonic() < deadline, f"{victim.name} did not come back"
        await asyncio.sleep(0.1)


class Play:
    """What happens to the cluster, act by act."""

    def __init__(self, cluster: Cluster, audience: Audience, workload: Workload) -> None:
        self.cluster = cluster
        self.audience = audience
        self.workload = workload
        self.compacted = 0
        self.below: list[Watcher] = []
        """Watchers that began below a compaction."""

    async def run(self) -> None:
        await self.workload.write_large()
        await self.audience.more(1500)
        await self.kill_leader()
        await self.compact()
        self.audience.mixed.cancel(self.audience.cancelled)
        await self.kill_follower()
        self.audience.straggler.reading.clear()
        await self.kill_gateway()
        await self.compact()
        await self.kill_leader()
        self.audience.straggler.reading.set()

    async def kill_leader(self) -> None:
        await self.kill(await asyncio.to_thread(leader_of, self.cluster))

    async def kill_follower(self) -> None:
        leader = await asyncio.to_thread(leader_of, self.cluster)
        status = await asyncio.to_thread(self.cluster.status)
        await self.kill(next(member for member in status.members if member.id != leader.id))

    async def kill_gateway(self) -> None:
        status = await asyncio.to_thread(self.cluster.status)
        await self.kill(status.gateways[0])

    async def kill(self, victim: ActorReport) -> None:
        kill(victim)
        self.audience.join_in_the_past(300)
        await self.audience.more(500)
        await self.workload.write_large()
        await replaced(self.cluster, victim)
        await self.audience.more(500)

    async def compact(self) -> None:
        """The older half of what is there, under the eyes of watchers that are far behind."""
        audience = self.audience
        at = (self.compacted + audience.truth.position) // 2
        await self.workload.client.compact(at)
        self.compacted = at
        late = [bulk(1), bulk(at - 1, prev_kv=True), narrow(OWN_KEYS[0][0], start=at // 2)]
        self.below += late
        audience.join(*late)
        audience.join(bulk(at), bulk(at + 1, prev_kv=True))
        await audience.until(lambda: all(watcher.ended for watcher in late), "cancellations")
        await audience.more(500)


async def finish(audience: Audience, followers: Sequence[ClientWatcher], client: AsyncClient) -> list[Event]:
    """Wait until all have seen or been told of the last revision; answers with the truth."""
    final = (await client.range(b"\0", from_key=True, count_only=True)).revision
    await audience.until(lambda: audience.truth.position > final, "the whole history")
    truth = list(audience.truth.recording.events())
    audience.join(narrow(b"\0", b"\0", truth[len(truth) * 3 // 4].kv.mod_revision, prev_kv=True))
    await audience.until(lambda: all(w.ended or w.position > final for w in audience.watchers), "every event")
    due_here = [(follower, len(follower.due(truth))) for follower in followers]
    await audience.until(lambda: all(len(f.seen) >= d for f, d in due_here), "the clients' events")
    return truth


def check(audience: Audience, play: Play, truth: Sequence[Event]) -> None:
    through = truth[-1].kv.mod_revision
    for watcher in audience.watchers:
        validate(watcher.recording, truth, through)
        validate_prev_kv_complete(watcher.recording, truth, play.compacted)
        if watcher.ended and watcher is not audience.cancelled:
            # Only who was behind a compaction may be told so; all others asked for progress in time.
            behind = [*play.below, *audience.straggler.watchers, *audience.slow.watchers]
            assert watcher in behind, f"at {watcher.position}: {watcher.recording}"
            assert 0 < watcher.compact_revision <= play.compacted
            assert watcher.recording.responses[-1].header.revision == 0
    for watcher in play.below:
        assert watcher.compact_revision > watcher.recording.first_revision
        assert watcher.delivered == 0
    assert audience.cancelled.ended
    assert audience.cancelled.compact_revision == 0


async def act(cluster: Cluster) -> str:
    endpoint = cluster.endpoints[0]
    audience = Audience(endpoint)
    async with AsyncClient(endpoint) as client:
        followers = await follow(client)
        for follower in followers[:-1]:
            follower.read()
        workload = Workload(endpoint, seed=1)
        play = Play(cluster, audience, workload)
        await play.run()
        await audience.until(
            lambda: sum(watcher.delivered for watcher in audience.watchers) >= DELIVERED_MIN,
            f"{DELIVERED_MIN} delivered events",
        )
        await workload.stop()
        followers[-1].read()
        truth = await finish(audience, followers, client)
        pairs = check_truth(truth, workload)
        assert {pair.key: pair.value for pair in (await client.get_prefix(b"")).kvs} == {
            key: pair.value for key, pair in pairs.items()
        }
        await workload.client.close()
        for follower in followers:
            assert follower.seen == follower.due(truth)
            await follower.close()
    for stream in audience.streams:
        await stream.close()
    check(audience, play, truth)
    return report(audience, workload, truth)


def report(audience: Audience, workload: Workload, truth: Sequence[Event]) -> str:
    delivered = sum(watcher.delivered for watcher in audience.watchers)
    broken = sum(len(stream.broken) for stream in audience.streams)
    assert delivered >= DELIVERED_MIN
    # The gateway was killed, and its successor had to take up every stream.
    assert all(stream.broken for stream in audience.streams[:11])
    assert any(response.fragment for w in audience.watchers for response in w.recording.responses)
    return (
        f"{delivered} events delivered to {len(audience.watchers)} watchers; {len(truth)} events in "
        f"{truth[-1].kv.mod_revision} revisions; {broken} broken streams, {workload.unanswered} unanswered"
    )


def test_watchers_get_what_was_promised_whatever_happens(watched: Cluster) -> None:
    logging.getLogger(__name__).info(asyncio.run(act(watched)))
    wait_until_healed(watched, watched.status())


def test_no_event_is_delivered_before_a_majority_has_it(watched: Cluster) -> None:
    asyncio.run(write_alone(watched))
    wait_until_healed(watched, watched.status())


async def write_alone(cluster: Cluster) -> None:
    """Writes reach a leader whose followers stand still; then it dies, and the followers go on."""
    endpoint = cluster.endpoints[0]
    watcher, everything = narrow(b"alone/", b"alone0"), narrow(b"\0", b"\0")
    stream = RecordedStream(endpoint, watcher, everything)
    async with AsyncClient(endpoint, timeout=30.0) as client:
        revision = (await client.put("alone/0", "all")).revision
        await wait_for(lambda: everything.position == revision + 1 and watcher.delivered <= 1, "the start")
        leader = await asyncio.to_thread(leader_of, cluster)
        followers = [m for m in (await asyncio.to_thread(cluster.status)).members if m.id != leader.id]
        for follower in followers:
            os.kill(follower.process_id, signal.SIGSTOP)
        try:
            puts = [asyncio.create_task(client.put(f"alone/{i}", "leader")) for i in range(1, 20)]
            for _ in range(30):
                stream.request_progress()
                await asyncio.sleep(0.1)
                stream.check()
                assert everything.position == revision + 1, f"{everything.recording.responses[-1]}"
                assert not any(put.done() for put in puts)
            kill(leader)
        finally:
            for follower in followers:
                os.kill(follower.process_id, signal.SIGCONT)
        results = await asyncio.gather(*puts, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        assert all(isinstance(error, UnavailableError | NotAnsweredError) for error in errors), errors
        final = (await client.put("alone/20", "all")).revision
        await wait_for(lambda: everything.position == final + 1, "the end")
        again = RecordedStream(endpoint, narrow(b"\0", b"\0", revision + 1))
        await wait_for(lambda: again.watchers[0].position == final + 1, "the history")
    await stream.close()
    await again.close()
    history = list(again.watchers[0].recording.events())
    assert len(history) >= 20 - len(errors)
    for each in (watcher, everything):
        came = [event for event in each.recording.events() if event.kv.mod_revision > revision]
        assert came == history
