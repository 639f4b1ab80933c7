"""RangeStream: its messages, merged, are the answer of Range.

No etcd that is old enough to be installed here has it, so Range is the oracle.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from etcray_storage.errors import COMPACTED, EMPTY_KEY, FUTURE_REV, INVALID_SORT_OPTION, Code
from etcray_storage.proto.rpc_pb2 import (
    CompactionRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RangeStreamResponse,
)
from tests.differential import stores
from tests.differential.calls import Answer, Call, Side, hide_identity
from tests.differential.generator import Generator

HISTORY_REQUESTS = 400
STREAMS = 1_500
MANY_KEYS = 200
"""Above the first page's size several times."""

CUSTOM_SORT = Answer(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders", None)
REVISION_FILTERS = Answer(Code.UNIMPLEMENTED, "RangeStream does not support revision filters", None)


class Streaming(Side):
    """A side that is also asked for streams."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._stream_channel = grpc.insecure_channel(
            endpoint, options=(("grpc.max_receive_message_length", -1),)
        )
        self._range_stream = self._stream_channel.unary_stream(
            "/etcdserverpb.KV/RangeStream", RangeRequest.SerializeToString, RangeStreamResponse.FromString
        )

    def pages(self, request: RangeRequest) -> list[RangeResponse]:
        return [message.range_response for message in self._range_stream(request, timeout=60)]

    def merged(self, request: RangeRequest) -> Answer:
        response = RangeResponse()
        stream = self._range_stream(request, timeout=60)
        try:
            for message in stream:
                response.MergeFrom(message.range_response)
        except grpc.RpcError:
            return Answer(Code(stream.code().value[0]), stream.details() or "", None)
        hide_identity(response.header)
        return Answer(Code.OK, "", response)

    def __exit__(self, *reason: object) -> None:
        self._stream_channel.close()
        self._channel.close()


@pytest.fixture(scope="module")
def store() -> Iterator[Streaming]:
    """With some history, many keys, and values that need several pages."""
    with stores.serving_member() as endpoint, Streaming(endpoint) as side:
        generator = Generator(11)
        for _ in range(HISTORY_REQUESTS):
            call = generator.next()
            generator.observe(call, side.ask(call))
        for number in range(MANY_KEYS):
            value = b"v" * (20_000 if number % 3 == 0 else 10)
            side.ask(Call(PutRequest(key=b"many/%03d" % number, value=value)))
        yield side


def ranges(seed: int, side: Side) -> Iterator[RangeRequest]:
    """A generator's ranges around the store's newest revision."""
    generator = Generator(seed)
    observed = side.ask(Call(PutRequest(key=b"a")))
    generator.observe(Call(PutRequest()), observed)
    yielded = 0
    while yielded < STREAMS:
        request = generator.next().request
        if isinstance(request, RangeRequest):
            yielded += 1
            yield request


def expected(request: RangeRequest, answer: Answer) -> Answer:
    """What the stream has to say, given what Range says."""
    if answer.message in (EMPTY_KEY.message, INVALID_SORT_OPTION.message):
        return answer
    if request.sort_target != RangeRequest.KEY or request.sort_order == RangeRequest.DESCEND:
        return CUSTOM_SORT
    if request.min_mod_revision or request.max_mod_revision:
        return REVISION_FILTERS
    if request.min_create_revision or request.max_create_revision:
        return REVISION_FILTERS
    return answer


def test_merged_messages_are_the_answer_of_range(store: Streaming) -> None:
    succeeded = 0
    for request in ranges(12, store):
        answer = expected(request, store.ask(Call(request)))
        assert store.merged(request) == answer, str(Call(request))
        succeeded += answer.code == Code.OK
    assert succeeded > STREAMS // 10


@pytest.mark.parametrize("limit", [0, 1, 9, 10, 11, 29, 30, 31, MANY_KEYS - 1, MANY_KEYS, MANY_KEYS + 1])
def test_pages_are_disjoint_and_only_the_last_has_a_header(store: Streaming, limit: int) -> None:
    request = RangeRequest(key=b"many/", range_end=b"many0", limit=limit)
    pages = store.pages(request)
    keys = [kv.key for page in pages for kv in page.kvs]
    assert keys == [b"many/%03d" % number for number in range(limit or MANY_KEYS)][:MANY_KEYS]
    assert not any(page.HasField("header") or page.count or page.more for page in pages[:-1])
    assert all(page.kvs for page in pages)
    last = pages[-1]
    assert last.header.revision == store.ask(Call(RangeRequest(key=b"a"))).response.header.revision  # type: ignore[union-attr]
    assert last.count == MANY_KEYS
    assert last.more == (0 < limit < MANY_KEYS)


def test_first_page_is_small_so_that_it_comes_soon(store: Streaming) -> None:
    pages = store.pages(RangeRequest(key=b"many/", range_end=b"many0"))
    assert len(pages) > 1
    assert len(pages[0].kvs) == 10


def test_counting_takes_one_message(store: Streaming) -> None:
    (page,) = store.pages(RangeRequest(key=b"many/", range_end=b"many0", count_only=True))
    assert page.count == MANY_KEYS
    assert not page.kvs


def test_nothing_found_is_one_message_with_a_header(store: Streaming) -> None:
    (page,) = store.pages(RangeRequest(key=b"none/", range_end=b"none0"))
    assert page.header.revision > 1
    assert (page.count, page.more, len(page.kvs)) == (0, False, 0)


def test_revisions_out_of_range_are_refused_before_the_first_message() -> None:
    with stores.serving_member() as endpoint, Streaming(endpoint) as side:
        for number in range(5):
            side.ask(Call(PutRequest(key=b"a%d" % number)))
        side.ask(Call(CompactionRequest(revision=4)))
        for revision, error in ((3, COMPACTED), (7, FUTURE_REV)):
            request = RangeRequest(key=b"a", range_end=b"b", revision=revision)
            assert side.merged(request) == Answer(error.code, error.message, None)
        assert side.merged(RangeRequest(key=b"a", range_end=b"b", revision=4)).code == Code.OK
