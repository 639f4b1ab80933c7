"""KV.Range: the rules and quirks of etcd-behaviour, one by one."""

from __future__ import annotations

import pytest

from etcray_storage import errors
from etcray_storage.mvcc.rows import Point
from etcray_storage.proto.rpc_pb2 import RangeRequest, RangeResponse

from .machine_driver import MachineDriver

ALL = b"\0"


def filled() -> MachineDriver:
    """a, b, c, d at revisions 2 to 5, then a again at 6 and c deleted at 7."""
    driver = MachineDriver()
    for key, value in ((b"a", b"4"), (b"b", b"3"), (b"c", b"2"), (b"d", b"1")):
        driver.put(key, value)
    driver.put(b"a", b"9")
    driver.delete(b"c")
    return driver


def keys(response: RangeResponse) -> list[bytes]:
    return [kv.key for kv in response.kvs]


def test_a_single_key_is_found_with_all_its_fields() -> None:
    response = filled().read(RangeRequest(key=b"a"))
    (kv,) = response.kvs
    assert (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) == (
        b"a",
        b"9",
        2,
        6,
        2,
        0,
    )
    assert (response.count, response.more) == (1, False)


@pytest.mark.parametrize(
    ("key", "range_end", "found"),
    [
        (b"a", b"", [b"a"]),
        (b"c", b"", []),
        (b"a", b"d", [b"a", b"b"]),
        (b"b", ALL, [b"b", b"d"]),
        (ALL, ALL, [b"a", b"b", b"d"]),
        (b"d", b"a", []),
        (b"b", b"b", []),
        (b"aa", b"bb", [b"b"]),
    ],
)
def test_range_ends(key: bytes, range_end: bytes, found: list[bytes]) -> None:
    driver = filled()
    for revision in (0, driver.revision):
        response = driver.read(RangeRequest(key=key, range_end=range_end, revision=revision))
        assert keys(response) == found
        assert response.count == len(found)


@pytest.mark.parametrize("revision", [0, -1, -(1 << 63)])
def test_a_revision_of_zero_or_below_means_the_newest(revision: int) -> None:
    response = filled().read(RangeRequest(key=b"a", revision=revision))
    assert response.kvs[0].value == b"9"


def test_an_old_revision_shows_what_was_there() -> None:
    driver = filled()
    assert driver.read(RangeRequest(key=b"a", revision=5)).kvs[0].value == b"4"
    assert keys(driver.read(RangeRequest(key=ALL, range_end=ALL, revision=3))) == [b"a", b"b"]
    assert keys(driver.read(RangeRequest(key=ALL, range_end=ALL, revision=6))) == [b"a", b"b", b"c", b"d"]
    assert keys(driver.read(RangeRequest(key=ALL, range_end=ALL, revision=1))) == []


def test_old_values_come_from_the_reader_in_one_call_once_they_are_flushed() -> None:
    driver = filled()
    before = driver.read(RangeRequest(key=ALL, range_end=ALL, revision=5))
    assert driver.tables.calls == []
    driver.flush()
    assert driver.read(RangeRequest(key=ALL, range_end=ALL, revision=5)) == before
    assert driver.tables.calls == [[Point(b"a", 2), Point(b"c", 4)]]


def test_future_revisions_are_refused() -> None:
    driver = filled()
    assert driver.read_error(RangeRequest(key=b"a", revision=8)) == errors.FUTURE_REV.number
    assert driver.read_error(RangeRequest(key=b"a", revision=(1 << 63) - 1)) == errors.FUTURE_REV.number


def test_the_compacted_revision_can_be_read_and_those_below_cannot() -> None:
    driver = filled()
    driver.compact(6)
    assert driver.read_error(RangeRequest(key=b"a", revision=5)) == errors.COMPACTED.number
    response = driver.read(RangeRequest(key=ALL, range_end=ALL, revision=6))
    assert keys(response) == [b"a", b"b", b"c", b"d"]


def test_a_future_revision_is_future_even_if_all_is_compacted() -> None:
    driver = filled()
    driver.compact(7)
    assert driver.read_error(RangeRequest(key=b"a", revision=8)) == errors.FUTURE_REV.number


def test_limit_cuts_and_says_more_while_count_counts_all() -> None:
    driver = filled()
    for revision in (0, 6):
        total = 3 if revision == 0 else 4
        response = driver.read(RangeRequest(key=ALL, range_end=ALL, limit=2, revision=revision))
        assert (keys(response), response.more, response.count) == ([b"a", b"b"], True, total)
        response = driver.read(RangeRequest(key=ALL, range_end=ALL, limit=total, revision=revision))
        assert (len(response.kvs), response.more, response.count) == (total, False, total)


@pytest.mark.parametrize("limit", [0, -1, -(1 << 63), (1 << 63) - 1])
def test_a_limit_of_zero_or_below_or_a_huge_one_is_none(limit: int) -> None:
    response = filled().read(RangeRequest(key=ALL, range_end=ALL, limit=limit))
    assert (len(response.kvs), response.more) == (3, False)


