"""A line never waits, keeps its frames in order, and lets go of an other end that takes nothing."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcray.transport.frames import FrameDecoder, Kind
from etcray.transport.line import Line


def read_all(connection: socket.socket, count: int) -> list[bytes]:
    decoder = FrameDecoder(1 << 30)
    payloads: list[bytes] = []
    while len(payloads) < count and (data := connection.recv(65_536)):
        payloads += [frame.payload for frame in decoder.feed(data)]
    return payloads


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 600_000), min_size=1, max_size=12))
def test_frames_of_all_sizes_arrive_in_order_though_nobody_reads_at_first(sizes: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        drained = threading.Event()
        line = Line(ours, on_drained=drained.set)
        sent = [bytes([number]) * size for number, size in enumerate(sizes)]
        for payload in sent:
            line.send(Kind.MESSAGES, 0, payload)
        was_backed_up = line.is_backed_up
        assert read_all(theirs, len(sent)) == sent
        if was_backed_up:
            assert drained.wait(30)
        assert not line.is_backed_up


def send_often(line: Line, payload: bytes, count: int) -> None:
    for _ in range(count):
        line.send(Kind.ANSWER, 1, payload)


def test_threads_may_send_at_once() -> None:
    count = 200
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = Line(ours)
        payloads = {bytes([sender]) * 5_000 for sender in range(4)}
        threads = [threading.Thread(target=send_often, args=(line, p, count)) for p in payloads]
        for thread in threads:
            thread.start()
        found = read_all(theirs, 4 * count)
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted(payload for payload in payloads for _ in range(count))


def test_an_other_end_that_takes_too_little_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcray.transport.line.STREAM_BACKLOG_BYTES_MAX", 1_000_000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = Line(ours)
        line.send(Kind.ANSWER, 1, bytes(5_000_000))  # a single one may be larger
        assert line.is_backed_up
        line.send(Kind.ANSWER, 2, b"one more")
        assert not line.is_backed_up
        assert ours.recv(1) == b"", "its reader sees the end"
        line.send(Kind.ANSWER, 3, b"nobody minds")
        assert len(b"".join(iter(lambda: theirs.recv(65_536), b""))) < 5_000_000


def test_an_other_end_that_takes_nothing_is_cut_off_in_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = Line(ours, stalled_seconds=0.05)
        line.send(Kind.ANSWER, 1, bytes(5_000_000))
        assert ours.recv(1) == b""
        assert not line.is_backed_up


def test_a_line_whose_other_end_is_gone_takes_everything() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    line = Line(ours)
    for number in range(3):
        line.send(Kind.ANSWER, number, bytes(10))
    assert not line.is_backed_up
    line.close()
    line.send(Kind.ANSWER, 9, b"after its end")


def test_closing_ends_the_thread_that_brings_out_the_rest() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        line = Line(ours)
        line.send(Kind.ANSWER, 1, bytes(5_000_000))
        drainers = [thread for thread in threading.enumerate() if thread.name == "stream-drain"]
        assert drainers
        line.close()
        deadline = time.monotonic() + 30
        while any(thread.is_alive() for thread in drainers) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(thread.is_alive() for thread in drainers)
