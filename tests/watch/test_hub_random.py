"""The hub under random schedules: writers, watchers, lagging and restarting members, compactions, readers
that stop. Whatever happens, every watcher gets what the validators ask for."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcray.gateway import watch_catch_up, watch_stream
from etcray.gateway.watch_catch_up import CatchUp
from etcray.gateway.watch_hub import WatchHub
from etcray.gateway.watch_stream import WatchStream
from etcray.node import api
from etcray_storage.proto.rpc_pb2 import WatchCreateRequest, WatchResponse
from etcray_storage.types import MemberId
from tests.watch.truth import TrueMember, TrueStore
from tests.watch.validators import Recording, validate, validate_prev_kv_complete

KEYS = [b"a", b"a1", b"a2", b"b", b"b1", b"c"]
RANGES = [
    (b"a", b""),
    (b"b1", b""),
    (b"a", b"b"),
    (b"a", b"b1"),
    (b"b", b"\0"),
    (b"\0", b"\0"),
    (b"a1", b"c"),
]


class Client:
    """One stream and what its watchers were told."""

    def __init__(self, world: World) -> None:
        self.stream: WatchStream = world.hub.open_stream(lambda: None)
        self.created: deque[Recording] = deque()
        self.recordings: dict[int, Recording] = {}
        self.finished: list[Recording] = []
        self.progress: list[int] = []

    def read(self, data: bytes) -> None:
        response = WatchResponse.FromString(data)
        if response.created:
            self.recordings[response.watch_id] = self.created.popleft()
        elif response.watch_id == -1:
            self.progress.append(response.header.revision)
            return
        recording = self.recordings[response.watch_id]
        recording.responses.append(response)
        if response.canceled:
            self.finished.append(self.recordings.pop(response.watch_id))


class World:
    """Three members, one hub, some clients, and a random order of everything."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.store = TrueStore()
        ring = self.rng.choice([3, 20, 1000])
        self.members = [TrueMember(self.store, MemberId(number), ring) for number in (1, 2, 3)]
        self.hub = WatchHub(7, self.rng, lambda: None, progress_seconds=self.rng.choice([0.1, 5.0, 600.0]))
        self.polls: list[api.WatchPoll] = []
        self.replies: list[api.WatchEvents] = []
        self.reads: list[CatchUp] = []
        self.answers: list[tuple[CatchUp, api.HistoryReply]] = []
        self.clients = [Client(self)]
        self.answered = 1

    def step(self) -> None:
        self.now += self.rng.random() * 0.05
        weighted = [
            (self.write, 8), (self.apply, 6), (self.exchange, 10), (self.catch_up, 8), (self.read_some, 6),
            (self.create, 3), (self.cancel, 1), (self.open, 1), (self.compact, 0.5), (self.restart, 0.4),
            (self.ask_progress, 0.5), (self.tick, 1),
        ]  # fmt: skip
        actions, weights = zip(*weighted, strict=True)
        self.rng.choices(actions, weights)[0]()

    def write(self) -> None:
        for _ in range(self.rng.choice([1, 1, 5])):
            keys = self.rng.sample(KEYS, self.rng.choice([1, 1, 2, 4]))
            self.store.change(
                {k: None if self.rng.random() < 0.3 else b"v" * self.rng.randrange(60) for k in keys}
            )

    def apply(self) -> None:
        member = self.rng.choice(self.members)
        member.apply(self.rng.randrange(1, 8))
        self.answered = max(self.answered, self.rng.choice([1, member.applied]))

    def restart(self) -> None:
        member = self.rng.choice(self.members)
        if self.rng.random() < 0.5:
            member.restart()
        else:
            member.install_snapshot()

    def compact(self) -> None:
        lowest = min(member.applied for member in self.members)
        if lowest > 2:
            self.store.compact(self.rng.randrange(1, lowest))

    def exchange(self) -> None:
        """A poll leaves, or its answer arrives; some answers are lost."""
        if self.replies:
            reply = self.replies.pop()
            if reply.outcome is api.Outcome.ANSWERED and self.rng.random() < 0.9:
                self.hub.polled(reply)
            return
        poll = self.hub.poll()
        if poll is not None:
            poll = api.WatchPoll(
                poll.after_revision, poll.with_previous, self.rng.choice([1, 200, 10**6]), 0.0
            )
            self.replies.append(self.rng.choice(self.members).watch(poll))

    def catch_up(self) -> None:
        if self.hub.position is not None:
            self.reads += self.hub.catch_ups.next_reads()
        if self.answers and self.rng.random() < 0.5:
            read, reply = self.answers.pop(self.rng.randrange(len(self.answers)))
            self.hub.catch_ups.answered(read, reply)
        elif self.reads:
            read = self.reads.pop(self.rng.randrange(len(self.reads)))
            asked = read.request
            request = api.HistoryRequest(
                asked.key, asked.range_end, asked.from_revision, asked.to_revision,
                asked.with_previous, self.rng.choice([1, 3, 1000]), asked.bytes_max,
            )  # fmt: skip
            found = self.rng.choice(self.members).history(request)
            if found is None:
                self.hub.catch_ups.failed(read)
            else:
                self.answers.append((read, found))

    def open(self) -> None:
        if len(self.clients) < 4:
            self.clients.append(Client(self))

    def create(self) -> None:
        if self.hub.position is None:
            return
        key, end = self.rng.choice(RANGES)
        around = self.rng.randrange(max(1, self.hub.position - 15), self.hub.position + 10)
        request = WatchCreateRequest(
            key=key, range_end=end, start_revision=self.rng.choice([0, 0, 1, around]),
            prev_kv=self.rng.random() < 0.4, fragment=self.rng.random() < 0.3,
            progress_notify=self.rng.random() < 0.3,
            filters=self.rng.choice([[], [], [WatchCreateRequest.NOPUT], [WatchCreateRequest.NODELETE]]),
        )  # fmt: skip
        client = self.rng.choice(self.clients)
        client.created.append(Recording(request))
        self.hub.create(client.stream, request, self.answered, self.now)

    def cancel(self) -> None:
        client = self.rng.choice(self.clients)
        if client.stream.watchers:
            self.hub.cancel(client.stream, self.rng.choice(list(client.stream.watchers)))

    def read_some(self) -> None:
        client = self.rng.choice(self.clients)
        for _ in range(self.rng.choice([1, 3, 1000])):
            data = self.hub.take(client.stream)
            if data is None:
                return
            client.read(data)

    def ask_progress(self) -> None:
        self.hub.request_progress(self.rng.choice(self.clients).stream)

    def tick(self) -> None:
        self.now += self.rng.choice([0.0, 0.2, 10.0])
        self.hub.tick(self.now)

    def settle(self) -> None:
        """Everybody works and reads from now on."""
        for member in self.members:
            member.apply(10**9)
        for _ in range(400):
            while self.replies:
                reply = self.replies.pop()
                if reply.outcome is api.Outcome.ANSWERED:
                    self.hub.polled(reply)
            poll = self.hub.poll()
            assert poll is not None
            self.hub.polled(self.members[0].watch(poll))
            self.reads += self.hub.catch_ups.next_reads()
            while self.answers:
                self.hub.catch_ups.answered(*self.answers.pop())
            while self.reads:
                read = self.reads.pop()
                found = self.members[0].history(read.request)
                assert found is not None
                self.hub.catch_ups.answered(read, found)
            for client in self.clients:
                while (data := self.hub.take(client.stream)) is not None:
                    client.read(data)
            if self.hub.position == self.store.revision and self.all_synced():
                return
        raise AssertionError("it never settles")

    def all_synced(self) -> bool:
        return all(w.synced for client in self.clients for w in client.stream.watchers.values())

    def check(self) -> None:
        for client in self.clients:
            assert not client.stream.queue
            assert not client.created
            assert client.progress == sorted(client.progress)
            for recording in [*client.recordings.values(), *client.finished]:
                validate(recording, self.store.history, self.store.revision)
                validate_prev_kv_complete(recording, self.store.history, self.store.compact_revision)
                last = recording.responses[-1]
                if last.compact_revision:
                    assert last.header.revision == 0
                    assert last.compact_revision <= self.store.compact_revision
        assert self.hub.buffered_bytes == 0


@pytest.mark.parametrize("small", [False, True], ids=["normal limits", "tiny limits"])
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_watcher_gets_everything_once_in_order(seed: int, small: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(watch_stream, "WATCH_STREAM_RESPONSES_MAX", 3)
            patch.setattr(watch_stream, "WATCH_STREAM_BYTES_MAX", 400)
            patch.setattr("etcray.gateway.watch_responses.WATCH_RESPONSE_BYTES_MAX", 120)
            patch.setattr("etcray.gateway.watch_responses.WATCH_FRAGMENT_BYTES", 150)
            patch.setattr("etcray.gateway.watch_hub.WATCH_BUFFERED_BYTES_MAX", 900)
            patch.setattr(watch_catch_up, "WATCH_RECENT_REVISIONS", 10)
            patch.setattr(watch_catch_up, "WATCH_CATCH_UP_RANGES_MAX", 2)
            patch.setattr(watch_catch_up, "WATCH_CATCH_UP_WINDOW_REVISIONS", 5)
        world = World(seed)
        for _ in range(250):
            world.step()
        world.settle()
        world.check()
