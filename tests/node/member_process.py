"""A member in a process of its own, without Ray: for what only real processes can do to each other.

Every call is one connection over a Unix socket beside the members' directories; bytes in, bytes out. Run as a
module, this file is the member; imported, it is the way to one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from socket import gethostname

import msgspec

from etcray.node import api, opened
from etcray.node.member import Member
from etcray.node.peers import PeerUnreachableError
from etcray.spec import ClusterSpec, decode_spec, encode_spec
from etcray.transport.addresses import StreamAddress, socket_path
from etcray.tuning import Transport
from etcray_storage.errors import OperatingError
from etcray_storage.types import MemberId

CALL_SECONDS = 2.0


class Refused(msgspec.Struct):
    """Why a member could not open its directory."""

    error: str
    message: str


def socket_of(directory: Path, name: str) -> str:
    return str(directory / f"{name}.sock")


def call(directory: Path, name: str, method: str, argument: bytes, seconds: float) -> bytes:
    """Raises PeerUnreachableError."""
    try:
        with Client(socket_of(directory, name), "AF_UNIX") as connection:
            connection.send((method, argument))
            if not connection.poll(seconds):
                raise PeerUnreachableError("no answer in time")
            answer: bytes = connection.recv()
            return answer
    except (OSError, EOFError) as e:
        raise PeerUnreachableError(str(e)) from e


class ProcessLine:
    """A peer's way to a member in another process."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name

    def exchange(self, envelope: bytes) -> bytes:
        return call(self._directory, self._name, "exchange", envelope, 0.5)

    def snapshot_chunk(self, chunk: bytes) -> bytes:
        return call(self._directory, self._name, "receive_snapshot_chunk", chunk, 30.0)


class MemberProcess:
    """The test's side of one process."""

    def __init__(self, cluster: ClusterSpec, directory: Path, name: str, socket: str | None = None) -> None:
        """`socket`: another name for its socket, if a process of the same member may still have it."""
        self._directory = directory
        self._socket = socket or name
        self.member = next(member.id for member in cluster.members if member.name == name)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.node.member_process", str(directory), name, self._socket],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(encode_spec(cluster).hex().encode() + b"\n")
        self.process.stdin.flush()

    def __enter__(self) -> MemberProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def opened(self) -> Refused | None:
        """Wait until it has opened its directory, or has been refused."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process ended with {self.process.wait()}"
        return None if line == b"open\n" else msgspec.json.decode(line, type=Refused)

    def call(self, method: str, argument: bytes = b"") -> bytes:
        return call(self._directory, self._socket, method, argument, CALL_SECONDS)

    def status(self) -> api.MemberStatus:
        return api.decode_status(self.call("status"))

    def propose(self, batch: bytes) -> api.ProposeReply:
        return api.decode_propose_reply(self.call("propose", batch))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def main(directory: Path, name: str, socket: str) -> None:
    opened.VERIFY_STEP_SECONDS = 0.0  # type: ignore[attr-defined]  # its tests would take minutes
    cluster = decode_spec(bytes.fromhex(sys.stdin.readline()))
    member = Member(cluster, name)
    try:
        member.open()
    except OperatingError as e:
        print(msgspec.json.encode(Refused(type(e).__name__, str(e))).decode(), flush=True)
        return
    if cluster.tuning.transport is Transport.DIRECT:
        host = gethostname()
        member.connect_streams(
            {
                peer.id: StreamAddress(
                    hostname=host, unix_path=str(socket_path(peer.id, peer.data_directory))
                )
                for peer in cluster.members
            }
        )
    else:
        member.connect({MemberId(peer.id): ProcessLine(directory, peer.name) for peer in cluster.members})
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket_of(directory, socket))
    with Listener(socket_of(directory, socket), "AF_UNIX", backlog=64) as listener:
        print("open", flush=True)
        while True:
            threading.Thread(target=_serve, args=(member, listener.accept()), daemon=True).start()


def _serve(member: Member, connection: Connection) -> None:
    with connection, contextlib.suppress(OSError, EOFError):
        method, argument = connection.recv()
        if method == "meet":  # one more member of whom the process was not told at its start
            peer = msgspec.msgpack.decode(argument, type=tuple[int, str, str])
            member.connect({peer[0]: ProcessLine(Path(peer[1]), peer[2])})
            connection.send(b"")
            return
        answer = member.status() if method == "status" else getattr(member, method)(argument)
        connection.send(answer if isinstance(answer, bytes) else api.encode(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
