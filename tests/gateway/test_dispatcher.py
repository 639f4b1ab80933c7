"""The shell around the dispatch: silent members, dead calls, and defects that must not be swallowed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from etcray.gateway.dispatcher import Dispatcher, MemberUnreachableError
from etcray_storage.commands import CommandKind, ReadKind
from etcray_storage.errors import EtcdError
from etcray_storage.proto import rpc_pb2 as rpc
from etcray_storage.types import MemberId, Term
from tests.gateway.local_member import MEMBER_ID, LocalMember

OTHER = MemberId(77)
PUT = rpc.PutRequest(key=b"a", value=b"1").SerializeToString()
RANGE = rpc.RangeRequest(key=b"a").SerializeToString()


class DeadMember:
    """Every call fails."""

    async def propose(self, batch: bytes) -> bytes:
        raise MemberUnreachableError(f"dead; {len(batch)} bytes are lost")

    async def read(self, request: bytes) -> bytes:
        raise MemberUnreachableError(f"dead; {len(request)} bytes are lost")

    async def keep_alive(self, request: bytes) -> bytes:
        raise MemberUnreachableError("dead")

    async def watch(self, poll: bytes) -> bytes:
        raise MemberUnreachableError("dead")

    async def history(self, request: bytes) -> bytes:
        raise MemberUnreachableError("dead")

    async def status(self) -> bytes:
        raise MemberUnreachableError("dead")

    async def transfer_leadership(self, request: bytes) -> bytes:
        raise MemberUnreachableError(f"dead; {len(request)} bytes are lost")

    async def hash_kv(self, request: bytes) -> bytes:
        raise MemberUnreachableError(f"dead; {len(request)} bytes are lost")

    async def defragment(self) -> bytes:
        raise MemberUnreachableError("dead")


class BrokenMember(LocalMember):
    """Answers with something that is no reply."""

    async def propose(self, batch: bytes) -> bytes:
        return b"nonsense" + batch[:1]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_silent_leader_is_given_up_when_another_leads() -> None:
    async def story() -> None:
        member, silent = LocalMember(), LocalMember()
        silent.silent = True
        member.term = Term(8)
        dispatcher = Dispatcher({OTHER: silent, MEMBER_ID: member}, random.Random(1))
        dispatcher.delivery.heard(OTHER, OTHER, Term(7))
        reply = await dispatcher.propose(CommandKind.PUT, PUT)
        assert (reply.revision, reply.member, reply.term) == (2, MEMBER_ID, 8)
        assert dispatcher.delivery.resend_count >= 1
        await dispatcher.stop()

    run(story())


def test_a_leader_that_is_told_dead_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILENCE_SECONDS", "RESEND_SECONDS"):
        monkeypatch.setattr(f"etcray.gateway.delivery.{name}", 1e9)

    async def story() -> None:
        member, silent = LocalMember(), LocalMember()
        silent.silent = True
        member.term = Term(8)
        dispatcher = Dispatcher({OTHER: silent, MEMBER_ID: member}, random.Random(1))
        dispatcher.delivery.heard(OTHER, OTHER, Term(7))
        waiting = dispatcher.propose(CommandKind.PUT, PUT)
        await asyncio.sleep(0)
        dispatcher.member_died(OTHER)
        assert (await waiting).member == MEMBER_ID
        await dispatcher.stop()

    run(story())


def test_dead_members_are_passed_over() -> None:
    async def story() -> None:
        dispatcher = Dispatcher({MemberId(1): DeadMember(), MEMBER_ID: LocalMember()}, random.Random(1))
        await dispatcher.propose(CommandKind.PUT, PUT)
        for serializable in (False, True):
            reply = await dispatcher.read(ReadKind.RANGE, RANGE, serializable=serializable)
            assert rpc.RangeResponse.FromString(reply.body).kvs[0].value == b"1"
        assert [status.member for status in await dispatcher.statuses()] == [MEMBER_ID]
        assert await dispatcher.has_leader()
        await dispatcher.stop()

    run(story())


def test_new_channel_of_a_recreated_member_is_used() -> None:
    async def story() -> None:
        dispatcher = Dispatcher({MEMBER_ID: DeadMember()}, random.Random(1))
        waiting = dispatcher.propose(CommandKind.PUT, PUT)
        await asyncio.sleep(0.1)
        assert not waiting.done()
        dispatcher.set_channels({MEMBER_ID: LocalMember()})
        assert (await waiting).revision == 2
        await dispatcher.stop()

    run(story())


def test_defect_in_the_background_ends_the_dispatcher_and_is_told() -> None:
    async def story() -> None:
        dispatcher = Dispatcher({MEMBER_ID: BrokenMember()}, random.Random(1))
        with pytest.raises(EtcdError):
            await dispatcher.propose(CommandKind.PUT, PUT)
        with pytest.raises(Exception, match=r"JSON|malformed|MessagePack|Expected|trailing") as caught:
            await dispatcher.failed
        assert not isinstance(caught.value, EtcdError)
        with pytest.raises(EtcdError, match="server stopped"):
            dispatcher.propose(CommandKind.PUT, PUT)

    run(story())


def test_defect_in_a_callback_ends_the_dispatcher_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        dispatcher = Dispatcher({MEMBER_ID: LocalMember()}, random.Random(1))

        def fail(_now: float) -> None:
            raise ZeroDivisionError("a defect")

        monkeypatch.setattr(dispatcher.proposals, "advance", fail)
        with pytest.raises(EtcdError):
            await dispatcher.propose(CommandKind.PUT, PUT)
        with pytest.raises(ZeroDivisionError):
            await dispatcher.failed

    run(story())


def test_requests_after_an_answer_are_held_and_then_sent() -> None:
    """On uvloop, whose timers are coarser than asyncio's."""

    async def story() -> None:
        dispatcher = Dispatcher({MEMBER_ID: LocalMember()}, random.Random(1))
        for _ in range(50):
            first = [dispatcher.propose(CommandKind.PUT, PUT) for _ in range(3)]
            await asyncio.gather(*first)
            await asyncio.gather(dispatcher.propose(CommandKind.PUT, PUT))
        assert not dispatcher.failed.done()
        assert dispatcher.proposals.command_count == 200
        await dispatcher.stop()

    uvloop.run(story())


def test_stop_answers_everything_that_waits() -> None:
    async def story() -> None:
        member = LocalMember()
        member.silent = True
        dispatcher = Dispatcher({MEMBER_ID: member}, random.Random(1))
        waiting = [dispatcher.propose(CommandKind.PUT, PUT) for _ in range(3)]
        waiting.append(dispatcher.read(ReadKind.RANGE, RANGE, serializable=True))
        await asyncio.sleep(0.05)
        await dispatcher.stop()
        for future in waiting:
            with pytest.raises(EtcdError):
                await future

    run(story())
