"""Streaming calls both ways, over an echo service of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from etcray.gateway.grpc import Answer, Call
from etcray_storage import limits
from etcray_storage.errors import Code, EtcdError
from tests.gateway.grpc_calls import refusal
from tests.gateway.raw_http2 import RawHttp2
from tests.gateway.serving import ServingGateway, until

ECHO = "/test.Echo/Echo"
CRASH = "/test.Echo/Crash"
CRASH_DIRECTLY = "/test.Echo/CrashDirectly"


class EchoService:
    """Sends every message back; "fail" ends the call with an error, "hold" reads no further."""

    def __init__(self) -> None:
        self.running = 0
        self.taken = 0

    async def echo(self, requests: AsyncIterator[bytes], _call: Call) -> AsyncGenerator[bytes, None]:
        self.running += 1
        try:
            async for message in requests:
                self.taken += 1
                if message == b"fail":
                    raise EtcdError(Code.OUT_OF_RANGE, "50% of it failed: \u00e9")
                if message == b"hold":
                    await asyncio.get_running_loop().create_future()
                yield message
        finally:
            self.running -= 1

    async def crash(self, request: bytes, _call: Call) -> bytes:
        raise ZeroDivisionError(f"a defect, met with {len(request)} bytes")

    def crash_directly(self, request: bytes, _answer: Answer) -> None:
        raise ZeroDivisionError(f"a defect, met with {len(request)} bytes")


@pytest.fixture
def service(gateway: ServingGateway) -> Iterator[EchoService]:
    service = EchoService()
    gateway.server._router.stream(ECHO, service.echo)
    gateway.server._router.unary(CRASH, service.crash)
    gateway.server._router.direct(CRASH_DIRECTLY, service.crash_directly)
    yield service
    until(lambda: service.running == 0)


def echo(channel: Any) -> Any:
    return channel.stream_stream(ECHO, request_serializer=None, response_deserializer=None)(timeout=20)


@pytest.mark.usefixtures("service")
def test_messages_flow_both_ways_at_once(gateway: ServingGateway) -> None:
    async def run() -> None:
        options = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(gateway.address, options=options) as channel:
            call = echo(channel)
            for size in (0, 1, 1000, 100_000, limits.GRPC_RECEIVE_BYTES_MAX):
                await call.write(b"x" * size)
                assert len(await call.read()) == size
            await call.done_writing()
            assert not await call.read()
            assert await call.code() == grpc.StatusCode.OK

    asyncio.run(run())


@pytest.mark.usefixtures("service")
def test_failed_stream_has_a_status_with_any_text(gateway: ServingGateway) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            call = echo(channel)
            await call.write(b"first")
            assert await call.read() == b"first"
            await call.write(b"fail")
            assert await call.code() == grpc.StatusCode.OUT_OF_RANGE
            assert await call.details() == "50% of it failed: \u00e9"

    asyncio.run(run())


def test_client_that_leaves_ends_the_handler(gateway: ServingGateway, service: EchoService) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            call = echo(channel)
            await call.write(b"first")
            await call.read()
            assert service.running == 1
            call.cancel()

    asyncio.run(run())
    until(lambda: service.running == 0)


def test_client_that_is_faster_than_the_handler_is_held_back(
    gateway: ServingGateway, service: EchoService
) -> None:
    message = b"\0\0\0\x40\0" + b"x" * 0x4000
    with RawHttp2(gateway.port) as client:
        stream = client.open(ECHO)
        client.send_data(stream, b"\0\0\0\0\x04hold", end=False)
        until(lambda: service.taken == 1)
        window = 1 << 20
        for _ in range(window // len(message) - 1):
            client.send_data(stream, message, end=False)
        router = gateway.server._router
        until(lambda: gateway.call(lambda: router.incomplete_bytes) == 0)
        assert service.taken == 1


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("method", [CRASH, CRASH_DIRECTLY])
def test_defect_in_a_handler_is_told_to_the_log_and_the_client(
    gateway: ServingGateway, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    code, text = refusal(gateway, method, b"")
    assert code == grpc.StatusCode.INTERNAL
    assert "ZeroDivisionError" in text
    assert "a defect" in caplog.text
