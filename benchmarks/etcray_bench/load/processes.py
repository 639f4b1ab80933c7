"""Several generator processes for one load: each runs a part, this one waits, samples and reports.

They are children that speak msgpack over their standard streams, so it does not matter what kind of program
the parent is. A child connects and says so; when all have, they are told when to begin.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final

import msgspec

from etcray_bench.load.errors import CheckFailedError, LoadError
from etcray_bench.load.options import Load
from etcray_bench.load.run import OnEdge, OnProgress, Part, Prepared, Progress, run_part

HEAD_START_SECONDS: Final = 0.1
"""From telling the children when to begin until then."""
LENGTH_BYTES: Final = 8


class Job(msgspec.Struct, tag=True):
    """To a child: what to run."""

    load: Load
    prepared: Prepared
    part: int
    parts: int


class Start(msgspec.Struct, tag=True):
    """To a child: begin then, in seconds since 1970."""

    at: float


class Connected(msgspec.Struct, tag=True):
    """From a child."""


class Edge(msgspec.Struct, tag=True):
    """From a child: its measured time begins or ends."""


class Reported(msgspec.Struct, tag=True):
    """From a child."""

    progress: Progress


class Done(msgspec.Struct, tag=True):
    """From a child: its last word."""

    part: Part


class Failed(msgspec.Struct, tag=True):
    """From a child: its last word, too."""

    message: str
    check_failed: bool


FromChild = Connected | Edge | Reported | Done | Failed
ToChild = Job | Start


def run_parts(load: Load, prepared: Prepared, on_edge: OnEdge, on_progress: OnProgress) -> list[Part]:
    """Run all parts at the same time; raises LoadError as soon as one fails, and ends the others."""
    heard: queue.Queue[tuple[int, FromChild]] = queue.Queue()
    # The children find the packages where this process found them.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "etcray_bench.load.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        for _ in range(load.processes)
    ]
    readers = [
        threading.Thread(target=_listen, args=(number, child, heard), daemon=True)
        for number, child in enumerate(children)
    ]
    try:
        for number, child in enumerate(children):
            _send(child.stdin, Job(load, prepared, number, load.processes))
            readers[number].start()
        return _conduct(children, heard, on_edge, on_progress)
    finally:
        for child in children:
            child.kill()
        for child, reader in zip(children, readers, strict=True):
            child.wait()
            reader.join()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()


def _conduct(
    children: Sequence[subprocess.Popen[bytes]],
    heard: queue.Queue[tuple[int, FromChild]],
    on_edge: OnEdge,
    on_progress: OnProgress,
) -> list[Part]:
    connected, edges = 0, 0
    parts: dict[int, Part] = {}
    progress: dict[int, Progress] = {}
    while len(parts) < len(children):
        number, message = heard.get()
        match message:
            case Connected():
                connected += 1
                if connected == len(children):
                    for child in children:
                        _send(child.stdin, Start(time.time() + HEAD_START_SECONDS))
            case Edge():
                edges += 1
                # The first of the beginning, and the last of the end, hold all of the measured time.
                if edges in (1, 2 * len(children)):
                    on_edge()
            case Reported():
                progress[number] = message.progress
                if number == 0:
                    on_progress(_together(list(progress.values())))
            case Done():
                parts[number] = message.part
            case Failed():
                raise (CheckFailedError if message.check_failed else LoadError)(message.message)
    return [parts[number] for number in sorted(parts)]


def _together(reports: Sequence[Progress]) -> Progress:
    return msgspec.structs.replace(
        reports[0],
        operations=sum(report.operations for report in reports),
        operations_per_second=sum(report.operations_per_second for report in reports),
        p99_ms=max(report.p99_ms for report in reports),
        failures=sum(report.failures for report in reports),
    )


def _listen(number: int, child: subprocess.Popen[bytes], heard: queue.Queue[tuple[int, FromChild]]) -> None:
    message: FromChild | None = None
    while not isinstance(message, Done | Failed):
        content = _receive(child.stdout)
        if content is None:
            message = Failed("a generator process ended before its work was done", False)
        else:
            message = msgspec.msgpack.decode(content, type=FromChild)
        heard.put((number, message))


def _send(stream: IO[bytes] | None, message: ToChild | FromChild) -> None:
    assert stream is not None, "the pipe to a generator process was not made"
    content = msgspec.msgpack.encode(message)
    # Whoever listens there may have ended; that is noticed by reading.
    with suppress(BrokenPipeError):
        stream.write(len(content).to_bytes(LENGTH_BYTES, "big") + content)
        stream.flush()


def _receive(stream: IO[bytes] | None) -> bytes | None:
    assert stream is not None, "the pipe to a generator process was not made"
    length = stream.read(LENGTH_BYTES)
    return stream.read(int.from_bytes(length, "big")) if len(length) == LENGTH_BYTES else None


def child() -> None:
    """One generator process."""
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    # What prints by accident must not get between the messages.
    sys.stdout = sys.stderr
    content = _receive(incoming)
    if content is None:
        return
    job = msgspec.msgpack.decode(content, type=Job)

    def start_at() -> float:
        _send(outgoing, Connected())
        told = _receive(incoming)
        if told is None:
            raise LoadError("the process that runs the load has ended")
        return msgspec.msgpack.decode(told, type=Start).at

    last: FromChild
    try:
        last = Done(
            run_part(
                job.load,
                job.prepared,
                job.part,
                job.parts,
                start_at=start_at,
                on_edge=lambda: _send(outgoing, Edge()),
                on_progress=lambda progress: _send(outgoing, Reported(progress)),
            )
        )
    except LoadError as error:
        last = Failed(str(error), isinstance(error, CheckFailedError))
    _send(outgoing, last)


if __name__ == "__main__":
    child()
