"""The conditions of a transaction, written as comparisons: `Version("a") == 0`, `Value("a") < b"m"`.

A comparison of these objects makes a condition; it does not answer True or False. All conditions
of a transaction must hold, and they are judged against the state before it. A key that does not
exist has version, revisions and lease 0, and fails every comparison of its value, even `!=`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from etcray.client.values import Data, key_interval, to_bytes
from etcray_storage.proto import rpc_pb2

Operand = TypeVar("Operand", int, Data)

_EQUAL: Final = rpc_pb2.Compare.CompareResult.EQUAL
_GREATER: Final = rpc_pb2.Compare.CompareResult.GREATER
_LESS: Final = rpc_pb2.Compare.CompareResult.LESS
_NOT_EQUAL: Final = rpc_pb2.Compare.CompareResult.NOT_EQUAL


class Condition:
    """One condition, ready to be sent. Made by comparing, see the module."""

    def __init__(self, message: rpc_pb2.Compare) -> None:
        self.message = message

    def __bool__(self) -> bool:
        raise TypeError("a condition is judged by the store: hand it to compare()")


class Target(ABC, Generic[Operand]):
    """A property of a key, or of every key of a range (then each of them must satisfy it)."""

    __hash__ = None  # type: ignore[assignment]  # == makes a Condition, so equality cannot be hashed

    def __init__(
        self, key: Data, range_end: Data | None = None, *, prefix: bool = False, from_key: bool = False
    ) -> None:
        self._key, self._range_end = key_interval(key, range_end, prefix=prefix, from_key=from_key)

    @abstractmethod
    def _message(self, operand: Operand) -> rpc_pb2.Compare:
        """A comparison with this operand, its keys and its result not yet filled in."""

    def _condition(self, result: rpc_pb2.Compare.CompareResult, operand: Operand) -> Condition:
        message = self._message(operand)
        message.result = result
        message.key = self._key
        message.range_end = self._range_end
        return Condition(message)

    def __eq__(self, operand: Operand) -> Condition:  # type: ignore[override]
        return self._condition(_EQUAL, operand)

    def __ne__(self, operand: Operand) -> Condition:  # type: ignore[override]
        return self._condition(_NOT_EQUAL, operand)

    def __gt__(self, operand: Operand) -> Condition:
        return self._condition(_GREATER, operand)

    def __lt__(self, operand: Operand) -> Condition:
        return self._condition(_LESS, operand)


class Value(Target[Data]):
    """What the key holds, compared bytewise."""

    def _message(self, operand: Data) -> rpc_pb2.Compare:
        return rpc_pb2.Compare(target=rpc_pb2.Compare.CompareTarget.VALUE, value=to_bytes(operand))


class Version(Target[int]):
    """How often the key was written since it was created; 0 means that it does not exist."""

    def _message(self, operand: int) -> rpc_pb2.Compare:
        return rpc_pb2.Compare(target=rpc_pb2.Compare.CompareTarget.VERSION, version=operand)


class CreateRevision(Target[int]):
    """The revision that created the key."""

    def _message(self, operand: int) -> rpc_pb2.Compare:
        return rpc_pb2.Compare(target=rpc_pb2.Compare.CompareTarget.CREATE, create_revision=operand)


class ModRevision(Target[int]):
    """The revision that last wrote the key: what an optimistic update compares."""

    def _message(self, operand: int) -> rpc_pb2.Compare:
        return rpc_pb2.Compare(target=rpc_pb2.Compare.CompareTarget.MOD, mod_revision=operand)


class Lease(Target[int]):
    """The lease that the key is attached to; 0 for none."""

    def _message(self, operand: int) -> rpc_pb2.Compare:
        return rpc_pb2.Compare(target=rpc_pb2.Compare.CompareTarget.LEASE, lease=operand)
