"""gRPC's wire format: length-prefixed messages, status trailers, time-outs, compression.

Pure: bytes in, bytes out. The texts of errors are grpc-go's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from etcray.gateway.http_engine import HeaderMap
from etcray_storage import limits
from etcray_storage.errors import Code, EtcdError

_PREFIX_BYTES: Final = 5
_TIMEOUT_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_HTTP_TIMEOUT_DIGITS_MAX: Final = 8


def parse_timeout(value: bytes | None) -> float | None:
    """The header `grpc-timeout` in seconds: at most 8 digits and a unit."""
    if value is None:
        return None
    text = value.decode("latin-1")
    digits, unit = text[:-1], text[-1:]
    if not (digits.isascii() and digits.isdigit()) or unit not in _TIMEOUT_UNITS:
        raise EtcdError(Code.INTERNAL, f"malformed grpc-timeout: {text!r}")
    if len(digits) > _HTTP_TIMEOUT_DIGITS_MAX:
        raise EtcdError(Code.INTERNAL, f"malformed grpc-timeout: {text!r} is too long")
    return int(digits) * _TIMEOUT_UNITS[unit]


def frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


MessageT = TypeVar("MessageT", bound=Message)


def parse_message(message_type: type[MessageT], request: bytes) -> MessageT:
    """Decode a request, or raise what grpc-go answers to a malformed one."""
    try:
        return message_type.FromString(request)
    except DecodeError as error:
        raise EtcdError(Code.INTERNAL, f"grpc: error unmarshalling request: {error}") from error


def status_trailers(error: EtcdError, *, with_head: bool = False) -> HeaderMap:
    """The trailers of a failed call. With the head in front: an answer of trailers only."""
    fields = [("content-type", "application/grpc")] if with_head else []
    fields.append(("grpc-status", str(int(error.code))))
    fields.append(("grpc-message", _percent_encode(error.message)))
    return HeaderMap(fields)


def _percent_encode(text: str) -> str:
    """gRPC's own percent-encoding: printable ASCII but the percent sign stays as it is."""
    if text.isascii() and text.isprintable() and "%" not in text:
        return text
    return "".join(
        chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in text.encode()
    )


Decompressor = Callable[[bytes], bytes]


def find_decompressor(encoding: bytes | None) -> Decompressor | None:
    if encoding is None or encoding == b"identity":
        return None
    if encoding == b"gzip":
        return _gunzip
    name = encoding.decode("latin-1")
    raise EtcdError(Code.UNIMPLEMENTED, f'grpc: Decompressor is not installed for grpc-encoding "{name}"')


def _gunzip(data: bytes) -> bytes:
    limit = limits.GRPC_RECEIVE_BYTES_MAX
    inflater = zlib.decompressobj(wbits=31)
    try:
        message = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise EtcdError(Code.INTERNAL, f"grpc: failed to decompress the received message: {error}") from error
    if len(message) > limit:
        raise EtcdError(
            Code.RESOURCE_EXHAUSTED, f"grpc: received message after decompression larger than max {limit}"
        )
    if not inflater.eof:
        raise EtcdError(Code.INTERNAL, "grpc: failed to decompress the received message: unexpected EOF")
    return message


def whole_message(data: bytes) -> bytes | None:
    """The message, if the data is exactly one that is not compressed, as nearly every unary request is."""
    if len(data) >= _PREFIX_BYTES and data[0] == 0:
        length = int.from_bytes(data[1:_PREFIX_BYTES], "big")
        if length == len(data) - _PREFIX_BYTES and length <= limits.GRPC_RECEIVE_BYTES_MAX:
            return data[_PREFIX_BYTES:]
    return None


class Deframer:
    """Bytes in, messages out. Holds at most one incomplete message of the permitted size."""

    __slots__ = ("_buffer", "_inflate", "_missing")

    def __init__(self, inflate: Decompressor | None) -> None:
        self._buffer = bytearray()
        self._inflate = inflate
        self._missing = _PREFIX_BYTES
        """The buffer need not be looked at before it has this size."""

    @property
    def incomplete_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now. Raises `EtcdError`, after which the stream is over."""
        buffer = self._buffer
        if not buffer and (message := whole_message(data)) is not None:
            return [message]
        buffer += data
        messages: list[bytes] = []
        while len(buffer) >= self._missing:
            length = int.from_bytes(buffer[1:_PREFIX_BYTES], "big")
            if length > limits.GRPC_RECEIVE_BYTES_MAX:
                raise EtcdError(
                    Code.RESOURCE_EXHAUSTED,
                    f"grpc: received message larger than max ({length} vs. {limits.GRPC_RECEIVE_BYTES_MAX})",
                )
            end = _PREFIX_BYTES + length
            if len(buffer) < end:
                self._missing = end
                break
            messages.append(self._decode(buffer[0], bytes(memoryview(buffer)[_PREFIX_BYTES:end])))
            del buffer[:end]
            self._missing = _PREFIX_BYTES
        return messages

    def _decode(self, flag: int, message: bytes) -> bytes:
        if flag == 0:
            return message
        if flag != 1:
            raise EtcdError(Code.INTERNAL, f"grpc: received unexpected payload format {flag}")
        if self._inflate is None:
            raise EtcdError(Code.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
        return self._inflate(message)
