"""Brings the replicated member list, the actors and what people want together: the reconciler's hands.

Facts come from the members' last answers; the list is believed as the member tells it that has applied
most. One change of the membership is under way at a time, and its effect has to be seen in the list before
the next is decided.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from etcray import ray_runtime, state_file
from etcray.node.api import (
    Outcome,
    ProposeReply,
    TransferReply,
    TransferRequest,
    decode_propose_reply,
    decode_transfer_reply,
    encode,
)
from etcray.placement import choose_node, pin_of, spread
from etcray.spec import MemberSpec, NodePin, cluster_directory
from etcray.supervisor.book import Book
from etcray.supervisor.goals import Change, Goal, HandOver, StartActor, StopActor
from etcray.supervisor.keeper import Keeper, News
from etcray.supervisor.reconciler import Facts, Plan, Seen, next_name, plan
from etcray.supervisor.report import find_leader, newest_status
from etcray.supervisor.watched import WatchedGateway, WatchedMember, members_of
from etcray_storage import errors
from etcray_storage.commands import INTERNAL_SESSION, Batch, encode_batch, encode_member_command
from etcray_storage.errors import error_by_number
from etcray_storage.types import NOBODY, MemberId

CHANGE_SECONDS: Final = 15.0
"""After this long without an answer a change is decided anew, from what the list says by then."""

SILENT_SECONDS: Final = 10.0
"""Who has not answered for so long is not counted on for a majority."""

RETRY_SECONDS: Final = 0.5
"""Before the next attempt, when the leader refused a change for a reason that passes."""

_PASSING: Final = frozenset(
    {
        errors.LEARNER_NOT_READY.number,
        errors.UNHEALTHY.number,
        errors.TOO_MANY_LEARNERS.number,
        errors.MEMBER_NOT_ENOUGH_STARTED.number,
        errors.TIMEOUT.number,
        errors.NO_LEADER.number,
        errors.LEADER_CHANGED.number,
        errors.MEMBER_EXIST.number,
        errors.PEER_URL_EXIST.number,
    }
)
"""The cluster is not ready for the change yet, or it was made already and the list does not show it yet.
All others refuse it for good."""


@dataclass(slots=True, eq=False)
class Wish:
    """A goal that somebody waits for."""

    goal: Goal
    ended: threading.Event = field(default_factory=threading.Event)
    refusal: str = ""


@dataclass(slots=True)
class _UnderWay:
    """A change that the leader was asked for."""

    change: Change
    leader: MemberId
    """Who was asked. When another one leads, there may never be an answer."""
    until: float
    """Nothing else is decided before, unless its effect is seen earlier."""


class Membership:
    """Used by the supervisor's thread alone, but for `add_wish` and `give_up`."""

    def __init__(self, keeper: Keeper, book: Book) -> None:
        self._keeper = keeper
        self._book = book
        self._random = random.Random()
        self._under_way: _UnderWay | None = None
        self._refused: Change | None = None
        """The change that the leader refused last, for a reason that does not pass."""
        self._wishes: list[Wish] = []
        self._wishes_lock = threading.Lock()
        self.doing = ""
        """For people; see `Plan.doing`."""
        self.problem = ""
        """Why the last change was refused, while it is tried again."""
        self.next_name = ""
        """Free for a member that is to be added."""

    @property
    def described(self) -> str:
        """What is being done, and what is in the way."""
        return "; ".join(text for text in (self.doing, self.problem) if text)

    # --- wishes -------------------------------------------------------------------------------

    def add_wish(self, wish: Wish) -> None:
        """From any thread. Wishes come true one after the other."""
        with self._wishes_lock:
            self._wishes.append(wish)
        self._keeper.wake()

    def give_up(self, wish: Wish) -> None:
        """From any thread. What was begun stays as it is: a member that is on its way goes on."""
        with self._wishes_lock:
            if wish in self._wishes:
                self._wishes.remove(wish)

    def _first_wish(self) -> Wish | None:
        with self._wishes_lock:
            return self._wishes[0] if self._wishes else None

    def _end(self, wish: Wish, refusal: str = "") -> None:
        self.give_up(wish)
        wish.refusal = refusal
        wish.ended.set()

    # --- a turn -------------------------------------------------------------------------------

    def turn(self) -> None:
        """Look, decide, act."""
        facts = self._facts()
        if facts is None:
            return
        now = time.monotonic()
        self.next_name = next_name(facts)
        wish = self._first_wish()
        decided = plan(facts, wish.goal if wish is not None else None)
        for step in decided.actors:
            self._act(step)
        self._copy_book()
        under_way = self._under_way
        if under_way is not None:
            if facts.leader not in (NOBODY, under_way.leader):
                under_way.until = min(under_way.until, now + RETRY_SECONDS)
            if now < under_way.until:
                return
        self._under_way = None
        self._follow(decided, wish, now, facts)

    def _follow(self, decided: Plan, wish: Wish | None, now: float, facts: Facts) -> None:
        self.doing = decided.doing
        if wish is not None and decided.refusal:
            self._end(wish, decided.refusal)
        elif wish is not None and decided.is_done:
            self.problem = ""
            self._end(wish)
        elif decided.change is not None:
            self._begin(decided.change, now, facts)

    # --- facts --------------------------------------------------------------------------------

    def _facts(self) -> Facts | None:
        """None as long as no member has told the list."""
        newest = newest_status(self._keeper)
        if newest is None or not self._book.spec.formed:
            return None
        spec = self._book.spec
        watched = {member.spec.id: member for member in members_of(self._keeper.watched)}
        leader = find_leader(self._keeper)
        led_by = watched[leader].status if leader in watched else None
        gateways = [one for one in self._keeper.watched.values() if isinstance(one, WatchedGateway)]
        return Facts(
            cluster=spec.name,
            token=spec.token,
            members=tuple(self._seen(member, watched.get(member.id)) for member in newest.members),
            removed=frozenset(newest.removed_ids),
            actors=tuple((member.name, member_id) for member_id, member in watched.items()),
            leader=leader,
            commit=led_by.commit_index if led_by is not None else newest.commit_index,
            client_urls=tuple(f"http://{gateway.endpoint}" for gateway in gateways),
            now=time.monotonic(),
            replace_after=spec.replace_after_seconds,
        )

    def _seen(self, member: Any, watched: WatchedMember | None) -> Seen:
        status = watched.status if watched is not None else None
        return Seen(
            id=member.id,
            name=member.name,
            is_learner=member.is_learner,
            peer_urls=member.peer_urls,
            client_urls=member.client_urls,
            actor=watched.name if watched is not None else "",
            serves=watched is not None and status is not None and self._answers(watched),
            applied=status.applied_index if status is not None else 0,
            place=str(watched.pin) if watched is not None else "",
            is_quarantined=watched is not None and watched.is_quarantined,
            gone_since=watched.gone_since if watched is not None else None,
        )

    def _answers(self, watched: WatchedMember) -> bool:
        """A paused process serves nobody, though nobody takes its actor for dead."""
        supervision = self._keeper.supervision
        silent = supervision.silent_seconds(watched.name, time.monotonic())
        return self._keeper.is_serving(watched) and silent < SILENT_SECONDS

    # --- actors -------------------------------------------------------------------------------

    def _act(self, step: StartActor | StopActor) -> None:
        if isinstance(step, StopActor):
            self._stop(step.name)
            return
        spec = MemberSpec(
            id=step.member,
            name=step.name,
            data_directory=f"{cluster_directory(self._book.spec)}/{step.name}",
            pin=self._new_pin(),
            joining=True,
        )
        self._book.add(spec)
        place = len(self._book.spec.members) - 1
        self._keeper.adopt(WatchedMember(self._book.spec.name, spec, place))

    def _new_pin(self) -> NodePin | None:
        """On the node with the fewest members. None in a Ray that has no other node than the supervisor's."""
        taken = [member.pin for member in self._book.spec.members]
        if None in taken:
            return None
        nodes = sorted(ray_runtime.living_nodes(), key=lambda node: str(node["NodeID"]))
        return spread([pin_of(node) for node in nodes], taken, 1)[0]

    def _stop(self, name: str) -> None:
        watched = self._keeper.watched[name]
        assert isinstance(watched, WatchedMember), f"{name} is no member"
        self._keeper.dismiss(name)
        self._book.remove(name)
        self._keeper.introduce_soon()
        directory = Path(watched.spec.data_directory)
        try:
            pin = watched.pin
            node = (
                self._keeper.node
                if pin is None
                else choose_node(pin, ray_runtime.living_nodes(), watched.place)
            )
        except LookupError:
            return  # Its node is gone, and its disk with it.
        if node == self._keeper.node:
            state_file.set_aside(directory)
        else:
            ray_runtime.run_on(node, state_file.set_aside, directory)

    def _copy_book(self) -> None:
        for member in members_of(self._keeper.watched):
            if self._keeper.is_serving(member):
                self._book.copy_to(member, self._keeper.call)

    # --- changes ------------------------------------------------------------------------------

    def _begin(self, change: Change, now: float, facts: Facts) -> None:
        leader = next(m for m in members_of(self._keeper.watched) if m.spec.id == facts.leader)
        self._under_way = _UnderWay(change, facts.leader, now + CHANGE_SECONDS)
        if isinstance(change, HandOver):
            request = encode(TransferRequest(change.to))
            self._keeper.call(leader, "hand over", leader.handle.transfer_leadership, request)
            return
        request = encode_member_command(change.content)
        sequence = self._random.getrandbits(62)
        batch = Batch(INTERNAL_SESSION, sequence, 0, bytes([change.kind]), [request])
        self._keeper.call(leader, "propose", leader.handle.propose, encode_batch(batch))

    def hear(self, news: News) -> None:
        """What the keeper heard of calls that were made here, and of members that opened."""
        now = time.monotonic()
        under_way = self._under_way
        if news.call == "open" and news.error is None:
            self._opened(news.name)
        elif news.call == "copy" and news.error is not None:
            self._book.copy_failed(news.name)
        elif news.call == "look":
            if news.error is None:
                self._keeper.watched[news.name].answered(news.answer)
            if under_way is not None:
                under_way.until = now + (RETRY_SECONDS if self.problem else 0.0)
        elif news.call in ("propose", "hand over") and under_way is not None:
            if news.error is not None:
                under_way.until = now + RETRY_SECONDS
            elif news.call == "propose":
                self._proposed(news, decode_propose_reply(news.answer), under_way, now)
            else:
                self._handed_over(news, decode_transfer_reply(news.answer), under_way, now)

    def _opened(self, name: str) -> None:
        self._book.copy_failed(name)
        self._book.opened(name)
        members = members_of(self._keeper.watched)
        if all(member.has_opened for member in members):
            self._book.formed()

    def _proposed(self, news: News, reply: ProposeReply, under_way: _UnderWay, now: float) -> None:
        if reply.outcome != Outcome.ANSWERED or reply.answer is None:
            under_way.until = now + RETRY_SECONDS
            return
        number = reply.answer.errors[0] if reply.answer.errors else errors.MALFORMED_REQUEST.number
        self._settle(number, under_way)
        self._look(news, under_way, now)

    def _handed_over(self, news: News, reply: TransferReply, under_way: _UnderWay, now: float) -> None:
        if reply.outcome != Outcome.ANSWERED:
            under_way.until = now + RETRY_SECONDS
            return
        self._settle(reply.error, under_way)
        self._look(news, under_way, now)

    def _settle(self, number: int, under_way: _UnderWay) -> None:
        """The leader's answer. A refusal for good ends the wish only when it comes twice:
        1. A leader commits a removal, and dies before it answers. 2. The next one has not applied it when
        the list is looked at, and is asked for the removal again. 3. It says that there is no such
        member. By then the list shows that all is well."""
        if number == 0:
            self.problem, self._refused = "", None
            return
        self.problem = error_by_number(number).message
        wish = self._first_wish()
        if number in _PASSING or wish is None:
            return
        if self._refused == under_way.change:
            self._refused = None
            self._end(wish, self.problem)
        else:
            self._refused = under_way.change

    def _look(self, news: News, under_way: _UnderWay, now: float) -> None:
        """What the leader says of itself after its answer shows what the answer did."""
        under_way.until = now + CHANGE_SECONDS
        leader = self._keeper.watched[news.name]
        self._keeper.call(leader, "look", leader.handle.status)
