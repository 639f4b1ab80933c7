"""A server that answers every call at once, and stores next to nothing: what the generator itself costs.

    python -m etcray_bench.load.responder --clients 256 --seconds 5

starts one in another process, puts closed loops on it, and prints the generator's CPU for a request and how
many requests one core could drive. The answers are those of an etcd: each put has a revision of its own,
and a range is answered with the value that was there in the beginning. What the load's check would find is
not asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import time
from collections.abc import Callable
from typing import Final, cast

import hpack
import uvloop

from etcray_bench.load import frames, messages
from etcray_bench.load.bulk import PRELOADER
from etcray_bench.load.connection import GRPC_PREFIX_BYTES
from etcray_bench.load.keys import KeySpace, Values
from etcray_bench.load.ledger import Ledger
from etcray_bench.load.options import Load
from etcray_bench.load.run import Prepared, run_part
from etcray_storage.proto import kv_pb2, rpc_pb2

_FIRST: Final = (
    b"\x88\x5f\x10application/grpc",
    b"\x40\x0bgrpc-status\x010",
)
"""Headers and trailers that the peer keeps in its table, and references to them."""
_LATER: Final = (b"\x88\xbf", b"\xbe")

Answer = Callable[[str, bytes], bytes]
"""Method and message to the answer's message."""


class Responder(asyncio.Protocol):
    """One connection. `answer` is called for each request; with `pause_until` in the future, what comes is
    answered then."""

    def __init__(self, answer: Answer) -> None:
        self.pause_until = 0.0
        """By perf_counter."""
        self._answer = answer
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._is_greeted = False
        self._decoder = hpack.Decoder()
        self._paths: dict[bytes, str] = {}
        self._calls: dict[int, str] = {}
        self._is_first = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(frames.settings({frames.SETTING_STREAMS_MAX: 10_000}))

    def data_received(self, data: bytes) -> None:
        wait = self.pause_until - time.perf_counter()
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self.data_received, data)
            return
        data = self._rest + data
        at, end, out, received = 0, len(data), [], 0
        if not self._is_greeted:
            if end < len(frames.PREFACE):
                self._rest = data
                return
            self._is_greeted, at = True, len(frames.PREFACE)
        while end - at >= frames.HEADER_BYTES:
            high, low, kind, flags, stream = frames.read_header(data, at)
            start = at + frames.HEADER_BYTES
            after = start + (high << 16 | low)
            if after > end:
                break
            at = after
            if kind == frames.HEADERS:
                self._calls[stream] = self._path(data[start:after])
            elif kind == frames.DATA:
                received += after - start
                message = data[start + GRPC_PREFIX_BYTES : after]
                out.append(self._response(stream, self._answer(self._calls.pop(stream), message)))
            elif kind == frames.SETTINGS and not flags & frames.ACK:
                out.append(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._rest = data[at:]
        if received:
            out.append(frames.window_update(received))
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    def _path(self, block: bytes) -> str:
        """Blocks of nothing but references are decoded once, until the table changes."""
        known = self._paths.get(block)
        if known is None:
            if min(block) < 0x80:
                self._paths.clear()
            headers = dict(self._decoder.decode(block, raw=True))
            known = self._paths[block] = headers[b":path"].decode()
        return known

    def _response(self, stream: int, message: bytes) -> bytes:
        head, tail = _FIRST if self._is_first else _LATER
        self._is_first = False
        return b"".join(
            (
                frames.frame(frames.HEADERS, frames.END_HEADERS, stream, head),
                frames.message_data(stream, message),
                frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, tail),
            )
        )


class Answers:
    """As an etcd would answer a load: puts have revisions, all keys have the value that the preload gives
    them."""

    def __init__(self, load: Load) -> None:
        self._space = KeySpace(load.prefix.encode(), load.key_bytes)
        self._values = Values(load)
        self._revision = 1

    def __call__(self, path: str, message: bytes) -> bytes:
        if path == messages.PUT:
            self._revision += 1
            header = rpc_pb2.ResponseHeader(revision=self._revision)
            return rpc_pb2.PutResponse(header=header).SerializeToString()
        key = rpc_pb2.RangeRequest.FromString(message).key
        value = self._values.value(self._space.number(key), PRELOADER << 32, self._values.sizes[0])
        return rpc_pb2.RangeResponse(
            header=rpc_pb2.ResponseHeader(revision=self._revision),
            kvs=[kv_pb2.KeyValue(key=key, value=value, mod_revision=1, create_revision=1, version=1)],
            count=1,
        ).SerializeToString()


def serve(listening: socket.socket, load: Load) -> None:
    """Until the process is ended."""

    async def run() -> None:
        answers = Answers(load)
        server = await asyncio.get_running_loop().create_server(lambda: Responder(answers), sock=listening)
        await server.serve_forever()

    uvloop.run(run())


def prepared_for(load: Load) -> Prepared:
    """As if all keys had been written at revision 1."""
    ledger = Ledger(load.keys)
    for key in range(load.keys):
        ledger.put(key, 1, PRELOADER << 32)
    return Prepared(ledger=ledger.state(), revision=1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m etcray_bench.load.responder")
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        endpoint = f"127.0.0.1:{listening.getsockname()[1]}"
        for workload in ("put", "range"):
            load = Load(
                endpoints=(endpoint,), workload=workload, clients=options.clients, seconds=options.seconds
            )
            server = multiprocessing.get_context("fork").Process(target=serve, args=(listening, load))
            server.start()
            try:
                recording = run_part(load, prepared_for(load)).recording
            finally:
                server.terminate()
                server.join()
            each = recording.cpu_seconds / max(1, recording.requests)
            print(
                f"{workload}: {recording.requests / recording.seconds:,.0f} requests/s, "
                f"{each * 1e6:.1f} us of CPU for one: {1 / each:,.0f} requests/s on a whole core"
            )


if __name__ == "__main__":
    main()
