"""Sessions: why a batch that arrives twice is applied once.

A gateway opens a session and numbers its batches. The leader may change while a batch is on its way,
so the gateway sends it again, and both copies may end up in the log. The first one applied leaves its
answer here; the second one gets that answer and changes nothing. Answers are kept until the gateway
says that it has them.

Story of a stale copy: 1. Batch 7 reaches an old leader and hangs. 2. The gateway sends it to the new
one, gets the answer, and acknowledges 7 with batch 8. 3. The old copy is committed after all. Its
answer is forgotten, but 7 is at or below the floor, so it is not applied; nobody waits for the refusal.

Story of a forgotten session: 1. A gateway is silent while 1,024 others are opened. 2. Its session is
forgotten as the longest unused. 3. Its next batch is refused with SESSION_EXPIRED, although it may
never have been applied before: nobody can tell any more. The gateway opens a new session.

Everything here is replicated state: the order of use, too, is decided by the log.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from etcray_storage.commands import BatchAnswer
from etcray_storage.errors import SESSION_EXPIRED
from etcray_storage.limits import SESSION_ANSWERS_MAX, SESSIONS_MAX
from etcray_storage.mvcc.rows import StateItem

PART = "session"


class Session(msgspec.Struct, array_like=True):
    """One gateway's session."""

    used_index: int
    """Index of the entry that used it last, and the batch's place in there: the order of use."""
    used_place: int
    floor: int = 0
    """Batches up to this one are not applied any more: acknowledged, or pushed out."""
    answers: dict[int, BatchAnswer] = {}
    """By sequence, in the order in which they were applied; all above `floor`."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Session).decode


class Sessions:
    """All sessions, the longest unused first."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[int, Session] = OrderedDict()
        self._dirty: set[int] = set()

    def open_session(self, session: int, index: int, place: int) -> None:
        """Start a session; one that exists already goes on as it is (the opening came twice)."""
        known = self._sessions.get(session)
        if known is not None:
            self._use(session, known, index, place)
            return
        if len(self._sessions) >= SESSIONS_MAX:
            forgotten, _ = self._sessions.popitem(last=False)
            self._dirty.add(forgotten)
        self._sessions[session] = Session(index, place)
        self._dirty.add(session)

    def admit(
        self, session: int, sequence: int, acknowledged: int, index: int, place: int
    ) -> BatchAnswer | bool:
        """What to do with a batch: True, apply it and `remember` its answer; False, refuse it; an
        answer, give that one again."""
        known = self._sessions.get(session)
        if known is None:
            return False
        self._use(session, known, index, place)
        if acknowledged > known.floor:
            known.floor = acknowledged
            for done in [s for s in known.answers if s <= acknowledged]:
                del known.answers[done]
        answer = known.answers.get(sequence)
        if answer is not None:
            return answer
        return sequence > known.floor

    def remembers(self, session: int, sequence: int) -> bool:
        """Whether this batch would not be applied if it came now: it was before, or may have been."""
        known = self._sessions.get(session)
        return known is not None and (sequence <= known.floor or sequence in known.answers)

    def remember(self, answer: BatchAnswer) -> None:
        """Keep the answer of a batch that was just admitted and applied."""
        session = self._sessions[answer.session]
        assert answer.sequence > session.floor, f"batch {answer.sequence} is below {session.floor}"
        session.answers[answer.sequence] = answer
        if len(session.answers) > SESSION_ANSWERS_MAX:
            # A gateway never has so many in flight. Batches below the one that is pushed out cannot
            # be told from copies of it any more, so the floor rises with it.
            session.floor = min(session.answers)
            del session.answers[session.floor]

    def take_items(self) -> list[StateItem]:
        """What changed since the last call, sorted for determinism."""
        items = []
        for session in sorted(self._dirty):
            known = self._sessions.get(session)
            items.append(StateItem(PART, _key(session), None if known is None else _encode(known)))
        self._dirty.clear()
        return items

    def restore(self, items: list[StateItem]) -> None:
        """Take over all sessions from the tables."""
        assert not self._sessions, f"restore into {len(self._sessions)} sessions"
        loaded = [(int.from_bytes(i.key, "big"), _decode(i.value)) for i in items if i.value is not None]
        loaded.sort(key=lambda pair: (pair[1].used_index, pair[1].used_place))
        self._sessions.update(loaded)

    def _use(self, session: int, known: Session, index: int, place: int) -> None:
        known.used_index, known.used_place = index, place
        self._sessions.move_to_end(session)
        self._dirty.add(session)


def refusal(session: int, sequence: int, commands: int, revision: int) -> BatchAnswer:
    """The answer to a batch that is not applied."""
    return BatchAnswer(
        session, sequence, [revision] * commands, [SESSION_EXPIRED.number] * commands, [b""] * commands
    )


def _key(session: int) -> bytes:
    return session.to_bytes(8, "big")
