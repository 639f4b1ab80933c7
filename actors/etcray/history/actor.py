"""History as a Ray actor: the thin shell that gives `HistoryService` its place in the cluster.

A threaded actor like a member's, for the same reasons; a query holds one of its threads. And as there, the
service is imported in this actor's own process alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayError

from etcray.history import api
from etcray.history.channels import MemberUnreachableError
from etcray.history.streams import HistoryStreams
from etcray.spec import decode_spec
from etcray.transport.addresses import StreamAddress
from etcray.transport.handshake import credentials_of
from etcray.tuning import Transport
from etcray_storage.types import MemberId

if TYPE_CHECKING:
    from etcray.history.service import HistoryService

CALLS_ABANDONED_MAX: Final = 4
"""Timed-out calls to one member that may still be on their way, as among members."""


class RayMemberChannel:
    """Calls one member through its actor handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._abandoned: list[Any] = []

    def history_rows(self, request: bytes, timeout_seconds: float) -> bytes:
        return self._call(self._handle.history_rows, request, timeout_seconds)

    def read(self, request: bytes, timeout_seconds: float) -> bytes:
        return self._call(self._handle.read, request, timeout_seconds)

    def _call(self, method: Any, argument: bytes, timeout_seconds: float) -> bytes:
        if len(self._abandoned) >= CALLS_ABANDONED_MAX:
            _, self._abandoned = ray.wait(self._abandoned, num_returns=len(self._abandoned), timeout=0)
            if len(self._abandoned) >= CALLS_ABANDONED_MAX:
                raise MemberUnreachableError("the last calls have not been answered")
        try:
            reference = method.remote(argument)
            reply: bytes = ray.get(reference, timeout=timeout_seconds)
        except GetTimeoutError as error:
            self._abandoned.append(reference)
            raise MemberUnreachableError(f"no answer within {timeout_seconds:.1f} s") from error
        except RayError as error:
            raise MemberUnreachableError(str(error).splitlines()[0]) from error
        return reply


class HistoryActor:
    """The history's process. Created by the supervisor, which alone decides where and when."""

    def __init__(self, spec: bytes) -> None:
        from etcray_storage.engine import configure_arrow

        configure_arrow()
        from etcray.history.service import HistoryService

        cluster = decode_spec(spec)
        self._service: HistoryService = HistoryService(cluster)
        is_direct = cluster.tuning.transport is Transport.DIRECT
        self._streams = HistoryStreams(credentials_of(cluster)) if is_direct else None
        """To the members, unless these are called through their handles."""

    def open(self) -> bytes:
        """Open the store. Raises OperatingError if the directory cannot be used."""
        self._service.open()
        return self.status()

    def set_members(self, handles: dict[int, Any]) -> None:
        """The actors of all members; called again whenever one of them was created anew."""
        self._service.set_channels({MemberId(m): RayMemberChannel(handle) for m, handle in handles.items()})

    def set_streams(self, addresses: dict[int, StreamAddress]) -> None:
        """In place of `set_members`, if the transport is direct: where all members listen."""
        assert self._streams is not None, "the transport of this cluster is not direct"
        self._streams.set_addresses(addresses)
        self._service.set_channels(self._streams.channels)

    def member_died(self, member: int) -> None:
        """The supervisor saw a member's process end."""
        self._service.member_died(MemberId(member))

    def query(self, request: bytes) -> bytes:
        """Give an encoded `api.QueryRequest`, get an encoded `api.QueryReply`."""
        return api.encode(self._service.query(api.decode_query_request(request)))

    def cancel(self, query_id: str) -> bool:
        """Stop a query. False if it is not known."""
        return self._service.cancel(query_id)

    def status(self) -> bytes:
        """An encoded `api.HistoryStatus`."""
        return api.encode(self._service.status())

    def stop(self) -> None:
        """Cancel what runs and close the store. The process is of no use afterwards. Idempotent."""
        self._service.close()
