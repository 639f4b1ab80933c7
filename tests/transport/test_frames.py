"""However a stream is cut into pieces, the same frames come out of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcray.transport.frames import HEADER_BYTES, NUMBER_MAX, Frame, FrameDecoder, FrameError, Kind, header

FRAMES = st.lists(
    st.builds(
        Frame,
        st.sampled_from(list(Kind)).map(int),
        st.integers(0, NUMBER_MAX),
        st.binary(max_size=40),
    ),
    max_size=8,
)


def encode(frames: list[Frame]) -> bytes:
    return b"".join(header(Kind(f.kind), f.number, len(f.payload)) + f.payload for f in frames)


@settings(deadline=None)
@given(FRAMES, st.data())
def test_any_split_of_the_bytes_gives_the_same_frames(frames: list[Frame], data: st.DataObject) -> None:
    stream = encode(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = FrameDecoder(40)
    found: list[Frame] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if begin < end:
            found += decoder.feed(stream[begin:end])
    assert found == frames
    assert decoder.is_empty


@settings(deadline=None)
@given(FRAMES.filter(bool))
def test_every_frame_comes_out_as_soon_as_its_last_byte_is_in(frames: list[Frame]) -> None:
    decoder = FrameDecoder(40)
    for frame in frames:
        whole = encode([frame])
        for position in range(len(whole) - 1):
            assert decoder.feed(whole[position : position + 1]) == []
        assert not decoder.is_empty
        assert decoder.feed(whole[-1:]) == [frame]


def test_a_frame_above_the_limit_is_refused_by_its_header_alone() -> None:
    decoder = FrameDecoder(100)
    assert decoder.feed(header(Kind.READ, 1, 100) + b"x" * 100) == [Frame(Kind.READ, 1, b"x" * 100)]
    with pytest.raises(FrameError, match="101 bytes, the limit is 100"):
        decoder.feed(header(Kind.READ, 2, 101))


def test_a_limit_may_be_raised_between_two_frames() -> None:
    decoder = FrameDecoder(1)
    assert decoder.feed(header(Kind.WELCOME, 0, 1) + b"x")
    decoder.payload_bytes_max = 1_000
    (frame,) = decoder.feed(header(Kind.ANSWER, 3, 1_000) + bytes(1_000))
    assert len(frame.payload) == 1_000


def test_a_large_frame_is_joined_once() -> None:
    """Not again for each piece that comes: that would cost the square of its size."""
    decoder = FrameDecoder(1 << 26)
    payload = bytes(1 << 24)
    stream = header(Kind.ANSWER, 1, len(payload)) + payload
    pieces = [stream[at : at + 4_096] for at in range(0, len(stream), 4_096)]
    joined = [decoder.feed(piece) for piece in pieces]
    assert joined[-1] == [Frame(Kind.ANSWER, 1, payload)]
    assert not any(joined[:-1])
    assert len(header(Kind.ANSWER, 1, 0)) == HEADER_BYTES
