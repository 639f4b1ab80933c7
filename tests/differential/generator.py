"""Seeded KV requests that are meant to collide: few keys, few values, every option, every boundary.

The same seed and the same answers give the same requests: the only thing that the generator learns
from answers is where the newest and the compacted revision are.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from etcray_storage.limits import GRPC_RECEIVE_BYTES_MAX, REQUEST_BYTES_MAX, TXN_OPS_MAX
from etcray_storage.proto.rpc_pb2 import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from tests.differential.calls import Answer, Call, Request

KEYS: Final = (
    *(b"\0", b"a", b"a\0", b"aa", b"ab", b"ab\xff", b"b", b"b\0", b"ba", b"c", b"ca"),
    *(b"k/1", b"k/10", b"k/2", b"k/3", b"k/\xff", b"l", b"z", b"\x7f", b"\x80", b"\xff", b"\xff\xff"),
)
VALUES: Final = (b"", b"a", b"b", b"ba", b"\0", b"\xff", b"value", b"value" * 40)
LEASES: Final = (1, -1, 0x7FFF_FFFF_FFFF_FFFF)
"""Never granted."""

INT64_MAX: Final = 2**63 - 1
DEPTH_MAX: Final = 3
"""Transactions within transactions."""

LOG_OVERHEAD_BYTES: Final = 256
"""The size limit is about the log entry, which wraps the request in a few dozen bytes more or less.
So the sizes tried keep this distance from it."""

T = TypeVar("T")


class Generator:
    """`next`, then `observe` its answer, and so on."""

    def __init__(self, seed: int, *, serializable: bool = True) -> None:
        """`serializable`: also make such reads. Another member than the writer's may answer them late.
        A transaction without operations counts as one."""
        self._serializable = serializable
        self._random = random.Random(seed)
        self._revision = 1
        self._compacted = 0
        self._follow_ups: deque[Request] = deque()

    def next(self) -> Call:
        if self._follow_ups:
            return Call(self._follow_ups.popleft())
        choices: tuple[tuple[float, Callable[[], Request]], ...] = (
            (36, self._range),
            (26, self._put),
            (8, self._delete),
            (28, self._txn),
            (1.5, self._compaction),
            (0.2, self._large),
        )
        return Call(self._weighted(*choices)())

    def observe(self, call: Call, answer: Answer) -> None:
        if answer.response is None:
            return
        self._revision = answer.response.header.revision
        if isinstance(call.request, CompactionRequest):
            self._compacted = call.request.revision

    # --- requests -----------------------------------------------------------------------------

    def _range(self) -> RangeRequest:
        key, range_end = self._interval()
        request = RangeRequest(key=key, range_end=range_end)
        request.revision = self._asked_revision()
        request.limit = self._weighted((6, 0), (3, self._random.randint(1, 8)), (1, self._odd_number()))
        if self._chance(0.5):
            request.sort_order = self._enum(RangeRequest.SortOrder.values())
            request.sort_target = self._enum(RangeRequest.SortTarget.values())
        if self._chance(0.01):
            request.sort_order = self._enum((3, 99, -1))
        if self._chance(0.01):
            request.sort_target = self._enum((5, 99, -1))
        request.serializable = self._chance(0.3) and self._serializable
        request.keys_only = self._chance(0.15)
        request.count_only = self._chance(0.1)
        if self._chance(0.25):
            request.min_mod_revision = self._filter_revision()
            request.max_mod_revision = self._filter_revision()
            request.min_create_revision = self._filter_revision()
            request.max_create_revision = self._filter_revision()
        return request

    def _put(self) -> PutRequest:
        request = PutRequest(key=self._key(), value=self._random.choice(VALUES), prev_kv=self._chance(0.3))
        if self._chance(0.01):
            request.value = self._random.randbytes(20_000)
        if self._chance(0.15):
            request.ignore_value = True
            if self._chance(0.8):
                request.value = b""
        if self._chance(0.15):
            request.ignore_lease = True
        if self._chance(0.05):
            request.lease = self._random.choice(LEASES)
        return request

    def _delete(self) -> DeleteRangeRequest:
        key, range_end = self._interval() if self._chance(0.4) else (self._key(), b"")
        return DeleteRangeRequest(key=key, range_end=range_end, prev_kv=self._chance(0.4))

    def _compaction(self) -> CompactionRequest:
        behind = max(1, (self._revision - self._compacted) // 2)
        revision = self._weighted(
            (5, self._compacted + self._random.randint(1, behind)),
            (1, self._revision),
            (1, self._revision + self._random.randint(1, 3)),
            (1, self._compacted),
            (1, self._odd_number()),
            (1, 0),
        )
        return CompactionRequest(revision=revision, physical=self._chance(0.2))

    def _large(self) -> PutRequest:
        """A put near one of the size limits, and what removes it again."""
        limit = self._random.choice((REQUEST_BYTES_MAX, REQUEST_BYTES_MAX, GRPC_RECEIVE_BYTES_MAX))
        distance = LOG_OVERHEAD_BYTES + self._random.randint(0, 1000)
        size = limit + self._random.choice((-distance, distance))
        self._follow_ups += [RangeRequest(key=b"large"), DeleteRangeRequest(key=b"large", prev_kv=True)]
        return PutRequest(key=b"large", value=bytes(size))

    # --- transactions -------------------------------------------------------------------------

    def _txn(self, depth: int = 1) -> TxnRequest:
        request = TxnRequest()
        request.compare.extend(self._compare() for _ in range(self._random.choice((0, 1, 1, 2, 3))))
        only_reads = self._chance(0.15)
        for branch in (request.success, request.failure):
            count = self._random.choice((0, 1, 1, 2, 3, 4))
            branch.extend(self._op(depth, only_reads) for _ in range(count))
        if depth == 1 and self._chance(0.03):
            self._widen(request)
        if not self._serializable and not request.success and not request.failure:
            request.success.add().request_range.key = b"a"
        return request

    def _op(self, depth: int, only_reads: bool) -> RequestOp:
        if only_reads:
            return RequestOp(request_range=self._range())
        kind = self._weighted(
            (20, "range"),
            (45, "put"),
            (20, "delete"),
            (14 if depth < DEPTH_MAX else 0, "txn"),
            (1, "nothing"),
        )
        match kind:
            case "range":
                return RequestOp(request_range=self._range())
            case "put":
                return RequestOp(request_put=self._put())
            case "delete":
                return RequestOp(request_delete_range=self._delete())
            case "txn":
                return RequestOp(request_txn=self._txn(depth + 1))
        return RequestOp()

    def _compare(self) -> Compare:
        key, range_end = self._interval() if self._chance(0.3) else (self._key(), b"")
        compare = Compare(key=key, range_end=range_end)
        compare.target = self._enum(Compare.CompareTarget.values())
        compare.result = self._enum(Compare.CompareResult.values())
        operand = compare.target if self._chance(0.93) else self._random.choice((0, 1, 2, 3, 4, None))
        match operand:
            case Compare.VERSION:
                compare.version = self._random.choice((0, 1, 2, 3, -1))
            case Compare.CREATE:
                compare.create_revision = self._filter_revision()
            case Compare.MOD:
                compare.mod_revision = self._filter_revision()
            case Compare.VALUE:
                compare.value = self._random.choice(VALUES)
            case Compare.LEASE:
                compare.lease = self._random.choice((0, *LEASES))
        if self._chance(0.01):
            compare.target = self._enum((5, -1))
        if self._chance(0.01):
            compare.result = self._enum((4, -1))
        return compare

    def _widen(self, request: TxnRequest) -> None:
        """Bring one list, or that of a nested transaction, near its limit of operations."""
        target = request
        budget = TXN_OPS_MAX
        if self._chance(0.5):
            budget -= max(len(request.compare), len(request.success) + 1, len(request.failure))
            target = request.success.add().request_txn
        size = budget + self._random.choice((-1, 0, 1))
        match self._random.choice(("compare", "success", "failure")):
            case "compare":
                del target.compare[:]
                target.compare.extend(Compare(key=b"a", result=Compare.NOT_EQUAL) for _ in range(size))
            case "success":
                del target.success[:]
                for number in range(size):
                    target.success.add().request_put.key = b"wide/%d" % number
            case "failure":
                del target.failure[:]
                for _ in range(size):
                    target.failure.add().request_range.key = b"a"

    # --- parts --------------------------------------------------------------------------------

    def _key(self) -> bytes:
        return b"" if self._chance(0.01) else self._random.choice(KEYS)

    def _interval(self) -> tuple[bytes, bytes]:
        key = self._key()
        match self._weighted(
            (5, "one"), (3, "all"), (3, "from"), (3, "prefix"), (6, "between"), (1, "empty")
        ):
            case "one":
                return key, b""
            case "all":
                return b"\0", b"\0"
            case "from":
                return key, b"\0"
            case "prefix":
                return key, _prefix_end(key[:1])
            case "between":
                return key, self._random.choice(KEYS)
        return key, key

    def _asked_revision(self) -> int:
        return self._weighted(
            (12, 0),
            (2, self._revision),
            (2, self._revision - 1),
            (1, self._revision + 1),
            (1, self._compacted),
            (1, self._compacted + 1),
            (1, self._compacted - 1),
            (5, self._random.randint(min(self._compacted, self._revision), self._revision)),
            (1, self._odd_number()),
        )

    def _filter_revision(self) -> int:
        recent = self._revision - self._random.randint(-2, min(60, self._revision))
        return self._weighted((6, 0), (3, recent), (1, self._odd_number()))

    def _odd_number(self) -> int:
        return self._random.choice((-1, -2, -INT64_MAX - 1, INT64_MAX, INT64_MAX - 1, 1, 2))

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _enum(self, numbers: Sequence[int]) -> Any:
        """One of these numbers for an enum's field; its type does not allow unknown ones."""
        return self._random.choice(numbers)

    def _weighted(self, *choices: tuple[float, T]) -> T:
        weights = [weight for weight, _ in choices]
        return self._random.choices(choices, weights)[0][1]


def _prefix_end(prefix: bytes) -> bytes:
    """The end of the interval of all keys that start with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"
