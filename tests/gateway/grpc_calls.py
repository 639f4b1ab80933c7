"""Calls through Python's own grpcio, on bytes."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from etcray_storage.proto import rpc_pb2 as rpc
from tests.gateway.serving import ServingGateway

KV = "/etcdserverpb.KV/"


def unary(channel: Any, path: str) -> Any:
    """A method that takes and gives bytes; `channel` may be grpc's or grpc.aio's."""
    return channel.unary_unary(path, request_serializer=None, response_deserializer=None)


def server_stream(channel: Any, path: str) -> Any:
    return channel.unary_stream(path, request_serializer=None, response_deserializer=None)


def call(gateway: ServingGateway, path: str, request: bytes, **options: Any) -> bytes:
    """One unary call over a connection of its own."""
    with grpc.insecure_channel(gateway.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        response: bytes = unary(channel, path)(request, timeout=10, **options)
        return response


def refusal(
    gateway: ServingGateway, path: str, request: bytes, **options: Any
) -> tuple[grpc.StatusCode, str]:
    """The status of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call(gateway, path, request, **options)
    return caught.value.code(), caught.value.details() or ""


def put(gateway: ServingGateway, key: str, value: bytes = b"v") -> rpc.PutResponse:
    request = rpc.PutRequest(key=key.encode(), value=value).SerializeToString()
    return rpc.PutResponse.FromString(call(gateway, KV + "Put", request))