def test_count_only_ignores_limit_and_filters() -> None:
    request = RangeRequest(key=ALL, range_end=ALL, limit=1, count_only=True, min_mod_revision=6)
    response = filled().read(request)
    assert (keys(response), response.more, response.count) == ([], False, 3)


def test_count_ignores_filters_and_more_does_not() -> None:
    driver = filled()
    response = driver.read(RangeRequest(key=ALL, range_end=ALL, min_mod_revision=5, limit=1))
    assert (keys(response), response.more, response.count) == ([b"a"], True, 3)
    response = driver.read(RangeRequest(key=ALL, range_end=ALL, min_mod_revision=6, limit=1))
    assert (keys(response), response.more, response.count) == ([b"a"], False, 3)


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({"min_mod_revision": 3}, [b"a", b"b", b"d"]),
        ({"max_mod_revision": 5}, [b"b", b"d"]),
        ({"min_create_revision": 3, "max_create_revision": 3}, [b"b"]),
        ({"max_create_revision": -1}, []),
        ({"min_create_revision": -1}, [b"a", b"b", b"d"]),
    ],
)
def test_filters_are_inclusive(bounds: dict[str, int], found: list[bytes]) -> None:
    request = RangeRequest(key=ALL, range_end=ALL, **bounds)  # type: ignore[arg-type]
    assert keys(filled().read(request)) == found


@pytest.mark.parametrize(
    ("target", "order", "found"),
    [
        (RangeRequest.KEY, RangeRequest.DESCEND, [b"d", b"b", b"a"]),
        (RangeRequest.KEY, RangeRequest.ASCEND, [b"a", b"b", b"d"]),
        (RangeRequest.MOD, RangeRequest.ASCEND, [b"b", b"d", b"a"]),
        (RangeRequest.MOD, RangeRequest.NONE, [b"b", b"d", b"a"]),
        (RangeRequest.CREATE, RangeRequest.DESCEND, [b"d", b"b", b"a"]),
        (RangeRequest.VERSION, RangeRequest.DESCEND, [b"a", b"b", b"d"]),
        (RangeRequest.VALUE, RangeRequest.ASCEND, [b"d", b"b", b"a"]),
    ],
)
def test_sorting(target: RangeRequest.SortTarget, order: RangeRequest.SortOrder, found: list[bytes]) -> None:
    request = RangeRequest(key=ALL, range_end=ALL, sort_target=target, sort_order=order)
    assert keys(filled().read(request)) == found


def test_sort_happens_before_the_limit_when_an_order_is_given() -> None:
    request = RangeRequest(
        key=ALL, range_end=ALL, limit=1, sort_target=RangeRequest.VALUE, sort_order=RangeRequest.ASCEND
    )
    response = filled().read(request)
    assert (keys(response), response.more, response.count) == ([b"d"], True, 3)


def test_without_an_order_the_limit_is_taken_first_even_with_a_target() -> None:
    request = RangeRequest(key=ALL, range_end=ALL, limit=1, sort_target=RangeRequest.VALUE)
    response = filled().read(request)
    assert (keys(response), response.more, response.count) == ([b"b"], True, 3)


def test_ties_stay_in_key_order() -> None:
    driver = MachineDriver()
    for key in (b"c", b"a", b"b"):
        driver.put(key, b"same")
    for order in (RangeRequest.ASCEND, RangeRequest.DESCEND):
        request = RangeRequest(key=ALL, range_end=ALL, sort_target=RangeRequest.VALUE, sort_order=order)
        assert keys(driver.read(request)) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("revision", [0, 5])
def test_keys_only_drops_the_value(revision: int) -> None:
    response = filled().read(RangeRequest(key=b"a", keys_only=True, revision=revision))
    (kv,) = response.kvs
    assert (kv.value, kv.version) == (b"", 2 if revision == 0 else 1)


def test_a_recreated_key_starts_over() -> None:
    driver = filled()
    driver.put(b"c", b"new")
    (kv,) = driver.read(RangeRequest(key=b"c")).kvs
    assert (kv.create_revision, kv.mod_revision, kv.version) == (8, 8, 1)
    assert driver.read(RangeRequest(key=b"c", revision=7)).count == 0
    assert driver.read(RangeRequest(key=b"c", revision=6)).kvs[0].value == b"2"


def test_reads_change_nothing() -> None:
    driver = filled()
    driver.flush()
    driver.read(RangeRequest(key=ALL, range_end=ALL))
    assert driver.flush() is None


@pytest.mark.parametrize("number", [-1, 3, 5, 99, (1 << 31) - 1, -(1 << 31)])
def test_unknown_sort_enums_are_an_error_answer(number: int) -> None:
    driver = filled()
    for request in (RangeRequest(key=b"a"), RangeRequest(key=b"a")):
        request.sort_order = number  # type: ignore[assignment]
        assert driver.read_error(request) == errors.INVALID_SORT_OPTION.number
    request = RangeRequest(key=b"a")
    request.sort_target = number if number != 3 else 5  # type: ignore[assignment]
    assert driver.read_error(request) == errors.INVALID_SORT_OPTION.number


def test_an_empty_key_is_an_error_answer() -> None:
    assert filled().read_error(RangeRequest(range_end=ALL)) == errors.EMPTY_KEY.number
