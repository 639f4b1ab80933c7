"""etcd's promises about watches, as checks of what one watcher received.

A `Recording` is one watcher's request and the responses that carried its id, in order. A `History` is the
truth: every event of the store, in order, with its previous pair; take it from a model, or from a
watcher of everything from revision 1 on with `prev_kv` (then that watcher proves nothing by itself).
Each check raises AssertionError with the numbers. `validate` runs them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from etcray_storage.proto.kv_pb2 import Event
from etcray_storage.proto.rpc_pb2 import WatchCreateRequest, WatchResponse

History = Sequence[Event]


@dataclass
class Recording:
    """What one watcher asked for and got."""

    request: WatchCreateRequest
    responses: list[WatchResponse] = field(default_factory=list)

    @property
    def first_revision(self) -> int:
        """The first revision whose events it must get."""
        if self.request.start_revision > 0:
            return self.request.start_revision
        created = next(response for response in self.responses if response.created)
        return created.header.revision + 1

    def is_under_way(self) -> bool:
        """Whether anything came after the answer to the creation."""
        return len(self.responses) > 1

    def events(self) -> Iterator[Event]:
        for response in self.responses:
            yield from response.events


def validate(recording: Recording, history: History, through: int) -> None:
    """Every promise. `through`: the watcher must have everything up to this revision, unless it was
    cancelled."""
    validate_created_first(recording)
    validate_nothing_after_cancel(recording)
    validate_ordered(recording)
    validate_unique(recording)
    validate_atomic(recording)
    validate_bookmarkable(recording)
    validate_resumable(recording)
    validate_reliable(recording, history, through)
    validate_filter(recording)
    validate_prev_kv(recording, history)
    validate_is_create(recording, history)


def validate_created_first(recording: Recording) -> None:
    """The answer to the creation comes first, once."""
    created = [response.created for response in recording.responses]
    assert created[:1] == [True], "the first response is not about the creation"
    assert created.count(True) == 1, f"created {created.count(True)} times"


def validate_nothing_after_cancel(recording: Recording) -> None:
    canceled = [response.canceled for response in recording.responses]
    assert not any(canceled[:-1]), f"response {canceled.index(True) + 2} after the cancellation"


def validate_ordered(recording: Recording) -> None:
    """Events come by revision. (Their order within one revision is checked by `validate_reliable`.)"""
    last = 0
    for event in recording.events():
        assert event.kv.mod_revision >= last, f"revision {event.kv.mod_revision} after {last}"
        last = event.kv.mod_revision


def validate_unique(recording: Recording) -> None:
    seen: set[tuple[bytes, int]] = set()
    for event in recording.events():
        name = (event.kv.key, event.kv.mod_revision)
        assert name not in seen, f"{name} came twice"
        seen.add(name)


def validate_atomic(recording: Recording) -> None:
    """A revision is in one response, or in fragments that follow each other if they were asked for."""
    last = 0
    continues = False
    for response in recording.responses:
        if not response.events:
            assert not continues, "a response between fragments"
            continue
        assert recording.request.fragment or not response.fragment, "a fragment that nobody asked for"
        first = response.events[0].kv.mod_revision
        if continues:
            assert first == last, f"a fragment of revision {first} after one of {last}"
        else:
            assert first > last, f"revision {first} goes on in another response"
        last = response.events[-1].kv.mod_revision
        continues = response.fragment


def validate_bookmarkable(recording: Recording) -> None:
    """A report of progress promises that everything up to its revision came before it, and its
    revision is not below what was seen."""
    reported = seen = 0
    for response in recording.responses:
        if not response.events:
            if not response.canceled and not response.created:
                assert response.header.revision >= max(reported, seen), (
                    f"progress {response.header.revision} after {max(reported, seen)}"
                )
                reported = response.header.revision
            continue
        first = response.events[0].kv.mod_revision
        assert first > reported, f"event {first} after progress {reported}"
        seen = response.events[-1].kv.mod_revision
        assert response.header.revision >= seen, f"header {response.header.revision} with event {seen}"


def validate_resumable(recording: Recording) -> None:
    """Nothing from before the start."""
    for event in recording.events():
        assert event.kv.mod_revision >= recording.first_revision, (
            f"event {event.kv.mod_revision}, asked from {recording.first_revision}"
        )


def validate_reliable(recording: Recording, history: History, through: int) -> None:
    """No gap: what came is the beginning of what should come, and reaches `through`, or as far as the
    watcher lived."""
    came = [(event.kv.mod_revision, event.kv.key) for event in recording.events()]
    due = [
        (event.kv.mod_revision, event.kv.key)
        for event in history
        if is_wanted(recording.request, event) and event.kv.mod_revision >= recording.first_revision
    ]
    for number, (got, wanted) in enumerate(zip(came, due, strict=False)):
        assert got == wanted, f"event {number} is {got}, history has {wanted}"
    assert len(came) <= len(due), f"history does not have {came[len(due)]}"
    if not recording.responses[-1].canceled:
        missing = [name for name in due[len(came) :] if name[0] <= through]
        assert not missing, f"never got {missing[:5]} of {len(missing)}, up to {through}"


def validate_filter(recording: Recording) -> None:
    for event in recording.events():
        assert is_wanted(recording.request, event), f"{event.kv.key!r} was not asked for"


def validate_prev_kv(recording: Recording, history: History) -> None:
    """The pair as of the revision before, if it was asked for. A compaction may have taken it; a wrong
    one may never come."""
    truth = {(event.kv.mod_revision, event.kv.key): event for event in history}
    for event in recording.events():
        due = truth[event.kv.mod_revision, event.kv.key]
        assert event.kv == due.kv, f"got {event.kv}, history has {due.kv}"
        if event.HasField("prev_kv"):
            assert recording.request.prev_kv, "a previous pair that nobody asked for"
            assert event.prev_kv == due.prev_kv, f"previous {event.prev_kv}, history has {due.prev_kv}"


def validate_prev_kv_complete(recording: Recording, history: History, above: int) -> None:
    """Where no compaction reached, the previous pair is there unless the event is a creation."""
    truth = {(event.kv.mod_revision, event.kv.key): event for event in history}
    for event in recording.events():
        if recording.request.prev_kv and event.kv.mod_revision > above:
            due = truth[event.kv.mod_revision, event.kv.key]
            assert event.HasField("prev_kv") == due.HasField("prev_kv"), f"{event.kv}: previous pair"


def validate_is_create(recording: Recording, history: History) -> None:
    """A put is a creation exactly if its create and mod revisions are equal; a deletion knows neither
    value nor versions."""
    truth = {(event.kv.mod_revision, event.kv.key): event for event in history}
    for event in recording.events():
        if event.type == Event.DELETE:
            assert not event.kv.create_revision, f"a deletion with create revision: {event.kv}"
            assert not event.kv.version, f"a deletion with a version: {event.kv}"
            continue
        created = not truth[event.kv.mod_revision, event.kv.key].HasField("prev_kv")
        assert (event.kv.create_revision == event.kv.mod_revision) == created, f"creation: {event.kv}"
        assert (event.kv.version == 1) == created, f"version of {event.kv}"


def is_wanted(request: WatchCreateRequest, event: Event) -> bool:
    filtered = WatchCreateRequest.NODELETE if event.type == Event.DELETE else WatchCreateRequest.NOPUT
    if filtered in request.filters:
        return False
    key, start, end = event.kv.key, request.key or b"\0", request.range_end
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)
